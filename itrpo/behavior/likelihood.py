"""Maximum likelihood under an entropy floor: the fit, and the model, of pi_beta as a network that gives the parameters
of a distribution before the tanh (equations in `gaussian`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.network import Network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, InnerShare, Positive
from itrpo.types import DensityModel, Metrics, Params, SpaceSpec, Transition

DROPS = (0.8, 0.9)  # fractions of the fit after which the learning rate falls to a tenth (author's bc.yaml)


@dataclass(frozen=True)
class LikelihoodFit:
    fit_learning_rate: Positive = 1e-3  # Adam
    dual_learning_rate: Positive = 1e-3  # Adam, of the entropy floor's multiplier k
    fit_batch_size: Count = 256  # transitions per step of the fit
    entropy_floor: float = -1.0  # H0 per action dimension, in nats
    fit_action_edge: InnerShare = 1e-6  # dataset actions are clipped to +-(1 - edge) before the atanh (author's code)


def adam_with_drops(learning_rate: Scalar, fit_steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls to a tenth, and then to a hundredth, towards the end of a fit."""
    drops = {int(fraction * fit_steps): 0.1 for fraction in DROPS}
    return optax.adam(optax.piecewise_constant_schedule(learning_rate, drops))


class FitState(NamedTuple):
    policy: Trainable
    multiplier: Trainable  # params: k >= 0


class Distribution(NamedTuple):
    """Of u, given what the network gives for each state: parameters, [B, ...] each."""

    log_prob: Callable[..., Float[Array, "*rows"]]  # (u, *parameters)
    sample: Callable[..., Float[Array, "B A"]]  # (key, *parameters) -> u
    mode: Callable[..., Float[Array, "B A"]]  # (*parameters) -> u


def density_model(
    config: LikelihoodFit,
    spec: SpaceSpec,
    fit_steps: int,
    network: Network,
    distribution: Distribution,
    export: Callable[[Params], dict[str, Any]],
    is_gaussian: bool = False,
) -> DensityModel:
    """The model whose parameters at observations are `network.apply(params, observation)`: mean and log_std if it is a
    Gaussian. fit_steps: length of the fit, for the learning rate's two drops.
    """
    optimizer = adam_with_drops(config.fit_learning_rate, fit_steps)
    dual_optimizer = optax.adam(config.dual_learning_rate)
    floor = config.entropy_floor * spec.action_dim

    def init(key: Key[Array, ""]) -> FitState:
        return FitState(trainable(optimizer, network.init(key)), trainable(dual_optimizer, jnp.ones(())))

    def fit_step(state: FitState, batch: Transition, key: Key[Array, ""]) -> tuple[FitState, Metrics]:
        pre_tanh = distributions.to_pre_tanh(batch.action, config.fit_action_edge)

        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            parameters = network.apply(params, batch.observation)
            own = distribution.sample(key, *parameters)
            log_prob, own_log_prob = (
                jnp.mean(distribution.log_prob(u, *parameters) - distributions.tanh_log_det(u)) for u in (pre_tanh, own)
            )
            value = -log_prob + state.multiplier.params * own_log_prob
            return value, {"behavior_nll": -log_prob, "behavior_entropy": -own_log_prob}

        def dual_loss(multiplier: Float[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
            return multiplier * (metrics["behavior_entropy"] - floor), {}

        policy, metrics = gradient_step(state.policy, optimizer, loss)
        dual, _ = gradient_step(state.multiplier, dual_optimizer, dual_loss)
        dual = dual._replace(params=jnp.maximum(dual.params, 0.0))
        return FitState(policy, dual), metrics | {"behavior_multiplier": dual.params}

    def pre_tanh_log_prob(
        params: Params, observation: Float[Array, "B O"], pre_tanh: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n"]:
        parameters = network.apply(params, observation)
        return distribution.log_prob(pre_tanh, *distributions.for_actions(parameters, pre_tanh))

    return DensityModel(
        init=init,
        fit_step=fit_step,
        params=lambda state: state.policy.params,
        sample=lambda params, observation, key: distribution.sample(key, *network.apply(params, observation)),
        mode=lambda params, observation: distribution.mode(*network.apply(params, observation)),
        export=export,
        batch_size=config.fit_batch_size,
        pre_tanh_log_prob=pre_tanh_log_prob,
        moments=network.apply if is_gaussian else None,
    )


def gaussian_sample(
    key: Key[Array, ""], mean: Float[Array, "B A"], log_std: Float[Array, "B A"]
) -> Float[Array, "B A"]:
    return distributions.normal_sample(jax.random.normal(key, mean.shape), mean, log_std)
