"""IQL, "Offline RL with implicit Q-learning" (Kostrikov, Nair and Levine, ICLR 2022, arXiv 2110.06169).

Values of the best actions in the data, without asking for the value of any action that is not in it:

    value    min over V    |expectile - 1{u < 0}| u^2,   u = min_i Q_i'(s,a) - V(s)                          (Eq. 5)
    actor    max over pi   min(exp(inverse_temperature (min_i Q_i'(s,a) - V(s))), weight_limit) log pi(a|s)  (Eq. 7)
    critic   min over Q_i  sum_i (Q_i(s,a) - y)^2,   y = r + gamma (1-d) V(s')                               (Eq. 6)
    target   Q_i' <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

in this order, each with the V just updated, at dataset actions only. pi is a Gaussian of the action itself: its mean is
a tanh of a network, its standard deviation a parameter that no state enters. The paper's tau is `expectile` here, its
beta `inverse_temperature`. Towards expectile 1, V becomes the largest Q in the data; at 0.5 it is the value of pi_beta.

`source` is the authors' code (ikostrikov/implicit_q_learning): orthogonal weights, the actor's learning rate along a
cosine that ends with the run (`schedule_steps`, scaled with the length of a run), rewards times 1000 / (largest -
smallest return of a trajectory), on AntMaze r - 1. Departure: dataset actions are as logged, there clipped to +-(1 -
1e-5). Not here: the dropout of their Adroit and Kitchen configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior.gaussian import tanh_mlp_export
from itrpo.nn.ensemble import batched, ensemble
from itrpo.nn.heads import BoundedMeanPolicy, QValue, StateValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, policy_losses, td
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    Metrics,
    Params,
    Preset,
    PRNGKey,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    expectile: float = 0.7  # the paper's tau: expectile of Q over the data's actions that V is (MuJoCo)
    inverse_temperature: float = 3.0  # the paper's beta: how sharply advantages weigh actions (MuJoCo)
    weight_limit: float = 100.0  # largest weight of a sample in the actor's regression (authors' code)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam, at the start
    schedule_steps: int = 1_000_000  # the actor's rate falls to 0 along a cosine in so many steps: the whole run
    critic_learning_rate: float = 3e-4  # Adam
    value_learning_rate: float = 3e-4  # Adam
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    value_hidden: tuple[int, ...] = (256, 256)  # of V
    initializer: Initializer = "fan_in"  # see itrpo.nn.network.Linear; orthogonal in the authors' code
    log_std_low: float = -5.0  # clip of the actor's log standard deviation (authors' code)
    log_std_high: float = 2.0  # its upper end


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    value: Trainable


class Networks(NamedTuple):
    """All that the losses know of the networks: batches in, batches out."""

    policy: Network  # observation [B, O] -> mean, log_std [B, A]
    critics: Network  # (observation [B, O], action [B, A]) -> [2, B]
    value: Network  # observation [B, O] -> [B]


# --- losses, for a batch -------------------------------------------------------------------------------------------


def value_loss(
    networks: Networks, config: Config, value_params: Params, batch: Transition, q: Array
) -> tuple[Array, Metrics]:
    """Expectile regression of V(s) onto q = min_i Q_i'(s,a), [B]."""
    value = networks.value.apply(value_params, batch.observation)
    loss = jnp.mean(td.expectile_loss(q - value, config.expectile))
    return loss, {"value_loss": loss}


def policy_loss(
    networks: Networks, config: Config, policy_params: Params, batch: Transition, advantages: Array
) -> tuple[Array, Metrics]:
    """-mean weight log pi(a|s), advantages = min_i Q_i'(s,a) - V(s), [B]."""
    mean, log_std = networks.policy.apply(policy_params, batch.observation)
    log_prob = jax.vmap(distributions.normal_log_prob)(batch.action, mean, log_std)
    weight = policy_losses.advantage_weight(advantages, config.inverse_temperature, config.weight_limit)
    loss = -jnp.mean(weight * log_prob)
    return loss, {"policy_loss": loss, "policy_weight": jnp.mean(weight)}


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = networks.critics.apply(critic_params, batch.observation, batch.action)
    loss = jnp.sum(jnp.mean(jnp.square(q - targets[None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation
    value: optax.GradientTransformation


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Value, actor, critics, targets. batch: [B, ...]; nothing is random."""
    q = jnp.min(networks.critics.apply(state.critic.target_params, batch.observation, batch.action), axis=0)

    value, value_metrics = gradient_step(
        state.value, optimizers.value, lambda params: value_loss(networks, config, params, batch, q)
    )
    advantages = q - networks.value.apply(value.params, batch.observation)
    policy, policy_metrics = gradient_step(
        state.policy, optimizers.policy, lambda params: policy_loss(networks, config, params, batch, advantages)
    )
    next_value = networks.value.apply(value.params, batch.next_observation)
    targets = td.bellman_target(batch.reward, batch.continues, config.gamma, next_value)
    critic, critic_metrics = gradient_step(
        state.critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )
    metrics = value_metrics | policy_metrics | critic_metrics | {"advantage": jnp.mean(advantages)}
    return State(policy, polyak(critic, config.polyak_rate), value), metrics


def make_optimizers(config: Config) -> Optimizers:
    schedule = optax.cosine_decay_schedule(config.policy_learning_rate, config.schedule_steps)
    return Optimizers(
        optax.adam(schedule), optax.adam(config.critic_learning_rate), optax.adam(config.value_learning_rate)
    )


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(
        lambda draw: BoundedMeanPolicy(draw, spec, config.policy_hidden, log_std_range, config.initializer)
    )
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    value = network(lambda draw: StateValue(draw, spec, config.value_hidden, config.initializer))
    networks = Networks(batched(policy), ensemble(batched(critic), 2), batched(value))
    optimizers = make_optimizers(config)

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        return State(
            trainable(optimizers.policy, networks.policy.init(policy_key)),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
            trainable(optimizers.value, networks.value.init(value_key)),
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        mean, log_std = policy.apply(state.policy.params, observation)
        return mean if greedy else jnp.clip(distributions.sample_normal(key, mean, log_std), -1.0, 1.0)

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        """Of the Gaussian, before samples outside [-1, 1] are clipped."""
        return distributions.normal_log_prob(action, *policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows. probe_q_policy is at the mean action, which no loss ever asks for."""
        mean, log_std = networks.policy.apply(state.policy.params, batch.observation)
        q_data = networks.critics.apply(state.critic.params, batch.observation, batch.action)
        q_policy = networks.critics.apply(state.critic.params, batch.observation, mean)
        return {
            "probe_q_data": jnp.mean(jnp.min(q_data, axis=0)),
            "probe_q_policy": jnp.mean(jnp.min(q_policy, axis=0)),
            "probe_value": jnp.mean(networks.value.apply(state.value.params, batch.observation)),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
            "probe_log_prob": jnp.mean(jax.vmap(distributions.normal_log_prob)(batch.action, mean, log_std)),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=lambda state: tanh_mlp_export(state.policy.params, spec),
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config, inverse_temperature="[0, inf)", schedule_steps="[1, inf)")


# Scaled rewards are a part of the method: what an inverse temperature means depends on them.
MATCHED = Preset(
    Config(),
    rewards=RewardRule(by_return_range=True),
    antmaze_rewards=RewardRule(shift=-1.0),
    tasks="iql",
    scaled_fields=("schedule_steps",),
)
PRESETS = {
    "source": MATCHED._replace(config=replace(MATCHED.config, initializer="orthogonal")),
    "matched": MATCHED,
}
IQL = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
