"""Networks as `itrpo.policy` stores them, and several that see the same inputs as one.

A ReLU network is a list of layers, (weight [out, in], bias [out]) each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from itrpo.nn.heads import MLP
from itrpo.types import Params

Layers = list[tuple[Any, Any]]


def layer_arrays(mlp: MLP, prefix: str = "", outputs: int | None = None) -> dict[str, Any]:
    """{"PREFIXweight_0": [out, in], "PREFIXbias_0": [out], "PREFIXweight_1": ...} of a network without layer norm.

    `outputs`: how many of the network's outputs, from the first on; None: all.
    """
    layers = layers_of(mlp)
    weight, bias = layers[-1]
    return arrays_of([*layers[:-1], (weight[:outputs], bias[:outputs])], prefix)


def arrays_of(layers: Layers, prefix: str = "") -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, (weight, bias) in enumerate(layers):
        arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"] = weight, bias
    return arrays


def layers_of(mlp: MLP) -> Layers:
    if mlp.norms:
        raise ValueError("a policy with layer norm can't be exported")
    return [(layer.weight, layer.bias) for layer in mlp.layers]


def side_by_side(networks: Sequence[Layers]) -> Layers:
    """One network with the outputs of all, one after the other."""
    if len(networks) == 1:
        return list(networks[0])
    depth = max(map(len, networks))
    stacked: Layers = []
    for i, layers in enumerate(zip(*(_deepened(it, depth) for it in networks), strict=True)):
        weights, biases = [it[0] for it in layers], [it[1] for it in layers]
        joined = jnp.concatenate(weights) if i == 0 else jax.scipy.linalg.block_diag(*weights)
        stacked.append((joined, jnp.concatenate(biases)))
    return stacked


def members_side_by_side(params: Params) -> Layers:
    """Of an ensemble's `mlp`, whose arrays begin with the axis of members."""
    layers = layers_of(params.mlp)
    return side_by_side([[(weight[i], bias[i]) for weight, bias in layers] for i in range(len(layers[0][0]))])


def then(layers: Layers, matrix: Array, offset: Array | float = 0.0) -> Layers:
    """With the outputs x of the network as matrix @ x + offset."""
    weight, bias = layers[-1]
    return [*layers[:-1], (matrix @ weight, matrix @ bias + offset)]


def _deepened(layers: Layers, depth: int) -> Layers:
    """The same function with more layers. What comes out of a ReLU is not changed by another one."""
    *hidden, (weight, bias) = layers
    if not hidden and depth > 1:  # x = relu(x) - relu(-x)
        eye = jnp.eye(len(bias))
        hidden = [(jnp.concatenate([weight, -weight]), jnp.concatenate([bias, -bias]))]
        weight, bias = jnp.concatenate([eye, -eye], axis=1), jnp.zeros(len(bias))
    same = (jnp.eye(weight.shape[1]), jnp.zeros(weight.shape[1]))
    return [*hidden, *[same] * (depth - len(hidden) - 1), (weight, bias)]
