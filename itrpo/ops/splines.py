"""Monotone rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032, Eqs. 4-8), whose inverse and derivative
are closed forms, and the density of x where T(x) is standard normal: log p(x) = log N(T(x); 0, 1) + log T'(x).

T is a spline of [-BOUND, BOUND] onto itself, and the identity outside, where it arrives with slope 1. K bins have K + 1
knots, and take 3 K - 1 numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.ops.distributions import LOG_SQRT_2PI

BOUND = 3.0  # the authors' value for tabular data
LEAST_SHARE = 1e-3  # of the interval that a bin has, on either side (the authors' code)
LEAST_SLOPE = 1e-3  # at a knot (the authors' code)
LEVELS = 33  # quantiles that `densest` looks at


class Spline(NamedTuple):
    """Knots (x_j, y_j), from (-BOUND, -BOUND) to (BOUND, BOUND), and the slopes there."""

    x: Float[Array, "*rows knots"]
    y: Float[Array, "*rows knots"]
    slope: Float[Array, "*rows knots"]


def spline(raw: Float[Array, "*rows numbers"]) -> Spline:
    """From what a network gives: K widths, K heights, K - 1 slopes. Zeros give the identity."""
    bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = jnp.split(raw, [bins, 2 * bins], axis=-1)
    inner = LEAST_SLOPE + jax.nn.softplus(slopes + jnp.log(jnp.expm1(1.0 - LEAST_SLOPE)))
    end = jnp.ones((*raw.shape[:-1], 1))
    return Spline(knots(widths), knots(heights), jnp.concatenate([end, inner, end], axis=-1))


def knots(raw: Float[Array, "*rows K"]) -> Float[Array, "*rows knots"]:
    shares = LEAST_SHARE + (1.0 - LEAST_SHARE * raw.shape[-1]) * jax.nn.softmax(raw, axis=-1)
    inner = BOUND * (2.0 * jnp.cumsum(shares, axis=-1)[..., :-1] - 1.0)
    end = jnp.full((*raw.shape[:-1], 1), BOUND)
    return jnp.concatenate([-end, inner, end], axis=-1)


class Bin(NamedTuple):
    """The bin that a value is in: where it begins, its sizes, mean slope s and the slopes at its ends."""

    x: Array
    y: Array
    width: Array
    height: Array
    mean: Array
    left: Array
    right: Array


def bin_of(at: Spline, ends: Float[Array, "*#rows knots"], value: Float[Array, "*rows"]) -> Bin:
    """`ends` are x or y of the spline, whichever `value` is an x or a y of."""
    index = jnp.sum(value[..., None] >= ends[..., 1:-1], axis=-1)[..., None]

    def pick(knots: Array, offset: int) -> Array:
        everywhere = jnp.broadcast_to(knots, (*value.shape, knots.shape[-1]))
        return jnp.take_along_axis(everywhere, index + offset, axis=-1)[..., 0]

    (x, right_x), (y, right_y), (left, right) = ((pick(it, 0), pick(it, 1)) for it in at)
    return Bin(x, y, right_x - x, right_y - y, (right_y - y) / (right_x - x), left, right)


def forward(at: Spline, x: Float[Array, "*rows"]) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    """T(x) and log T'(x) (Eqs. 4 and 5)."""
    within = jnp.clip(x, -BOUND, BOUND)
    it = bin_of(at, at.x, within)
    t = (within - it.x) / it.width
    both = t * (1.0 - t)
    below = it.mean + (it.left + it.right - 2.0 * it.mean) * both
    y = it.y + it.height * (it.mean * t**2 + it.left * both) / below
    above = it.right * t**2 + 2.0 * it.mean * both + it.left * (1.0 - t) ** 2
    log_slope = 2.0 * (jnp.log(it.mean) - jnp.log(below)) + jnp.log(above)
    inside = jnp.abs(x) < BOUND
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)


def inverse(at: Spline, y: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """x with T(x) = y (Eqs. 6-8), in the form of the root that does not cancel."""
    within = jnp.clip(y, -BOUND, BOUND)
    it = bin_of(at, at.y, within)
    rise, bend = within - it.y, it.left + it.right - 2.0 * it.mean
    a = it.height * (it.mean - it.left) + rise * bend
    b = it.height * it.left - rise * bend
    c = -it.mean * rise
    root = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
    return jnp.where(jnp.abs(y) < BOUND, it.x + it.width * jnp.clip(root, 0.0, 1.0), y)


def log_density(at: Spline, x: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """Of x whose T(x) is standard normal."""
    y, log_slope = forward(at, x)
    return log_slope - 0.5 * jnp.square(y) - LOG_SQRT_2PI


def densest(at: Spline) -> Float[Array, "*rows"]:
    """A mode of x whose T(x) is standard normal: the median of the shortest interval that holds half of the mass."""
    levels = jax.scipy.special.ndtri((jnp.arange(LEVELS) + 0.5) / LEVELS)
    quantiles = inverse(Spline(*(it[..., None, :] for it in at)), jnp.broadcast_to(levels, (*at.x.shape[:-1], LEVELS)))
    half = LEVELS // 2
    start = jnp.argmin(quantiles[..., half:] - quantiles[..., : half + 1], axis=-1)[..., None]
    return jnp.take_along_axis(quantiles, start + half // 2, axis=-1)[..., 0]
