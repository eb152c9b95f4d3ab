"""Layer normalisation at the price of a matrix product.

On CPUs XLA reduces over rows and columns so slowly that the plain form takes longer than the layers around it. Here a
sum over a row is a product with a vector, and the norm's scale and shift go into the weights of the layer that follows,
where they cost nothing per row. benchmarks/layer_norm.py compares the two.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from itrpo.nn.network import Linear
from itrpo.types import Array

EPSILON = 1e-6  # added to the variance (ReBRAC's code)


class LayerNorm(eqx.Module):
    """weight * standardised(x) + bias (Ba, Kiros and Hinton 2016, arXiv 1607.06450)."""

    weight: Array  # [width]
    bias: Array  # [width]

    def __init__(self, width: int):
        self.weight, self.bias = jnp.ones(width), jnp.zeros(width)

    def before(self, layer: Linear, hidden: Array) -> Array:
        """layer(self(hidden)) for hidden [width]."""
        weight = scale_columns(layer.weight, self.weight)
        return standardised(hidden) @ weight.T + (layer.weight @ self.bias + layer.bias)


@jax.custom_vjp
def standardised(x: Array) -> Array:
    """(x - mean) / sqrt(variance + EPSILON), moments over the entries of x [n]."""
    return standardised_forward(x)[0]


def standardised_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    centred = x - x @ averaging(x)
    inverse_std = jax.lax.rsqrt(centred @ centred / x.shape[0] + EPSILON)
    y = centred * inverse_std
    return y, (y, inverse_std)


def standardised_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    y, inverse_std = kept
    along = gradient @ y / y.shape[0]
    return (inverse_std * (gradient - gradient @ averaging(y) - y * along),)


standardised.defvjp(standardised_forward, standardised_backward)


def averaging(x: Array) -> Array:
    """The vector whose product with x [n] is x's mean."""
    return jnp.full(x.shape[0], 1.0 / x.shape[0], x.dtype)


@jax.custom_vjp
def scale_columns(matrix: Array, scale: Array) -> Array:
    """matrix [m, n] with column j times scale[j]."""
    return matrix * scale[None]


def scale_columns_forward(matrix: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
    return matrix * scale[None], (matrix, scale)


def scale_columns_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    matrix, scale = kept
    return gradient * scale[None], jnp.ones(matrix.shape[0], matrix.dtype) @ (gradient * matrix)


scale_columns.defvjp(scale_columns_forward, scale_columns_backward)
