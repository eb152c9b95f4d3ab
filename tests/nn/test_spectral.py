"""Spectral normalisation against the singular value decomposition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.nn import spectral
from itrpo.nn.heads import MLP
from itrpo.nn.network import network
from tests.compiled import compiled

NETWORK = compiled(network(lambda draw: MLP(draw, (5, 12, 7, 1))))
normalised, iterate = jax.jit(spectral.normalised), jax.jit(spectral.iterate)
init_directions = jax.jit(spectral.init_directions, static_argnames="steps")


def params(scale: float = 1.0) -> MLP:
    return jax.tree.map(lambda it: scale * it, NETWORK.init(jax.random.key(0)))


def converged(mlp: MLP) -> spectral.Directions:
    return init_directions(jax.random.key(1), mlp, steps=200)


def largest_singular_values(mlp: MLP) -> list[float]:
    return [float(np.linalg.svd(np.asarray(layer.weight))[1][0]) for layer in mlp.layers]


def test_normalised_weights_are_those_over_the_largest_singular_value():
    mlp = params(3.0)
    after = normalised(mlp, converged(mlp))
    for layer, new, sigma in zip(mlp.layers, after.layers, largest_singular_values(mlp), strict=True):
        np.testing.assert_allclose(new.weight, layer.weight / sigma, rtol=1e-5)
        np.testing.assert_array_equal(new.bias, layer.bias)
    np.testing.assert_allclose(largest_singular_values(after), 1.0, rtol=1e-5)


def test_one_step_at_a_time_converges_and_stays_of_length_one():
    mlp = params()
    directions = init_directions(jax.random.key(2), mlp, steps=0)
    errors = []
    for _ in range(60):
        directions = iterate(mlp, directions)
        errors.append(max(abs(it - 1) for it in largest_singular_values(normalised(mlp, directions))))
    assert all(abs(np.linalg.norm(it) - 1) < 1e-5 for it in directions)
    assert errors[0] > 1e-3 > errors[-1]


def test_the_gradient_sees_sigma_but_not_the_directions():
    """Of f(W / sigma(W)) with sigma = u^T W v: moving W along itself changes nothing, as the ratio is scale-free."""
    mlp, x = params(), jnp.arange(5.0) / 5
    directions = converged(mlp)

    def f(it: MLP):
        return spectral.normalised(it, directions)(x)[0]

    gradient = jax.jit(jax.grad(f))(mlp)
    for layer, slope in zip(mlp.layers, gradient.layers, strict=True):
        assert float(jnp.abs(slope.weight).max()) > 1e-3
        np.testing.assert_allclose(jnp.sum(slope.weight * layer.weight), 0.0, atol=1e-6)
    assert normalised(mlp, directions)(x).shape == (1,)


def test_a_normalised_network_is_1_lipschitz():
    mlp = params(5.0)
    after = normalised(mlp, converged(mlp))
    points = np.random.default_rng(3).normal(size=(200, 5)).astype(np.float32) * 3
    slopes = jax.jit(jax.vmap(jax.grad(lambda it: after(it)[0])))(points)
    assert np.linalg.norm(slopes, axis=1).max() <= 1 + 1e-5
