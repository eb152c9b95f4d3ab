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


def test_the_entropy_weight_rises_where_the_entropy_is_below_its_target():
    slope = jax.grad(policy_losses.entropy_weight_loss)
    weight, log_prob = jnp.float32(0.3), jnp.float32(1.5)
    # log pi = 1.5 is an entropy of -1.5: below a target of -1, above one of -2; descent moves against the slope
    np.testing.assert_allclose(slope(weight, log_prob, -1.0), -0.5)
    np.testing.assert_allclose(slope(weight, log_prob, -2.0), 0.5)


def test_soft_policy_loss_trades_values_for_entropy():
    np.testing.assert_allclose(
        policy_losses.soft_policy_loss(0.2, jnp.float32(1.5), jnp.float32(4.0)), 0.2 * 1.5 - 4.0, rtol=1e-6
    )
