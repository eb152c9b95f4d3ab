"""Maximum likelihood under an entropy floor: the fit that the behaviour models share (equations in `gaussian`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops.distributions import to_pre_tanh
from itrpo.types import Array, Metrics, Params, PRNGKey, SpaceSpec, Transition

DROPS = (0.8, 0.9)  # fractions of the fit after which the learning rate falls to a tenth (author's bc.yaml)


@dataclass(frozen=True)
class LikelihoodFit:
    fit_learning_rate: float = 1e-3  # Adam
    dual_learning_rate: float = 1e-3  # Adam, of the entropy floor's multiplier k
    fit_batch_size: int = 256  # transitions per step of the fit
    entropy_floor: float = -1.0  # H0 per action dimension, in nats
    fit_action_edge: float = 1e-6  # dataset actions are clipped to +-(1 - edge) before the atanh (author's code)


class FitState(NamedTuple):
    policy: Trainable
    multiplier: Trainable  # params: k >= 0


class Fit(NamedTuple):
    init: Callable[[PRNGKey], FitState]
    step: Callable[[FitState, Transition, PRNGKey], tuple[FitState, Metrics]]


def entropy_constrained_fit(
    config: LikelihoodFit,
    spec: SpaceSpec,
    fit_steps: int,
    init_params: Callable[[PRNGKey], Params],
    log_probs: Callable[[Params, Array, Array, PRNGKey], tuple[Array, Array]],
) -> Fit:
    """log_probs(params, observation, pre_tanh, key) -> (log b(a|s) of the given action, log b(a~|s) of a sample)."""
    drops = {int(fraction * fit_steps): 0.1 for fraction in DROPS}
    optimizer = optax.adam(optax.piecewise_constant_schedule(config.fit_learning_rate, drops))
    dual_optimizer = optax.adam(config.dual_learning_rate)
    floor = config.entropy_floor * spec.action_dim

    def init(key: PRNGKey) -> FitState:
        return FitState(trainable(optimizer, init_params(key)), trainable(dual_optimizer, jnp.ones(())))

    def step(state: FitState, batch: Transition, key: PRNGKey) -> tuple[FitState, Metrics]:
        pre_tanh = to_pre_tanh(batch.action, config.fit_action_edge)
        keys = jax.random.split(key, batch.reward.shape[0])

        def loss(params: Params) -> tuple[Array, Metrics]:
            data, own = jax.vmap(log_probs, in_axes=(None, 0, 0, 0))(params, batch.observation, pre_tanh, keys)
            entropy = -jnp.mean(own)
            value = -jnp.mean(data) - state.multiplier.params * entropy
            return value, {"behavior_nll": -jnp.mean(data), "behavior_entropy": entropy}

        def dual_loss(multiplier: Array) -> tuple[Array, Metrics]:
            return multiplier * (metrics["behavior_entropy"] - floor), {}

        policy, metrics = gradient_step(state.policy, optimizer, loss)
        dual, _ = gradient_step(state.multiplier, dual_optimizer, dual_loss)
        dual = dual._replace(params=jnp.maximum(dual.params, 0.0))
        return FitState(policy, dual), metrics | {"behavior_multiplier": dual.params}

    return Fit(init, step)
