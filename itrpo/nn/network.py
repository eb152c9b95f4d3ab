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
from jax import Array
from jaxtyping import Float, Key

from itrpo.types import Params

Initializer = Literal[
    "fan_in", "fan_in_small_head", "rlkit", "rlkit_biased", "glorot", "edac", "orthogonal", "orthogonal_small_head"
]

# draw(shape, limit) -> numbers from U(-limit, limit); a module's constructor takes one for its initial parameters
Draw = Callable[[tuple[int, ...], float], Array]


class Network(NamedTuple):
    """Inputs begin with any number of axes, of rows and of actions in each; outputs begin with the same."""

    init: Callable[[Key[Array, ""]], Params]  # -> params, a pytree of arrays
    apply: Callable[..., Any]  # (params, *inputs) -> what the module gives


def network(build: Callable[[Draw], eqx.Module]) -> Network:
    """Splits what `build(draw)` makes into arrays and the rest.

    All random numbers of a network come from one call: a call per layer makes XLA compile for longer than it trains.
    """
    sizes: list[int] = []

    def count(shape: tuple[int, ...], limit: float) -> Array:
        sizes.append(math.prod(shape))
        return jnp.zeros(shape)

    shapes = eqx.filter_eval_shape(lambda: build(count))  # computes nothing
    _, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    total = sum(sizes)

    def init(key: Key[Array, ""]) -> Params:
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

    weight: Float[Array, "out in"]
    bias: Float[Array, "out"]

    def __init__(
        self, draw: Draw, fan_in: int, fan_out: int, initializer: Initializer, head_scale: float | None = None
    ):
        """Initial values under one of the rules that the sources use; head_scale marks a head.

        fan_in: weight, bias ~ U(+-1/sqrt(fan_in)), PyTorch's default. glorot: Keras's, bias 0.
        fan_in_small_head (SPOT on AntMaze): as fan_in; head ~ U(+-head_scale).
        rlkit: weight ~ U(+-1/sqrt(fan_out)), bias 0 (the wrong axis, kept as published); head ~ U(+-head_scale).
        rlkit_biased (BEAR, UWAC): as rlkit, bias 0.1: rlkit's own default.
        edac (SAC-N, EDAC, ReBRAC): weight as fan_in, bias 0.1; head ~ U(+-head_scale).
        orthogonal (IQL): weight = sqrt(2) times an orthogonal matrix, bias 0.
        orthogonal_small_head (Fisher-BRC, CORL's CQL): the same, but 0.01 times in a head.
        """
        bias = bias_limit = 0.0
        if initializer == "fan_in" or (initializer == "fan_in_small_head" and head_scale is None):
            limit = bias_limit = fan_in**-0.5
        elif initializer == "glorot":
            limit = (6.0 / (fan_in + fan_out)) ** 0.5
        elif initializer in ("orthogonal", "orthogonal_small_head"):
            limit = 1.0
        elif head_scale is not None:
            limit = bias_limit = head_scale
        elif initializer == "edac":
            limit, bias = fan_in**-0.5, 0.1
        else:
            limit, bias = fan_out**-0.5, 0.1 if initializer == "rlkit_biased" else 0.0
        self.weight = draw((fan_out, fan_in), limit)
        self.bias = bias + draw((fan_out,), bias_limit)
        if initializer in ("orthogonal", "orthogonal_small_head"):
            small = initializer == "orthogonal_small_head" and head_scale is not None
            self.weight = (0.01 if small else math.sqrt(2.0)) * orthogonal(self.weight)

    def __call__(self, inputs: Float[Array, "*rows in"]) -> Float[Array, "*rows out"]:
        return add_to_rows(inputs @ self.weight.T, self.bias)


def add_to_rows(rows: Float[Array, "*rows n"], row: Float[Array, "n"]) -> Float[Array, "*rows n"]:
    return rows + jnp.broadcast_to(row, rows.shape)


def orthogonal(uniform: Array) -> Array:
    """Numbers from U(-1, 1) [n, m] -> a matrix drawn evenly from those with orthonormal rows (n <= m) or columns.

    Gram and Schmidt's way, each row twice for its rounding. Not jnp.linalg.qr: two batches of it at once leave XLA's
    CPU waiting for ever where it has two threads (each holds one while waiting for another; jaxlib 0.10.2).
    """
    normal = jax.scipy.special.erfinv(jnp.clip(uniform, -1.0 + 1e-6, 1.0 - 1e-6))  # its scale drops out
    tall = uniform.shape[0] > uniform.shape[1]
    rows = normal.T if tall else normal

    def add(i: Array, basis: Array) -> Array:
        row = rows[i]
        for _ in range(2):
            row -= (basis @ row) @ basis
        return basis.at[i].set(row / jnp.linalg.norm(row))

    basis = jax.lax.fori_loop(0, rows.shape[0], add, jnp.zeros_like(rows))
    return basis.T if tall else basis
