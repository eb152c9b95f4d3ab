"""Masks: their law, and what they do to a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.nn import dropout
from itrpo.nn.heads import MLP
from itrpo.nn.network import network
from tests.compiled import compiled

NETWORK = compiled(network(lambda draw: MLP(draw, (3, 6, 4, 2))))
draw_masks = jax.jit(dropout.draw_masks, static_argnums=(1, 2, 3))
masked = jax.jit(dropout.masked)


def test_masks_are_zero_with_their_rate_and_keep_the_mean():
    first, second = draw_masks(jax.random.key(0), (60, 40), 0.1, (500,))
    assert (first.shape, second.shape) == ((500, 60), (500, 40))
    values = np.concatenate([np.ravel(first), np.ravel(second)])
    np.testing.assert_allclose(np.unique(values), [0.0, 1 / 0.9], rtol=1e-6)
    standard_error = np.sqrt(0.1 * 0.9 / values.size)
    assert abs((values == 0).mean() - 0.1) < 4 * standard_error
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.2  # layers have masks of their own


def test_masked_is_the_network_with_units_taken_out():
    mlp, x = NETWORK.init(jax.random.key(1)), jnp.array([0.3, -1.0, 2.0])
    masks = draw_masks(jax.random.key(2), (6, 4), 0.5)
    hidden = np.asarray(x)
    for layer, mask in zip(mlp.layers, masks, strict=False):
        hidden = np.maximum(np.asarray(layer.weight) @ hidden + np.asarray(layer.bias), 0) * np.asarray(mask)
    expected = np.asarray(mlp.layers[-1].weight) @ hidden + np.asarray(mlp.layers[-1].bias)
    np.testing.assert_allclose(masked(mlp, x, masks), expected, rtol=1e-5)


def test_masks_of_rate_zero_change_nothing():
    mlp, x = NETWORK.init(jax.random.key(1)), jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_array_equal(dropout.masked(mlp, x, draw_masks(jax.random.key(0), (6, 4), 0.0)), mlp(x))
