"""The flow along a path from noise to data, against fields whose flow is known."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.ops import interpolants


def normal(x, std):
    return -0.5 * (x / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def of_a_gaussian(std):
    """v of y ~ N(0, std^2): x_t has the variance w = cos^2 + std^2 sin^2, and v = x w' / (2 w)."""

    def field(x, t):
        variance = jnp.cos(t) ** 2 + (std * jnp.sin(t)) ** 2
        return x * (std**2 - 1) * jnp.sin(t) * jnp.cos(t) / variance

    return field


def of_two_modes(middle, std):
    """v of y = +-middle + std * e, each as likely: the means of both, by what is likely at x."""

    def field(x, t):
        cos, sin = jnp.cos(t), jnp.sin(t)
        variance = cos**2 + (std * sin) ** 2
        right = jax.nn.sigmoid(2 * x * sin * middle / variance)
        mean_y = [side * middle + sin * std**2 / variance * (x - side * sin * middle) for side in (1, -1)]
        mean_z = [cos / variance * (x - side * sin * middle) for side in (1, -1)]
        slopes = [cos * y - sin * z for y, z in zip(mean_y, mean_z, strict=True)]
        return right * slopes[0] + (1 - right) * slopes[1]

    return field


def test_the_path_begins_at_noise_ends_at_data_and_its_slope_is_its_derivative():
    noise, data = jax.random.normal(jax.random.key(0), (2, 5, 3))
    for t, end in ((0.0, noise), (np.pi / 2, data)):
        np.testing.assert_allclose(interpolants.between(jnp.full((5, 1), t), noise, data)[0], end, atol=1e-6)
    at = jnp.full((5, 1), 0.4)
    slope = jax.jvp(lambda t: interpolants.between(t, noise, data)[0], (at,), (jnp.ones_like(at),))[1]
    np.testing.assert_allclose(interpolants.between(at, noise, data)[1], slope, rtol=1e-5, atol=1e-6)


def test_what_is_gaussian_already_stays_where_it_is():
    """The mean slope given x_t is zero if data is noise: x_t and dx_t/dt are independent."""
    noise, data = jax.random.normal(jax.random.key(0), (2, 200_000, 1))
    t = jax.random.uniform(jax.random.key(1), (200_000, 1), maxval=np.pi / 2)
    x, slope = interpolants.between(t, noise, data)
    assert abs(np.corrcoef(x[:, 0], slope[:, 0])[0, 1]) < 5 / np.sqrt(200_000)


def test_the_divergence_is_the_trace_of_the_jacobian():
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32)
    value, divergence = interpolants.with_divergence(lambda it: jnp.tanh(it @ weight.T), x)
    np.testing.assert_allclose(value, jnp.tanh(x @ weight.T), rtol=1e-6)
    trace = np.einsum("bni,ii->bn", 1 - np.tanh(x @ weight.T) ** 2, weight)
    np.testing.assert_allclose(divergence, trace, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_the_density_and_the_map_of_a_gaussian(std):
    field, ends = of_a_gaussian(std), interpolants.times(10)
    y = jnp.linspace(-3 * std, 3 * std, 13)[:, None]
    truth = normal(np.asarray(y)[:, 0], std)
    np.testing.assert_allclose(interpolants.log_density(field, y, ends), truth, atol=0.07)
    fine = interpolants.times(80)  # the midpoint rule: an eighth of the step, a sixty-fourth of the error
    np.testing.assert_allclose(interpolants.log_density(field, y, fine), truth, atol=0.001)
    np.testing.assert_allclose(interpolants.transported(field, y / std, fine), y, rtol=2e-3, atol=1e-5)


def test_the_density_of_two_modes_and_its_slope():
    """What the actor follows is the slope of the log-density, which the divergence has a part in."""
    middle, std = 0.9, 0.2
    y = jnp.linspace(-1.5, 1.5, 61)[:, None]

    def truth(it):
        sides = [-0.5 * ((it - side * middle) / std) ** 2 for side in (1, -1)]
        return jnp.logaddexp(*sides) - jnp.log(2 * std) - 0.5 * jnp.log(2 * jnp.pi)

    @partial(jax.jit, static_argnums=1)
    def estimate(it, steps):
        return interpolants.log_density(of_two_modes(middle, std), it, interpolants.times(steps))

    def slope_of(density):
        return jax.jit(jax.grad(lambda it: jnp.sum(density(it))))(y)

    for steps, tolerance in ((10, 0.15), (160, 0.001)):
        density = jnp.exp(truth(y[:, 0]))
        errors = [jnp.abs(estimate(y, steps) - truth(y[:, 0]))]
        errors += [jnp.abs(slope_of(lambda it, n=steps: estimate(it, n)) - slope_of(truth))[:, 0] * std]
        for error in errors:
            assert float(jnp.sum(density * error) / jnp.sum(density)) < tolerance, steps
