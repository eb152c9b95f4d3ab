from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.load import load_dataset
from tests.data.health.sound_log import ROWS, SOUND, check, names, only


def test_actions_out_of_range_suggest_bounds() -> None:
    actions = SOUND["actions"] * np.float32([1.97, 0.5])
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("error", "action-range")
    outside = np.flatnonzero((np.abs(actions) > 1).any(axis=1))
    assert (finding.rows, finding.count) == (tuple(outside[:5]), len(outside))
    low, high = actions.min(axis=0), actions.max(axis=0)
    words = finding.advice.split("--action-low ")[1].replace("--action-high ", "").split()
    suggested = np.float32(words).reshape(2, 2)
    np.testing.assert_array_equal(suggested, [low, high])
    assert names(check(actions=actions, action_low=suggested[0], action_high=suggested[1])) == []
    health = check(actions=actions, action_low=[-2, -0.5], action_high=[2, 0.5])
    assert health.findings == ()
    assert health.facts["actions rescaled from"] == "[-2.0, -0.5] to [2.0, 0.5]"
    assert words[0] in only(check(actions=actions, action_low=-1.2, action_high=1.2)).advice


def test_a_valve_logged_in_percent_is_told_its_own_extremes() -> None:
    valve = (SOUND["actions"][:, :1] + 1) * 50
    valve[[5, 9]] = [[0], [100]]
    finding = check(actions=np.append(valve, np.full_like(valve, 37.5), axis=1)).findings[0]
    assert "are --action-low 0 LOW --action-high 100 HIGH (LOW and HIGH: actions 1 never vary)" in finding.advice
    assert "are --action-low 0 --action-high 100" in only(check(actions=valve)).advice


def test_actions_on_one_side_of_zero_without_bounds() -> None:
    """A valve logged from 0 to 1: between bounds of -1 and 1 a policy may close it further than shut."""
    valve = (SOUND["actions"] + 1) / 2
    finding = only(check(actions=valve))
    assert (finding.severity, finding.name) == ("warning", "one-sided-actions")
    assert "action 0 is never below 0 (" in finding.what
    assert "action 1 is never above 0" in only(check(actions=valve * np.float32([1, -1]))).what
    assert names(check(actions=valve, action_low=0, action_high=1)) == []
    data = SOUND | {"actions": valve}
    assert any("--action-low" in note for note in load_dataset(data).notes)
    assert load_dataset(data, action_low=0, action_high=1).notes == load_dataset(SOUND).notes
    assert load_dataset(data, env="Pusher-v4").notes == load_dataset(SOUND).notes  # its bounds are compared elsewhere


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
    finding = only(check(actions=np.sign(SOUND["actions"]) * 0.5))
    assert finding.name == "discrete-actions"
    assert "action 0 (-0.5, 0.5), action 1 (-0.5, 0.5)" in finding.what
    assert only(check(actions=SOUND["actions"] / 10)).name == "narrow-actions"


CHOICES = np.digitize(SOUND["actions"][:, 0], [-0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("actions", "what"),
    [
        (SOUND["actions"] > 0, "the whole numbers 0, 1 only"),
        (CHOICES[:, None] - 1, "the whole numbers -1, 0, 1, 2 only"),
    ],
)
def test_discrete_actions_are_called_so(actions: np.ndarray, what: str) -> None:
    health = check(actions=actions)
    assert any(f"actions are {what}" in finding.what for finding in health.findings)
    assert all("discrete actions, it seems" in finding.advice for finding in health.findings)


def test_a_valve_in_steps_of_ten_percent_is_no_choice() -> None:
    steps = np.round((SOUND["actions"][:, :1] + 1) * 5) * 10
    advice = next(it.advice for it in check(actions=steps).findings if it.name == "action-range")
    assert "--action-low 0 --action-high 100" in advice
    assert "discrete" not in advice


def test_behaviour_without_noise() -> None:
    states = SOUND["observations"]
    actions = np.tanh(states[:, :2] - 0.5 * states[:, 1:]) * 0.9
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("warning", "little-noise")
