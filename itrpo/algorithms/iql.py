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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.nn import critics
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import ConstantStdPolicy, StateValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, policy_losses, td
from itrpo.ranges import Count, Discount, InnerShare, NonNegative, Positive, PositiveOrInf, Rate, Widths
from itrpo.types import Acting, Algorithm, AlgorithmEntry, Metrics, Params, Preset, RewardRule, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    expectile: InnerShare = 0.7  # the paper's tau: expectile of Q over the data's actions that V is (MuJoCo)
    inverse_temperature: NonNegative = 3.0  # the paper's beta: how sharply advantages weigh actions (MuJoCo)
    weight_limit: PositiveOrInf = 100.0  # largest weight of a sample in the actor's regression (authors' code)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam, at the start
    schedule_steps: Count = 1_000_000  # the actor's rate falls to 0 along a cosine in so many steps: the whole run
    critic_learning_rate: Positive = 3e-4  # Adam
    value_learning_rate: Positive = 3e-4  # Adam
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    value_hidden: Widths = (256, 256)  # of V
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ours)
    initializer: Initializer = "fan_in"  # see itrpo.nn.network.Linear; orthogonal in the authors' code
    log_std_low: float = -5.0  # clip of the actor's log standard deviation (authors' code)
    log_std_high: float = 2.0  # its upper end


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    value: Trainable


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    policy: Network  # observation [B, O] -> mean, log_std [B, A]
    critics: Ensemble
    value: Network  # observation [B, O] -> [B]
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    value_optimizer: optax.GradientTransformation


# --- losses --------------------------------------------------------------------------------------------------------


def value_loss(
    config: Config, networks: Networks, value_params: Params, batch: Transition, q: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Expectile regression of V(s) onto q = min_i Q_i'(s,a)."""
    value = networks.value.apply(value_params, batch.observation)
    loss = jnp.mean(td.expectile_loss(q - value, config.expectile))
    return loss, {"value_loss": loss}


def policy_loss(
    config: Config, networks: Networks, policy_params: Params, batch: Transition, advantages: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """-mean weight log pi(a|s), advantages = min_i Q_i'(s,a) - V(s)."""
    log_prob = distributions.normal_log_prob(batch.action, *networks.policy.apply(policy_params, batch.observation))
    weight = policy_losses.advantage_weight(advantages, config.inverse_temperature, config.weight_limit)
    loss = -jnp.mean(weight * log_prob)
    return loss, {"policy_loss": loss, "policy_weight": jnp.mean(weight)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Value, actor, critics, targets. Nothing is random."""
    q = critics.least_q(networks.critics, state.critic.target_params, batch.observation, batch.action)

    value, value_metrics = gradient_step(
        state.value, networks.value_optimizer, lambda params: value_loss(config, networks, params, batch, q)
    )
    advantages = q - networks.value.apply(value.params, batch.observation)
    policy, policy_metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(config, networks, params, batch, advantages)
    )
    next_value = networks.value.apply(value.params, batch.next_observation)
    targets = td.bellman_target(batch.reward, batch.continues, config.gamma, next_value)
    critic, critic_metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    metrics = value_metrics | policy_metrics | critic_metrics | {"advantage": jnp.mean(advantages)}
    return State(policy, polyak(critic, config.polyak_rate), value), metrics


# --- networks, acting, and what is measured ------------------------------------------------------------------------


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    hidden, log_std_range = config.policy_hidden, (config.log_std_low, config.log_std_high)
    return Networks(
        network(
            lambda draw: ConstantStdPolicy(draw, spec, hidden, 0.0, log_std_range, config.initializer, bounded=True)
        ),
        critic_ensemble(spec, config.critic_hidden, 2, config.initializer, config.critic_layer_norm),
        network(lambda draw: StateValue(draw, spec, config.value_hidden, config.initializer)),
        optax.adam(optax.cosine_decay_schedule(config.policy_learning_rate, config.schedule_steps)),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.value_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step."""
    policy_key, critic_key, value_key = jax.random.split(key, 3)
    return State(
        trainable(networks.policy_optimizer, networks.policy.init(policy_key)),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        trainable(networks.value_optimizer, networks.value.init(value_key)),
    )


def acting(policy: Network) -> Acting:
    """The mean, or a sample clipped to [-1, 1]; densities are those of the Gaussian, before the clip."""

    def act(state: State, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
        mean, log_std = policy.apply(state.policy.params, observation)
        if greedy:
            return mean
        return jnp.clip(distributions.normal_sample(jax.random.normal(key, mean.shape), mean, log_std), -1.0, 1.0)

    def log_prob(state: State, observation: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "B"]:
        return distributions.normal_log_prob(action, *policy.apply(state.policy.params, observation))

    def export(state: State) -> dict[str, Any]:
        return {"kind": "tanh_mlp", **layer_arrays(state.policy.params.mlp)}

    return Acting(act, log_prob, export)


def probes(networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows. probe_q_policy is at the mean action, which no loss ever asks for."""
    mean, log_std = networks.policy.apply(state.policy.params, batch.observation)
    return critics.probes(networks.critics, state.critic.params, batch, mean) | {
        "probe_value": jnp.mean(networks.value.apply(state.value.params, batch.observation)),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        "probe_log_prob": jnp.mean(distributions.normal_log_prob(batch.action, mean, log_std)),
    }


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    return Algorithm(
        init=partial(start, networks),
        update=partial(update, config, networks),
        acting=acting(networks.policy),
        probes=partial(probes, networks),
        batch_size=config.batch_size,
        q_values=q_values(networks.critics),
    )


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
    "quick": quick(MATCHED, {"expectile": 0.7, "inverse_temperature": 1.0}, tasks="iql_quick"),
}
IQL = AlgorithmEntry(Config, PRESETS, "source", (), make)
