"""Lagrange multipliers: their size, and which way a violated constraint moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops.lagrange import LARGEST, multiplier, multiplier_loss, weight_loss


@pytest.mark.parametrize(("excess", "sign"), [(0.1, 1), (-0.1, -1)])
def test_a_multiplier_rises_while_its_constraint_is_violated(excess, sign):
    value, gradient = jax.value_and_grad(multiplier_loss)(jnp.asarray(0.7), jnp.asarray(excess))
    np.testing.assert_allclose(value, -np.exp(0.7) * excess, rtol=1e-5)
    np.testing.assert_allclose(gradient, -np.exp(0.7) * excess, rtol=1e-5)
    assert np.sign(-gradient) == sign


def test_it_is_never_larger_than_its_clip_and_stays_there():
    np.testing.assert_allclose(jax.vmap(multiplier)(jnp.array([-2.0, 0.0, 13.0])), np.exp([-2.0, 0.0, 13.0]), rtol=1e-5)
    np.testing.assert_array_equal(multiplier(jnp.asarray(20.0)), LARGEST)
    assert jax.grad(multiplier_loss)(jnp.asarray(20.0), jnp.asarray(1.0)) == 0


@pytest.mark.parametrize("excess", [0.3, -0.2])
def test_a_weight_learned_as_it_is_rises_while_its_constraint_is_violated(excess):
    value, gradient = jax.value_and_grad(weight_loss)(jnp.asarray(7.0), jnp.asarray(excess))
    np.testing.assert_allclose((value, gradient), (-7.0 * excess, -excess), rtol=1e-6)
