"""Equinox modules as pure functions over pytrees of arrays.

`Network.init(key)` gives the arrays of a fresh module; `Network.apply(params, ...)` calls the module with those arrays.
Everything that is not an array (activation functions, sizes) is closed over, so states can be vmapped, donated and saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from itrpo.types import Array, Params, PRNGKey

Initializer = Literal["fan_in", "rlkit", "glorot"]


class Network(NamedTuple):
    init: Callable[[PRNGKey], Params]
    apply: Callable[..., Any]


def network(make_module: Callable[[PRNGKey], eqx.Module]) -> Network:
    """Splits what `make_module(key)` builds into arrays and the rest. All keys must give the same structure."""
    _, static = eqx.partition(make_module(jax.random.key(0)), eqx.is_array)

    def init(key: PRNGKey) -> Params:
        return eqx.filter(make_module(key), eqx.is_array)

    def apply(params: Params, *inputs: Array) -> Any:
        return eqx.combine(params, static)(*inputs)

    return Network(init, apply)


def linear(key: PRNGKey, fan_in: int, fan_out: int, initializer: Initializer, head_scale: float | None = None) -> eqx.nn.Linear:
    """A linear layer under one of the initialisations that the sources use (algorithms differ in little else).

    fan_in: W, b ~ U(+-1/sqrt(fan_in)), PyTorch's and Equinox's default. rlkit: W ~ U(+-1/sqrt(fan_out)), b = 0 (it reads
    the wrong axis; kept as published), with heads W, b ~ U(+-head_scale). glorot: Keras's default, b = 0.
    """
    layer = eqx.nn.Linear(fan_in, fan_out, key=key)
    if initializer == "fan_in":
        return layer
    weight_key, bias_key = jax.random.split(key)
    bias = jnp.zeros(fan_out)
    if initializer == "glorot":
        limit = (6.0 / (fan_in + fan_out)) ** 0.5
    elif head_scale is not None:
        limit = head_scale
        bias = jax.random.uniform(bias_key, (fan_out,), minval=-limit, maxval=limit)
    else:
        limit = fan_out**-0.5
    weight = jax.random.uniform(weight_key, (fan_out, fan_in), minval=-limit, maxval=limit)
    return eqx.tree_at(lambda it: (it.weight, it.bias), layer, (weight, bias))
