"""The KL of Gaussians against its integral, the gradient penalty against calculus."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from itrpo.ops import distributions, divergences

mmd = jax.jit(divergences.mmd, static_argnums=(2, 3))  # one program, where its parts would compile one by one
normal_kl = jax.jit(divergences.normal_kl)


@pytest.mark.parametrize(
    ("mean_p", "std_p", "mean_q", "std_q"), [(0.0, 1.0, 0.5, 2.0), (1.0, 0.3, -0.2, 0.4), (0.1, 0.7, 0.1, 0.7)]
)
def test_kl_is_the_integral(mean_p, std_p, mean_q, std_q):
    p, q = stats.norm(mean_p, std_p), stats.norm(mean_q, std_q)
    integral, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean_p - 12 * std_p, mean_p + 12 * std_p
    )
    kl = normal_kl(*(jnp.array([it]) for it in (mean_p, np.log(std_p), mean_q, np.log(std_q))))
    np.testing.assert_allclose(kl, integral, rtol=1e-5, atol=1e-7)


def test_kl_adds_over_dimensions_and_is_not_symmetric():
    mean_p, log_p = jnp.array([0.0, 1.0]), jnp.array([0.0, -1.0])
    mean_q, log_q = jnp.array([0.5, 0.0]), jnp.array([0.5, 0.2])
    each = [normal_kl(mean_p[i, None], log_p[i, None], mean_q[i, None], log_q[i, None]) for i in range(2)]
    forward = normal_kl(mean_p, log_p, mean_q, log_q)
    np.testing.assert_allclose(forward, sum(each), rtol=1e-6)
    assert abs(float(forward - normal_kl(mean_q, log_q, mean_p, log_p))) > 0.1


def test_kl_of_tanh_normals_is_the_mean_log_ratio_of_actions():
    mean_p, log_p = jnp.array([0.4, -0.3]), jnp.array([-0.7, -0.4])
    mean_q, log_q = jnp.array([0.1, 0.2]), jnp.array([-0.2, -0.5])

    def log_ratio(noise):
        u = distributions.normal_sample(noise, mean_p, log_p)
        own = distributions.tanh_normal_log_prob(u, mean_p, log_p)
        return own - distributions.tanh_normal_log_prob(u, mean_q, log_q)

    ratios = np.asarray(jax.jit(jax.vmap(log_ratio))(jax.random.normal(jax.random.key(0), (200_000, 2))))
    standard_error = ratios.std() / np.sqrt(len(ratios))
    assert abs(ratios.mean() - float(normal_kl(mean_p, log_p, mean_q, log_q))) < 4 * standard_error


def test_action_gradient_penalty_of_quadratics():
    # Q_i(a) = -w_i |a - c|^2: the gradient is -2 w_i (a - c), its square 4 w_i^2 |a - c|^2
    center, weights = jnp.array([0.2, -0.1]), jnp.array([1.0, 3.0])
    actions = jnp.array([[0.5, 0.3], [0.2, -0.1], [1.2, -0.1]])

    def q_values(action):
        return -weights[:, None] * jnp.sum((action - center[None]) ** 2, axis=1)[None]

    gradients = jax.jit(lambda a: divergences.action_gradients(q_values, a))(actions)
    expected = -2 * np.asarray(weights)[:, None, None] * (np.asarray(actions) - np.asarray(center))[None]
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)
    penalty = jax.jit(lambda a: divergences.action_gradient_penalty(q_values, a))(actions)
    np.testing.assert_allclose(penalty, 4 * (1 + 9) * np.array([0.3**2 + 0.4**2, 0.0, 1.0]), rtol=1e-5, atol=1e-7)


def mmd_by_loops(x, y, bandwidth, power):
    """The three means of the definition, one pair of points at a time, in float64."""

    def mean_kernel(one, other):
        return np.mean([np.exp(-np.sum(np.abs(a - b) ** power) / (2 * bandwidth)) for a in one for b in other])

    return np.sqrt(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y) + 1e-6)


@pytest.mark.parametrize(("kernel", "power"), [("gaussian", 2), ("laplacian", 1)])
@pytest.mark.parametrize("bandwidth", [0.3, 20.0])
def test_mmd_is_its_definition_pair_by_pair(kernel, power, bandwidth):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(0.5, 2.0, size=(6, 3))
    np.testing.assert_allclose(
        mmd(np.float32(x), np.float32(y), bandwidth, kernel),
        mmd_by_loops(x, y, bandwidth, power),
        rtol=1e-5,
    )


def test_mmd_of_two_points_in_closed_form():
    """One point each, d apart: MMD^2 = 2 - 2 k(d). The bandwidth divides by 2 sigma, not by 2 sigma^2."""
    x, y = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    gaussian = np.sqrt(2 - 2 * np.exp(-25.0 / (2 * 10)) + 1e-6)
    laplacian = np.sqrt(2 - 2 * np.exp(-7.0 / (2 * 10)) + 1e-6)
    np.testing.assert_allclose(mmd(x, y, 10.0, "gaussian"), gaussian, rtol=1e-6)
    np.testing.assert_allclose(mmd(x, y, 10.0, "laplacian"), laplacian, rtol=1e-6)


def test_mmd_of_equal_sets_is_the_floor_and_near_ones_keep_their_digits():
    x = np.float32([[0.1, -0.2], [1.3, 0.4]])
    np.testing.assert_allclose(mmd(x, x[::-1], 20.0, "gaussian"), 1e-3, rtol=1e-4)
    # 0.01 apart at bandwidth 20: MMD^2 = 2 - 2 exp(-2.5e-6), lost in float32 if 1 - 1 were computed
    near = float(mmd(np.zeros((1, 1), np.float32), np.full((1, 1), 0.01, np.float32), 20.0, "gaussian"))
    np.testing.assert_allclose(near**2 - 1e-6, -2 * np.expm1(-(0.01**2) / 40), rtol=1e-3)


def test_mmd_pulls_points_towards_the_other_set():
    x, y = jnp.array([[1.0], [1.4]]), jnp.array([[0.0], [0.3]])
    gradient = jax.jit(jax.grad(lambda it: divergences.mmd(it, y, 1.0, "laplacian")))(x)
    assert (gradient > 0).all()


def test_the_mean_of_the_squared_mmd_of_gaussians_in_closed_form():
    """E k(x, y) of Gaussians is a Gaussian's density; pairs of a point with itself add (1 - E k) / n for each set."""
    (mean_p, std_p), (mean_q, std_q), bandwidth, n = (0.4, 0.5), (-0.2, 0.9), 0.7, 4

    def mean_kernel(distance, variance):
        spread = bandwidth + variance
        return np.sqrt(bandwidth / spread) * np.exp(-(distance**2) / (2 * spread))

    own_p, own_q = mean_kernel(0, 2 * std_p**2), mean_kernel(0, 2 * std_q**2)
    expected = own_p + own_q - 2 * mean_kernel(mean_p - mean_q, std_p**2 + std_q**2)
    expected += (1 - own_p) / n + (1 - own_q) / n
    noise = np.random.default_rng(0).normal(size=(2, 100_000, n, 1)).astype(np.float32)
    points = mean_p + std_p * noise[0], mean_q + std_q * noise[1]
    found = jax.jit(divergences.squared_mmd, static_argnums=(2, 3))(*points, bandwidth, "gaussian")
    error = np.asarray(found).std() / np.sqrt(len(found))
    assert error < 0.002
    np.testing.assert_allclose(np.mean(found), expected, atol=4 * error)


def test_the_dual_estimate_of_kl_is_largest_at_the_ratio_of_densities_and_then_the_kl():
    p, q, grid = stats.norm(0.5, 0.6), stats.norm(0.0, 1.0), np.linspace(-8, 8, 20_001)
    ratio = np.exp(p.logpdf(grid) - q.logpdf(grid))
    best = np.log(np.expm1(np.maximum(ratio, 1e-12)))  # softplus of it is the ratio
    kl = np.log(1.0 / 0.6) + (0.6**2 + 0.5**2) / 2 - 0.5

    def mean(values):
        """c is `values` at one action, and 0 at the other, whose part of the estimate is a constant."""
        values, zeros = jnp.asarray(values), jnp.zeros(grid.shape)
        own, data = (np.asarray(divergences.dual_kl(*each)) for each in ((values, zeros), (zeros, values)))
        constant = divergences.dual_kl(zeros, zeros)[0]
        return np.trapezoid(p.pdf(grid) * own + q.pdf(grid) * data, grid) - float(constant)

    np.testing.assert_allclose(mean(best), kl, rtol=1e-3)
    for change in (0.3, -0.3, 0.3 * np.sin(grid), 0.2 * grid):
        assert mean(best + change) < kl - 1e-3


def test_the_slope_penalty_is_one_sided_and_taken_between_the_two_actions():
    """c(s,a) = |a|^2 k / 2, whose slope at a is k |a|."""
    action_p, action_q = jnp.array([[1.0, 0.0], [0.3, 0.4]]), jnp.array([[3.0, 4.0], [0.3, 0.4]])
    found = divergences.slope_penalty(lambda a: jnp.sum(a**2, axis=1), action_p, action_q, jnp.array([0.5, 0.9]))
    np.testing.assert_allclose(found, [(2 * np.hypot(2.0, 2.0) - 1) ** 2, 0.0], rtol=1e-5)
    flat = divergences.slope_penalty(lambda a: 0.9 * a[:, 0], action_p, action_q, jnp.array([0.5, 0.9]))
    np.testing.assert_allclose(flat, 0.0, atol=1e-6)


def test_the_dual_wasserstein_estimate_is_what_c_says_more_of_p():
    np.testing.assert_allclose(divergences.dual_wasserstein(jnp.array([2.0]), jnp.array([0.5])), [1.5])
