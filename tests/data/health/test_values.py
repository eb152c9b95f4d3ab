from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.health import Health, check_dataset
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
    percent = {
        key: 50 + 40 * both if key == "observations" else 50 + 40 * SOUND[key] for key in ("observations", "actions")
    }
    scaled = check(**percent, action_low=0.0, action_high=100.0)
    assert "action-in-observation" in names(scaled)
    assert health.findings[0].severity == "error"
    assert "observation 3 is action 1 of the same row" in health.findings[0].what


@pytest.mark.parametrize(("factor", "severity"), [(40, "note"), (4000, "warning")])
def test_observations_of_unequal_size(factor: float, severity: str) -> None:
    finding = only(check(observations=SOUND["observations"] * np.float32([1, factor, 1])))
    assert (finding.severity, finding.name) == (severity, "scales")
    assert "observation 1 is largest" in finding.what
    assert "--normalize-observations" in finding.advice


def test_one_column_of_another_size_is_described_alone() -> None:
    only_one = SOUND["observations"] * np.float32([0, 1, 0]) + np.float32([0, 50, 0])
    (finding,) = (it for it in check(observations=only_one).findings if it.name == "scales")
    assert finding.what.startswith("observation 1 is far from size 1: standard deviation")


def test_marks_of_missing_values_are_no_measurements() -> None:
    finding = only(check(observations=changed("observations", [5, 7, 900], [-9.0, 1.0, 1.0])))
    assert (finding.severity, finding.name, finding.rows) == ("warning", "placeholder", (5, 7, 900))
    assert "observation 0 is -9 in 3 rows, and from -1." in finding.what
    both = changed("observations", [5, 7], [1.0, -999.0, 1.0])
    both[[8, 9], 1] = 9999
    assert [it.rows for it in check(observations=both).findings if it.name == "placeholder"] == [(8, 9), (5, 7)]


def test_clipping_single_rows_and_switches_are_no_marks_of_missing_values() -> None:
    assert only_names(check(observations=np.clip(SOUND["observations"], -0.5, 0.5))) == set()
    assert only_names(check(observations=changed("observations", 5, [-9.0, 1.0, 1.0]))) == set()
    switch = np.where(SOUND["observations"] > 1, np.float32(100), np.float32(0))
    assert only_names(check(observations=switch)) == set()


def only_names(health: Health) -> set[str]:
    return {"placeholder"} & set(names(health))


def test_a_small_dataset() -> None:
    cut = SOUND["timeouts"][:9000] | (np.arange(9000) == 8999)
    finding = only(check_dataset({key: SOUND[key][:9000] for key in SOUND} | {"timeouts": cut}))
    assert (finding.severity, finding.name) == ("warning", "small")


def test_large_columns_of_one_size_are_not_called_unlike() -> None:
    alike = SOUND["observations"] / SOUND["observations"].std(axis=0) * 1e5
    assert only(check(observations=alike)).what.startswith(
        "observations far from size 1: standard deviations from 1e+05"
    )
    alike[:, 0] *= 1000
    assert only(check(observations=alike)).what.startswith("observations of very different sizes")
