"""pi_beta by flow matching (behaviour model "flow_matching"): the paper's Gaussian, and a flow that bends it.

    y = (u - m(s)) / exp(l(s)),   u = atanh(a)
    loss(m, l) = -log N(u; m(s), exp(l(s)))
    loss(v)    = |v(x_t, t; s) - (cos(t) y - sin(t) z)|^2,   x_t = cos(t) z + sin(t) y,   z ~ N(0, I),   t ~ U(0, pi/2)
    log b(u|s) = log N(x_0; 0, I) - int_0^{pi/2} div v dt - sum_i l_i(s)

dx/dt = v takes noise at t = 0 to y at pi/2 (`itrpo.ops.interpolants`, with sources). No network is masked, none has to
be inverted, and where the data is a Gaussian v is zero and nothing is left to integrate. The price: the log-density is
an estimate, by as many steps of the midpoint rule as `ode_steps`, and each takes A + 2 passes of the network.

There is no entropy floor. What is as good as deterministic ends at the clip of l. `mode` is where the flow takes z = 0:
the mode of a Gaussian, and of several modes one near where they part, which need not be the densest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from itrpo.behavior.likelihood import adam_with_drops
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import GaussianPolicy, VelocityField
from itrpo.nn.network import network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions, interpolants
from itrpo.ranges import Count, InnerShare, Positive, Widths
from itrpo.types import BehaviorEntry, DensityModel, Metrics, Params, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    hidden: Widths = (256, 256)  # widths of the hidden layers, of the Gaussian's network and of v's
    ode_steps: Count = 10  # of the midpoint rule, from noise to data and back
    log_std_low: float = -5.0  # clip of l, as the other models have it
    log_std_high: float = 2.0  # its upper end
    fit_learning_rate: Positive = 1e-3  # Adam
    fit_batch_size: Count = 256  # transitions per step of the fit
    fit_action_edge: InnerShare = 1e-6  # dataset actions are clipped to +-(1 - edge) before the atanh (author's code)


class Networks(NamedTuple):
    gaussian: Params
    velocity: Params


class FitState(NamedTuple):
    policy: Trainable  # params: Networks


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    log_std_range = (config.log_std_low, config.log_std_high)
    gaussian = network(lambda draw: GaussianPolicy(draw, spec, config.hidden, log_std_range))
    velocity = network(lambda draw: VelocityField(draw, spec, config.hidden))
    optimizer = adam_with_drops(config.fit_learning_rate, fit_steps)
    ends = interpolants.times(config.ode_steps)

    def init(key: Key[Array, ""]) -> FitState:
        gaussian_key, velocity_key = jax.random.split(key)
        return FitState(trainable(optimizer, Networks(gaussian.init(gaussian_key), velocity.init(velocity_key))))

    def fit_step(state: FitState, batch: Transition, key: Key[Array, ""]) -> tuple[FitState, Metrics]:
        u = distributions.to_pre_tanh(batch.action, config.fit_action_edge)
        time_key, noise_key = jax.random.split(key)
        t = jax.random.uniform(time_key, (len(u), 1), maxval=np.pi / 2)
        noise = jax.random.normal(noise_key, u.shape)

        def loss(params: Networks) -> tuple[Float[Array, ""], Metrics]:
            mean, log_std = gaussian.apply(params.gaussian, batch.observation)
            log_prob = distributions.normal_log_prob(u, mean, log_std) - distributions.tanh_log_det(u)
            y = jax.lax.stop_gradient((u - mean) * jnp.exp(-log_std))
            x, slope = interpolants.between(t, noise, y)
            error = velocity.apply(params.velocity, batch.observation)(x, t) - slope
            nll, matching = -jnp.mean(log_prob), jnp.mean(jnp.sum(jnp.square(error), axis=-1))
            return nll + matching, {"behavior_nll_gaussian": nll, "behavior_matching": matching}

        policy, metrics = gradient_step(state.policy, optimizer, loss)
        return FitState(policy), metrics

    def log_prob(params: Networks, observation: Float[Array, "B O"], u: Float[Array, "B *n A"]) -> Float[Array, "B *n"]:
        mean, log_std = distributions.for_actions(gaussian.apply(params.gaussian, observation), u)
        field = velocity.apply(params.velocity, observation)
        y = (u - mean) * jnp.exp(-log_std)
        return interpolants.log_density(field, y, ends) - jnp.sum(log_std, axis=-1)

    def transport(
        params: Networks, observation: Float[Array, "B O"], noise: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n A"]:
        mean, log_std = distributions.for_actions(gaussian.apply(params.gaussian, observation), noise)
        field = velocity.apply(params.velocity, observation)
        return mean + jnp.exp(log_std) * interpolants.transported(field, noise, ends)

    def sample(params: Networks, observation: Float[Array, "B O"], key: Key[Array, ""]) -> Float[Array, "B A"]:
        return transport(params, observation, jax.random.normal(key, (len(observation), spec.action_dim)))

    def mode(params: Networks, observation: Float[Array, "B O"]) -> Float[Array, "B A"]:
        return transport(params, observation, jnp.zeros((len(observation), spec.action_dim)))

    def export(params: Networks) -> dict[str, Any]:
        return {
            "kind": "flow",
            "log_std_range": jnp.array(log_std_range),
            "times": ends,
            **layer_arrays(params.gaussian.mlp),
            **layer_arrays(params.velocity.mlp, "velocity_"),
        }

    return DensityModel(
        init=init,
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


FLOW_MATCHING = BehaviorEntry(Config, make)
