"""Dropout as an argument: masks are drawn outside the network, so that one mask can serve many rows, or each its own.

A mask multiplies a layer's ReLU outputs: 0 with probability `rate`, else 1 / (1 - rate), so that means are kept
(Srivastava et al. 2014). Before the ReLU (SPOT's code) or after it (UWAC's) is the same, as it is never negative.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.heads import MLP

Masks = tuple[Float[Array, "..."], ...]  # [..., width] for each hidden layer


def draw_masks(key: Key[Array, ""], hidden: tuple[int, ...], rate: Array | float, shape: tuple[int, ...] = ()) -> Masks:
    """Masks [*shape, width] for hidden layers of these widths, from one draw. The key is consumed."""
    kept = jax.random.bernoulli(key, 1.0 - rate, (*shape, sum(hidden)))
    scaled = jnp.where(kept, 1.0 / (1.0 - rate), 0.0)
    return tuple(jnp.split(scaled, np.cumsum(hidden)[:-1], axis=-1))


def masked(mlp: MLP, inputs: Float[Array, "*rows inputs"], masks: Masks) -> Float[Array, "*rows outputs"]:
    """`mlp(inputs)` with a mask on each hidden layer: [*rows, width], or [width] for all rows."""
    hidden = inputs
    for layer, mask in zip(mlp.layers[:-1], masks, strict=True):
        hidden = jax.nn.relu(layer(hidden))
        hidden = hidden * jnp.broadcast_to(mask, hidden.shape)
    return mlp.layers[-1](hidden)
