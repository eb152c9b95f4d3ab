"""BPPO, "Behavior proximal policy optimization" (Zhuang, Lei, Liu, Wang and Guo, ICLR 2023, arXiv 2302.11312).

PPO on a dataset: pi begins as pi_beta, and each step is small against the policy of the last improvement, pi_k:

    Q         min over Q   (Q(s,a) - y)^2,   y = r + gamma (1-d) Q'(s',a'),   a' as logged
    V         min over V   (V(s) - Q'(s,a))^2
    policy    max over pi  E_{s~D, a~pi_k} [min(rho w A, clip(rho, 1 - eps, 1 + eps) w A)] + h H[pi],   rho = pi / pi_k
              A = Q(s,a) - V(s), less its mean, over its deviation;   w = omega where A > 0, else 1 - omega
    pi_k      <- pi        where E_{s~D} Q(s, mode of pi) is larger than that of pi_k

Q and V learn for `critic_steps` and are frozen then; pi moves in what is left of the run. eps, and the learning rate of
pi, fall in its first `decay_steps` steps.

`source` is the authors' code (Dragon-Zhuang/BPPO): 2M steps of Q, 500,000 of cloning, 1,000 of pi. Departures: there
the environment plays every policy; pi_k moves where the score is a new best, and the best is reported, as is the best
of all clones. Here Q decides, and the last policy counts. V regresses there on discounted returns, which has the same
solution, the value of pi_beta. Q and V have no ReLU at their ends, which keeps them above 0 there. Policies are
tanh-Gaussian, as pi_beta's model is.
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
from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import LikelihoodFit
from itrpo.errors import InputError
from itrpo.nn import critics
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.critics import critic_step, least_q, q_values
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.heads import StateValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, td, trust_region
from itrpo.ranges import Count, CountOrZero, Discount, InnerShare, NonNegative, Positive, Rate, Share, Widths
from itrpo.types import Algorithm, AlgorithmEntry, DensityModel, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    clip_ratio: Positive = 0.25  # eps at the start: how far rho counts from 1
    clip_decay: Rate = 0.96  # of eps, with each of the first `decay_steps` steps of pi
    rate_decay: Rate = 0.96  # of pi's learning rate, with every second of them
    decay_steps: CountOrZero = 200  # steps of pi in which both fall
    omega: Share = 0.9  # weight of samples with a positive advantage; 1 - omega of the others
    entropy_weight: NonNegative = 0.0  # h; the authors name 0.01 for some medium sets
    critic_steps: CountOrZero = 2_000_000  # gradient steps of Q and V, before pi's
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.025  # target averaging per step (authors' code: 0.05 at every second)
    batch_size: Count = 512  # transitions per step
    policy_learning_rate: Positive = 1e-4  # Adam, with its epsilon at 1e-5
    critic_learning_rate: Positive = 1e-4  # Adam
    value_learning_rate: Positive = 1e-4  # Adam
    gradient_limit: Positive = 0.5  # of the norm of pi's gradient
    policy_hidden: Widths = (1024, 1024)  # widths of the hidden layers; pi_beta's must be the same
    critic_hidden: Widths = (1024, 1024)  # of Q
    value_hidden: Widths = (512, 512, 512)  # of V
    critics: Count = 1  # Q is the least of so many
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ours)
    initializer: Initializer = "fan_in"  # of Q and V (PyTorch's default); see itrpo.nn.network.Linear
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation, as pi_beta's
    log_std_high: float = 0.0  # its upper end
    log_std_squash: bool = True  # map onto the range by a tanh instead of clipping
    action_edge: InnerShare = 1e-3  # dataset actions are clipped to +-(1 - edge) where their density is asked


class State(NamedTuple):
    policy: Trainable
    old_policy_params: Params  # pi_k
    critic: Trainable  # parameters of Q [critics, ...]
    value: Trainable
    behavior_params: Params  # frozen
    metrics: Metrics  # each of its last step: critics and policy never step together


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    actor: GaussianActor
    critics: Ensemble
    value: Network  # observation [B, O] -> [B]
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    value_optimizer: optax.GradientTransformation


# --- losses --------------------------------------------------------------------------------------------------------


def value_loss(
    networks: Networks, value_params: Params, batch: Transition, q: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """(V(s) - Q'(s,a))^2, a as logged: V becomes the value of pi_beta."""
    loss = td.squared_error(networks.value.apply(value_params, batch.observation)[None], q[None])
    return loss, {"value_loss": loss}


def weighted_advantages(config: Config, advantages: Float[Array, "B"]) -> Float[Array, "B"]:
    """w A, of advantages as they are."""
    scaled = (advantages - jnp.mean(advantages)) / (jnp.std(advantages, ddof=1) + 1e-10)
    return jnp.where(scaled > 0, config.omega, 1.0 - config.omega) * scaled


def policy_loss(
    config: Config,
    networks: Networks,
    policy_params: Params,
    old_params: Params,
    batch: Transition,
    pre_tanh: Float[Array, "B A"],
    advantages: Float[Array, "B"],
    clip_ratio: Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """-(mean of the clipped surrogate + h H[pi]); pre_tanh ~ pi_k, with weighted advantages."""
    mean, log_std = networks.actor.moments(policy_params, batch.observation)
    old = distributions.normal_log_prob(pre_tanh, *networks.actor.moments(old_params, batch.observation))
    log_ratio = distributions.normal_log_prob(pre_tanh, mean, log_std) - old
    surrogate = jnp.mean(trust_region.clipped_surrogate(jnp.exp(log_ratio), 1.0, clip_ratio, advantages))
    entropy = jnp.mean(distributions.normal_entropy(log_std))
    loss = -surrogate - config.entropy_weight * entropy
    return loss, {"policy_loss": loss, "policy_ratio": jnp.mean(jnp.abs(jnp.expm1(log_ratio)))}


# --- one step ------------------------------------------------------------------------------------------------------


def critics_step(config: Config, networks: Networks, state: State, batch: Transition) -> State:
    """Q towards the logged next action's value, V towards Q'."""
    next_q, q = (
        least_q(networks.critics, state.critic.target_params, *of)
        for of in ((batch.next_observation, batch.next_action), (batch.observation, batch.action))
    )
    targets = td.bellman_target(batch.reward, batch.continues, config.gamma, next_q)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    value, value_metrics = gradient_step(
        state.value, networks.value_optimizer, lambda params: value_loss(networks, params, batch, q)
    )
    return state._replace(
        critic=polyak(critic, config.polyak_rate), value=value, metrics=state.metrics | metrics | value_metrics
    )


def clip_of(config: Config, step: Int[Array, ""]) -> Float[Array, ""]:
    """eps at a step of the run."""
    return config.clip_ratio * config.clip_decay ** (jnp.clip(step - config.critic_steps, 0, config.decay_steps) + 1.0)


def policy_step(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> State:
    """pi away from pi_k, and pi_k after it where Q says that it is better."""
    actor, observation, old = networks.actor, batch.observation, state.old_policy_params
    pre_tanh = actor.pre_tanh(old, observation, jax.random.normal(key, batch.action.shape))

    def q_of(pre_tanh: Float[Array, "B A"]) -> Float[Array, "B"]:
        return least_q(networks.critics, state.critic.params, observation, jnp.tanh(pre_tanh))

    advantages = q_of(pre_tanh) - networks.value.apply(state.value.params, observation)
    weighted, clip_ratio = weighted_advantages(config, advantages), clip_of(config, step)
    policy, metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: policy_loss(config, networks, params, old, batch, pre_tanh, weighted, clip_ratio),
    )
    gain = jnp.mean(q_of(actor.moments(policy.params, observation)[0]) - q_of(actor.moments(old, observation)[0]))
    old = jax.tree.map(partial(jnp.where, gain > 0), policy.params, old)
    metrics |= {"policy_gain": gain, "advantage": jnp.mean(advantages)}
    return state._replace(policy=policy, old_policy_params=old, metrics=state.metrics | metrics)


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """A step of the critics, or one of the policy. The key is consumed."""
    state = jax.lax.cond(
        step < config.critic_steps,
        lambda: critics_step(config, networks, state, batch),
        lambda: policy_step(config, networks, state, batch, key, step),
    )
    return state, state.metrics


# --- networks, their start, and what is measured -------------------------------------------------------------------


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    log_std_range = (config.log_std_low, config.log_std_high)

    def rate(count: Any) -> Any:
        return config.policy_learning_rate * config.rate_decay ** (jnp.minimum(count, config.decay_steps) // 2)

    return Networks(
        gaussian_actor(spec, config.policy_hidden, log_std_range, squash=config.log_std_squash),
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer, config.critic_layer_norm),
        network(lambda draw: StateValue(draw, spec, config.value_hidden, config.initializer)),
        optax.chain(optax.clip_by_global_norm(config.gradient_limit), optax.adam(rate, eps=1e-5)),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.value_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step: pi and pi_k are pi_beta."""
    critic_key, value_key = jax.random.split(key)
    names = ("critic_loss", "q_target", "value_loss", "policy_loss", "policy_ratio", "policy_gain", "advantage")
    return State(
        trainable(networks.policy_optimizer, behavior_params),
        behavior_params,
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        trainable(networks.value_optimizer, networks.value.init(value_key)),
        behavior_params,
        {name: jnp.zeros(()) for name in names},
    )


def probes(networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows; probe_q_policy is at the policy's mode."""
    mean, log_std = networks.actor.moments(state.policy.params, batch.observation)
    return critics.probes(networks.critics, state.critic.params, batch, jnp.tanh(mean)) | {
        "probe_value": jnp.mean(networks.value.apply(state.value.params, batch.observation)),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
    }


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    networks = make_networks(config, spec)
    return Algorithm(
        init=partial(start, networks),
        update=partial(update, config, networks),
        acting=networks.actor.acting(config.action_edge),
        probes=partial(probes, networks),
        batch_size=config.batch_size,
        q_values=q_values(networks.critics),
    )


def validate(config: Config, behavior: str, behavior_config: gaussian.Config) -> None:
    """Raises InputError where pi can't be a copy of pi_beta."""
    own = (config.policy_hidden, config.log_std_low, config.log_std_high, config.log_std_squash)
    model = behavior_config
    its = (model.hidden, model.log_std_low, model.log_std_high, model.log_std_squash)
    if own != its:
        raise InputError(
            f"bppo begins as a copy of pi_beta: its policy_hidden, log_std_low, log_std_high and log_std_squash, {own},"
            f" must be pi_beta's, {its}"
        )


# No entropy floor, no drops of the rate in the authors' cloning.
SOURCE_BEHAVIOR = gaussian.Config(
    hidden=(1024, 1024),
    log_std_high=0.0,
    log_std_squash=True,
    initializer="orthogonal",
    fit=LikelihoodFit(fit_learning_rate=1e-4, fit_batch_size=512, entropy_floor=-20.0),
)
SOURCE = Preset(
    Config(),
    "gaussian",
    SOURCE_BEHAVIOR,
    steps=2_001_000,
    behavior_steps=500_000,
    normalize_observations=True,
    scaled_fields=("critic_steps",),
)
MATCHED = SOURCE._replace(
    config=replace(
        Config(),
        critic_steps=900_000,
        batch_size=256,
        policy_learning_rate=3e-4,
        critic_learning_rate=3e-4,
        value_learning_rate=3e-4,
        policy_hidden=(256, 256),
        critic_hidden=(256, 256),
        value_hidden=(256, 256),
        log_std_high=2.0,
        log_std_squash=False,
    ),
    behavior_config=gaussian.Config(),
    steps=1_000_000,
    behavior_steps=1_000_000,
)
PRESETS = {"source": SOURCE, "matched": MATCHED, "quick": quick(MATCHED, {"policy_learning_rate": 3e-4})}
BPPO = AlgorithmEntry(Config, PRESETS, "source", ("gaussian",), make, validate, reads_next_action=lambda config: True)
