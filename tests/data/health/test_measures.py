from __future__ import annotations

from typing import Any

import numpy as np

from itrpo.data.health import check_dataset
from tests.data.hdf5_files import write
from tests.data.health.sound_log import ROWS, SOUND, check


def test_the_noise_of_the_actions_is_measured() -> None:
    """Actions are tanh(mean + 0.5 normal): near 0 their standard deviation is 0.41, less where the tanh is flat."""
    assert 0.3 < float(check().facts["noise of actions"].split()[0]) < 0.42


def test_the_noise_is_read_off_recorded_densities(tmp_path: Any) -> None:
    std = 0.1
    densities = np.full(
        ROWS, -2 * (np.log(std) + 0.5 * np.log(2 * np.pi) + 0.5), np.float32
    )  # their mean, for two normals
    health = check_dataset(write(tmp_path / "a.hdf5", SOUND | {"infos/action_log_probs": densities}))
    assert health.facts["noise of actions"] == "0.1 (standard deviation in one state, from recorded densities)"


def test_the_effective_dimension_of_a_line_and_of_a_ball() -> None:
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(ROWS, 5)).astype(np.float32)
    assert check(observations=ball).facts["effective dimension"] == "5.0 of 5 observations"
    line = ball[:, :1] * np.float32([1, 2, -3, 4, 5])
    assert check(observations=line).facts["effective dimension"] == "1.0 of 5 observations"
