"""Networks as `itrpo.policy` stores them. Layers are a list of (weight [out, in], bias [out])."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from itrpo.nn.heads import MLP
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
