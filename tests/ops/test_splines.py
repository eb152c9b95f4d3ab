"""The rational-quadratic spline against what defines it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import splines

BINS = 5
RAW = 2.0 * jax.random.normal(jax.random.key(0), (3, 3 * BINS - 1))
GRID = np.broadcast_to(np.linspace(-8.0, 8.0, 16_001, dtype=np.float32), (3, 16_001))
spline, forward, inverse, log_density, densest = map(  # one program each, where its parts would compile one by one
    jax.jit, (splines.spline, splines.forward, splines.inverse, splines.log_density, splines.densest)
)


def rows(at):
    """With an axis for many values at each spline."""
    return splines.Spline(*(it[:, None] for it in at))


def test_zeros_are_the_identity_and_the_standard_normal():
    at = rows(spline(jnp.zeros((1, 3 * BINS - 1))))
    y, log_slope = forward(at, GRID[:1])
    np.testing.assert_allclose(y, GRID[:1], atol=2e-6)
    np.testing.assert_allclose(log_slope, 0.0, atol=1e-5)
    normal = -0.5 * GRID[:1] ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_density(at, GRID[:1]), normal, atol=2e-5)


def test_it_meets_its_knots_with_their_slopes_and_is_the_identity_outside():
    at = spline(RAW)
    y, log_slope = forward(rows(at), at.x)
    np.testing.assert_allclose(y, at.y, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_slope), at.slope, rtol=1e-4)
    np.testing.assert_array_equal(at.x[:, [0, -1]], [[-splines.BOUND, splines.BOUND]] * 3)
    np.testing.assert_array_equal(at.slope[:, [0, -1]], 1.0)
    outside = jnp.broadcast_to(jnp.array([-5.0, 3.5]), (3, 2))
    np.testing.assert_array_equal(forward(rows(at), outside)[0], outside)
    np.testing.assert_array_equal(inverse(rows(at), outside), outside)


def test_a_quadratic_ratio_by_hand():
    """One bin, slopes 2 and 1/2 at its ends: T = 6 t (t + 2 (1 - t)) / (1 + t (1 - t) / 2) - 3, t = (x + 3) / 6."""
    at = splines.Spline(jnp.array([[-3.0, 3.0]]), jnp.array([[-3.0, 3.0]]), jnp.array([[2.0, 0.5]]))
    y, log_slope = forward(at, jnp.array([0.0]))  # t = 1/2: 6 (1/4 + 1/2) / (1 + 1/8) - 3
    np.testing.assert_allclose(y, [4.5 / 1.125 - 3.0], rtol=1e-6)
    # Eq. 5 there: (0.5 / 4 + 2 / 4 + 2 / 4) / 1.125^2
    np.testing.assert_allclose(np.exp(log_slope), [1.125 / 1.125**2], rtol=1e-6)


def test_the_slope_is_the_derivative_and_the_inverse_inverts():
    at = rows(spline(RAW))
    _, log_slope = forward(at, GRID)
    slope_along = jax.jit(lambda x, along: jax.jvp(lambda it: splines.forward(at, it)[0], (x,), (along,))[1])
    derivative = slope_along(GRID, np.ones_like(GRID))
    np.testing.assert_allclose(derivative, np.exp(log_slope), rtol=2e-3, atol=1e-5)
    # a value of y has float32's rounding, 4e-7 here, and that of x times a slope of up to 20
    np.testing.assert_allclose(splines.forward(at, splines.inverse(at, jnp.asarray(GRID)))[0], GRID, atol=3e-5)
    assert np.all(np.diff(forward(at, GRID)[0], axis=1) >= 0)


def test_the_density_integrates_to_one():
    density = np.exp(log_density(rows(spline(RAW)), GRID))
    np.testing.assert_allclose(np.trapezoid(density, GRID, axis=1), 1.0, rtol=1e-3)


SLOPES = jax.jit(jax.grad(lambda raw, x: jnp.sum(splines.log_density(splines.spline(raw), x)), (0, 1)))


@pytest.mark.parametrize("value", [-splines.BOUND, splines.BOUND, 30.0])
def test_gradients_are_finite_at_the_ends_and_beyond(value):
    for slopes in SLOPES(RAW, np.full(3, value, np.float32)):
        assert np.isfinite(slopes).all()


def test_the_densest_place_lies_in_the_heavier_of_two_modes():
    """T jumps at x = 1.8 through two thirds of a normal's mass, at -1.8 through nearly all of the rest."""
    x = jnp.array([[-3.0, -1.9, -1.7, 1.7, 1.9, 3.0]])
    y = jnp.array([[-3.0, -2.0, -0.5, -0.4, 2.0, 3.0]])
    found = densest(splines.Spline(x, y, jnp.ones((1, 6))))
    assert 1.7 < float(found[0]) < 1.9
