"""Fisher-BRC: offline RL with Fisher divergence critic regularisation (Kostrikov, Tompson, Fergus and Nachum 2021,
arXiv:2103.08050).

The critic is an offset on the log density of pi_beta, and the offset's action gradient is kept small, so that outside
the data the critic falls off as log pi_beta does:

    Q_i(s,a) = O_i(s,a) + log pi_beta(a|s)
    y        = r + gamma (1-d) min_i Q_i'(s',a'),   a' ~ pi(.|s')                                     no entropy in y
    critic   min over O_i   sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a O_i(s,a~)||^2,   a~ ~ pi(.|s)
    actor    min over pi    entropy_weight * log pi(a~|s) - min_i Q_i(s,a~), gradients through log pi_beta as well
    weight   min over w     -w * (log pi(a~|s) + target_entropy),   entropy_weight = exp(log w) >= 0

The backbone of the author's iTRPO code, which keeps the penalty and the +5 on rewards: without it beside iTRPO nobody
can say what Eq. (5) itself adds. Source: google-research/fisher_brc (fisher_brc.py, train_eval_offline.py), whose
launcher's constants `source` holds (penalty 0.1; the class's default is 1.0). Its networks start orthogonally (gain
sqrt(2), heads 1e-2); here from `fan_in`, since at widths of 256 both keep the scale of activations: a departure.
The density of actions is that in action space (tanh included), of dataset actions at +-(1 - action_edge); sampled
actions keep their pre-tanh value, where the source goes through atanh(clip(a)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior import factored_mixture, gaussian
from itrpo.nn.ensemble import ensemble
from itrpo.nn.heads import GaussianPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, td
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
    gradient_penalty: float = 0.1  # weight of ||grad_a O||^2, the paper's lambda (launcher 0.1)
    target_entropy: float = -1.0  # nats per action dimension (launcher: -A)
    initial_entropy_weight: float = 1.0  # exp(log w) at the start
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam
    critic_learning_rate: float = 3e-4  # Adam
    entropy_learning_rate: float = 3e-4  # Adam, of log w
    policy_hidden: tuple[int, ...] = (256, 256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # of the critics
    critics: int = 2  # ensemble size; the minimum counts
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit, glorot
    log_std_low: float = -20.0  # clip of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end
    action_edge: float = 1e-6  # dataset actions are clipped to +-(1 - edge) in log pi_beta


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # the offsets O_i, parameters stacked over the ensemble [critics, ...]
    log_entropy_weight: Trainable  # scalar
    behavior_params: Params  # frozen


class Networks(NamedTuple):
    """All that the losses know of policy, offset and pi_beta; observation [O] and pre_tanh [A] are single examples."""

    policy: Network  # observation -> (mean [A], log_std [A])
    offsets: Network  # (observation, action [A]) -> [critics]
    behavior: BehaviorModel


# --- losses, for one example ---------------------------------------------------------------------------------------


def sample(networks: Networks, policy_params: Params, observation: Array, key: PRNGKey) -> tuple[Array, Array]:
    """(pre-tanh action [A] of pi, its log density in action space); gradients flow through both."""
    moments = networks.policy.apply(policy_params, observation)
    pre_tanh = distributions.sample_normal(key, *moments)
    return pre_tanh, distributions.tanh_normal_log_prob(pre_tanh, *moments)


def q_values(
    networks: Networks, offset_params: Params, behavior_params: Params, observation: Array, pre_tanh: Array
) -> Array:
    """Q_i(s,a) = O_i(s,a) + log pi_beta(a|s) at a = tanh(pre_tanh): [critics]."""
    assert networks.behavior.pre_tanh_log_prob is not None
    log_prob = networks.behavior.pre_tanh_log_prob(behavior_params, observation, pre_tanh)
    offsets = networks.offsets.apply(offset_params, observation, jnp.tanh(pre_tanh))
    return offsets + log_prob - distributions.tanh_log_det(pre_tanh)


def critic_target(
    networks: Networks,
    gamma: Array | float,
    policy_params: Params,
    behavior_params: Params,
    target_offset_params: Params,
    transition: Transition,
    key: PRNGKey,
) -> Array:
    """r + gamma (1-d) min_i Q_i'(s',a') with a' ~ pi, for one transition."""
    pre_tanh, _ = sample(networks, policy_params, transition.next_observation, key)
    q = q_values(networks, target_offset_params, behavior_params, transition.next_observation, pre_tanh)
    return td.bellman_target(transition.reward, transition.continues, gamma, td.ensemble_min(q))


def critic_loss(
    networks: Networks,
    gradient_penalty: Array | float,
    edge: float,
    offset_params: Params,
    behavior_params: Params,
    transition: Transition,
    target: Array,
    policy_action: Array,
) -> Array:
    """sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a O_i(s,a~)||^2 with a~ = policy_action ~ pi."""
    pre_tanh = distributions.to_pre_tanh(transition.action, edge)
    q = q_values(networks, offset_params, behavior_params, transition.observation, pre_tanh)
    penalty = divergences.action_gradient_penalty(
        lambda action: networks.offsets.apply(offset_params, transition.observation, action), policy_action
    )
    return jnp.sum(jnp.square(q - target)) + gradient_penalty * penalty


def policy_loss(
    networks: Networks,
    entropy_weight: Array,
    policy_params: Params,
    behavior_params: Params,
    offset_params: Params,
    observation: Array,
    key: PRNGKey,
) -> tuple[Array, Array]:
    """entropy_weight * log pi(a~|s) - min_i Q_i(s,a~), and log pi(a~|s) alone."""
    pre_tanh, log_prob = sample(networks, policy_params, observation, key)
    q = q_values(networks, offset_params, behavior_params, observation, pre_tanh)
    return entropy_weight * log_prob - td.ensemble_min(q), log_prob


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation
    entropy: optax.GradientTransformation


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Critic, then actor and entropy weight with the new critic, then targets. batch: [B, ...]; the key is consumed."""
    rows = batch.reward.shape[0]
    target_key, policy_key, penalty_key = jax.random.split(key, (3, rows))
    behavior = state.behavior_params
    targets = jax.lax.stop_gradient(
        jax.vmap(partial(critic_target, networks, config.gamma), in_axes=(None, None, None, 0, 0))(
            state.policy.params, behavior, state.critic.target_params, batch, target_key
        )
    )
    samples, _ = jax.vmap(partial(sample, networks, state.policy.params))(batch.observation, penalty_key)
    policy_action = jax.lax.stop_gradient(jnp.tanh(samples))

    def mean_critic_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(
            partial(critic_loss, networks, config.gradient_penalty, config.action_edge), in_axes=(None, None, 0, 0, 0)
        )
        loss = jnp.mean(each(params, behavior, batch, targets, policy_action))
        return loss, {"critic_loss": loss}

    critic, critic_metrics = gradient_step(state.critic, optimizers.critic, mean_critic_loss)
    entropy_weight = jnp.exp(state.log_entropy_weight.params)

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(partial(policy_loss, networks, entropy_weight), in_axes=(None, None, None, 0, 0))
        losses, log_probs = each(params, behavior, critic.params, batch.observation, policy_key)
        return jnp.mean(losses), {"policy_loss": jnp.mean(losses), "entropy": -jnp.mean(log_probs)}

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)
    shortfall = config.target_entropy * batch.action.shape[1] - policy_metrics["entropy"]

    def entropy_loss(log_weight: Array) -> tuple[Array, Metrics]:
        return -jnp.exp(log_weight) * shortfall, {}

    log_entropy_weight, _ = gradient_step(state.log_entropy_weight, optimizers.entropy, entropy_loss)
    metrics = critic_metrics | policy_metrics | {"q_target": jnp.mean(targets), "entropy_weight": entropy_weight}
    return State(policy, polyak(critic, config.polyak_rate), log_entropy_weight, behavior), metrics


def make(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(lambda draw: GaussianPolicy(draw, spec, config.policy_hidden, log_std_range, config.initializer))
    offset = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    networks = Networks(policy, ensemble(offset, config.critics), behavior)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(optimizers.policy, policy.init(policy_key)),
            trainable(optimizers.critic, networks.offsets.init(critic_key), target=True),
            trainable(optimizers.entropy, jnp.log(jnp.asarray(config.initial_entropy_weight, jnp.float32))),
            behavior_params,
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        if greedy:
            return jnp.tanh(policy.apply(state.policy.params, observation)[0])
        return jnp.tanh(sample(networks, state.policy.params, observation, key)[0])

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        return distributions.tanh_normal_log_prob(pre_tanh, *policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows; the KL to pi_beta is estimated from one sample per row."""

        def one(it: Transition, key: PRNGKey) -> Metrics:
            behavior_params, offsets = state.behavior_params, state.critic.params
            pre_tanh, own = sample(networks, state.policy.params, it.observation, key)
            assert behavior.pre_tanh_log_prob is not None
            log_beta = behavior.pre_tanh_log_prob(behavior_params, it.observation, pre_tanh)
            data = distributions.to_pre_tanh(it.action, config.action_edge)
            gradient = divergences.action_gradient_penalty(
                lambda action: networks.offsets.apply(offsets, it.observation, action), jnp.tanh(pre_tanh)
            )
            q_data = q_values(networks, offsets, behavior_params, it.observation, data)
            q_policy = q_values(networks, offsets, behavior_params, it.observation, pre_tanh)
            return {
                "probe_kl": own - (log_beta - distributions.tanh_log_det(pre_tanh)),
                "probe_q_data": td.ensemble_min(q_data),
                "probe_q_policy": td.ensemble_min(q_policy),
                "probe_action_gradient_norm": jnp.sqrt(gradient / config.critics),
                "probe_policy_std": jnp.mean(jnp.exp(policy.apply(state.policy.params, it.observation)[1])),
            }

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


MATCHED = Config(policy_hidden=(256, 256), critic_hidden=(256, 256))
# The source adds 5 to every reward, on AntMaze too, where it makes avoiding the goal optimal: not there (ours).
BONUS = RewardRule(shift=5.0)
PRESETS = {
    "source": Preset(Config(), "factored_mixture", factored_mixture.Config(log_std_low=-20.0), rewards=BONUS),
    "matched": Preset(MATCHED, "factored_mixture", factored_mixture.Config(), rewards=BONUS),
}
FISHER_BRC = AlgorithmEntry(Config, PRESETS, "source", ("factored_mixture", "mixture", "gaussian"), make, validate)
