"""Several copies of a network as one: parameters stacked on a leading axis of N members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.heads import QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.types import Params, SpaceSpec


class Ensemble(NamedTuple):
    """Members differ in their initial parameters alone. The axis of members is the first of parameters and outputs."""

    init: Callable[[Key[Array, ""]], Params]  # -> params [N, ...]
    apply: Callable[..., Any]  # (params [N, ...], *inputs) -> [N, ...]
    apply_one: Callable[..., Any]  # (params of one member, *inputs) -> its output


def ensemble(member: Network, size: int) -> Ensemble:
    def init(key: Key[Array, ""]) -> Params:
        return jax.vmap(member.init)(jax.random.split(key, size))

    def apply(params: Params, *inputs: Array) -> Any:
        return jax.vmap(lambda one: member.apply(one, *inputs))(params)

    return Ensemble(init, apply, member.apply)


def critic_ensemble(
    spec: SpaceSpec, hidden: tuple[int, ...], size: int, initializer: Initializer, layer_norm: bool = False
) -> Ensemble:
    """(observation [B, O], action [B, A] or [B, n, A]) -> Q [N, B] or [N, B, n]."""
    return ensemble(network(lambda draw: QValue(draw, spec, hidden, initializer, layer_norm)), size)


def action_gradients(
    critics: Ensemble, params: Params, observation: Float[Array, "B O"], action: Float[Array, "B A"]
) -> Float[Array, "N B A"]:
    """grad_a Q_i(s,a), each member pulled back once: `divergences.action_gradients` pulls all of them back N times."""

    def of_member(one: Params) -> Float[Array, "B A"]:  # a row of the sum depends on its own action alone
        return jax.grad(lambda action: jnp.sum(critics.apply_one(one, observation, action)))(action)

    return jax.vmap(of_member)(params)


def first_member(params: Params) -> Params:
    """Parameters of one network out of the stacked ones of an ensemble."""
    return jax.tree.map(lambda leaf: leaf[0], params)
