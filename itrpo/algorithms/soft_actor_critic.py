"""What CQL, COMBO, SAC-N, EDAC and PBRL share: the soft actor-critic (`itrpo.nn.soft`) with networks of one kind.

An algorithm's own file has what makes it that algorithm: its critics' targets and loss, and the order in which actor,
critics and entropy weight step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn import soft
from itrpo.nn.actors import gaussian_actor
from itrpo.nn.ensemble import critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.nn.soft import Networks, State
from itrpo.nn.trainable import Trainable, gradient_step
from itrpo.ops import distributions, td
from itrpo.ranges import Count, Discount, Positive, Rate, Widths
from itrpo.types import Metrics, Params, SpaceSpec, Transition

ACTION_EDGE = 1e-6  # dataset actions are clipped to +-(1 - this) in densities (rlkit's atanh)


@dataclass(frozen=True)
class Backbone:
    """Fields that the five have in common; the defaults are those of `matched`."""

    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam
    critic_learning_rate: Positive = 3e-4  # Adam
    entropy_learning_rate: Positive = 3e-4  # Adam, of the log of the entropy weight, which starts at 0
    target_entropy: float = -1.0  # nats per action dimension (all sources)
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ours)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default); rlkit_biased, edac: see itrpo.nn.network.Linear
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (rlkit)
    log_std_high: float = 2.0  # its upper end


# Of the sources of CQL and PBRL, whose code is rlkit's; and of CORL's SAC-N and EDAC.
RLKIT = Backbone(
    policy_learning_rate=1e-4,
    entropy_learning_rate=1e-4,
    policy_hidden=(256, 256, 256),
    critic_hidden=(256, 256, 256),
    initializer="rlkit_biased",
)
CORL = Backbone(policy_hidden=(256, 256, 256), critic_hidden=(256, 256, 256), initializer="edac")


def make_networks(config: Backbone, spec: SpaceSpec, critics: int) -> Networks:
    log_std_range = (config.log_std_low, config.log_std_high)
    return Networks(
        gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer),
        critic_ensemble(spec, config.critic_hidden, critics, config.initializer, config.critic_layer_norm),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )


def entropy_step(
    config: Backbone, networks: Networks, state: Any, observation: Float[Array, "B O"], noise: Float[Array, "B A"]
) -> Trainable:
    """The entropy weight after one step, by samples of the actor as it is. The state has the fields of `State`."""
    _, log_prob = networks.actor.sample(state.policy.params, observation, noise)
    target_entropy = config.target_entropy * noise.shape[-1]
    return soft.entropy_step(networks, state.log_entropy_weight, -jnp.mean(log_prob), target_entropy)


# --- CQL and COMBO ----------------------------------------------------------------------------------------------------


def conservative_actions(
    networks: Networks, count: int, policy_params: Params, batch: Transition, key: Key[Array, ""]
) -> tuple[Float[Array, "B n A"], Float[Array, "B n"]]:
    """`count` uniform actions, of pi(.|s) and of pi(.|s') each, n in all, and their log densities.

    No gradient passes through them.
    """
    rows, action_dim = batch.action.shape
    uniform_key, key, next_key = jax.random.split(key, 3)
    shape = (rows, count, action_dim)
    uniform = jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
    uniform_density = jnp.full((rows, count), -action_dim * distributions.LOG_2)
    own, own_density = networks.actor.sample(policy_params, batch.observation, jax.random.normal(key, shape))
    following, following_density = networks.actor.sample(
        policy_params, batch.next_observation, jax.random.normal(next_key, shape)
    )
    actions = jnp.concatenate([uniform, own, following], axis=1)
    densities = jnp.concatenate([uniform_density, own_density, following_density], axis=1)
    return jax.lax.stop_gradient((actions, densities))


# --- SAC-N, and EDAC which is SAC-N but for one term of the critics' loss ------------------------------------------


def step_before_critics(
    config: Backbone, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]
) -> tuple[State, Float[Array, "B"], Metrics]:
    """The state after a step of the entropy weight, then of the actor with the new weight; what the critics then step
    towards, by both; and metrics. The key is consumed.
    """
    noises = jax.random.normal(key, (3, *batch.action.shape))
    log_entropy_weight = entropy_step(config, networks, state, batch.observation, noises[0])
    entropy_weight = jnp.exp(log_entropy_weight.params)

    def policy_loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
        return soft.policy_loss(networks, entropy_weight, params, state.critic.params, batch.observation, noises[1])

    policy, metrics = gradient_step(state.policy, networks.policy_optimizer, policy_loss)
    targets = soft.targets(
        networks, config.gamma, entropy_weight, policy.params, state.critic.target_params, batch, noises[2]
    )
    q = networks.critics.apply(state.critic.params, batch.observation, batch.action)
    metrics |= {"entropy_weight": entropy_weight, "q_std": jnp.mean(jnp.std(q, axis=0))}
    return state._replace(policy=policy, log_entropy_weight=log_entropy_weight), targets, metrics


# --- what is measured ----------------------------------------------------------------------------------------------


def probes(networks: Networks, state: Any, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows: the smallest Q of logged and of sampled actions, how far members disagree on them."""
    observation, policy_params = batch.observation, state.policy.params
    action, own = networks.actor.sample(policy_params, observation, jax.random.normal(key, batch.action.shape))
    q_data = networks.critics.apply(state.critic.params, observation, batch.action)
    q_policy = networks.critics.apply(state.critic.params, observation, action)
    _, log_std = networks.actor.moments(policy_params, observation)
    return {
        "probe_q_data": jnp.mean(td.ensemble_min(q_data)),
        "probe_q_policy": jnp.mean(td.ensemble_min(q_policy)),
        "probe_q_std_data": jnp.mean(jnp.std(q_data, axis=0)),
        "probe_q_std_policy": jnp.mean(jnp.std(q_policy, axis=0)),
        "probe_entropy": -jnp.mean(own),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
    }
