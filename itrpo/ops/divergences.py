"""Distances between policies at one state."""

from __future__ import annotations

from collections.abc import Callable

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
