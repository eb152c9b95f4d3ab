"""Networks as `itrpo.policy` stores them."""

from __future__ import annotations

from typing import Any

from itrpo.nn.heads import MLP


def layer_arrays(mlp: MLP, prefix: str = "", outputs: int | None = None) -> dict[str, Any]:
    """{"PREFIXweight_0": [out, in], "PREFIXbias_0": [out], "PREFIXweight_1": ...} of a network without layer norm.

    `outputs`: how many of the network's outputs, from the first on; None: all.
    """
    if mlp.norms:
        raise ValueError("a policy with layer norm can't be exported")
    arrays: dict[str, Any] = {}
    for i, layer in enumerate(mlp.layers):
        rows = outputs if layer is mlp.layers[-1] else None
        arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"] = layer.weight[:rows], layer.bias[:rows]
    return arrays
