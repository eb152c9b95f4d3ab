from __future__ import annotations

import numpy as np

from itrpo.data.preprocess import apply, fit_preprocess
from itrpo.types import Transition


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


def test_off_is_the_identity_on_the_very_same_arrays() -> None:
    rows = transitions(np.float32([[1, 5], [3, 5]]), np.float32([[3, 5], [4, 5]]))
    preprocess = fit_preprocess(rows, normalize_observations=False)
    assert preprocess.observation_mean.tolist() == [0, 0]
    assert preprocess.observation_std.tolist() == [1, 1]
    assert apply(preprocess, rows).observation is rows.observation
