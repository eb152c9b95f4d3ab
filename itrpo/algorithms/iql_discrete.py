"""IQL over n choices (Kostrikov, Nair and Levine, ICLR 2022, arXiv 2110.06169; see `iql` for the equations).

    value    min over V    |expectile - 1{u < 0}| u^2,   u = min_i Q_i'(s,a) - V(s)                          (Eq. 5)
    actor    max over pi   min(exp(inverse_temperature u), weight_limit) log pi(a|s)                         (Eq. 7)
    critic   min over Q_i  sum_i huber(Q_i(s,a) - y),   y = r + gamma (1-d) V(s')                            (Eq. 6)

at dataset choices only, in this order; pi is a network of logits. `source` has the authors' constants for vectors
(ikostrikov/implicit_q_learning, MuJoCo), with their scaled rewards. Departure: the actor's rate does not fall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, least_q
from itrpo.algorithms.quick import quick
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import ActionValues, StateValue
from itrpo.nn.network import Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import choices, policy_losses, td
from itrpo.ranges import InnerShare, NonNegative, Positive, PositiveOrInf, Widths
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, RewardRule, Transition


@dataclass(frozen=True)
class Config:
    expectile: InnerShare = 0.7  # the paper's tau: expectile of Q over the data's actions that V is (MuJoCo)
    inverse_temperature: NonNegative = 3.0  # the paper's beta: how sharply advantages weigh actions (MuJoCo)
    weight_limit: PositiveOrInf = 100.0  # largest weight of a sample in the actor's regression (authors' code)
    policy_learning_rate: Positive = 3e-4  # Adam
    value_learning_rate: Positive = 3e-4  # Adam
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    value_hidden: Widths = (256, 256)  # of V
    backbone: Backbone = Backbone(critics=2)


class State(NamedTuple):
    policy: Trainable
    critic: Trainable
    value: Trainable


class Networks(NamedTuple):
    policy: Network  # observation -> logits [B, n]
    values: action_values.Networks
    value: Network  # observation -> [B]
    policy_optimizer: optax.GradientTransformation
    value_optimizer: optax.GradientTransformation


def value_loss(
    config: Config, networks: Networks, value_params: Params, batch: Transition, q: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Expectile regression of V(s) onto q = min_i Q_i'(s,a)."""
    error = q - networks.value.apply(value_params, batch.observation)
    loss = jnp.mean(td.expectile_loss(error, config.expectile))
    return loss, {"value_loss": loss}


def policy_loss(
    config: Config, networks: Networks, policy_params: Params, batch: Transition, advantages: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """-mean weight log pi(a|s), advantages = min_i Q_i'(s,a) - V(s)."""
    log_probs = jax.nn.log_softmax(networks.policy.apply(policy_params, batch.observation))
    weight = policy_losses.advantage_weight(advantages, config.inverse_temperature, config.weight_limit)
    loss = -jnp.mean(weight * choices.chosen(log_probs, batch.action))
    return loss, {"policy_loss": loss, "policy_weight": jnp.mean(weight)}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Value, actor, critics, targets. Nothing is random."""
    backbone = config.backbone
    q = choices.chosen(least_q(networks.values, state.critic.target_params, batch.observation), batch.action)
    value, value_metrics = gradient_step(
        state.value, networks.value_optimizer, lambda params: value_loss(config, networks, params, batch, q)
    )
    advantages = q - networks.value.apply(value.params, batch.observation)
    policy, policy_metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(config, networks, params, batch, advantages)
    )
    next_value = networks.value.apply(value.params, batch.next_observation)
    targets = td.bellman_target(batch.reward, batch.continues, backbone.gamma, next_value)
    critic, critic_metrics = action_values.critic_step(backbone, networks.values, state.critic, batch, targets)
    metrics = value_metrics | policy_metrics | critic_metrics | {"advantage": jnp.mean(advantages)}
    return State(policy, polyak(critic, backbone.polyak_rate), value), metrics


def make_networks(config: Config, spec: DiscreteSpec) -> Networks:
    initializer = config.backbone.initializer
    return Networks(
        network(lambda draw: ActionValues(draw, spec, config.policy_hidden, initializer)),
        action_values.make_networks(config.backbone, spec),
        network(lambda draw: StateValue(draw, spec, config.value_hidden, initializer)),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.value_learning_rate),
    )


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        return State(
            trainable(networks.policy_optimizer, networks.policy.init(policy_key)),
            action_values.start_critic(networks.values, critic_key),
            trainable(networks.value_optimizer, networks.value.init(value_key)),
        )

    def log_policy(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        return jax.nn.log_softmax(networks.policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows. probe_q_policy asks for Q off the data, which no loss does."""
        q, log_probs = (
            least_q(networks.values, state.critic.params, batch.observation),
            log_policy(state, batch.observation),
        )
        value = jnp.mean(networks.value.apply(state.value.params, batch.observation))
        log_prob = jnp.mean(choices.chosen(log_probs, batch.action))
        return action_values.probes(q, log_probs, batch) | {"probe_value": value, "probe_log_prob": log_prob}

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=action_values.soft_acting(log_policy, lambda state: layer_arrays(state.policy.params.mlp)),
        probes=probes,
        batch_size=config.backbone.batch_size,
        q_values=action_values.q_values(networks.values.critics),
    )


# Scaled rewards are a part of the method: what an inverse temperature means depends on them.
MATCHED = Preset(Config(), rewards=RewardRule(by_return_range=True))
PRESETS = {
    "source": MATCHED._replace(config=replace(Config(), backbone=Backbone(critics=2, initializer="orthogonal"))),
    "matched": MATCHED,
    "quick": quick(MATCHED, {"expectile": 0.7, "inverse_temperature": 1.0}, tasks=None),
}
IQL_DISCRETE = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
