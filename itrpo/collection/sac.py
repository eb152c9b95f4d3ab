"""SAC: soft actor-critic, which trains the acting policies that datasets are rolled out from.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905, with the automatic temperature
of its section 5. The maximum-entropy objective: rewards plus entropy_weight times the entropy of the policy.

    target          y = r + gamma * continues * (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s')),  a' ~ pi(.|s')
    critic          min over Q_i   sum_i (Q_i(s,a) - y)^2
    actor           min over pi    entropy_weight * log pi(a|s) - min_i Q_i(s,a),  a ~ pi(.|s) reparameterised
    entropy weight  min over log_w  -log_w * (log pi(a|s) + target_entropy),  entropy_weight = exp(log_w)
    target critics  Q_i'  <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

The actor's step uses the critics just updated, and the weight's step the actor's actions from before its own step.
Departures from the paper: log_w and not the weight itself multiplies the last loss (as in the authors' code and rlkit,
which made D4RL's data), and log standard deviations are clipped to [-5, 2], not [-20, 2].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from itrpo.collection.rollout import LOG_STD_RANGE
from itrpo.errors import InputError
from itrpo.nn.ensemble import ensemble
from itrpo.nn.heads import GaussianPolicy, QValue
from itrpo.nn.network import Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, td
from itrpo.ranges import check_ranges
from itrpo.types import Array, Metrics, Params, PRNGKey, SpaceSpec

HIDDEN_LAYERS = 2  # of an acting policy: its file format has this many


@dataclass(frozen=True)
class Config:
    gamma: float = 0.99  # discount per step (the paper's)
    polyak_rate: float = 0.005  # target averaging per update (the paper's)
    batch_size: int = 256  # transitions per update (the paper's)
    policy_learning_rate: float = 3e-4  # Adam (the paper's)
    critic_learning_rate: float = 3e-4
    entropy_learning_rate: float = 3e-4
    target_entropy: float | None = None  # nats per action; None: -A (the paper's)
    initial_entropy_weight: float = 1.0
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden ReLU layers (the paper's)
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    critics: int = 2  # targets and actor take the minimum


class Experience(NamedTuple):
    """Rows (s, a, r, s') of the replay buffer."""

    observation: Array  # [B, O]
    action: Array  # [B, A], in [-1, 1]
    reward: Array  # [B]
    continues: Array  # [B]: 1 - terminal. An episode cut by the clock goes on bootstrapping.
    next_observation: Array  # [B, O]: the last one of the episode where it ended, never the next episode's first


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [critics, ...]; with a target
    log_entropy_weight: Trainable  # a scalar


class SAC(NamedTuple):
    init: Callable[[PRNGKey], State]
    update: Callable[[State, Experience, PRNGKey], tuple[State, Metrics]]


class Networks(NamedTuple):
    policy: Network  # observation [O] -> pre-tanh mean [A], log_std [A]
    critic: Network  # observation [O], action [A] -> [critics]


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation
    entropy: optax.GradientTransformation


def validate(config: Config) -> None:
    """Raises InputError for a value outside its range."""
    for it in fields(config):
        value = getattr(config, it.name)
        if isinstance(value, float) and not np.isfinite(value):
            raise InputError(f"{it.name} must be finite, got {value}")
    check_ranges(config)
    if len(config.policy_hidden) != HIDDEN_LAYERS:
        raise InputError(
            f"policy_hidden must have {HIDDEN_LAYERS} widths, as files of acting policies do; got "
            f"{','.join(map(str, config.policy_hidden)) or 'none'}"
        )


# --- losses, for one example ---------------------------------------------------------------------------------------


def sample(networks: Networks, policy_params: Params, observation: Array, key: PRNGKey) -> tuple[Array, Array]:
    """An action [A] ~ pi(.|s) through which gradients flow, and its log density."""
    mean, log_std = networks.policy.apply(policy_params, observation)
    pre_tanh = distributions.sample_normal(key, mean, log_std)
    return jnp.tanh(pre_tanh), distributions.tanh_normal_log_prob(pre_tanh, mean, log_std)


def critic_target(
    networks: Networks,
    gamma: float,
    entropy_weight: Array,
    policy_params: Params,
    target_critic_params: Params,
    it: Experience,
    key: PRNGKey,
) -> Array:
    """r + gamma * continues * (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s'))."""
    action, log_prob = sample(networks, policy_params, it.next_observation, key)
    q = td.ensemble_min(networks.critic.apply(target_critic_params, it.next_observation, action))
    return td.bellman_target(it.reward, it.continues, gamma, q - entropy_weight * log_prob)


def critic_loss(networks: Networks, critic_params: Params, it: Experience, target: Array) -> Array:
    """sum_i (Q_i(s,a) - y)^2."""
    return jnp.sum(jnp.square(networks.critic.apply(critic_params, it.observation, it.action) - target))


def policy_loss(
    networks: Networks,
    entropy_weight: Array,
    policy_params: Params,
    critic_params: Params,
    observation: Array,
    key: PRNGKey,
) -> tuple[Array, Array]:
    """entropy_weight * log pi(a|s) - min_i Q_i(s,a), and log pi(a|s) alone."""
    action, log_prob = sample(networks, policy_params, observation, key)
    q = td.ensemble_min(networks.critic.apply(critic_params, observation, action))
    return entropy_weight * log_prob - q, log_prob


def entropy_loss(log_entropy_weight: Array, log_prob: Array, target_entropy: float) -> Array:
    """-log_w * (log pi(a|s) + target_entropy): raises the weight where the policy's entropy is below the target."""
    return -log_entropy_weight * (log_prob + target_entropy)


# --- one update ----------------------------------------------------------------------------------------------------


def update(
    config: Config,
    target_entropy: float,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Experience,
    key: PRNGKey,
) -> tuple[State, Metrics]:
    """Critics, then actor with the new critics, then entropy weight, then target critics. The key is consumed."""
    target_key, policy_key = jax.random.split(key, (2, batch.reward.shape[0]))
    entropy_weight = jnp.exp(state.log_entropy_weight.params)
    targets = jax.vmap(critic_target, in_axes=(None, None, None, None, None, 0, 0))(
        networks, config.gamma, entropy_weight, state.policy.params, state.critic.target_params, batch, target_key
    )

    def mean_critic_loss(params: Params) -> tuple[Array, Metrics]:
        losses = jax.vmap(critic_loss, in_axes=(None, None, 0, 0))(networks, params, batch, targets)
        return jnp.mean(losses), {"critic_loss": jnp.mean(losses)}

    critic, critic_metrics = gradient_step(state.critic, optimizers.critic, mean_critic_loss)

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(policy_loss, in_axes=(None, None, None, None, 0, 0))
        losses, log_probs = each(networks, entropy_weight, params, critic.params, batch.observation, policy_key)
        return jnp.mean(losses), {"policy_loss": jnp.mean(losses), "entropy": -jnp.mean(log_probs)}

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)

    def weight_loss(log_weight: Params) -> tuple[Array, Metrics]:
        return entropy_loss(log_weight, -policy_metrics["entropy"], target_entropy), {}

    log_entropy_weight, _ = gradient_step(state.log_entropy_weight, optimizers.entropy, weight_loss)

    metrics = critic_metrics | policy_metrics | {"q_target": jnp.mean(targets), "entropy_weight": entropy_weight}
    return State(policy, polyak(critic, config.polyak_rate), log_entropy_weight), metrics


def make(config: Config, spec: SpaceSpec) -> SAC:
    """SAC for observations and actions of these sizes, as pure functions."""
    networks = make_networks(config, spec)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )
    target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy

    def init(key: PRNGKey) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(optimizers.policy, networks.policy.init(policy_key)),
            trainable(optimizers.critic, networks.critic.init(critic_key), target=True),
            trainable(optimizers.entropy, jnp.log(jnp.float32(config.initial_entropy_weight))),
        )

    def step(state: State, batch: Experience, key: PRNGKey) -> tuple[State, Metrics]:
        return update(config, target_entropy, networks, optimizers, state, batch, key)

    return SAC(init, step)


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    policy = network(lambda draw: GaussianPolicy(draw, spec, config.policy_hidden, LOG_STD_RANGE))
    critic = ensemble(network(lambda draw: QValue(draw, spec, config.critic_hidden)), config.critics)
    return Networks(policy, critic)


def acting_arrays(policy_params: Params) -> dict[str, np.ndarray]:
    """The policy as the arrays of an acting policy's file: NAME.weight [in, out] and NAME.bias for hidden0, hidden1,
    mean and log_std, float32 on the host.
    """
    *hidden, head = policy_params.mlp.layers
    mean_weight, log_std_weight = np.split(np.asarray(head.weight), 2)
    mean_bias, log_std_bias = np.split(np.asarray(head.bias), 2)
    layers = {f"hidden{i}": (np.asarray(layer.weight), np.asarray(layer.bias)) for i, layer in enumerate(hidden)}
    layers |= {"mean": (mean_weight, mean_bias), "log_std": (log_std_weight, log_std_bias)}
    arrays: dict[str, np.ndarray] = {}
    for name, (weight, bias) in layers.items():
        arrays[f"{name}.weight"] = np.ascontiguousarray(weight.T)
        arrays[f"{name}.bias"] = np.ascontiguousarray(bias)
    return arrays
