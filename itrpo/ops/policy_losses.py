"""Weights with which policies are improved, and the losses of a soft actor-critic, for batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.ops.td import Scalar


def advantage_weight(
    advantage: Float[Array, "*rows"], inverse_temperature: Scalar, limit: Scalar
) -> Float[Array, "*rows"]:
    """min(exp(inverse_temperature * advantage), limit): the weight of a sample in weighted regression (AWR, IQL)."""
    return jnp.minimum(jnp.exp(inverse_temperature * advantage), limit)


def inverse_magnitude(q: Float[Array, "B"]) -> Float[Array, ""]:
    """1 / mean |q|, held constant in gradients: makes a policy loss free of the scale of rewards.

    TD3+BC (arXiv 2106.06860, Eq. 5), and after it SPOT and ReBRAC.
    """
    return jax.lax.stop_gradient(1.0 / jnp.mean(jnp.abs(q)))


def soft_policy_loss(
    entropy_weight: Scalar, log_prob: Float[Array, "*rows"], q: Float[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """entropy_weight * log pi(a|s) - Q(s,a), a ~ pi: the soft actor-critic's actor (arXiv 1812.05905, Eq. 7)."""
    return entropy_weight * log_prob - q


def entropy_weight_loss(
    log_weight: Float[Array, ""], log_prob: Float[Array, "*rows"], target_entropy: Scalar
) -> Float[Array, "*rows"]:
    """-log_weight * (log pi(a|s) + target_entropy): raises the weight where the entropy is below its target.

    The form of rlkit and of all that grew from it; arXiv 1812.05905, Eq. 18, has the weight in the place of its log,
    which changes the size of a gradient and not its sign.
    """
    return -log_weight * (log_prob + target_entropy)
