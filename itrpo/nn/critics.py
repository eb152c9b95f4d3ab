"""An ensemble of critics that regress onto the same targets: their loss, and what is probed of them."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.nn.ensemble import Ensemble
from itrpo.ops import td
from itrpo.types import Metrics, Params, Transition


def critic_loss(
    critics: Ensemble, critic_params: Params, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2."""
    loss = td.squared_error(critics.apply(critic_params, batch.observation, batch.action), targets[None])
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def least_q(
    critics: Ensemble, critic_params: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]
) -> Float[Array, "B *n"]:
    """min_i Q_i(s,a)."""
    return td.ensemble_min(critics.apply(critic_params, observation, action))


def probes(critics: Ensemble, critic_params: Params, batch: Transition, policy_action: Float[Array, "B A"]) -> Metrics:
    """Means over fixed rows of the least Q, at the data's actions and at the policy's."""
    return {
        "probe_q_data": jnp.mean(least_q(critics, critic_params, batch.observation, batch.action)),
        "probe_q_policy": jnp.mean(least_q(critics, critic_params, batch.observation, policy_action)),
    }
