"""Weights with which policies are improved."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from itrpo.types import Array


def advantage_weight(advantage: Array, inverse_temperature: Array | float, limit: Array | float) -> Array:
    """min(exp(inverse_temperature * advantage), limit): the weight of a sample in weighted regression (AWR, IQL)."""
    return jnp.minimum(jnp.exp(inverse_temperature * advantage), limit)


def inverse_magnitude(q: Array) -> Array:
    """1 / mean |q| over a batch [B], held constant in gradients: makes a policy loss free of the scale of rewards.

    TD3+BC (arXiv 2106.06860, Eq. 5), and after it SPOT and ReBRAC.
    """
    return jax.lax.stop_gradient(1.0 / jnp.mean(jnp.abs(q)))
