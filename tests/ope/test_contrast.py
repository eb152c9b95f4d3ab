"""What policies do otherwise than the log, on rows where it can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from itrpo.ope import contrast
from itrpo.ope.log import make_log
from itrpo.types import Transition

N = 1_000
SENSOR = np.linspace(0, 1, N, endpoint=False)
OBSERVATION = np.stack([SENSOR, np.full(N, 1.8), SENSOR[np.random.default_rng(0).permutation(N)]], axis=1)
LOGGED = np.where(np.arange(N) % 2, 0.2, -0.2)[:, None]  # whatever is read
ACTIONS = np.stack([LOGGED, (SENSOR - 0.5)[:, None]])  # of two policies: as logged; by the first sensor


@pytest.fixture(scope="module")
def found():
    return contrast.contrasts(OBSERVATION, LOGGED, ACTIONS)


def test_means_and_distances_by_region(found):
    assert [it.column for it in found] == [0] * 5 + [2] * 5  # nothing of what never varies
    for place, it in enumerate(found[:5]):
        middle = 0.2 * place + 0.1
        assert (it.weight, it.centre) == pytest.approx((0.2, middle), abs=1e-3)
        assert (it.low, it.high) == pytest.approx((middle - 0.1, middle + 0.1), abs=1e-2)
        assert it.log == pytest.approx(0, abs=1e-9)
        assert it.usual[:, 0] == pytest.approx([-0.2, 0.2])
        assert it.policy[:, 0] == pytest.approx([0, middle - 0.5], abs=1e-3)
        # E max(|x|, 0.2) over the bin's x = sensor - 1/2: what |x - 0.2| and |x + 0.2| are on average
        assert it.apart[:, 0] == pytest.approx([0, (0.4, 0.225, 0.2, 0.225, 0.4)[place]], abs=2e-3)


def test_the_column_that_decides_comes_first(found):
    assert contrast.telling(found) == [0, 2]
    swapped = OBSERVATION[:, ::-1]
    assert contrast.telling(contrast.contrasts(swapped, LOGGED, ACTIONS)) == [2, 0]
    # where the policies do always the same, but the log does not
    steady = np.zeros((1, N, 1))
    by_third = (OBSERVATION[:, 2:] - 0.5) / 2
    assert contrast.telling(contrast.contrasts(OBSERVATION, by_third, steady)) == [2, 0]


def test_shares_at_limits_and_beyond():
    action = np.array([[-1.0, 0.0], [-0.979, 1.0], [0.5, 0.99], [-0.99, 0.97]])
    assert contrast.at_limits(action).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert contrast.beyond(action, np.array([[-0.98, 0.0], [0.4, 0.98]])).tolist() == [[0.5, 0.0], [0.25, 0.5]]


def test_the_usual_episode_is_long_enough_and_in_the_middle():
    lengths, totals = [3, 1, 3, 4], [9.0, 5.0, 1.0, 4.0]  # the second is short, the others' median is 4
    reward = np.concatenate([np.full(n, total / n) for n, total in zip(lengths, totals, strict=True)])
    rows = np.zeros((len(reward), 1))
    log = make_log(Transition(rows, rows, reward, np.ones(len(reward)), rows, rows), np.cumsum([0, *lengths[:-1]]))
    assert contrast.typical_episode(log) == 3
