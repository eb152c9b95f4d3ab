"""Explicit trust regions, and advantages from samples of several policies.

GePPO: Queeney, Paschalidis and Cassandras 2021, "Generalized Proximal Policy Optimization with Sample Reuse", arXiv
2111.00072. pi_k is the policy before a step, pi_{k-i} the one that acted i iterations before.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from itrpo.ops.td import Scalar


def advantages(
    errors: Float[Array, "T *rest"],
    goes_on: Float[Array, "T *rest"],
    ratios: Float[Array, "T *rest"],
    rate: Scalar,
    ratio_limit: Scalar,
) -> Float[Array, "T *rest"]:
    """A_t = delta_t + sum_{j > t} rate^(j - t) (prod_{t < i <= j} min(ratio_i, ratio_limit)) delta_j, in an episode.

    errors: delta_t = r_t + gamma V(s_{t+1}) - V(s_t); goes_on: 0 where the step is its episode's last, else 1; ratios:
    pi_k(a_t|s_t) over the density that acted; rate: gamma lambda. With ratios of 1 this is generalised advantage
    estimation (arXiv 1506.02438, Eq. 16), else GePPO's form of V-trace (its code; arXiv 1802.01561).
    """

    def back(after: tuple[Array, Array], step: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        advantage, ratio = after
        error, on, own = step
        found = error + rate * on * jnp.minimum(ratio, ratio_limit) * advantage
        return (found, own), found

    nothing = jnp.zeros_like(errors[0])
    _, found = jax.lax.scan(back, (nothing, nothing), (errors, goes_on, ratios), reverse=True)
    return found


def clipped_surrogate(
    ratio: Float[Array, "*rows"], centre: Float[Array, "*rows"] | float, limit: Scalar, advantage: Float[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """min(ratio A, clip(ratio, centre - limit, centre + limit) A), both over pi_{k-i}: ratio of pi, centre of pi_k.

    GePPO's; where the sample is pi_k's own, the centre is 1 and this is PPO's (arXiv 1707.06347, Eq. 7). Its gradient
    is 0 where a ratio has gone that far in the direction of A.
    """
    clipped = jnp.clip(ratio, centre - limit, centre + limit)
    return jnp.minimum(ratio * advantage, clipped * advantage)


def total_variation(ratio: Float[Array, "*rows"], centre: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """Half of |pi - pi_k| / pi_{k-i}: its mean over samples of pi_{k-i} is the distance of pi from pi_k."""
    return 0.5 * jnp.abs(ratio - centre)


def policy_weights(batches: int) -> np.ndarray:
    """Weights [M] of the policies that acted 0, 1, .. M - 1 iterations ago, M = 3 batches - 2: they fall linearly.

    Of all weights under which a policy moves as far per sample as PPO's that has `batches` batches at a time, these
    have the largest effective sample size, 1 / sum p_i^2: min sum_i p_i^2 with sum_i p_i = 1 and sum_i i p_i = batches,
    i from 1 (what GePPO's code takes by default, there solved numerically).
    """
    count = 3 * batches - 2
    return 2.0 * np.arange(count, 0, -1) / (count * (count + 1))


def natural_step(gradient: Float[Array, "n"], direction: Float[Array, "n"], kl_limit: Scalar) -> Float[Array, "n"]:
    """The multiple of `direction` = F^-1 gradient whose D_KL is the limit, to second order (TRPO, arXiv 1502.05477)."""
    curvature = jnp.maximum(jnp.dot(gradient, direction), 1e-12)  # direction F direction
    return jnp.sqrt(2.0 * kl_limit / curvature) * direction
