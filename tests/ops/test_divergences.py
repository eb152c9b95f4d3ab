"""The KL of Gaussians against its integral, the gradient penalty against calculus."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from itrpo.ops import distributions, divergences


@pytest.mark.parametrize(
    ("mean_p", "std_p", "mean_q", "std_q"), [(0.0, 1.0, 0.5, 2.0), (1.0, 0.3, -0.2, 0.4), (0.1, 0.7, 0.1, 0.7)]
)
def test_kl_is_the_integral(mean_p, std_p, mean_q, std_q):
    p, q = stats.norm(mean_p, std_p), stats.norm(mean_q, std_q)
    integral, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean_p - 12 * std_p, mean_p + 12 * std_p
    )
    kl = divergences.normal_kl(*(jnp.array([it]) for it in (mean_p, np.log(std_p), mean_q, np.log(std_q))))
    np.testing.assert_allclose(kl, integral, rtol=1e-5, atol=1e-7)


def test_kl_adds_over_dimensions_and_is_not_symmetric():
    mean_p, log_p = jnp.array([0.0, 1.0]), jnp.array([0.0, -1.0])
    mean_q, log_q = jnp.array([0.5, 0.0]), jnp.array([0.5, 0.2])
    each = [divergences.normal_kl(mean_p[i, None], log_p[i, None], mean_q[i, None], log_q[i, None]) for i in range(2)]
    forward = divergences.normal_kl(mean_p, log_p, mean_q, log_q)
    np.testing.assert_allclose(forward, sum(each), rtol=1e-6)
    assert abs(float(forward - divergences.normal_kl(mean_q, log_q, mean_p, log_p))) > 0.1


def test_kl_of_tanh_normals_is_the_mean_log_ratio_of_actions():
    mean_p, log_p = jnp.array([0.4, -0.3]), jnp.array([-0.7, -0.4])
    mean_q, log_q = jnp.array([0.1, 0.2]), jnp.array([-0.2, -0.5])

    def log_ratio(key):
        u = distributions.sample_normal(key, mean_p, log_p)
        own = distributions.tanh_normal_log_prob(u, mean_p, log_p)
        return own - distributions.tanh_normal_log_prob(u, mean_q, log_q)

    ratios = np.asarray(jax.vmap(log_ratio)(jax.random.split(jax.random.key(0), 200_000)))
    standard_error = ratios.std() / np.sqrt(len(ratios))
    assert abs(ratios.mean() - float(divergences.normal_kl(mean_p, log_p, mean_q, log_q))) < 4 * standard_error


def test_action_gradient_penalty_of_quadratics():
    # Q_i(a) = -w_i |a - c|^2: the gradient is -2 w_i (a - c), its square 4 w_i^2 |a - c|^2
    center, weights = jnp.array([0.2, -0.1]), jnp.array([1.0, 3.0])
    action = jnp.array([0.5, 0.3])
    penalty = divergences.action_gradient_penalty(lambda a: -weights * jnp.sum((a - center) ** 2), action)
    np.testing.assert_allclose(penalty, 4 * (1 + 9) * (0.3**2 + 0.4**2), rtol=1e-5)
