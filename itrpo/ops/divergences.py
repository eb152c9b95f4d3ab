"""Distances between policies at one state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from itrpo.types import Array


def normal_kl(mean_p: Array, log_std_p: Array, mean_q: Array, log_std_q: Array) -> Array:
    """D_KL[p || q] of diagonal Gaussians, summed over dimensions: a scalar.

    Also the KL of the two tanh-Gaussians that they become after the tanh, since KL is invariant under a bijection.
    """
    variance_ratio = jnp.exp(2.0 * (log_std_p - log_std_q))
    distance = jnp.square((mean_p - mean_q) * jnp.exp(-log_std_q))
    return jnp.sum(0.5 * (variance_ratio + distance - 1.0) + log_std_q - log_std_p)


def action_gradient_penalty(q_values: Callable[[Array], Array], action: Array) -> Array:
    """sum_i ||grad_a Q_i(s, a)||^2 for q_values: action [A] -> [num_critics]: the Fisher penalty.

    Source: Fisher-BRC (Kostrikov et al. 2021), there on the offset critic; the author's iTRPO code keeps it.
    """
    return jnp.sum(jnp.square(jax.jacrev(q_values)(action)))


def mmd(
    samples_p: Array, samples_q: Array, bandwidth: Array | float, kernel: Literal["gaussian", "laplacian"]
) -> Array:
    """Maximum mean discrepancy of two sets of points [n, A] and [m, A]: BEAR's distance, a scalar.

        MMD = sqrt( mean k(x,x') + mean k(y,y') - 2 mean k(x,y) + 1e-6 )
        k   = exp(-||x - y||_2^2 / (2 bandwidth))  or  exp(-||x - y||_1 / (2 bandwidth))

    As in BEAR's code (Kumar et al. 2019, arXiv 1906.00949): the bandwidth is not squared, pairs of a point with itself
    count (the biased estimate). With all points in one list and weights w = 1/n, -1/m, the sum is w K w; since w adds
    to 0 that is w (K - 1) w, which does not cancel away in float32 when all kernel values are close to 1.
    """
    points = jnp.concatenate([samples_p, samples_q])
    weights = jnp.concatenate(
        [jnp.full(len(samples_p), 1.0 / len(samples_p)), jnp.full(len(samples_q), -1.0 / len(samples_q))]
    )
    difference = points[:, None] - points[None]
    distance = jnp.sum(jnp.square(difference) if kernel == "gaussian" else jnp.abs(difference), axis=-1)
    squared = weights @ jnp.expm1(-distance / (2.0 * bandwidth)) @ weights
    return jnp.sqrt(squared + 1e-6)
