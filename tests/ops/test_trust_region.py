"""Surrogates, advantages and weights against sums by hand and known optima."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from itrpo.ops import trust_region

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("off_policy", [False, True])
def test_advantages_are_their_sums(off_policy: bool):
    """[T, E], with an episode that ends within: nothing comes over its end. On policy they are those of GAE."""
    length, envs, rate, limit = 7, 3, 0.9, 1.1
    errors, goes_on = RNG.normal(size=(length, envs)), np.ones((length, envs))
    goes_on[2, 0] = goes_on[4, 1] = goes_on[5, 1] = 0.0
    ratios = RNG.uniform(0.5, 2.0, (length, envs)) if off_policy else np.ones((length, envs))
    expected = np.zeros((length, envs))
    for t, e in np.ndindex(length, envs):
        weight = 1.0
        for j in range(t, length):
            weight *= rate * min(ratios[j, e], limit) if j > t else 1.0
            expected[t, e] += weight * errors[j, e]
            if goes_on[j, e] == 0:
                break
    found = trust_region.advantages(*map(jnp.asarray, (errors, goes_on, ratios)), rate, limit)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_surrogate_is_ppos_around_the_last_policy():
    ratio, centre, advantage = RNG.uniform(0, 3, 200), RNG.uniform(0.3, 2, 200), RNG.normal(size=200)
    low, high = centre - 0.3, centre + 0.3
    expected = np.minimum(ratio * advantage, np.clip(ratio, low, high) * advantage)
    given = [jnp.asarray(it, jnp.float32) for it in (ratio, centre)]
    surrogate = lambda ratio: trust_region.clipped_surrogate(ratio, given[1], 0.3, jnp.asarray(advantage, jnp.float32))  # noqa: E731
    np.testing.assert_allclose(surrogate(given[0]), expected, rtol=1e-5, atol=1e-6)
    slope = jax.jit(jax.grad(lambda ratio: jnp.sum(surrogate(ratio))))(given[0])
    flat = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    assert 20 < flat.sum() < 180
    np.testing.assert_allclose(slope, np.where(flat, 0.0, advantage), rtol=1e-5)


def test_the_mean_over_older_samples_is_the_total_variation():
    """Of N(0.4, 1) and N(0, 1) it is 2 Phi(0.2) - 1; samples are N(-0.3, 1.2)'s."""
    sample = RNG.normal(-0.3, 1.2, 400_000)
    acted = norm.pdf(sample, -0.3, 1.2)
    ratio, centre = (jnp.asarray(norm.pdf(sample, mean) / acted) for mean in (0.4, 0.0))
    distances = trust_region.total_variation(ratio, centre)
    exact = math.erf(0.2 / math.sqrt(2))
    assert abs(float(jnp.mean(distances)) - exact) < 4 * float(jnp.std(distances)) / np.sqrt(len(sample)) < 0.003


@pytest.mark.parametrize("batches", [1, 2, 3, 5])
def test_policy_weights_have_the_largest_effective_sample_size(batches: int):
    """Against a numerical optimum over weights of 20 policies."""
    found = trust_region.policy_weights(batches)
    assert (found > 0).all()
    np.testing.assert_allclose([found.sum(), found @ np.arange(1, len(found) + 1)], [1.0, batches])
    ages = np.arange(1, 21)
    fixed = [
        {"type": "eq", "fun": lambda p: p.sum() - 1.0},
        {"type": "eq", "fun": lambda p: p @ ages - batches},
    ]
    best = minimize(lambda p: p @ p, np.full(20, 0.05), bounds=[(0, 1)] * 20, constraints=fixed, tol=1e-12)
    padded = np.r_[found, np.zeros(20 - len(found))]
    np.testing.assert_allclose(padded, best.x, atol=2e-3)
    assert found @ found <= best.fun + 1e-9


def test_the_natural_step_is_as_long_as_the_limit_allows():
    """On a quadratic D_KL, s F s / 2, and no other step of that length gains more."""
    root = RNG.normal(size=(4, 4))
    curvature, gradient = root @ root.T + np.eye(4), RNG.normal(size=4)
    step = trust_region.natural_step(jnp.asarray(gradient), jnp.asarray(np.linalg.solve(curvature, gradient)), 0.03)
    step = np.asarray(step, np.float64)
    np.testing.assert_allclose(0.5 * step @ curvature @ step, 0.03, rtol=1e-4)
    others = RNG.normal(size=(500, 4))
    others *= np.sqrt(0.06 / np.einsum("ni,ij,nj->n", others, curvature, others))[:, None]
    assert (others @ gradient < step @ gradient).all()
