"""SAC: soft actor-critic, which trains the acting policies that datasets are rolled out from.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905, with the automatic temperature
of its section 5. The maximum-entropy objective: rewards plus entropy_weight times the entropy of the policy.

    y, actor, entropy weight   as in `itrpo.nn.soft`
    critic                     min over Q_i   sum_i (Q_i(s,a) - y)^2
    target critics             Q_i'  <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

The actor's step uses the critics just updated, and the weight's step the actor's actions from before its own step.
Departures from the paper: log w and not the weight w itself multiplies its loss (as in the authors' code and rlkit,
which made D4RL's data), and log standard deviations are clipped to [-5, 2], not [-20, 2].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Key

from itrpo.collection.agent import Agent, Updates, check_policy_hidden, file_arrays
from itrpo.collection.rollout import LOG_STD_RANGE, act
from itrpo.nn import soft
from itrpo.nn.actors import gaussian_actor
from itrpo.nn.critics import critic_step
from itrpo.nn.ensemble import critic_ensemble
from itrpo.nn.soft import Networks, State
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ranges import Count, Discount, Interval, Positive, Rate, Widths, check_ranges
from itrpo.types import Metrics, SpaceSpec, Transition

METRICS = ("critic_loss", "policy_loss", "entropy", "q_target", "entropy_weight")


@dataclass(frozen=True)
class Config:
    gamma: Discount = 0.99  # discount per step (the paper's)
    polyak_rate: Rate = 0.005  # target averaging per update (the paper's)
    batch_size: Count = 256  # transitions per update (the paper's)
    policy_learning_rate: Positive = 3e-4  # Adam (the paper's)
    critic_learning_rate: Positive = 3e-4  # Adam (the paper's)
    entropy_learning_rate: Positive = 3e-4  # Adam, of the entropy's weight (the paper's)
    target_entropy: Annotated[float | None, Interval("(-inf, inf)")] = None  # nats per action; None: -A (the paper's)
    initial_entropy_weight: Positive = 1.0  # the temperature before the first update
    policy_hidden: Widths = (256, 256)  # widths of the hidden ReLU layers (the paper's)
    critic_hidden: Widths = (256, 256)  # of the critics
    critics: Count = 2  # targets and actor take the minimum


def validate(config: Config) -> None:
    """Raises InputError for a value outside its range."""
    check_ranges(config)
    check_policy_hidden(config.policy_hidden)


def update(
    config: Config, target_entropy: float, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then actor with the new critics, then entropy weight, then target critics. The key is consumed."""
    next_noise, noise = jax.random.normal(key, (2, *batch.action.shape))
    entropy_weight = jnp.exp(state.log_entropy_weight.params)
    targets = soft.targets(
        networks, config.gamma, entropy_weight, state.policy.params, state.critic.target_params, batch, next_noise
    )
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    policy, policy_metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: soft.policy_loss(networks, entropy_weight, params, critic.params, batch.observation, noise),
    )
    log_entropy_weight = soft.entropy_step(
        networks, state.log_entropy_weight, policy_metrics["entropy"], target_entropy
    )
    metrics |= policy_metrics | {"entropy_weight": entropy_weight}
    return State(policy, polyak(critic, config.polyak_rate), log_entropy_weight), metrics


def make(config: Config, spec: SpaceSpec) -> Updates:
    """SAC for observations and actions of these sizes, as pure functions."""
    networks = make_networks(config, spec)
    target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy
    return Updates(
        lambda key: soft.start(networks, key, config.initial_entropy_weight),
        lambda state, batch, key, number: update(config, target_entropy, networks, state, batch, key),
    )


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    return Networks(
        gaussian_actor(spec, config.policy_hidden, LOG_STD_RANGE),
        critic_ensemble(spec, config.critic_hidden, config.critics, "fan_in"),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )


def acting_arrays(state: State, config: Config) -> dict[str, np.ndarray]:
    *hidden, head = state.policy.params.mlp.layers
    weights, biases = np.split(np.asarray(head.weight), 2), np.split(np.asarray(head.bias), 2)
    return file_arrays(hidden, dict(zip(("mean", "log_std"), zip(weights, biases, strict=True), strict=True)))


AGENT = Agent("SAC", METRICS, validate, make, acting_arrays, act)
