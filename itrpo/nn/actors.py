"""Actors: a network, and with it how to act, what density an action has, and what ships.

An algorithm that has one keeps its parameters as `policy` in its state; `acting` is then what its `Algorithm` needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import DeterministicPolicy, GaussianPolicy
from itrpo.nn.network import Initializer, network
from itrpo.ops import distributions
from itrpo.ops.td import Scalar
from itrpo.types import Acting, Params, SpaceSpec

Moments = tuple[Float[Array, "*rows A"], Float[Array, "*rows A"]]


class GaussianActor(NamedTuple):
    """u ~ N(mean(s), diag(exp(log_std(s)))^2), a = tanh(u)."""

    init: Callable[[Key[Array, ""]], Params]
    moments: Callable[[Params, Float[Array, "B O"]], Moments]  # (params, observation) -> mean, log_std of u
    spec: SpaceSpec

    def pre_tanh(
        self, params: Params, observation: Float[Array, "B O"], noise: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n A"]:
        """u, for one draw of noise ~ N(0, I) at each state, or for n: the network runs once."""
        return distributions.normal_sample(noise, *distributions.for_actions(self.moments(params, observation), noise))

    def sample(
        self, params: Params, observation: Float[Array, "B O"], noise: Float[Array, "B *n A"]
    ) -> tuple[Float[Array, "B *n A"], Float[Array, "B *n"]]:
        """Actions and their log densities, through which gradients flow."""
        return distributions.tanh_normal_sample(
            noise, *distributions.for_actions(self.moments(params, observation), noise)
        )

    def log_prob(
        self, params: Params, observation: Float[Array, "B O"], action: Float[Array, "B A"], edge: Scalar
    ) -> Float[Array, "B"]:
        """Log density of actions, clipped to +-(1 - edge)."""
        pre_tanh = distributions.to_pre_tanh(action, edge)
        return distributions.tanh_normal_log_prob(pre_tanh, *self.moments(params, observation))

    def export(self, params: Params) -> dict[str, Any]:
        """The mode: those outputs of the network that are means."""
        return {"kind": "tanh_mlp", **layer_arrays(params.mlp, outputs=self.spec.action_dim)}

    def acting(self, edge: Scalar) -> Acting:
        """For states with a `policy`. `edge`: actions are clipped to +-(1 - edge) where their density is asked."""

        def act(state: Any, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
            mean, log_std = self.moments(state.policy.params, observation)
            if greedy:
                return jnp.tanh(mean)
            return jnp.tanh(distributions.normal_sample(jax.random.normal(key, mean.shape), mean, log_std))

        return Acting(
            act,
            lambda state, observation, action: self.log_prob(state.policy.params, observation, action, edge),
            lambda state: self.export(state.policy.params),
        )


def gaussian_actor(
    spec: SpaceSpec,
    hidden: tuple[int, ...],
    log_std_range: tuple[float, float],
    initializer: Initializer = "fan_in",
    squash: bool = False,
) -> GaussianActor:
    policy = network(lambda draw: GaussianPolicy(draw, spec, hidden, log_std_range, initializer, squash))
    return GaussianActor(policy.init, policy.apply, spec)


class DeterministicActor(NamedTuple):
    """a = tanh(network(s))."""

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[[Params, Float[Array, "B O"]], Float[Array, "B A"]]  # (params, observation) -> action

    def acting(self) -> Acting:
        """For states with a `policy`."""
        return Acting(
            lambda state, observation, key, greedy: self.apply(state.policy.params, observation),
            None,
            lambda state: {"kind": "tanh_mlp", **layer_arrays(state.policy.params.mlp)},
        )


def deterministic_actor(spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer) -> DeterministicActor:
    policy = network(lambda draw: DeterministicPolicy(draw, spec, hidden, initializer))
    return DeterministicActor(policy.init, lambda params, observation: jnp.tanh(policy.apply(params, observation)))
