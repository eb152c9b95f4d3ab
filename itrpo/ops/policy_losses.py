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


def soft_policy_loss(entropy_weight: Array | float, log_prob: Array, q: Array) -> Array:
    """entropy_weight * log pi(a|s) - Q(s,a), a ~ pi: the soft actor-critic's actor (arXiv 1812.05905, Eq. 7)."""
    return entropy_weight * log_prob - q


def entropy_weight_loss(log_weight: Array, log_prob: Array, target_entropy: Array | float) -> Array:
    """-log_weight * (log pi(a|s) + target_entropy): raises the weight where the entropy is below its target.

    The form of rlkit and of all that grew from it; arXiv 1812.05905, Eq. 18, has the weight in the place of its log,
    which changes the size of a gradient and not its sign.
    """
    return -log_weight * (log_prob + target_entropy)
