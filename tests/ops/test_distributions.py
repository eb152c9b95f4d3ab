"""Densities against closed forms, against SciPy, and against integrals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from itrpo.ops import distributions

MEAN, LOG_STD = jnp.array([0.3, -1.2, 0.0]), jnp.array([-0.5, 0.2, -2.0])


def test_normal_log_prob_is_scipys():
    value = np.array([0.1, 0.4, -0.2])
    expected = stats.norm(np.asarray(MEAN), np.exp(np.asarray(LOG_STD))).logpdf(value).sum()
    np.testing.assert_allclose(distributions.normal_log_prob(jnp.asarray(value), MEAN, LOG_STD), expected, rtol=1e-5)


def test_entropy_of_a_normal_is_scipys():
    log_std = np.array([[-1.2, 0.3], [0.0, 2.0]])
    expected = stats.norm.entropy(scale=np.exp(log_std)).sum(axis=1)
    np.testing.assert_allclose(distributions.normal_entropy(jnp.asarray(log_std)), expected, rtol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.0), (-2.0, 0.5)])
def test_tanh_normal_integrates_to_one_over_actions(mean, log_std):
    # substituting a = tanh(u): the integral over (-1, 1) in a, on a grid dense at the ends
    u = np.linspace(-9.0, 9.0, 200_001)
    density = jax.vmap(lambda it: distributions.tanh_normal_log_prob(it, jnp.array([mean]), jnp.array([log_std])))
    log_probs = np.asarray(density(jnp.asarray(u, jnp.float32)[:, None]), np.float64)
    da_du = 1.0 / np.cosh(u) ** 2
    np.testing.assert_allclose(np.trapezoid(np.exp(log_probs) * da_du, u), 1.0, rtol=1e-4)


def test_tanh_log_det_is_the_derivative_even_where_tanh_saturates():
    u = jnp.array([-12.0, -3.0, 0.0, 0.5, 20.0])
    # log(1 - tanh(u)^2) = -2 log cosh(u), in float64
    wide = np.asarray(u, np.float64)
    expected = -2.0 * (np.logaddexp(wide, -wide) - np.log(2.0))
    for value, log_det in zip(u, expected, strict=True):
        np.testing.assert_allclose(distributions.tanh_log_det(value[None]), log_det, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(distributions.tanh_log_det)(u)
    np.testing.assert_allclose(gradient, -2.0 * np.tanh(wide), rtol=1e-5, atol=1e-6)


def test_ratio_of_tanh_normals_needs_no_jacobian():
    u = distributions.to_pre_tanh(jnp.array([0.2, -0.7, 0.95]), 1e-6)
    other_mean, other_log_std = MEAN + 0.4, LOG_STD - 0.3
    in_actions = distributions.tanh_normal_log_prob(u, MEAN, LOG_STD) - distributions.tanh_normal_log_prob(
        u, other_mean, other_log_std
    )
    before_tanh = distributions.normal_log_prob(u, MEAN, LOG_STD) - distributions.normal_log_prob(
        u, other_mean, other_log_std
    )
    np.testing.assert_allclose(in_actions, before_tanh, rtol=1e-5)


@pytest.mark.parametrize("edge", [1e-3, 1e-6])
def test_boundary_actions_are_clipped_once_and_stay_finite(edge):
    u = distributions.to_pre_tanh(jnp.array([-1.0, 1.0, 0.0]), edge)
    np.testing.assert_allclose(u, [-np.arctanh(1 - edge), np.arctanh(1 - edge), 0.0], rtol=2e-2)
    assert np.isfinite(distributions.tanh_normal_log_prob(u, MEAN, LOG_STD))
    # a gradient through a clipped action would be infinite; inside the interval it is 1 / (1 - a^2)
    inside = jax.grad(lambda a: distributions.to_pre_tanh(a[None], edge)[0])(jnp.float32(0.5))
    np.testing.assert_allclose(inside, 1 / 0.75, rtol=1e-5)


def test_samples_have_the_moments_and_pass_gradients():
    noise = jax.random.normal(jax.random.key(0), (100_000, 3))
    samples = distributions.normal_sample(noise, MEAN[None], LOG_STD[None])
    std = np.exp(np.asarray(LOG_STD))
    np.testing.assert_allclose(samples.mean(0), MEAN, atol=5 * std.max() / np.sqrt(len(noise)))
    np.testing.assert_allclose(samples.std(0), std, rtol=5 / np.sqrt(2 * len(noise)))
    jacobian = jax.jacrev(lambda mean: distributions.normal_sample(noise[0], mean, LOG_STD))(MEAN)
    np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-6)


LOGITS = jnp.array([0.2, 1.0])
MEANS, LOG_STDS = jnp.array([[0.5, -0.5], [-1.0, 1.0]]), jnp.array([[-0.5, -1.0], [0.1, -0.3]])


def test_mixture_is_joint_over_dimensions():
    value = np.array([0.1, 0.3])
    weights = np.exp(np.asarray(LOGITS)) / np.exp(np.asarray(LOGITS)).sum()
    components = stats.norm(np.asarray(MEANS), np.exp(np.asarray(LOG_STDS))).pdf(value).prod(axis=1)
    log_prob = distributions.mixture_log_prob(jnp.asarray(value), LOGITS, MEANS, LOG_STDS)
    np.testing.assert_allclose(log_prob, np.log(weights @ components), rtol=1e-5)


def test_mixture_samples_follow_the_mixture():
    rows = (jnp.broadcast_to(each, (100_000, *each.shape)) for each in (LOGITS, MEANS, LOG_STDS))
    samples = np.asarray(distributions.mixture_sample(jax.random.key(1), *rows))
    weights = np.asarray(jax.nn.softmax(LOGITS))
    mean = weights @ np.asarray(MEANS)
    second = weights @ (np.asarray(MEANS) ** 2 + np.exp(2 * np.asarray(LOG_STDS)))
    np.testing.assert_allclose(samples.mean(0), mean, atol=5 * np.sqrt((second - mean**2).max() / len(samples)))
    # the components' dimensions go together: E[x y] of the joint mixture, not the product of marginals
    np.testing.assert_allclose((samples[:, 0] * samples[:, 1]).mean(), weights @ np.asarray(MEANS).prod(1), atol=0.03)


# one mixture per dimension: [A, K] = [3, 2]
FACTORED = (
    jnp.array([[0.2, 1.0], [0.0, -1.0], [0.3, 0.3]]),
    jnp.array([[0.5, -0.5], [-1.0, 1.0], [0.0, 2.0]]),
    jnp.array([[-0.5, -1.0], [0.1, -0.3], [-0.2, 0.0]]),
)


def test_factored_mixture_is_a_product_over_dimensions():
    value = np.array([0.1, 0.3, -0.4])
    logits, means, log_stds = (np.asarray(it, np.float64) for it in FACTORED)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    densities = (weights * stats.norm(means, np.exp(log_stds)).pdf(value[:, None])).sum(axis=1)
    log_prob = distributions.factored_mixture_log_prob(jnp.asarray(value), *FACTORED)
    np.testing.assert_allclose(log_prob, np.log(densities).sum(), rtol=1e-5)


def test_factored_mixture_samples_have_its_moments_and_independent_dimensions():
    rows = (jnp.broadcast_to(each, (100_000, *each.shape)) for each in FACTORED)
    samples = np.asarray(distributions.factored_mixture_sample(jax.random.key(2), *rows), np.float64)
    logits, means, log_stds = (np.asarray(it, np.float64) for it in FACTORED)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = (weights * means).sum(axis=1)
    variance = (weights * (means**2 + np.exp(2 * log_stds))).sum(axis=1) - mean**2
    np.testing.assert_allclose(samples.mean(0), mean, atol=5 * np.sqrt(variance.max() / len(samples)))
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.03)
    covariance = np.cov(samples.T) / np.sqrt(np.outer(variance, variance))
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=5 / np.sqrt(len(samples)))


def test_tanh_normal_sample_is_where_its_density_is_taken():
    noise = jnp.array([0.3, -1.0, 2.5])
    action, log_prob = distributions.tanh_normal_sample(noise, MEAN, LOG_STD)
    u = np.asarray(MEAN + jnp.exp(LOG_STD) * noise, np.float64)
    np.testing.assert_allclose(action, np.tanh(u), rtol=1e-6)
    density = stats.norm(np.asarray(MEAN), np.exp(np.asarray(LOG_STD))).logpdf(u).sum() + 2 * np.log(np.cosh(u)).sum()
    np.testing.assert_allclose(log_prob, density, rtol=1e-5)
