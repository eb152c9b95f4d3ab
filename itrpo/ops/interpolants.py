"""A path between noise and data, and the flow along it (Lipman et al. 2022, arXiv 2210.02747; the trigonometric path of
Albergo & Vanden-Eijnden 2022, arXiv 2209.15571).

    x_t = cos(t) z + sin(t) y,   z ~ N(0, I),   0 <= t <= pi/2
    v(x, t) = E[dx_t/dt | x_t = x] = E[cos(t) y - sin(t) z | x_t = x]

The ordinary differential equation dx/dt = v(x, t) takes z at 0 to y at pi/2. If y is N(0, I), v is zero: what is
Gaussian already stays where it is. Along the way the log-density falls by the divergence of v (Chen et al. 2018, arXiv
1806.07366, Theorem 1):

    log p(y) = log N(x_0; 0, I) - int_0^{pi/2} div v(x_t, t) dt

It is integrated with the midpoint rule, so it is an estimate, the better the more steps.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from itrpo.ops.distributions import LOG_SQRT_2PI

Field = Callable[[Float[Array, "*rows A"], Float[Array, "..."]], Float[Array, "*rows A"]]  # (x, t) -> v


def between(
    t: Float[Array, "*rows 1"], noise: Float[Array, "*rows A"], data: Float[Array, "*rows A"]
) -> tuple[Float[Array, "*rows A"], Float[Array, "*rows A"]]:
    """x_t, and dx_t/dt, whose mean at x_t is v."""
    cos, sin = jnp.cos(t), jnp.sin(t)
    return cos * noise + sin * data, cos * data - sin * noise


def times(steps: int) -> np.ndarray:
    """Ends [steps + 1] of the steps from 0 to pi/2, the shorter the nearer to the data, where v changes fastest."""
    return np.pi / 2 * (1 - (1 - np.linspace(0.0, 1.0, steps + 1)) ** 2)


def transported(field: Field, noise: Float[Array, "*rows A"], ends: np.ndarray) -> Float[Array, "*rows A"]:
    """y at the end of the path that begins with z = `noise`."""

    def step(x: Array, interval: Array) -> tuple[Array, None]:
        start, stop = interval
        half = (stop - start) / 2
        return x + 2 * half * field(x + half * field(x, start), start + half), None

    return jax.lax.scan(step, noise, intervals(ends))[0]


def log_density(field: Field, data: Float[Array, "*rows A"], ends: np.ndarray) -> Float[Array, "*rows"]:
    """log p(y) of y = `data`, along the path back to its noise. A + 1 products of the field's network for a step."""

    def step(carry: tuple[Array, Array], interval: Array) -> tuple[tuple[Array, Array], None]:
        x, gained = carry
        start, stop = interval
        half = (stop - start) / 2  # negative
        middle = x + half * field(x, start)
        velocity, divergence = with_divergence(lambda it: field(it, start + half), middle)
        return (x + 2 * half * velocity, gained + 2 * half * divergence), None

    back = intervals(ends[::-1])
    (noise, gained), _ = jax.lax.scan(step, (data, jnp.zeros(data.shape[:-1])), back)
    return gained - jnp.sum(0.5 * jnp.square(noise) + LOG_SQRT_2PI, axis=-1)


def with_divergence(
    velocity: Callable[[Float[Array, "*rows A"]], Float[Array, "*rows A"]], x: Float[Array, "*rows A"]
) -> tuple[Float[Array, "*rows A"], Float[Array, "*rows"]]:
    """v(x) and sum_i dv_i/dx_i, exactly."""
    value, along = jax.linearize(velocity, x)
    size = x.shape[-1]
    slopes = jax.vmap(lambda i: along(jnp.broadcast_to(jax.nn.one_hot(i, size), x.shape))[..., i])(jnp.arange(size))
    return value, jnp.sum(slopes, axis=0)


def intervals(ends: np.ndarray) -> Float[Array, "steps 2"]:
    return jnp.asarray(np.stack([ends[:-1], ends[1:]], axis=1), jnp.float32)
