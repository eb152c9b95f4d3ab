"""pi_beta as a conditional normalising flow (behaviour model "flow"): its log-density is exact, as Eq. (5) needs it.

    z_i = T((u_i - m_i) / exp(l_i)),   u = atanh(a),   z ~ N(0, I)
    log b(u|s) = sum_i  log N(z_i; 0, 1) + log T'((u_i - m_i) / exp(l_i)) - l_i
    loss(b)    = -log b(a|s)

T is a monotone rational-quadratic spline, the identity far out. It, m_i and l_i come from one network whose weights are
masked so that dimension i sees the observation and the dimensions before it alone (Durkan et al. 2019, arXiv
1906.04032, its autoregressive form with one layer; masks of Germain et al. 2015, arXiv 1502.03509). Any density is
within reach, with modes of several dimensions together; where T is the identity and nothing sees other dimensions, it
is the one Gaussian of the paper.

There is no entropy floor: a sample, which it takes, needs one pass of the network for each dimension. What is as good
as deterministic ends at the clip of l.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.behavior.likelihood import adam_with_drops
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import Autoregressive
from itrpo.nn.network import network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions, splines
from itrpo.ops.splines import Spline
from itrpo.ranges import Count, InnerShare, Positive, Widths
from itrpo.types import BehaviorEntry, DensityModel, Metrics, Params, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    bins: Count = 8  # of the spline of a dimension (the authors' code)
    hidden: Widths = (256, 256)  # widths of the hidden layers
    log_std_low: float = -5.0  # clip of l, as the other models have it
    log_std_high: float = 2.0  # its upper end
    fit_learning_rate: Positive = 1e-3  # Adam
    fit_batch_size: Count = 256  # transitions per step of the fit
    fit_action_edge: InnerShare = 1e-6  # dataset actions are clipped to +-(1 - edge) before the atanh (author's code)


class FitState(NamedTuple):
    policy: Trainable


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    net = network(lambda draw: Autoregressive(draw, spec, config.hidden, 3 * config.bins + 1))
    optimizer = adam_with_drops(config.fit_learning_rate, fit_steps)

    def read(numbers: Float[Array, "*rows numbers"]) -> tuple[Spline, Float[Array, "*rows"], Float[Array, "*rows"]]:
        """T, m and l of a dimension."""
        log_std = jnp.clip(numbers[..., 1], config.log_std_low, config.log_std_high)
        return splines.spline(numbers[..., 2:]), numbers[..., 0], log_std

    def log_prob(params: Params, observation: Float[Array, "B O"], u: Float[Array, "B *n A"]) -> Float[Array, "B *n"]:
        at, mean, log_std = read(net.apply(params, observation, jnp.tanh(u)))
        return jnp.sum(splines.log_density(at, (u - mean) * jnp.exp(-log_std)) - log_std, axis=-1)

    def fit_step(state: FitState, batch: Transition, key: Key[Array, ""]) -> tuple[FitState, Metrics]:
        u = distributions.to_pre_tanh(batch.action, config.fit_action_edge)

        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            value = jnp.mean(distributions.tanh_log_det(u) - log_prob(params, batch.observation, u))
            return value, {"behavior_nll": value}

        policy, metrics = gradient_step(state.policy, optimizer, loss)
        return FitState(policy), metrics

    def in_order(
        params: Params, observation: Float[Array, "B O"], choose: Callable[[Any, Spline], Array], shape: tuple[int, ...]
    ) -> Float[Array, "B *n A"]:
        """u, one dimension after the other: m_i + exp(l_i) * choose(i, T)."""

        def body(i: Any, u: Float[Array, "B *n A"]) -> Float[Array, "B *n A"]:
            numbers = net.apply(params, observation, jnp.tanh(u))
            at, mean, log_std = read(jax.lax.dynamic_index_in_dim(numbers, i, axis=-2, keepdims=False))
            return u.at[..., i].set(mean + jnp.exp(log_std) * choose(i, at))

        return jax.lax.fori_loop(0, spec.action_dim, body, jnp.zeros(shape))

    def transport(
        params: Params, observation: Float[Array, "B O"], noise: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n A"]:
        return in_order(params, observation, lambda i, at: splines.inverse(at, noise[..., i]), noise.shape)

    def sample(params: Params, observation: Float[Array, "B O"], key: Key[Array, ""]) -> Float[Array, "B A"]:
        return transport(params, observation, jax.random.normal(key, (len(observation), spec.action_dim)))

    def mode(params: Params, observation: Float[Array, "B O"]) -> Float[Array, "B A"]:
        shape = (len(observation), spec.action_dim)
        return in_order(params, observation, lambda i, at: splines.densest(at), shape)

    def export(params: Params) -> dict[str, Any]:
        log_std_range = jnp.array([config.log_std_low, config.log_std_high])
        return {"kind": "autoregressive_spline", "log_std_range": log_std_range, **layer_arrays(params.masked())}

    return DensityModel(
        init=lambda key: FitState(trainable(optimizer, net.init(key))),
        fit_step=fit_step,
        params=lambda state: state.policy.params,
        sample=sample,
        mode=mode,
        export=export,
        batch_size=config.fit_batch_size,
        pre_tanh_log_prob=log_prob,
        moments=None,
        transport=transport,
    )


FLOW = BehaviorEntry(Config, make)
