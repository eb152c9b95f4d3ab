"""Layer normalisation at the price of a matrix product.

On CPUs XLA reduces over rows and columns so slowly that the plain form takes longer than the layers around it. Here a
sum over a row is a product with a vector, and the norm's scale and shift go into the weights of the layer that follows,
where they cost nothing per row. benchmarks/layer_norm.py compares the two.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.nn.network import Linear, add_to_rows

EPSILON = 1e-6  # added to the variance (ReBRAC's code)


class LayerNorm(eqx.Module):
    """weight * standardised(x) + bias (Ba, Kiros and Hinton 2016, arXiv 1607.06450)."""

    weight: Float[Array, "width"]
    bias: Float[Array, "width"]

    def __init__(self, width: int):
        self.weight, self.bias = jnp.ones(width), jnp.zeros(width)

    def before(self, layer: Linear, hidden: Float[Array, "*rows width"]) -> Float[Array, "*rows out"]:
        """layer(self(hidden))."""
        weight = scale_columns(layer.weight, self.weight)
        return add_to_rows(standardised(hidden) @ weight.T, layer.weight @ self.bias + layer.bias)


@jax.custom_vjp
def standardised(x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """(x - mean) / sqrt(variance + EPSILON), moments over the last axis."""
    return standardised_forward(x)[0]


def standardised_forward(
    x: Float[Array, "*rows n"],
) -> tuple[Float[Array, "*rows n"], tuple[Float[Array, "*rows n"], Float[Array, "*rows 1"]]]:
    centred = x - (x @ averaging(x))[..., None]
    inverse_std = jax.lax.rsqrt(products(centred, centred) / x.shape[-1] + EPSILON)[..., None]
    y = centred * inverse_std
    return y, (y, inverse_std)


def standardised_backward(
    kept: tuple[Float[Array, "*rows n"], Float[Array, "*rows 1"]], gradient: Float[Array, "*rows n"]
) -> tuple[Float[Array, "*rows n"]]:
    y, inverse_std = kept
    along = products(gradient, y)[..., None] / y.shape[-1]
    return (inverse_std * (gradient - (gradient @ averaging(y))[..., None] - y * along),)


standardised.defvjp(standardised_forward, standardised_backward)


def products(one: Float[Array, "*rows n"], other: Float[Array, "*rows n"]) -> Float[Array, "*rows"]:
    """The scalar product of each pair of rows."""
    return jnp.einsum("...i,...i->...", one, other)


def averaging(x: Float[Array, "*rows n"]) -> Float[Array, "n"]:
    """The vector whose product with a row is the row's mean."""
    return jnp.full(x.shape[-1], 1.0 / x.shape[-1], x.dtype)


@jax.custom_vjp
def scale_columns(matrix: Float[Array, "m n"], scale: Float[Array, "n"]) -> Float[Array, "m n"]:
    """matrix with column j times scale[j]."""
    return matrix * scale[None]


def scale_columns_forward(
    matrix: Float[Array, "m n"], scale: Float[Array, "n"]
) -> tuple[Float[Array, "m n"], tuple[Float[Array, "m n"], Float[Array, "n"]]]:
    return matrix * scale[None], (matrix, scale)


def scale_columns_backward(
    kept: tuple[Float[Array, "m n"], Float[Array, "n"]], gradient: Float[Array, "m n"]
) -> tuple[Float[Array, "m n"], Float[Array, "n"]]:
    matrix, scale = kept
    return gradient * scale[None], jnp.ones(matrix.shape[0], matrix.dtype) @ (gradient * matrix)


scale_columns.defvjp(scale_columns_forward, scale_columns_backward)
