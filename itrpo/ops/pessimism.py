"""What keeps critics low, or apart, away from the data (N: members of an ensemble, n: actions)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def conservative_gap(
    q_sampled: Float[Array, "*#rows n"], log_density: Float[Array, "*#rows n"], q_data: Float[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """log sum_j exp(Q(s,a_j) - log mu_j(a_j)) - Q(s,a), the regulariser of CQL(H) (arXiv 2006.04779, Eq. 4).

    q_sampled: Q of actions that were drawn with log densities log_density; q_data: Q of the logged action. The
    sum estimates n times the integral of exp Q over actions by importance sampling. As in the authors' code log n is
    not subtracted: it is a constant, which matters only next to a Lagrange threshold.
    """
    return jax.nn.logsumexp(q_sampled - log_density, axis=-1) - q_data


def lower_bounds(q: Float[Array, "N *rows"], weight: Float[Array, "*#rows"] | float) -> Float[Array, "N *rows"]:
    """Q_k - weight * std_j Q_j for each member k (PBRL, arXiv 2202.11566, Eq. 4).

    The standard deviation divides by N - 1, as in the authors' code. For targets: its gradient is not defined where all
    members agree.
    """
    return q - (weight * jnp.std(q, axis=0, ddof=1))[None]


def gradient_diversity(gradients: Float[Array, "N *rows A"]) -> Float[Array, "*rows"]:
    """1/(N-1) sum_{i != j} <g_i, g_j>, g_i = gradients_i / ||gradients_i||: EDAC's loss (arXiv 2110.01548).

    gradients: grad_a Q_i(s,a). Between N where all agree, and -N/(N-1). Computed as ||sum_i g_i||^2 - sum_i
    ||g_i||^2, which needs no N x N products.
    """
    square = jnp.sum(jnp.square(gradients), axis=-1, keepdims=True)
    sloped = square > 0  # a critic that is flat here has no direction, and pulls nowhere
    unit = jnp.where(sloped, gradients / (jnp.sqrt(jnp.where(sloped, square, 1.0)) + 1e-10), 0.0)
    together = jnp.sum(jnp.square(jnp.sum(unit, axis=0)), axis=-1)
    return (together - jnp.sum(jnp.square(unit), axis=(0, -1))) / (len(gradients) - 1)
