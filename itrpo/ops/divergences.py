"""Distances between policies, at each state of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.ops.td import Scalar


def normal_kl(
    mean_p: Float[Array, "*rows A"],
    log_std_p: Float[Array, "*rows A"],
    mean_q: Float[Array, "*rows A"],
    log_std_q: Float[Array, "*rows A"],
) -> Float[Array, "*rows"]:
    """D_KL[p || q] of diagonal Gaussians, summed over dimensions.

    Also the KL of the two tanh-Gaussians that they become after the tanh, since KL is invariant under a bijection.
    """
    variance_ratio = jnp.exp(2.0 * (log_std_p - log_std_q))
    distance = jnp.square((mean_p - mean_q) * jnp.exp(-log_std_q))
    return jnp.sum(0.5 * (variance_ratio + distance - 1.0) + log_std_q - log_std_p, axis=-1)


def action_gradients(
    q_values: Callable[[Float[Array, "B A"]], Float[Array, "N B"]], action: Float[Array, "B A"]
) -> Float[Array, "N B A"]:
    """grad_a Q_i(s, a) of each critic at each row. A row of `q_values(action)` depends on its own action alone."""
    q, pull_back = jax.vjp(q_values, action)
    one_critic = jnp.broadcast_to(jnp.eye(len(q))[:, :, None], (len(q), *q.shape))
    return jax.vmap(lambda cotangent: pull_back(cotangent)[0])(one_critic)


def action_gradient_penalty(
    q_values: Callable[[Float[Array, "B A"]], Float[Array, "N B"]], action: Float[Array, "B A"]
) -> Float[Array, "B"]:
    """sum_i ||grad_a Q_i(s, a)||^2: the Fisher penalty.

    Source: Fisher-BRC (Kostrikov et al. 2021), there on the offset critic; the author's iTRPO code keeps it.
    """
    return jnp.sum(jnp.square(action_gradients(q_values, action)), axis=(0, 2))


def mmd(
    samples_p: Float[Array, "*rows n A"],
    samples_q: Float[Array, "*rows m A"],
    bandwidth: Scalar,
    kernel: Literal["gaussian", "laplacian"],
) -> Float[Array, "*rows"]:
    """Maximum mean discrepancy of two sets of points: BEAR's distance, sqrt(squared_mmd + 1e-6).

    As in BEAR's code (Kumar et al. 2019, arXiv 1906.00949).
    """
    return jnp.sqrt(squared_mmd(samples_p, samples_q, bandwidth, kernel) + 1e-6)


def squared_mmd(
    samples_p: Float[Array, "*rows n A"],
    samples_q: Float[Array, "*rows m A"],
    bandwidth: Scalar,
    kernel: Literal["gaussian", "laplacian"],
) -> Float[Array, "*rows"]:
    """The squared maximum mean discrepancy of two sets of points, n and m of them.

        MMD^2 = mean k(x,x') + mean k(y,y') - 2 mean k(x,y)
        k     = exp(-||x - y||_2^2 / (2 bandwidth))  or  exp(-||x - y||_1 / (2 bandwidth))

    As in the codes of BEAR and BRAC: the bandwidth is not squared, pairs of a point with itself count (the biased
    estimate). With all points in one list and weights w = 1/n, -1/m, the sum is w K w; since w adds to 0 that is
    w (K - 1) w, which does not cancel away in float32 when all kernel values are close to 1.
    """
    points = jnp.concatenate([samples_p, samples_q], axis=-2)
    sizes = samples_p.shape[-2], samples_q.shape[-2]
    weights = jnp.concatenate([jnp.full(sizes[0], 1.0 / sizes[0]), jnp.full(sizes[1], -1.0 / sizes[1])])
    difference = points[..., :, None, :] - points[..., None, :, :]
    distance = jnp.sum(jnp.square(difference) if kernel == "gaussian" else jnp.abs(difference), axis=-1)
    return jnp.einsum("...ij,i,j->...", jnp.expm1(-distance / (2.0 * bandwidth)), weights, weights)


# --- dual estimates, by a discriminator c(s, a) that is trained to make them large: BRAC's ---------------------------


def dual_kl(values_p: Float[Array, "*rows"], values_q: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """log softplus(c(a_p)) - softplus(c(a_q)) + 1, a_p ~ p, a_q ~ q: its mean is at most D_KL[p || q].

    It is that where softplus(c) = p / q. Source: BRAC (Wu et al. 2019, arXiv 1911.11361), the convex conjugate of KL.
    """
    return jnp.log(jax.nn.softplus(values_p) + 1e-8) - jax.nn.softplus(values_q) + 1.0


def dual_wasserstein(values_p: Float[Array, "*rows"], values_q: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """c(a_p) - c(a_q): its mean is at most the 1-Wasserstein distance of p and q for every c of slope 1 at most."""
    return values_p - values_q


def slope_penalty(
    values: Callable[[Float[Array, "B A"]], Float[Array, "B"]],
    action_p: Float[Array, "B A"],
    action_q: Float[Array, "B A"],
    share: Float[Array, "B"],
) -> Float[Array, "B"]:
    """max(||grad_a c||_2 - 1, 0)^2 at a = action_p + share (action_q - action_p), share ~ U(0, 1).

    One-sided: slopes below 1 are free. Source: BRAC's code (divergences.py), after Gulrajani et al. 2017, arXiv
    1704.00028. A row of `values(action)` depends on its own action alone.
    """
    between = action_p + share[:, None] * (action_q - action_p)
    gradient = jax.grad(lambda action: jnp.sum(values(action)))(between)
    slope = jnp.sqrt(1e-8 + jnp.sum(jnp.square(gradient), axis=-1))
    return jnp.square(jnp.maximum(slope - 1.0, 0.0))
