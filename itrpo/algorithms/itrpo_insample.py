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

from itrpo.behavior import gaussian
from itrpo.nn.ensemble import ensemble
from itrpo.nn.heads import GaussianPolicy, QValue, StateValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, policy_losses, td
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    BehaviorModel,
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
    alpha: float = 0.9  # weight of the KL to pi_beta, and temperature of the actor (author's code)
    tau: float = 0.03  # shaping factor in [0, 1] (author's code)
    expectile: float = 0.7  # of the value's regression (author's code)
    weight_limit: float = 100.0  # largest weight of a sample in the actor's regression (author's code)
    log_ratio_low: float = -math.inf  # clip of l, and of -l, before tau * alpha (author's code: none)
    log_ratio_high: float = math.inf  # its upper end
    gradient_penalty: float = 0.1  # weight of ||grad_a Q||^2 (author's code, from Fisher-BRC)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam (author's code; its optional cosine schedule is off)
    critic_learning_rate: float = 3e-4  # Adam
    value_learning_rate: float = 3e-4  # Adam
    policy_hidden: tuple[int, ...] = (256, 256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # of the critics
    value_hidden: tuple[int, ...] = (256, 256, 256)  # of V
    critics: int = 2  # ensemble size; the minimum counts
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit (author's code), glorot
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    action_edge: float = 1e-3  # dataset actions are clipped to +-(1 - edge) in ratios (ours; author's code 1e-6)


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [critics, ...]
    value: Trainable
    behavior_params: Params  # frozen


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O] and action [A] are single examples."""

    policy: Network  # observation -> (mean [A], log_std [A])
    critic: Network  # (observation, action) -> [critics]
    value: Network  # observation -> scalar
    behavior: BehaviorModel


# --- losses, for one example ---------------------------------------------------------------------------------------


def log_ratio(networks: Networks, edge: float, policy_params: Params, behavior_params: Params, it: Transition) -> Array:
    """l = log pi(a|s) - log pi_beta(a|s) at the dataset action; the tanh Jacobian cancels."""
    assert networks.behavior.pre_tanh_log_prob is not None
    pre_tanh = distributions.to_pre_tanh(it.action, edge)
    own = distributions.normal_log_prob(pre_tanh, *networks.policy.apply(policy_params, it.observation))
    return own - networks.behavior.pre_tanh_log_prob(behavior_params, it.observation, pre_tanh)


def critic_target(networks: Networks, config: Config, value_params: Params, it: Transition, ratio: Array) -> Array:
    """r + tau alpha clip(l) + gamma (1-d) V(s'), for one transition."""
    shaping = td.shaping_reward(ratio, config.alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
    return td.bellman_target(
        it.reward + shaping, it.continues, config.gamma, networks.value.apply(value_params, it.next_observation)
    )


def critic_loss(
    networks: Networks,
    gradient_penalty: Array | float,
    critic_params: Params,
    it: Transition,
    target: Array,
    policy_action: Array,
) -> Array:
    """sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2 with a~ = policy_action ~ pi."""
    q = networks.critic.apply(critic_params, it.observation, it.action)
    penalty = divergences.action_gradient_penalty(
        lambda action: networks.critic.apply(critic_params, it.observation, action), policy_action
    )
    return jnp.sum(jnp.square(q - target)) + gradient_penalty * penalty


def value_loss(
    networks: Networks, config: Config, value_params: Params, it: Transition, q: Array, ratio: Array
) -> Array:
    """Expectile regression of V(s) onto q + alpha clip(-l), where q = min_i Q_i'(s,a)."""
    penalised = q + config.alpha * jnp.clip(-ratio, config.log_ratio_low, config.log_ratio_high)
    return td.expectile_loss(penalised - networks.value.apply(value_params, it.observation), config.expectile)


def policy_loss(
    networks: Networks, config: Config, policy_params: Params, it: Transition, advantage: Array
) -> tuple[Array, Array]:
    """-min(exp(advantage / alpha), weight_limit) * log pi(a|s), and the weight alone. advantage = min_i Q_i' - V."""
    pre_tanh = distributions.to_pre_tanh(it.action, config.action_edge)
    log_prob = distributions.tanh_normal_log_prob(pre_tanh, *networks.policy.apply(policy_params, it.observation))
    weight = policy_losses.advantage_weight(advantage, 1.0 / config.alpha, config.weight_limit)
    return -weight * log_prob, weight


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
    """Critic, value and actor, each from the parameters before the step; then targets. batch: [B, ...]."""
    behavior = state.behavior_params
    ratios = jax.vmap(partial(log_ratio, networks, config.action_edge, state.policy.params, behavior))(batch)
    targets = jax.vmap(partial(critic_target, networks, config, state.value.params))(batch, ratios)
    q = td.ensemble_min(
        jax.vmap(partial(networks.critic.apply, state.critic.target_params))(batch.observation, batch.action)
    )
    advantages = q - jax.vmap(partial(networks.value.apply, state.value.params))(batch.observation)

    def sample(observation: Array, key: PRNGKey) -> Array:
        return jnp.tanh(distributions.sample_normal(key, *networks.policy.apply(state.policy.params, observation)))

    policy_action = jax.vmap(sample)(batch.observation, jax.random.split(key, batch.reward.shape[0]))

    def mean_critic_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(partial(critic_loss, networks, config.gradient_penalty, params))
        loss = jnp.mean(each(batch, targets, policy_action))
        return loss, {"critic_loss": loss}

    def mean_value_loss(params: Params) -> tuple[Array, Metrics]:
        loss = jnp.mean(jax.vmap(partial(value_loss, networks, config, params))(batch, q, ratios))
        return loss, {"value_loss": loss}

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        losses, weights = jax.vmap(partial(policy_loss, networks, config, params))(batch, advantages)
        return jnp.mean(losses), {"policy_loss": jnp.mean(losses), "policy_weight": jnp.mean(weights)}

    critic, critic_metrics = gradient_step(state.critic, optimizers.critic, mean_critic_loss)
    value, value_metrics = gradient_step(state.value, optimizers.value, mean_value_loss)
    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)
    metrics = critic_metrics | value_metrics | policy_metrics | {"q_target": jnp.mean(targets)}
    return State(policy, polyak(critic, config.polyak_rate), value, behavior), metrics


def make(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(lambda draw: GaussianPolicy(draw, spec, config.policy_hidden, log_std_range, config.initializer))
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    value = network(lambda draw: StateValue(draw, spec, config.value_hidden, config.initializer))
    networks = Networks(policy, ensemble(critic, config.critics), value, behavior)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.value_learning_rate),
    )

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        return State(
            trainable(optimizers.policy, policy.init(policy_key)),
            trainable(optimizers.critic, networks.critic.init(critic_key), target=True),
            trainable(optimizers.value, value.init(value_key)),
            behavior_params,
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        mean, log_std = policy.apply(state.policy.params, observation)
        return jnp.tanh(mean if greedy else distributions.sample_normal(key, mean, log_std))

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        return distributions.tanh_normal_log_prob(pre_tanh, *policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows, all at dataset actions but the last two."""

        def one(it: Transition, key: PRNGKey) -> Metrics:
            ratio = log_ratio(networks, config.action_edge, state.policy.params, state.behavior_params, it)
            moments = policy.apply(state.policy.params, it.observation)
            pre_tanh = distributions.sample_normal(key, *moments)
            assert behavior.pre_tanh_log_prob is not None
            log_beta = behavior.pre_tanh_log_prob(state.behavior_params, it.observation, pre_tanh)
            low, high = config.log_ratio_low, config.log_ratio_high
            return {
                "probe_kl": distributions.normal_log_prob(pre_tanh, *moments) - log_beta,  # one sample per row
                "probe_log_ratio": ratio,
                "probe_shaping_reward": td.shaping_reward(ratio, config.alpha, config.tau, low, high),
                "probe_value": value.apply(state.value.params, it.observation),
                "probe_q_data": td.ensemble_min(critic_of(it.observation, it.action)),
                "probe_q_policy": td.ensemble_min(critic_of(it.observation, jnp.tanh(pre_tanh))),
                "probe_policy_std": jnp.mean(jnp.exp(moments[1])),
            }

        critic_of = partial(networks.critic.apply, state.critic.params)
        each = jax.vmap(one)(batch, jax.random.split(key, batch.reward.shape[0]))
        return {name: jnp.mean(values) for name, values in each.items()}

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=lambda state: gaussian.tanh_mlp_export(state.policy.params, spec),
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config)


AUTHOR = Config(initializer="rlkit", action_edge=1e-6)
MATCHED = Config(policy_hidden=(256, 256), critic_hidden=(256, 256), value_hidden=(256, 256))
# The author adds 5 to every reward; not on AntMaze, where that would make avoiding the goal optimal (ours).
BONUS = RewardRule(shift=5.0)
PRESETS = {
    "source": Preset(AUTHOR, "gaussian", gaussian.Config(initializer="rlkit"), rewards=BONUS),
    "matched": Preset(MATCHED, "gaussian", rewards=BONUS),
}
ITRPO_INSAMPLE = AlgorithmEntry(Config, PRESETS, "source", ("gaussian", "mixture"), make, validate)
