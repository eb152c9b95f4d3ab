"""CQL's regulariser, PBRL's lower bounds and EDAC's diversity against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import pessimism


def test_conservative_gap_is_the_log_of_the_importance_weighted_sum():
    q, log_density, q_data = np.array([1.0, -0.5, 2.0]), np.log([0.25, 0.5, 2.0]), 0.7
    expected = np.log(np.exp(1.0) / 0.25 + np.exp(-0.5) / 0.5 + np.exp(2.0) / 2.0) - 0.7
    found = pessimism.conservative_gap(jnp.asarray(q), jnp.asarray(log_density), jnp.asarray(q_data))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_conservative_gap_estimates_the_integral_of_exp_q_whatever_the_proposal(scale):
    """Q(a) = 3 a on [-1, 1]: the integral of exp Q is 2 sinh(3) / 3; proposals a ~ N(0.8, scale^2) cut to [-1, 1]."""
    rng = np.random.default_rng(0)
    a = 0.8 + scale * rng.normal(size=400_000)
    mass = np.mean(np.abs(a) < 1)
    a = a[np.abs(a) < 1]
    log_density = -0.5 * ((a - 0.8) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi) * mass)
    found = pessimism.conservative_gap(jnp.asarray(3 * a), jnp.asarray(log_density), jnp.zeros(())) - np.log(len(a))
    np.testing.assert_allclose(found, np.log(2 * np.sinh(3.0) / 3.0), atol=0.05 if scale < 1 else 0.01)


def test_conservative_gap_survives_values_whose_exponentials_do_not():
    q = jnp.array([500.0, -500.0])
    np.testing.assert_allclose(pessimism.conservative_gap(q, jnp.zeros(2), jnp.float32(400.0)), 100.0, rtol=1e-6)


def test_lower_bounds_divide_by_the_members_less_one():
    q = np.array([1.0, 4.0, 7.0])  # unbiased standard deviation 3
    np.testing.assert_allclose(pessimism.lower_bounds(jnp.asarray(q), 0.5), q - 1.5, rtol=1e-6)
    np.testing.assert_allclose(pessimism.lower_bounds(jnp.full(3, 2.0), 5.0), 2.0)


@pytest.mark.parametrize("members", [2, 5])
def test_gradient_diversity_sums_over_ordered_pairs(members):
    gradients = np.random.default_rng(1).normal(size=(members, 3))
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(members) for j in range(members) if i != j]
    found = pessimism.gradient_diversity(jnp.asarray(gradients))
    np.testing.assert_allclose(found, sum(pairs) / (members - 1), rtol=1e-5, atol=1e-6)


def test_gradient_diversity_runs_from_the_members_to_their_negative_over_one_less():
    angles = 2 * np.pi * np.arange(3) / 3
    star = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1.0], [5.0], [0.1]])
    np.testing.assert_allclose(pessimism.gradient_diversity(jnp.asarray(star)), -3 / 2, rtol=1e-5)
    np.testing.assert_allclose(pessimism.gradient_diversity(jnp.ones((3, 2))), 3.0, rtol=1e-5)


def test_gradient_diversity_is_finite_where_a_critic_is_flat():
    gradients = jnp.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]])
    value, slope = jax.jit(jax.value_and_grad(pessimism.gradient_diversity))(gradients)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[0], 0.0)
