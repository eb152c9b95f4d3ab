"""Weights worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.ops import policy_losses


def test_advantage_weight_grows_with_the_advantage_up_to_its_limit():
    weights = policy_losses.advantage_weight(jnp.array([-1.0, 0.0, 0.5, 30.0]), 3.0, 100.0)
    np.testing.assert_allclose(weights, [np.exp(-3), 1.0, np.exp(1.5), 100.0], rtol=1e-6)


def test_inverse_magnitude_makes_a_loss_free_of_the_scale_of_q_and_passes_no_gradient():
    q = jnp.array([3.0, -1.0, 2.0])
    np.testing.assert_allclose(policy_losses.inverse_magnitude(q), 0.5, rtol=1e-6)
    np.testing.assert_allclose(policy_losses.inverse_magnitude(1000 * q) * 1000 * q, q / 2, rtol=1e-6)
    gradient = jax.grad(lambda it: jnp.sum(it) * policy_losses.inverse_magnitude(it))(q)
    np.testing.assert_allclose(gradient, 0.5, rtol=1e-6)
