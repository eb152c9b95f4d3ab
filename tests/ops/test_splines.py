"""The rational-quadratic spline against what defines it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import splines

BINS = 5
RAW = 2.0 * jax.random.normal(jax.random.key(0), (3, 3 * BINS + 1))
GRID = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 4_001), (3, 4_001))


def rows(at):
    """With an axis for many values at each spline."""
    return splines.Spline(*(it[:, None] for it in at))


def test_zeros_are_the_identity_and_the_uniform_density():
    at = rows(splines.spline(jnp.zeros((1, 3 * BINS + 1))))
    y, log_slope = splines.forward(at, GRID[:1])
    np.testing.assert_allclose(y, GRID[:1], atol=1e-6)
    np.testing.assert_allclose(log_slope, 0.0, atol=1e-5)
    np.testing.assert_allclose(splines.log_density(at, GRID[:1]), np.log(0.5), atol=1e-5)


def test_it_meets_its_knots_with_their_slopes_and_keeps_the_ends():
    at = splines.spline(RAW)
    y, log_slope = splines.forward(rows(at), at.x)
    np.testing.assert_allclose(y, at.y, atol=2e-6)
    np.testing.assert_allclose(np.exp(log_slope), at.slope, rtol=1e-4)
    np.testing.assert_array_equal(at.x[:, [0, -1]], [[-1.0, 1.0]] * 3)


def test_a_quadratic_ratio_by_hand():
    """One bin, slopes 2 and 1/2 at its ends: T = 2 t (t + 2 (1 - t)) / (1 + t (1 - t) / 2) - 1, t = (x + 1) / 2."""
    at = splines.Spline(jnp.array([[-1.0, 1.0]]), jnp.array([[-1.0, 1.0]]), jnp.array([[2.0, 0.5]]))
    y, log_slope = splines.forward(at, jnp.array([0.0]))  # t = 1/2: 2 * (1/4 + 1/2) / (1 + 1/8) - 1
    np.testing.assert_allclose(y, [1.5 / 1.125 - 1.0], rtol=1e-6)
    # Eq. 5 there: (0.5 / 4 + 2 / 4 + 2 / 4) / 1.125^2
    np.testing.assert_allclose(np.exp(log_slope), [1.125 / 1.125**2], rtol=1e-6)


def test_the_slope_is_the_derivative_and_the_inverse_inverts():
    at = rows(splines.spline(RAW))
    inside = 0.999 * GRID
    _, log_slope = splines.forward(at, inside)
    _, derivative = jax.jvp(lambda x: splines.forward(at, x)[0], (inside,), (jnp.ones_like(inside),))
    np.testing.assert_allclose(derivative, np.exp(log_slope), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(splines.forward(at, splines.inverse(at, inside))[0], inside, atol=1e-5)
    assert np.all(np.diff(splines.forward(at, GRID)[0], axis=1) >= 0)


def test_the_density_integrates_to_one():
    density = np.exp(splines.log_density(rows(splines.spline(RAW)), GRID))
    np.testing.assert_allclose(np.trapezoid(density, GRID, axis=1), 1.0, rtol=1e-3)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_the_edges_of_the_box_have_densities_and_gradients(value):
    def total(raw):
        return jnp.sum(splines.log_density(splines.spline(raw), jnp.full(3, value)))

    assert np.isfinite(total(RAW))
    assert np.isfinite(np.asarray(jax.grad(total)(RAW))).all()


def test_the_densest_place_lies_in_the_heavier_of_two_modes():
    """Widths of bins with equal masses: most mass around x = 0.6, less around x = -0.6, nearly none between."""
    x = jnp.array([[-1.0, -0.65, -0.55, 0.55, 0.65, 1.0]])
    y = jnp.array([[-1.0, -0.98, -0.3, -0.25, 0.96, 1.0]])
    found = splines.densest(splines.Spline(x, y, jnp.ones((1, 6))))
    assert 0.55 < float(found[0]) < 0.65
