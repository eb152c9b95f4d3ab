"""Policies over n choices against NumPy, and the laws that they keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import choices

RNG = np.random.default_rng(0)
Q, LOGITS = RNG.normal(size=(2, 5, 3)).astype(np.float32)
PRIOR = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
ALPHA = 0.4


def test_the_improved_policy_is_the_best_of_its_objective_and_soft_value_what_it_reaches():
    expected = PRIOR * np.exp(Q / ALPHA)
    expected /= expected.sum(1, keepdims=True)
    log_policy = choices.improved(jnp.asarray(Q), jnp.log(PRIOR), ALPHA)
    np.testing.assert_allclose(np.exp(log_policy), expected, rtol=1e-5)

    def objective(policy: np.ndarray) -> np.ndarray:
        return (policy * (Q - ALPHA * np.log(policy / PRIOR))).sum(1)

    value = choices.soft_value(jnp.asarray(Q), jnp.log(PRIOR), ALPHA)
    np.testing.assert_allclose(value, objective(expected), rtol=1e-5)
    for other in RNG.dirichlet(np.ones(3), size=(20, 5)):
        assert (objective(other) < np.asarray(value) + 1e-6).all()
    ratio = ALPHA * (np.asarray(log_policy) - np.log(PRIOR))  # what Eq. (5) adds to a reward, but for tau
    np.testing.assert_allclose(ratio, Q - np.asarray(value)[:, None], rtol=1e-4, atol=1e-5)


def test_expectations_divergence_and_entries():
    policy = RNG.dirichlet(np.ones(3), size=5).astype(np.float32)
    np.testing.assert_allclose(choices.expected(jnp.log(policy), jnp.asarray(Q)), (policy * Q).sum(1), rtol=1e-5)
    kl = (policy * np.log(policy / PRIOR)).sum(1)
    np.testing.assert_allclose(choices.kl(jnp.log(policy), jnp.log(PRIOR)), kl, rtol=1e-4)
    picked = np.array([2, 0, 1, 1, 2])
    np.testing.assert_array_equal(choices.chosen(jnp.asarray(Q), jnp.asarray(picked)), Q[np.arange(5), picked])
    np.testing.assert_array_equal(
        choices.supported(jnp.asarray(LOGITS), 0.3), 0.3 * PRIOR.max(1, keepdims=True) < PRIOR
    )


@pytest.mark.parametrize("limit", [1.0, np.inf])
def test_the_slope_of_huber_is_the_clipped_error(limit: float):
    errors = jnp.array([-3.0, -0.5, 0.0, 0.7, 2.0])
    slopes = jax.vmap(jax.grad(lambda it: choices.huber(it, limit)))(errors)
    np.testing.assert_allclose(slopes, np.clip(errors, -limit, limit))
    np.testing.assert_allclose(choices.huber(jnp.array([0.5, 2.0]), limit), [0.125, 2.0 if limit > 2 else 1.5])


def test_the_quantile_loss_is_its_sums_and_least_at_the_quantiles():
    own, target = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 4))
    expected = np.zeros(2)
    for b, i, j in np.ndindex(2, 3, 4):
        u, level = target[b, j] - own[b, i], (i + 0.5) / 3
        loss = 0.5 * u**2 if abs(u) <= 0.5 else 0.5 * (abs(u) - 0.25)
        expected[b] += abs(level - (u < 0)) * loss / 0.5 / 4
    np.testing.assert_allclose(choices.quantile_loss(jnp.asarray(own), jnp.asarray(target), 0.5), expected, rtol=1e-5)
    order = [2, 0, 1]  # levels that are given go with their quantiles
    levels = jnp.broadcast_to((jnp.asarray(order) + 0.5) / 3, (2, 3))
    found = choices.quantile_loss(jnp.asarray(own[:, order]), jnp.asarray(target), 0.5, levels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    sample, grid = jnp.sort(jnp.asarray(RNG.normal(size=101))), np.linspace(-2.5, 2.5, 201)
    for i in range(3):  # the others stay where they are
        tried = jnp.zeros((201, 3)).at[:, i].set(grid)
        losses = choices.quantile_loss(tried, jnp.broadcast_to(sample, (201, 101)), 1e-3)
        np.testing.assert_allclose(grid[np.argmin(losses)], np.quantile(sample, (i + 0.5) / 3), atol=0.08)
