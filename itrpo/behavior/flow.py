"""pi_beta as a conditional normalising flow (behaviour model "flow"): its log-density is exact, as Eq. (5) needs it.

    z_i = T(a_i; theta_i(s, a_1, .., a_{i-1})),   z uniform on [-1, 1]^A
    log b(a|s) = sum_i log T'(a_i; theta_i) - A log 2
    loss(b)    = -log b(a|s)

T is a monotone rational-quadratic spline of the box onto itself, and theta comes from one network whose weights are
masked so that dimension i sees the ones before it alone (Durkan et al. 2019, arXiv 1906.04032, its autoregressive form
with one layer; the masks are those of Germain et al. 2015, arXiv 1502.03509). Any density on the box is within reach,
with modes of several dimensions together. It is bounded from both sides, as bins and slopes are: no entropy floor is
needed, and far from the data log b ends somewhere, while a Gaussian's falls as the square of the distance.

A density takes one pass of the network, a sample one for each dimension. The paper has one Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.behavior.likelihood import DROPS
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import Autoregressive
from itrpo.nn.network import network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions, splines
from itrpo.ranges import Count, InnerShare, Positive, Widths
from itrpo.types import BehaviorEntry, DensityModel, Metrics, Params, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    bins: Count = 8  # of the spline of a dimension (the authors' code)
    hidden: Widths = (256, 256)  # widths of the hidden layers
    fit_learning_rate: Positive = 1e-3  # Adam
    fit_batch_size: Count = 256  # transitions per step of the fit
    fit_action_edge: InnerShare = 1e-6  # sampled actions are clipped to +-(1 - edge) before the atanh


class FitState(NamedTuple):
    policy: Trainable


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    outputs = 3 * config.bins + 1
    net = network(lambda draw: Autoregressive(draw, spec, config.hidden, outputs))
    drops = {int(fraction * fit_steps): 0.1 for fraction in DROPS}
    optimizer = optax.adam(optax.piecewise_constant_schedule(config.fit_learning_rate, drops))

    def log_prob(params: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]) -> Array:
        at = splines.spline(net.apply(params, observation, action))
        return jnp.sum(splines.log_density(at, action), axis=-1)

    def fit_step(state: FitState, batch: Transition, key: Key[Array, ""]) -> tuple[FitState, Metrics]:
        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            value = -jnp.mean(log_prob(params, batch.observation, batch.action))
            return value, {"behavior_nll": value}

        policy, metrics = gradient_step(state.policy, optimizer, loss)
        return FitState(policy), metrics

    def pre_tanh_log_prob(
        params: Params, observation: Float[Array, "B O"], pre_tanh: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n"]:
        return log_prob(params, observation, jnp.tanh(pre_tanh)) + distributions.tanh_log_det(pre_tanh)

    def in_order(params: Params, observation: Float[Array, "B O"], choose: Any) -> Float[Array, "B A"]:
        """u, dimension by dimension: choose(i, the spline of dimension i [B]) -> a_i [B]."""

        def body(i: Any, action: Float[Array, "B A"]) -> Float[Array, "B A"]:
            raw = jax.lax.dynamic_index_in_dim(net.apply(params, observation, action), i, axis=1, keepdims=False)
            return action.at[:, i].set(choose(i, splines.spline(raw)))

        action = jax.lax.fori_loop(0, spec.action_dim, body, jnp.zeros((len(observation), spec.action_dim)))
        return distributions.to_pre_tanh(action, config.fit_action_edge)

    def sample(params: Params, observation: Float[Array, "B O"], key: Key[Array, ""]) -> Float[Array, "B A"]:
        uniform = jax.random.uniform(key, (spec.action_dim, len(observation)), minval=-1.0, maxval=1.0)
        return in_order(params, observation, lambda i, at: splines.inverse(at, uniform[i]))

    def export(params: Params) -> dict[str, Any]:
        return {"kind": "autoregressive_spline", **layer_arrays(params.masked())}

    return DensityModel(
        init=lambda key: FitState(trainable(optimizer, net.init(key))),
        fit_step=fit_step,
        params=lambda state: state.policy.params,
        sample=sample,
        mode=lambda params, observation: in_order(params, observation, lambda i, at: splines.densest(at)),
        export=export,
        batch_size=config.fit_batch_size,
        pre_tanh_log_prob=pre_tanh_log_prob,
        moments=None,
    )


FLOW = BehaviorEntry(Config, make)
