"""iTRPO in-sample: Eq. (5)'s shaping reward without any action outside the data (the author's second code, IKL2).

The iTRPO author's repository holds, beside the algorithm of the paper (`itrpo`), a variant that learns from dataset
actions alone, as IQL does (arXiv:2110.06169), with iTRPO's term. Zhang and Tan, "An Implicit Trust Region Approach to
Behavior Regularized Offline RL", AAAI 2024; source: offorRL, ikl2_trainer.py and ikl2.yaml, where alpha and tau are
swapped. With l = log pi(a|s) - log pi_beta(a|s) at a dataset action:

    critic   min over Q_i   sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2,  a~ ~ pi(.|s)
             y = r + tau * alpha * clip(l, low, high) + gamma (1-d) V(s')
    value    min over V     |expectile - 1{x < 0}| x^2,   x = min_i Q_i'(s,a) + alpha * clip(-l, low, high) - V(s)
    actor    max over pi    min(exp((min_i Q_i'(s,a) - V(s)) / alpha), weight_limit) * log pi(a|s)
    target   Q_i' <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

The same two numbers clip l and -l, as in the source. Every loss is taken at the parameters from before the step (the
source's order). Whether the paper's AntMaze numbers are of this variant is not known; its text describes `itrpo`.
Departure: ratios are taken before the tanh, at actions clipped to +-(1 - action_edge), as in `itrpo`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.behavior import gaussian
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.critics import least_q, penalised_critic_loss, q_values
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.heads import StateValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, policy_losses, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, Discount, InnerShare, NonNegative, Positive, PositiveOrInf, Rate, Share, Widths
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    DensityModel,
    Metrics,
    Params,
    Preset,
    RewardRule,
    Snapshot,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    alpha: Positive = 0.9  # weight of the KL to pi_beta, and temperature of the actor (author's code)
    tau: Share = 0.03  # shaping factor in [0, 1] (author's code)
    expectile: InnerShare = 0.7  # of the value's regression (author's code)
    weight_limit: PositiveOrInf = 100.0  # largest weight of a sample in the actor's regression (author's code)
    log_ratio_low: float = -math.inf  # clip of l, and of -l, before tau * alpha (author's code: none)
    log_ratio_high: float = math.inf  # its upper end
    gradient_penalty: NonNegative = 0.1  # weight of ||grad_a Q||^2 (author's code, from Fisher-BRC)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam (author's code; its optional cosine schedule is off)
    critic_learning_rate: Positive = 3e-4  # Adam
    value_learning_rate: Positive = 3e-4  # Adam
    policy_hidden: Widths = (256, 256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256, 256)  # of the critics
    value_hidden: Widths = (256, 256, 256)  # of V
    critics: Count = 2  # ensemble size; the minimum counts
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit (author's code), glorot
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    action_edge: InnerShare = 1e-3  # dataset actions are clipped to +-(1 - edge) in ratios (ours; author's code 1e-6)


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]
    value: Trainable
    behavior_params: Params  # frozen


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    actor: GaussianActor
    critics: Ensemble
    value: Network  # observation [B, O] -> [B]
    behavior: DensityModel  # frozen
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    value_optimizer: optax.GradientTransformation


# --- targets and losses --------------------------------------------------------------------------------------------


def log_ratio(
    networks: Networks, edge: Scalar, policy_params: Params, behavior_params: Params, batch: Transition
) -> Float[Array, "B"]:
    """l = log pi(a|s) - log pi_beta(a|s) at the dataset action; the tanh Jacobian cancels."""
    pre_tanh = distributions.to_pre_tanh(batch.action, edge)
    own = distributions.normal_log_prob(pre_tanh, *networks.actor.moments(policy_params, batch.observation))
    return own - networks.behavior.pre_tanh_log_prob(behavior_params, batch.observation, pre_tanh)


def critic_targets(
    networks: Networks, config: Config, value_params: Params, batch: Transition, ratio: Float[Array, "B"]
) -> Float[Array, "B"]:
    """r + tau alpha clip(l) + gamma (1-d) V(s')."""
    shaping = td.shaping_reward(ratio, config.alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
    next_value = networks.value.apply(value_params, batch.next_observation)
    return td.bellman_target(batch.reward + shaping, batch.continues, config.gamma, next_value)


def value_loss(
    networks: Networks,
    config: Config,
    value_params: Params,
    batch: Transition,
    q: Float[Array, "B"],
    ratio: Float[Array, "B"],
) -> tuple[Float[Array, ""], Metrics]:
    """Expectile regression of V(s) onto q + alpha clip(-l), where q = min_i Q_i'(s,a)."""
    penalised = q + config.alpha * jnp.clip(-ratio, config.log_ratio_low, config.log_ratio_high)
    error = penalised - networks.value.apply(value_params, batch.observation)
    loss = jnp.mean(td.expectile_loss(error, config.expectile))
    return loss, {"value_loss": loss}


def policy_loss(
    networks: Networks, config: Config, policy_params: Params, batch: Transition, advantage: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of -min(exp(advantage / alpha), weight_limit) * log pi(a|s); advantage = min_i Q_i' - V."""
    log_prob = networks.actor.log_prob(policy_params, batch.observation, batch.action, config.action_edge)
    weight = policy_losses.advantage_weight(advantage, 1.0 / config.alpha, config.weight_limit)
    loss = -jnp.mean(weight * log_prob)
    return loss, {"policy_loss": loss, "policy_weight": jnp.mean(weight)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critic, value and actor, each from the parameters before the step; then targets. The key is consumed."""
    ratio = log_ratio(networks, config.action_edge, state.policy.params, state.behavior_params, batch)
    targets = critic_targets(networks, config, state.value.params, batch, ratio)
    q = td.ensemble_min(networks.critics.apply(state.critic.target_params, batch.observation, batch.action))
    advantage = q - networks.value.apply(state.value.params, batch.observation)
    noise = jax.random.normal(key, batch.action.shape)
    policy_action, _ = networks.actor.sample(state.policy.params, batch.observation, noise)

    critic, critic_metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: penalised_critic_loss(
            networks.critics, config.gradient_penalty, params, batch, targets, policy_action
        ),
    )
    value, value_metrics = gradient_step(
        state.value, networks.value_optimizer, lambda params: value_loss(networks, config, params, batch, q, ratio)
    )
    policy, policy_metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(networks, config, params, batch, advantage)
    )
    state = State(policy, polyak(critic, config.polyak_rate), value, state.behavior_params)
    return state, critic_metrics | value_metrics | policy_metrics


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    log_std_range = (config.log_std_low, config.log_std_high)
    networks = Networks(
        gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer),
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer),
        network(lambda draw: StateValue(draw, spec, config.value_hidden, config.initializer)),
        behavior,
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.value_learning_rate),
    )

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        return State(
            trainable(networks.policy_optimizer, networks.actor.init(policy_key)),
            trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
            trainable(networks.value_optimizer, networks.value.init(value_key)),
            behavior_params,
        )

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows, all at dataset actions but probe_kl and probe_q_policy: at one sample per row."""
        ratio = log_ratio(networks, config.action_edge, state.policy.params, state.behavior_params, batch)
        shaping = td.shaping_reward(ratio, config.alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
        mean, log_std = networks.actor.moments(state.policy.params, batch.observation)
        pre_tanh = distributions.normal_sample(jax.random.normal(key, mean.shape), mean, log_std)
        own = distributions.normal_log_prob(pre_tanh, mean, log_std)
        log_beta = behavior.pre_tanh_log_prob(state.behavior_params, batch.observation, pre_tanh)
        q_at = partial(networks.critics.apply, state.critic.params, batch.observation)
        return {
            "probe_kl": jnp.mean(own - log_beta),
            "probe_log_ratio": jnp.mean(ratio),
            "probe_shaping_reward": jnp.mean(shaping),
            "probe_value": jnp.mean(networks.value.apply(state.value.params, batch.observation)),
            "probe_q_data": jnp.mean(td.ensemble_min(q_at(batch.action))),
            "probe_q_policy": jnp.mean(td.ensemble_min(q_at(jnp.tanh(pre_tanh)))),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    def watch(state: State, batch: Transition, key: Key[Array, ""]) -> Snapshot:
        ratio = log_ratio(networks, config.action_edge, state.policy.params, state.behavior_params, batch)
        target = critic_targets(networks, config, state.value.params, batch, ratio)
        shaping = td.shaping_reward(ratio, config.alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
        q = least_q(networks.critics, state.critic.params, batch.observation, batch.action)
        moments = networks.actor.moments(state.policy.params, batch.observation)
        return Snapshot(*moments, target, q - shaping, q - target)

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=networks.actor.acting(config.action_edge),
        probes=probes,
        batch_size=config.batch_size,
        watch=watch,
        q_values=q_values(networks.critics),
    )


AUTHOR = Config(initializer="rlkit", action_edge=1e-6)
MATCHED = Config(policy_hidden=(256, 256), critic_hidden=(256, 256), value_hidden=(256, 256))
# The author adds 5 to every reward; not on AntMaze, where that would make avoiding the goal optimal (ours).
BONUS = RewardRule(shift=5.0)
PRESETS = {
    "source": Preset(AUTHOR, "gaussian", gaussian.Config(initializer="rlkit"), rewards=BONUS),
    "matched": Preset(MATCHED, "gaussian", rewards=BONUS),
    "quick": quick(Preset(MATCHED, "gaussian", gaussian.Config(), rewards=BONUS), {}),
}
ITRPO_INSAMPLE = AlgorithmEntry(Config, PRESETS, "source", ("gaussian", "mixture", "flow", "flow_matching"), make)
