"""Targets worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import td


@pytest.mark.parametrize(
    ("log_ratio", "low", "high", "expected"),
    [
        (-2.0, -np.inf, np.inf, 0.5 * 0.8 * -2.0),  # no clip
        (-2.0, -1.0, np.inf, 0.5 * 0.8 * -1.0),  # the clip acts before tau * alpha scales
        (7.0, -1.0, 5.0, 0.5 * 0.8 * 5.0),
        (3.0, 0.0, 0.0, 0.0),
    ],
)
def test_shaping_reward(log_ratio, low, high, expected):
    np.testing.assert_allclose(td.shaping_reward(jnp.float32(log_ratio), 0.8, 0.5, low, high), expected, rtol=1e-6)


def test_shaping_punishes_what_pi_does_less_often_than_pi_beta():
    assert td.shaping_reward(jnp.log(0.1 / 0.4), 1.0, 0.5, -np.inf, np.inf) < 0
    assert td.shaping_reward(jnp.log(0.4 / 0.1), 1.0, 0.5, -np.inf, np.inf) > 0


def test_bellman_target_bootstraps_unless_terminal():
    reward, continues, next_value = jnp.array([2.0, 2.0]), jnp.array([1.0, 0.0]), jnp.array([10.0, 10.0])
    np.testing.assert_allclose(td.bellman_target(reward, continues, 0.9, next_value), [11.0, 2.0])


def test_regularised_value_is_the_expectation_of_q_minus_alpha_log_ratio():
    pi, pi_beta, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 4.0])
    kl = (pi * np.log(pi / pi_beta)).sum()
    expected = (pi * (q - 0.6 * np.log(pi / pi_beta))).sum()
    np.testing.assert_allclose(td.regularised_value(jnp.float32(pi @ q), 0.6, jnp.float32(kl)), expected, rtol=1e-6)


def test_ensemble_min_is_over_critics():
    np.testing.assert_allclose(td.ensemble_min(jnp.array([[1.0, 7.0, 3.0], [5.0, 2.0, 9.0]])), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(td.ensemble_min(jnp.array([[3.0, 4.0]])), [3.0, 4.0])  # an ensemble of one


def test_squared_error_adds_over_critics_and_averages_over_rows():
    q = jnp.array([[1.0, 5.0, 0.0], [7.0, 2.0, 0.0]])
    np.testing.assert_allclose(td.squared_error(q, jnp.array([[1.0, 2.0, 3.0]])), (9 + 9 + 36 + 9) / 3)
    own = jnp.array([[1.0, 2.0, 3.0], [7.0, 0.0, 0.0]])  # targets of each critic's own
    np.testing.assert_allclose(td.squared_error(q, own), (9 + 9 + 4) / 3)


@pytest.mark.parametrize(("error", "expectile", "expected"), [(2.0, 0.7, 2.8), (-2.0, 0.7, 1.2), (-3.0, 0.5, 4.5)])
def test_expectile_loss(error, expectile, expected):
    np.testing.assert_allclose(td.expectile_loss(jnp.float32(error), expectile), expected, rtol=1e-6)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_expectile_loss_is_least_at_the_expectile(expectile):
    """The expectile e of numbers x solves q * E[(x - e)+] = (1 - q) * E[(e - x)+]: found here by bisection."""
    x, low, high = np.array([0.0, 1.0, 1.5, 7.0]), 0.0, 7.0
    for _ in range(60):
        e = (low + high) / 2
        above = expectile * np.maximum(x - e, 0).sum() > (1 - expectile) * np.maximum(e - x, 0).sum()
        low, high = (e, high) if above else (low, e)
    loss = jax.vmap(lambda v: td.expectile_loss(jnp.asarray(x) - v, expectile).sum())
    grid = jnp.linspace(0.0, 7.0, 7001)
    np.testing.assert_allclose(grid[jnp.argmin(loss(grid))], e, atol=2e-3)


def test_smoothed_action_clips_the_noise_then_the_action():
    action, noise = jnp.array([0.0, 0.0, 0.9, -0.9]), jnp.array([1.0, -9.0, 2.0, -1.0])
    np.testing.assert_allclose(td.smoothed_action(action, noise, 0.2, 0.5), [0.2, -0.5, 1.0, -1.0], rtol=1e-6)


def test_ensemble_mix_leans_towards_the_smaller():
    q = jnp.array([[1.0, 7.0], [5.0, 2.0]])
    np.testing.assert_allclose(td.ensemble_mix(q, 0.75), [0.75 * 1 + 0.25 * 5, 0.75 * 2 + 0.25 * 7])
    np.testing.assert_allclose(td.ensemble_mix(q, 1.0), td.ensemble_min(q))


def test_perturbed_action_moves_by_at_most_the_limit_and_stays_an_action():
    moved = td.perturbed_action(jnp.array([0.5, 0.5, -0.99]), jnp.array([0.7, 100.0, -100.0]), 0.05)
    np.testing.assert_allclose(moved, [0.5 + 0.05 * np.tanh(0.7), 0.55, -1.0], rtol=1e-6)


def test_best_action_is_the_one_of_the_largest_q_at_its_own_state():
    actions = np.arange(12.0).reshape(2, 3, 2)
    found = td.best_action(jnp.asarray(actions), jnp.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]]))
    np.testing.assert_array_equal(found, [actions[0, 1], actions[1, 0]])
