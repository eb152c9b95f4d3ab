"""Spectral normalisation: weights divided by their largest singular value (Miyato et al. 2018, arXiv 1802.05957).

    v <- W^T u / ||W^T u||     u <- W v / ||W v||     sigma = u^T W v     W / sigma

One such step of power iteration per use, on a vector u that is kept from one use to the next, follows sigma as W moves.
u and v count as constants in the gradient, W does not: d(W / sigma) holds -W (u^T dW v) / sigma^2.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.heads import MLP

Directions = tuple[Float[Array, "*members _"], ...]  # u of each layer, of length 1


def init_directions(key: Key[Array, ""], mlp: MLP, steps: int = 15) -> Directions:
    """Random directions after a few steps of power iteration, as PyTorch starts its newer spectral norm."""
    keys = jax.random.split(key, len(mlp.layers))
    directions = tuple(jax.random.normal(it, layer.bias.shape) for it, layer in zip(keys, mlp.layers, strict=True))
    return jax.lax.fori_loop(0, steps, lambda _, found: iterate(mlp, found), directions)


def iterate(mlp: MLP, directions: Directions) -> Directions:
    """One step of power iteration for every layer."""
    return tuple(
        _unit(layer.weight @ _unit(it @ layer.weight)) for layer, it in zip(mlp.layers, directions, strict=True)
    )


def normalised(mlp: MLP, directions: Directions) -> MLP:
    """`mlp` with each weight divided by its spectral norm, as far as the directions have converged."""
    weights = []
    for layer, left in zip(mlp.layers, directions, strict=True):
        left = jax.lax.stop_gradient(left)
        right = jax.lax.stop_gradient(_unit(left @ layer.weight))
        weights.append(layer.weight / (left @ layer.weight @ right))
    return eqx.tree_at(lambda it: [layer.weight for layer in it.layers], mlp, weights)


def _unit(vector: Float[Array, "n"]) -> Float[Array, "n"]:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)
