"""Ranks of policies by estimates in folds, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from itrpo.ope.bootstrap import interval
from itrpo.ope.choose import rank

EPISODES = 50
WAVE = np.array([0.0, 1.0, -1.0, 1.0, -1.0])  # what folds have in common: it is gone in differences


def folds(*values: float, noise: float = 0.0) -> np.ndarray:
    """[P, F] with one wave in all, and noise of its own in each."""
    own = np.random.default_rng(0).standard_normal((len(values), len(WAVE)))
    return np.array(values)[:, None] + 10 * WAVE + noise * own * (WAVE != 0)


def test_paired_differences_tell_apart_what_intervals_of_values_do_not():
    found = rank(folds(1.0, 3.0, 2.0, noise=0.01), EPISODES, [True] * 3)
    assert [(it.place, it.group) for it in found] == [(1, 0), (2, 1), (0, 2)]
    assert interval(folds(3.0)[0], EPISODES).low < 1.0 < 3.0 < interval(folds(1.0)[0], EPISODES).high  # they overlap
    np.testing.assert_allclose([it.behind.value for it in found], [0.0, 1.0, 2.0])


def test_what_differs_by_chance_can_not_be_told_apart():
    found = rank(folds(3.0, 2.9, 0.0, noise=0.5), EPISODES, [True] * 3)
    assert [it.group for it in found] == [0, 0, 1]


def test_the_tail_is_shared_by_all_that_are_compared():
    gap = np.array([0.0, 1.0, -1.0, 1.0, -1.0])
    two = np.stack([2.0 + gap, 0 * gap])
    deviation = gap[1:].std(ddof=1) * np.sqrt(EPISODES / (EPISODES - 1))
    assert rank(two, EPISODES, [True] * 2)[1].behind.low == pytest.approx(2.0 - t.ppf(0.975, 3) * deviation)
    many = np.concatenate([two, np.repeat(two[1:], 4, axis=0)])
    assert rank(many, EPISODES, [True] * 6)[1].behind.low == pytest.approx(2.0 - t.ppf(1 - 0.005, 3) * deviation)
    spread = rank(two, EPISODES, [True] * 2, np.array([0.3, 0.4]))[1].behind
    assert spread.low == pytest.approx(2.0 - t.ppf(0.975, 3) * np.hypot(deviation, 0.5))


def test_what_has_no_interval_can_be_told_from_nothing():
    found = rank(folds(3.0, 1.0, 2.0, noise=0.01), EPISODES, [True, False, True])
    assert [(it.place, it.group) for it in found] == [(0, 0), (1, 0), (2, 1)]
    assert found[1].behind.low == -np.inf
    broken = folds(3.0, np.nan, noise=0.01)
    assert [it.place for it in rank(broken, EPISODES, [True, True])] == [0, 1]  # a value that ran away is last


def test_one_alone_is_the_first():
    assert [(it.place, it.group, it.behind.value) for it in rank(folds(3.0), EPISODES, [True])] == [(0, 0, 0.0)]
