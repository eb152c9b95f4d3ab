from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.preprocess import apply, fit_preprocess, reward_transform, scales_differ, trajectory_returns
from itrpo.errors import InputError
from itrpo.types import RewardRule, Transition


def transitions(observation: np.ndarray, next_observation: np.ndarray) -> Transition:
    rows = len(observation)
    one = np.ones(rows, np.float32)
    action = np.zeros((rows, 1), np.float32)
    return Transition(observation, action, one, one, next_observation, action)


def test_statistics_come_from_observations_alone_and_apply_to_both() -> None:
    observation = np.float32([[1, 5], [3, 5]])  # mean 2 and 5, std 1 and 0
    following = np.float32([[100, 6], [2, 5]])
    rows = transitions(observation, following)
    preprocess = fit_preprocess(rows, normalize_observations=True)
    np.testing.assert_array_equal(preprocess.observation_mean, np.float32([2, 5]))
    np.testing.assert_array_equal(preprocess.observation_std, np.float32([1.001, 0.001]))
    normalised = apply(preprocess, rows)
    np.testing.assert_allclose(normalised.observation, [[-1 / 1.001, 0], [1 / 1.001, 0]], rtol=1e-6)
    np.testing.assert_allclose(normalised.next_observation, [[98 / 1.001, 1000], [0, 0]], rtol=1e-6)
    assert normalised.observation.dtype == np.float32


def test_many_large_values_keep_their_mean() -> None:
    observation = np.full((300_000, 1), 4097.25, np.float32)  # a float32 running sum would lose the quarter
    preprocess = fit_preprocess(transitions(observation, observation), normalize_observations=True)
    assert preprocess.observation_mean[0] == np.float32(4097.25)
    assert preprocess.observation_std[0] == np.float32(1e-3)


def test_by_column_has_no_constant_in_units_of_the_data():
    """Columns: in hundreds, in millionths, never varying, varying by rounding alone, and by little of its size."""
    sign = np.float32([-1, 1, -1, 1])
    rounded = np.nextafter(np.float32(0.7), np.float32(sign))
    columns = [300 + 40 * sign, 1e-6 * sign, np.full(4, 2.0), rounded, 2 + 1e-4 * sign]
    observation = np.stack(columns, axis=1).astype(np.float32)
    rows = transitions(observation, observation + np.float32([0, 0, 0.1, 0, 0.1]))
    preprocess = fit_preprocess(rows, normalize_observations=True, by_column=True)
    np.testing.assert_array_equal(preprocess.observation_low, observation[0])
    np.testing.assert_array_equal(preprocess.observation_high, observation[1])
    seen = apply(preprocess, rows)
    np.testing.assert_allclose(seen.observation[:, :2], np.stack([sign, sign], axis=1), rtol=1e-5)
    assert np.abs(seen.observation[:, 2:4]).max() < 1e-20
    assert np.abs(seen.next_observation[:, 2]).max() < 1e-20  # 2.0 -> 2.1 is nothing that was learned from
    np.testing.assert_allclose(seen.observation[:, 4], 0.05 * sign, rtol=1e-2)
    np.testing.assert_allclose(seen.next_observation[1, 4], 0.1001 / 0.002, rtol=1e-2)  # 1000 in noises


@pytest.mark.parametrize(
    ("mean", "std", "differ"),
    [
        ([0, 5], [1, 4], False),
        ([350, 2], [5, 0.5], True),  # a temperature
        ([0, 0], [0.2, 5], True),
        ([0, 0], [0.01, 0.02], True),  # fractions
        ([0, 2e5], [1, 0], True),  # a pressure in Pa that never varied
        ([0, 2], [1, 1e-9], False),
    ],
)
def test_scales_differ(mean, std, differ):
    assert scales_differ(np.array(mean, float), np.array(std, float)) is differ


def test_off_is_the_identity_on_the_very_same_arrays() -> None:
    rows = transitions(np.float32([[1, 5], [3, 5]]), np.float32([[3, 5], [4, 5]]))
    preprocess = fit_preprocess(rows, normalize_observations=False)
    assert preprocess.observation_mean.tolist() == [0, 0]
    assert preprocess.observation_std.tolist() == [1, 1]
    assert apply(preprocess, rows).observation is rows.observation


def with_rewards(reward, continues, jump_after=None):
    """Rows of one dimension that follow each other, except after row `jump_after`."""
    observation = np.arange(len(reward), dtype=np.float32)[:, None]
    following = observation + 1
    if jump_after is not None:
        following[jump_after] += 5
    continues = np.asarray(continues, np.float32)
    return transitions(observation, following)._replace(reward=np.asarray(reward, np.float32), continues=continues)


def test_returns_are_summed_between_terminals_and_jumps():
    rows = with_rewards([1, 2, 4, 8, 16, 32], [1, 1, 0, 1, 1, 1], jump_after=4)
    np.testing.assert_array_equal(trajectory_returns(rows), [7, 24, 32])


def test_iql_scales_rewards_so_that_returns_span_1000():
    rows = with_rewards([1, 2, 4, 8, 16, 32], [1, 1, 0, 1, 1, 1], jump_after=4)
    scale, shift = reward_transform(RewardRule(by_return_range=True), rows, "it")
    assert (scale, shift) == (1000.0 / 25.0, 0.0)
    changed = apply(fit_preprocess(rows, False, scale, shift), rows)
    returns = trajectory_returns(changed)
    assert returns.max() - returns.min() == pytest.approx(1000.0)


def test_rewards_are_scaled_then_shifted_and_the_raw_ones_are_kept():
    rows = with_rewards([0, 1], [1, 0])
    changed = apply(fit_preprocess(rows, False, *reward_transform(RewardRule(10.0, -5.0), rows, "it")), rows)
    np.testing.assert_array_equal(changed.reward, [-5, 5])
    np.testing.assert_array_equal(rows.reward, [0, 1])


def test_equal_returns_have_no_range():
    with pytest.raises(InputError, match="--reward-scale"):
        reward_transform(RewardRule(by_return_range=True), with_rewards([1, 1], [0, 0]), "it")
