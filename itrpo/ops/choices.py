"""Policies over n choices, with exact expectations: the last axis of q, logits and log probabilities is the choice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from itrpo.ops.td import Scalar


def chosen(values: Float[Array, "*rows n"], choice: Int[Array, "*#rows"]) -> Float[Array, "*rows"]:
    """The entry of each row's choice."""
    return jnp.take_along_axis(values, choice[..., None], axis=-1)[..., 0]


def expected(log_policy: Float[Array, "*#rows n"], values: Float[Array, "*#rows n"]) -> Float[Array, "*#rows"]:
    """<pi, values>."""
    return jnp.sum(jnp.exp(log_policy) * values, axis=-1)


def improved(
    q: Float[Array, "*rows n"], log_prior: Float[Array, "*#rows #n"], alpha: Scalar
) -> Float[Array, "*rows n"]:
    """log of argmax_pi <pi, q> - alpha D_KL[pi || prior], which is prior exp(q / alpha), normalised (Eqs. 3 to 5)."""
    return jax.nn.log_softmax(log_prior + q / alpha)


def soft_value(
    q: Float[Array, "*rows n"], log_prior: Float[Array, "*#rows #n"], alpha: Scalar
) -> Float[Array, "*rows"]:
    """alpha log <prior, exp(q / alpha)>: what that maximum is. Hence alpha log(pi/prior)(a) = q(a) - soft_value."""
    return alpha * jax.nn.logsumexp(log_prior + q / alpha, axis=-1)


def kl(log_p: Float[Array, "*#rows n"], log_q: Float[Array, "*#rows n"]) -> Float[Array, "*#rows"]:
    """D_KL[p || q]."""
    return expected(log_p, log_p - log_q)


def supported(logits: Float[Array, "*rows n"], threshold: Scalar) -> Bool[Array, "*rows n"]:
    """Choices more likely than `threshold` times the likeliest (discrete BCQ, arXiv 1910.01708, Eq. 8)."""
    return logits - jnp.max(logits, axis=-1, keepdims=True) > jnp.log(threshold)


def huber(error: Float[Array, "*rows"], limit: Scalar) -> Float[Array, "*rows"]:
    """Half of the squared error, beyond +-limit linear: its slope is the error clipped to +-limit (DQN's clipping)."""
    size = jnp.abs(error)
    within = jnp.minimum(size, limit)
    return 0.5 * jnp.square(within) + jnp.where(size > within, within, 0.0) * (size - within)


def quantile_loss(
    quantiles: Float[Array, "*rows K"],
    targets: Float[Array, "*rows M"],
    limit: Scalar,
    levels: Float[Array, "*rows K"] | None = None,
) -> Float[Array, "*rows"]:
    """sum_i mean_j |tau_i - 1{u_ij < 0}| huber(u_ij) / limit, u_ij = target_j - quantile_i, tau_i = (i + 1/2) / K, or
    `levels` (IQN, arXiv 1806.06923, Eq. 3).

    For a small limit least where quantile_i is the tau_i-quantile of the targets (QR-DQN, arXiv 1710.10044, Eq. 10).
    """
    count = quantiles.shape[-1]
    if levels is None:
        levels = jnp.broadcast_to((jnp.arange(count) + 0.5) / count, quantiles.shape)
    error = targets[..., None, :] - quantiles[..., :, None]
    weight = jnp.abs(jnp.broadcast_to(levels[..., None], error.shape) - (error < 0))
    return jnp.sum(jnp.mean(weight * huber(error, limit), axis=-1), axis=-1) / limit
