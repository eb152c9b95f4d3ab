"""Networks as `itrpo.policy` stores them."""

from __future__ import annotations

from itrpo.nn.heads import MLP
from itrpo.types import Array


def layer_arrays(mlp: MLP, prefix: str = "") -> dict[str, Array]:
    """{"PREFIXweight_0": [out, in], "PREFIXbias_0": [out], "PREFIXweight_1": ...} of a network without layer norm."""
    assert not mlp.norms
    arrays: dict[str, Array] = {}
    for i, layer in enumerate(mlp.layers):
        arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"] = layer.weight, layer.bias
    return arrays
