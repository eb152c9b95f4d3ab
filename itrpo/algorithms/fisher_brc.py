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
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.behavior import factored_mixture
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, policy_losses, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, Discount, InnerShare, NonNegative, Positive, Rate, Widths
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    DensityModel,
    Metrics,
    Params,
    Preset,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    gradient_penalty: NonNegative = 0.1  # weight of ||grad_a O||^2, the paper's lambda (launcher 0.1)
    target_entropy: float = -1.0  # nats per action dimension (launcher: -A)
    initial_entropy_weight: Positive = 1.0  # exp(log w) at the start
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam
    critic_learning_rate: Positive = 3e-4  # Adam
    entropy_learning_rate: Positive = 3e-4  # Adam, of log w
    policy_hidden: Widths = (256, 256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256, 256)  # of the critics
    critics: Count = 2  # ensemble size; the minimum counts
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit, glorot
    log_std_low: float = -20.0  # clip of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end
    action_edge: InnerShare = 1e-6  # dataset actions are clipped to +-(1 - edge) in log pi_beta


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # the offsets O_i, parameters stacked over the ensemble [N, ...]
    log_entropy_weight: Trainable  # scalar
    behavior_params: Params  # frozen


class Networks(NamedTuple):
    """Policy, offsets and pi_beta, and what moves the parameters of the first two and the entropy weight."""

    actor: GaussianActor
    offsets: Ensemble
    behavior: DensityModel
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    entropy_optimizer: optax.GradientTransformation


# --- values and losses ---------------------------------------------------------------------------------------------


def q_values(
    networks: Networks,
    offset_params: Params,
    behavior_params: Params,
    observation: Float[Array, "B O"],
    pre_tanh: Float[Array, "B A"],
) -> Float[Array, "N B"]:
    """Q_i(s,a) = O_i(s,a) + log pi_beta(a|s) at a = tanh(pre_tanh)."""
    log_prob = networks.behavior.pre_tanh_log_prob(behavior_params, observation, pre_tanh)
    offsets = networks.offsets.apply(offset_params, observation, jnp.tanh(pre_tanh))
    return offsets + (log_prob - distributions.tanh_log_det(pre_tanh))[None]


def critic_targets(
    networks: Networks, gamma: Scalar, state: State, batch: Transition, noise: Float[Array, "B A"]
) -> Float[Array, "B"]:
    """r + gamma (1-d) min_i Q_i'(s',a') with a' ~ pi."""
    pre_tanh = networks.actor.pre_tanh(state.policy.params, batch.next_observation, noise)
    q = q_values(networks, state.critic.target_params, state.behavior_params, batch.next_observation, pre_tanh)
    return td.bellman_target(batch.reward, batch.continues, gamma, td.ensemble_min(q))


def critic_loss(
    config: Config,
    networks: Networks,
    offset_params: Params,
    behavior_params: Params,
    batch: Transition,
    targets: Float[Array, "B"],
    policy_action: Float[Array, "B A"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a O_i(s,a~)||^2, a~ = policy_action ~ pi."""
    pre_tanh = distributions.to_pre_tanh(batch.action, config.action_edge)
    q = q_values(networks, offset_params, behavior_params, batch.observation, pre_tanh)
    slopes = divergences.action_gradient_penalty(
        lambda action: networks.offsets.apply(offset_params, batch.observation, action), policy_action
    )
    loss = td.squared_error(q, targets[None]) + config.gradient_penalty * jnp.mean(slopes)
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def policy_loss(
    networks: Networks,
    entropy_weight: Float[Array, ""],
    policy_params: Params,
    behavior_params: Params,
    offset_params: Params,
    observation: Float[Array, "B O"],
    noise: Float[Array, "B A"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of entropy_weight * log pi(a~|s) - min_i Q_i(s,a~)."""
    moments = networks.actor.moments(policy_params, observation)
    pre_tanh = distributions.normal_sample(noise, *moments)
    log_prob = distributions.tanh_normal_log_prob(pre_tanh, *moments)
    q = td.ensemble_min(q_values(networks, offset_params, behavior_params, observation, pre_tanh))
    loss = jnp.mean(policy_losses.soft_policy_loss(entropy_weight, log_prob, q))
    return loss, {"policy_loss": loss, "entropy": -jnp.mean(log_prob)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critic, then actor and entropy weight with the new critic, then targets. The key is consumed."""
    behavior_params = state.behavior_params
    target_noise, policy_noise, penalty_noise = jax.random.normal(key, (3, *batch.action.shape))
    targets = critic_targets(networks, config.gamma, state, batch, target_noise)
    policy_action, _ = networks.actor.sample(state.policy.params, batch.observation, penalty_noise)
    critic, critic_metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(config, networks, params, behavior_params, batch, targets, policy_action),
    )
    entropy_weight = jnp.exp(state.log_entropy_weight.params)
    policy, policy_metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: policy_loss(
            networks, entropy_weight, params, behavior_params, critic.params, batch.observation, policy_noise
        ),
    )
    shortfall = config.target_entropy * batch.action.shape[1] - policy_metrics["entropy"]
    log_entropy_weight, _ = gradient_step(
        state.log_entropy_weight, networks.entropy_optimizer, lambda log_weight: (-jnp.exp(log_weight) * shortfall, {})
    )
    state = State(policy, polyak(critic, config.polyak_rate), log_entropy_weight, behavior_params)
    return state, critic_metrics | policy_metrics | {"entropy_weight": entropy_weight}


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    actor = gaussian_actor(spec, config.policy_hidden, (config.log_std_low, config.log_std_high), config.initializer)
    networks = Networks(
        actor,
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer),
        behavior,
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(networks.policy_optimizer, actor.init(policy_key)),
            trainable(networks.critic_optimizer, networks.offsets.init(critic_key), target=True),
            trainable(networks.entropy_optimizer, jnp.log(jnp.asarray(config.initial_entropy_weight, jnp.float32))),
            behavior_params,
        )

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows; the KL to pi_beta is estimated from one sample per row."""
        observation, offset_params = batch.observation, state.critic.params
        mean, log_std = actor.moments(state.policy.params, observation)
        pre_tanh = distributions.normal_sample(jax.random.normal(key, mean.shape), mean, log_std)
        own = distributions.normal_log_prob(pre_tanh, mean, log_std)
        log_beta = behavior.pre_tanh_log_prob(state.behavior_params, observation, pre_tanh)
        data = distributions.to_pre_tanh(batch.action, config.action_edge)
        q = partial(q_values, networks, offset_params, state.behavior_params, observation)
        slopes = divergences.action_gradient_penalty(
            lambda action: networks.offsets.apply(offset_params, observation, action), jnp.tanh(pre_tanh)
        )
        return {
            "probe_kl": jnp.mean(own - log_beta),
            "probe_q_data": jnp.mean(td.ensemble_min(q(data))),
            "probe_q_policy": jnp.mean(td.ensemble_min(q(pre_tanh))),
            "probe_action_gradient_norm": jnp.mean(jnp.sqrt(slopes / config.critics)),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    def q_of(state: State, observation: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "N B"]:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        return q_values(networks, state.critic.params, state.behavior_params, observation, pre_tanh)

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=actor.acting(config.action_edge),
        probes=probes,
        batch_size=config.batch_size,
        q_values=q_of,
    )


# The source adds 5 to every reward, on AntMaze too, where it makes avoiding the goal optimal: not there (ours).
BONUS = RewardRule(shift=5.0)
MATCHED = Preset(
    Config(policy_hidden=(256, 256), critic_hidden=(256, 256)),
    "factored_mixture",
    factored_mixture.Config(),
    rewards=BONUS,
)
PRESETS = {
    "source": Preset(Config(), "factored_mixture", factored_mixture.Config(log_std_low=-20.0), rewards=BONUS),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}),
}
FISHER_BRC = AlgorithmEntry(
    Config, PRESETS, "source", ("factored_mixture", "mixture", "flow", "flow_matching", "gaussian"), make
)
