"""Networks as `itrpo.policy` stores them. Layers are a list of (weight [out, in], bias [out])."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.nn.heads import MLP, ImplicitQuantiles
from itrpo.nn.layer_norm import EPSILON
from itrpo.types import Params

Layers = list[tuple[Any, Any]]


def layer_arrays(mlp: MLP, prefix: str = "", outputs: int | None = None) -> dict[str, Any]:
    """{"PREFIXweight_0": [out, in], "PREFIXbias_0": [out], "PREFIXweight_1": ...} of a network without layer norm.

    `outputs`: how many of the network's outputs, from the first on; None: all.
    """
    if mlp.norms:
        raise ValueError("a policy with layer norm can't be exported")
    layers = layers_of(mlp)
    weight, bias = layers[-1]
    return arrays_of([*layers[:-1], (weight[:outputs], bias[:outputs])], prefix)


def arrays_of(layers: Layers, prefix: str = "") -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, (weight, bias) in enumerate(layers):
        arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"] = weight, bias
    return arrays


def layers_of(mlp: MLP) -> Layers:
    """With layer norm: scales and shifts are in the layers that follow, and what is left of it is to standardise."""
    layers = [(layer.weight, layer.bias) for layer in mlp.layers]
    for i, norm in enumerate(mlp.norms, start=1):
        weight, bias = layers[i]
        layers[i] = weight * norm.weight[None], weight @ norm.bias + bias
    return layers


def value_arrays(params: Params, combined: Array | None = None) -> dict[str, Any]:
    """Of an ensemble of critics of choices [N, ...], as the policy kind "argmax" has them.

    combined [n, outputs]: what becomes of a network's outputs; None: they are the values.
    """
    arrays: dict[str, Any] = {}
    for i in range(len(jax.tree.leaves(params)[0])):
        mlp = jax.tree.map(lambda leaf, i=i: leaf[i], params).mlp
        *hidden, (weight, bias) = layers_of(mlp)
        if combined is not None:
            weight, bias = combined @ weight, combined @ bias
        arrays |= arrays_of([*hidden, (weight, bias)], f"q{i}_" if i else "")
        arrays |= {"epsilon": EPSILON} if mlp.norms else {}
    return arrays


def quantile_arrays(network: ImplicitQuantiles, levels: Float[Array, "K"]) -> dict[str, Any]:
    """The mean of the quantiles of K fixed levels, as the policy kind "argmax" has it: an ordinary network, whose last
    hidden layer is as many times wider.
    """
    scales, count = network.scales(levels), len(levels)
    *hidden, (weight, bias) = layers_of(network.tail)
    if not hidden:
        tail = [(weight * jnp.mean(scales, axis=0, keepdims=True), bias)]
    else:
        (inner, shift), *_ = hidden
        wide = (inner[None] * scales[:, None]).reshape(count * len(inner), -1)
        tail = [(wide, jnp.tile(shift, count)), (jnp.tile(weight / count, (1, count)), bias)]
    return arrays_of([*layers_of(network.body), *tail])
