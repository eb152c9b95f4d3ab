from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from itrpo.report.bandit import picked_score


def test_with_one_episode_the_pick_is_any_of_the_pool():
    curve = picked_score(np.array([0.0, 60.0, 90.0]), np.array([5.0, 50.0, 0.0]), 1, repetitions=60_000)
    assert curve[0] == pytest.approx(50.0, abs=0.5)


def test_after_one_episode_each_it_is_the_better_with_the_probability_of_the_gap():
    """Two arms, a gap of 10, deviations 30 and 40: P(better sample) = Phi(10 / 50)."""
    curve = picked_score(np.array([50.0, 60.0]), np.array([30.0, 40.0]), 2, repetitions=100_000)
    assert curve[1] == pytest.approx(50 + 10 * norm.cdf(10 / 50), abs=0.1)


def test_the_score_rises_to_the_best_of_the_pool():
    means = np.array([20.0, 50.0, 80.0, 70.0])
    curve = picked_score(means, np.full(4, 10.0), 400, repetitions=2_000)
    assert (np.diff(curve[3::20]) > -0.2).all()
    assert curve[0] == pytest.approx(means.mean(), abs=1.5)
    assert curve[-1] == pytest.approx(80.0, abs=0.05)


def test_without_noise_every_policy_once_is_enough_and_ucb_plays_good_ones_more():
    means = np.array([10.0, 90.0, 40.0])
    np.testing.assert_array_equal(picked_score(means, np.zeros(3), 30)[2:], 90.0)
    # where episodes are noisy, knowing where to look beats looking everywhere alike
    noisy = np.array([70.0, 80.0, *np.zeros(20)]), np.full(22, 25.0)
    directed, uniform = (picked_score(*noisy, 300, exploration=it, repetitions=1_000)[-1] for it in (0.2, 1e9))
    assert directed > uniform + 0.3


def test_it_is_of_its_seed_alone():
    arguments = np.array([1.0, 2.0]), np.array([3.0, 3.0]), 20
    np.testing.assert_array_equal(picked_score(*arguments), picked_score(*arguments))
    assert (picked_score(*arguments, seed=1) != picked_score(*arguments)).any()
