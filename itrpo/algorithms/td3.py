"""TD3 (Fujimoto, van Hoof and Meger 2018, arXiv 1802.09477): what TD3+BC, ReBRAC and SPOT share of it.

    critic   min over Q_i  sum_i (Q_i(s,a) - y)^2,   y = r + gamma (1-d) min_i Q_i'(s', a~)
             a~ = clip(pi'(s') + clip(noise_scale * eps, -noise_limit, noise_limit), -1, 1),   eps ~ N(0, I)
    targets  Q_i', pi' <- Polyak

Critics step every time; the actor, with the new critics, and all targets every `policy_delay` steps. What the actor's
loss is, and at which of the steps it begins, an algorithm's own file says. It takes one branch of a `lax.cond`: `step`
is one number for all seeds, so that computes one branch, not both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn import critics
from itrpo.nn.actors import DeterministicActor, deterministic_actor
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.nn.trainable import Trainable, trainable
from itrpo.ops import td
from itrpo.ranges import Count, Discount, NonNegative, NonNegativeOrInf, Positive, Rate, Widths
from itrpo.types import Metrics, Params, SpaceSpec, Transition


@dataclass(frozen=True)
class Backbone:
    """Fields that the three have in common. Defaults: TD3's where it has the field, else TD3+BC's, which SPOT took."""

    noise_scale: NonNegative = 0.2  # standard deviation of the noise on the target's action (TD3)
    noise_limit: NonNegativeOrInf = 0.5  # that noise is clipped to +- this (TD3)
    policy_delay: Count = 2  # critic steps per step of the actor and the targets (TD3)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging, per step of the actor
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam
    critic_learning_rate: Positive = 3e-4  # Adam
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC)
    initializer: Initializer = "fan_in"  # PyTorch's default; ReBRAC's is EDAC's, SPOT's on AntMaze has small heads


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    behavior_params: Params  # of SPOT's model, frozen; the others have none
    policy_metrics: Metrics  # of the actor's last step


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    actor: DeterministicActor
    critics: Ensemble
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


def critic_targets(
    config: Backbone,
    networks: Networks,
    target_critic_params: Params,
    batch: Transition,
    action: Float[Array, "B A"],
    noise: Float[Array, "B A"],
) -> Float[Array, "B"]:
    """y, given pi'(s')."""
    action = td.smoothed_action(action, noise, config.noise_scale, config.noise_limit)
    next_q = critics.least_q(networks.critics, target_critic_params, batch.next_observation, action)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, next_q)


def make_networks(config: Backbone, spec: SpaceSpec) -> Networks:
    return Networks(
        deterministic_actor(spec, config.policy_hidden, config.initializer),
        critic_ensemble(spec, config.critic_hidden, 2, config.initializer, config.critic_layer_norm),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )


def start(networks: Networks, policy_metrics: tuple[str, ...], key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step; policy_metrics: the names of what the actor's loss reports."""
    policy_key, critic_key = jax.random.split(key)
    return State(
        trainable(networks.policy_optimizer, networks.actor.init(policy_key), target=True),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        behavior_params,
        {name: jnp.zeros(()) for name in policy_metrics},
    )


def probes(networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows."""
    action = networks.actor.apply(state.policy.params, batch.observation)
    return critics.probes(networks.critics, state.critic.params, batch, action) | {
        "probe_cloning_error": jnp.mean(jnp.square(action - batch.action))
    }
