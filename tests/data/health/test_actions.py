from __future__ import annotations

import numpy as np
import pytest

from tests.data.health.sound_log import ROWS, SOUND, check, only


def test_actions_out_of_range_suggest_bounds() -> None:
    actions = SOUND["actions"] * np.float32([1.97, 0.5])
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("error", "action-range")
    outside = np.flatnonzero((np.abs(actions) > 1).any(axis=1))
    assert (finding.rows, finding.count) == (tuple(outside[:5]), len(outside))
    low, high = actions.min(axis=0), actions.max(axis=0)
    words = finding.advice.split("--action-low ")[1].replace("--action-high ", "").split()
    suggested = np.array([float(word) for word in words]).reshape(2, 2)
    assert (suggested[0] <= low).all()
    assert (suggested[1] >= high).all()
    assert np.abs(suggested - [low, high]).max() < 0.1
    health = check(actions=actions, action_low=[-2, -0.5], action_high=[2, 0.5])
    assert health.findings == ()
    assert health.facts["actions rescaled from"] == "[-2.0, -0.5] to [2.0, 0.5]"
    assert (
        only(check(actions=actions, action_low=-1.2, action_high=1.2)).advice == "widen --action-low and --action-high"
    )


@pytest.mark.parametrize(("limit", "severity"), [(0.6, "warning"), (0.85, "note")])
def test_clipped_actions(limit: float, severity: str) -> None:
    actions = SOUND["actions"].copy()
    actions[:, 0] = actions[:, 0].clip(-1, limit)
    finding = only(check(actions=actions))
    piled = np.flatnonzero(actions[:, 0] == np.float32(limit))
    assert (finding.severity, finding.name) == (severity, "clipped-actions")
    assert finding.count == len(piled) + 1  # and the single smallest one
    assert set(finding.rows) <= {*piled, int(actions[:, 0].argmin())}
    assert f"{len(piled) / ROWS:.1%} at {limit}" in finding.what
    assert "action 1" not in finding.what


def test_discrete_and_narrow_actions() -> None:
    finding = only(check(actions=np.sign(SOUND["actions"])))
    assert finding.name == "discrete-actions"
    assert "action 0 (-1, 1), action 1 (-1, 1)" in finding.what
    assert only(check(actions=SOUND["actions"] / 10)).name == "narrow-actions"


def test_behaviour_without_noise() -> None:
    states = SOUND["observations"]
    actions = np.tanh(states[:, :2] - 0.5 * states[:, 1:]) * 0.9
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("warning", "little-noise")
