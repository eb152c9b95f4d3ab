"""Layer normalisation before a layer, against its definition; its derivatives, written by hand, against JAX's own."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from itrpo.nn.layer_norm import EPSILON, LayerNorm, scale_columns, standardised
from itrpo.nn.network import Linear

WIDTH, OUT, ROWS = 7, 3, 5
RNG = np.random.default_rng(0)


def parts():
    """A norm whose scale and shift are not those it starts with, the layer after it, and rows."""
    numbers = {"weight": (WIDTH,), "bias": (WIDTH,), "matrix": (OUT, WIDTH), "offset": (OUT,)}
    weight, bias, matrix, offset = (jnp.asarray(RNG.normal(size=it), jnp.float32) for it in numbers.values())
    norm = eqx.tree_at(lambda it: (it.weight, it.bias), LayerNorm(WIDTH), (weight, bias))
    layer = Linear(lambda shape, limit: jnp.zeros(shape), WIDTH, OUT, "fan_in")
    layer = eqx.tree_at(lambda it: (it.weight, it.bias), layer, (matrix, offset))
    return norm, layer, jnp.asarray(RNG.normal(1.0, 2.0, (ROWS, WIDTH)), jnp.float32)


def plain(norm, layer, x):
    """The same with JAX's derivatives."""
    centred = x - jnp.mean(x)
    normalised = centred / jnp.sqrt(jnp.mean(centred**2) + EPSILON)
    return layer.weight @ (norm.weight * normalised + norm.bias) + layer.bias


def ours(norm, layer, x):
    return norm.before(layer, x)


def test_it_is_the_layer_of_the_scaled_and_shifted_row_of_mean_0_and_variance_1():
    norm, layer, rows = parts()
    x = np.asarray(rows, np.float64)
    y = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + EPSILON)
    expected = (y * np.asarray(norm.weight) + np.asarray(norm.bias)) @ np.asarray(
        layer.weight, np.float64
    ).T + np.asarray(layer.bias)
    np.testing.assert_allclose(jax.vmap(ours, (None, None, 0))(norm, layer, rows), expected, rtol=1e-5, atol=1e-5)


def test_at_the_start_it_neither_scales_nor_shifts():
    _, layer, rows = parts()
    fresh = LayerNorm(WIDTH)
    expected = jax.vmap(layer)(jax.vmap(standardised)(rows))
    np.testing.assert_allclose(jax.vmap(ours, (None, None, 0))(fresh, layer, rows), expected, rtol=1e-6)


def assert_same_gradients(loss):
    arguments = parts()
    slopes = jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=0)
    expected, found = slopes(plain, *arguments), slopes(ours, *arguments)
    assert min(np.abs(it).max() for it in jax.tree.leaves(expected)) > 0.1
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_its_gradients_are_those_of_the_definition():
    assert_same_gradients(
        lambda apply, norm, layer, rows: jnp.sum(jax.vmap(apply, (None, None, 0))(norm, layer, rows) ** 2)
    )


def test_gradients_of_its_gradient_are_too():
    """As a penalty on grad_a Q asks for them."""

    def penalty(apply, norm, layer, rows):
        slopes = jax.vmap(jax.grad(lambda x: jnp.sum(apply(norm, layer, x) ** 2)))(rows)
        return jnp.sum(slopes**2)

    assert_same_gradients(penalty)


def test_a_row_of_equal_numbers_is_finite_in_value_and_gradient():
    """What a layer of silent ReLUs gives."""
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(standardised(x)))(jnp.zeros(WIDTH))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_columns_are_scaled():
    found = scale_columns(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([10.0, -1.0]))
    np.testing.assert_array_equal(found, [[10.0, -2.0], [30.0, -4.0]])
