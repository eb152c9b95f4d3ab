from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.health import check_dataset
from tests.data.health.sound_log import SOUND, changed, check, names, only


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite(key: str) -> None:
    health = check(**{key: changed(key, [7, 11, 40], [[np.nan]] * 2 + [[-np.inf]] if key != "rewards" else np.nan)})
    finding = only(health)
    assert (finding.severity, finding.name, finding.rows, finding.count) == ("error", "not-finite", (7, 11, 40), 3)
    assert key in finding.what


def test_constant_columns() -> None:
    observations = np.insert(SOUND["observations"], 1, np.float32(2.5), axis=1)
    finding = only(check(observations=observations))
    assert (finding.severity, finding.name) == ("warning", "constant-column")
    assert "in all rows: observation 1 = 2.5" in finding.what
    observations[::2, 1] = np.nextafter(np.float32(2.5), np.float32(3))
    assert "in all rows but for rounding: observation 1 = 2.5" in only(check(observations=observations)).what
    assert "action 1 = 0" in only(check(actions=SOUND["actions"] * np.float32([1, 0]))).what


def test_duplicate_columns() -> None:
    health = check(observations=SOUND["observations"][:, [0, 1, 0, 2, 1]])
    assert names(health) == ["duplicate-column", "duplicate-column"]
    assert [finding.what for finding in health.findings] == [
        "observation 2 equals observation 0 in all rows",
        "observation 4 equals observation 1 in all rows",
    ]


def test_columns_that_are_sums_of_others() -> None:
    total = SOUND["observations"] @ np.ones((3, 1), np.float32) * 2 - 1
    assert names(check(observations=np.concatenate([SOUND["observations"], total], axis=1))) == ["dependent-columns"]


def test_actions_and_rewards_among_the_observations() -> None:
    both = np.concatenate([SOUND["observations"], SOUND["actions"][:, 1:], SOUND["rewards"][:, None]], axis=1)
    health = check(observations=both)
    assert names(health) == ["action-in-observation", "reward-in-observation"]
    assert health.findings[0].severity == "error"
    assert "observation 3 is action 1 of the same row" in health.findings[0].what


@pytest.mark.parametrize(("factor", "severity"), [(40, "note"), (4000, "warning")])
def test_observations_of_unequal_size(factor: float, severity: str) -> None:
    finding = only(check(observations=SOUND["observations"] * np.float32([1, factor, 1])))
    assert (finding.severity, finding.name) == (severity, "scales")
    assert "observation 1 is largest" in finding.what
    assert "--normalize-observations" in finding.advice


def test_a_small_dataset() -> None:
    cut = SOUND["timeouts"][:9000] | (np.arange(9000) == 8999)
    finding = only(check_dataset({key: SOUND[key][:9000] for key in SOUND} | {"timeouts": cut}))
    assert (finding.severity, finding.name) == ("warning", "small")
