"""An ensemble of critics that regress onto the same targets: their loss, a step down it, and what is probed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from itrpo.nn.ensemble import Ensemble
from itrpo.nn.trainable import Trainable, gradient_step
from itrpo.ops import divergences, td
from itrpo.ops.td import Scalar
from itrpo.types import Metrics, Params, Transition


def critic_loss(
    critics: Ensemble, critic_params: Params, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2."""
    loss = td.squared_error(critics.apply(critic_params, batch.observation, batch.action), targets[None])
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def penalised_critic_loss(
    critics: Ensemble,
    gradient_penalty: Scalar,
    critic_params: Params,
    batch: Transition,
    targets: Float[Array, "B"],
    policy_action: Float[Array, "B A"] | None,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2, a~ = policy_action ~ pi(.|s).

    Without policy_action, which is where the weight is a plain 0, without the penalty.
    """
    loss, metrics = critic_loss(critics, critic_params, batch, targets)
    if policy_action is not None:
        slopes = divergences.action_gradient_penalty(
            lambda action: critics.apply(critic_params, batch.observation, action), policy_action
        )
        loss += gradient_penalty * jnp.mean(slopes)
    return loss, metrics | {"critic_loss": loss}


def critic_step(
    critics: Ensemble,
    optimizer: optax.GradientTransformation,
    critic: Trainable,
    batch: Transition,
    targets: Float[Array, "B"],
) -> tuple[Trainable, Metrics]:
    """The critics after one step down `critic_loss`."""
    return gradient_step(critic, optimizer, lambda params: critic_loss(critics, params, batch, targets))


def least_q(
    critics: Ensemble, critic_params: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]
) -> Float[Array, "B *n"]:
    """min_i Q_i(s,a)."""
    return td.ensemble_min(critics.apply(critic_params, observation, action))


def q_values(critics: Ensemble) -> Callable[[Any, Float[Array, "B O"], Float[Array, "B A"]], Float[Array, "N B"]]:
    """`Algorithm.q_values` of critics whose parameters are the state's `critic`."""
    return lambda state, observation, action: critics.apply(state.critic.params, observation, action)


def probes(critics: Ensemble, critic_params: Params, batch: Transition, policy_action: Float[Array, "B A"]) -> Metrics:
    """Means over fixed rows of the least Q, at the data's actions and at the policy's."""
    return {
        "probe_q_data": jnp.mean(least_q(critics, critic_params, batch.observation, batch.action)),
        "probe_q_policy": jnp.mean(least_q(critics, critic_params, batch.observation, policy_action)),
    }
