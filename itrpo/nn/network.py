"""Equinox modules as pure functions over pytrees of arrays.

`Network.init(key)` gives the arrays of a fresh module; `Network.apply(params, ...)` calls the module with those arrays.
Everything that is not an array (sizes, ranges) is closed over, so states can be vmapped, donated and saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from itrpo.types import Array, Params, PRNGKey

Initializer = Literal["fan_in", "rlkit", "glorot"]

# draw(shape, limit) -> numbers from U(-limit, limit); a module's constructor takes one for its initial parameters
Draw = Callable[[tuple[int, ...], float], Array]


class Network(NamedTuple):
    init: Callable[[PRNGKey], Params]
    apply: Callable[..., Any]


def network(build: Callable[[Draw], eqx.Module]) -> Network:
    """Splits what `build(draw)` makes into arrays and the rest.

    All random numbers of a network come from one call: a call per layer makes XLA compile for longer than it trains.
    """
    sizes: list[int] = []

    def count(shape: tuple[int, ...], limit: float) -> Array:
        sizes.append(math.prod(shape))
        return jnp.zeros(shape)

    _, static = eqx.partition(build(count), eqx.is_array)
    total = sum(sizes)

    def init(key: PRNGKey) -> Params:
        numbers = jax.random.uniform(key, (total,), minval=-1.0, maxval=1.0)
        used = 0

        def draw(shape: tuple[int, ...], limit: float) -> Array:
            nonlocal used
            first, used = used, used + math.prod(shape)
            return limit * numbers[first:used].reshape(shape)

        return eqx.filter(build(draw), eqx.is_array)

    def apply(params: Params, *inputs: Array) -> Any:
        return eqx.combine(params, static)(*inputs)

    return Network(init, apply)


class Linear(eqx.Module):
    """y = weight x + bias."""

    weight: Array  # [out, in]
    bias: Array  # [out]

    def __init__(
        self, draw: Draw, fan_in: int, fan_out: int, initializer: Initializer, head_scale: float | None = None
    ):
        """Initial values under one of the rules that the sources use.

        fan_in: weight, bias ~ U(+-1/sqrt(fan_in)), PyTorch's default. rlkit: weight ~ U(+-1/sqrt(fan_out)), bias 0 (it
        reads the wrong axis; kept as published), but weight, bias ~ U(+-head_scale) in a head. glorot: Keras's, bias 0.
        """
        bias_limit = 0.0
        if initializer == "fan_in":
            limit = bias_limit = fan_in**-0.5
        elif initializer == "glorot":
            limit = (6.0 / (fan_in + fan_out)) ** 0.5
        elif head_scale is not None:
            limit = bias_limit = head_scale
        else:
            limit = fan_out**-0.5
        self.weight = draw((fan_out, fan_in), limit)
        self.bias = draw((fan_out,), bias_limit)

    def __call__(self, inputs: Array) -> Array:
        return inputs @ self.weight.T + self.bias
