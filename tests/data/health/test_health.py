from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.health import check_dataset
from itrpo.errors import InputError
from tests.data.health.sound_log import CLOCK, ROWS, SOUND, check, names


def test_a_sound_log_gives_no_finding_and_its_facts() -> None:
    assert SOUND["terminals"].sum() > 10 < SOUND["timeouts"].sum()
    health = check(horizon=CLOCK)
    assert health.findings == ()
    assert len(health.returns) == SOUND["terminals"].sum() + SOUND["timeouts"].sum()
    assert health.by_terminal.sum() == SOUND["terminals"].sum()
    assert health.facts["rows"].startswith("12,000, of which ")
    assert "2 dimensions" in health.facts["observations, actions"]


def test_other_checks_go_on_where_values_are_not_finite() -> None:
    observations = np.concatenate([SOUND["observations"], np.full((ROWS, 1), 5, np.float32)], axis=1)
    observations[[3, 9], 0] = np.nan
    health = check(observations=observations)
    assert names(health) == ["constant-column", "not-finite"]


def test_columns_are_named_as_the_user_named_them() -> None:
    log = {"temp": SOUND["observations"][:, 0], "speed": np.full(ROWS, 3.0), "valve": SOUND["actions"][:, 0]}
    log |= {key: SOUND[key] for key in ("rewards", "terminals", "timeouts")}
    columns = {"observations": "temp,speed", "actions": "valve", "rewards": "rewards", "terminals": "terminals"}
    health = check_dataset(log, columns=columns | {"timeouts": "timeouts"})
    assert "observation 1 (speed) = 3" in health.findings[0].what
    assert health.action_names == ("action 0 (valve)",)


def test_a_file_of_nothing_but_faults_is_reported_and_not_raised() -> None:
    health = check_dataset(
        {
            "observations": np.full((5, 2), np.nan),
            "actions": np.full((5, 1), np.inf),
            "rewards": np.full(5, np.nan),
            "terminals": np.ones(5),
            "timeouts": np.zeros(5),
        }
    )
    assert {"not-finite", "mostly-terminal", "small"} <= set(names(health))
    with pytest.raises(InputError, match="no key 'actions'"):
        check_dataset({"observations": np.zeros((5, 2)), "rewards": np.zeros(5), "terminals": np.zeros(5)})
