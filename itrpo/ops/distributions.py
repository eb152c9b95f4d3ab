"""Densities of policies, for batches: means and log standard deviations are [..., A]; mixtures are [..., K] and
[..., K, A]. Parameters and values broadcast against each other where their ranks are equal.

Policies are tanh-Gaussian: u ~ N(mean, exp(log_std)), a = tanh(u). tanh is a bijection, so the Jacobian cancels in any
ratio of two such densities; ratios and divergences are therefore taken of u ("pre-tanh"), where nothing saturates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.ops.td import Scalar

LOG_2 = 0.6931471805599453
LOG_SQRT_2PI = 0.9189385332046727


def to_pre_tanh(action: Float[Array, "*rows A"], edge: Scalar) -> Float[Array, "*rows A"]:
    """u = atanh(a), with |a| clipped to 1 - edge: the only place where a dataset action is clipped.

    atanh(+-1) is infinite, and one such action would poison a run. `edge` trades bias at the boundary against ratios
    dominated by saturated actions: 1e-6 lets |u| reach 7.25, 1e-3 stops at 3.8.
    """
    return jnp.arctanh(jnp.clip(action, -1.0 + edge, 1.0 - edge))


def normal_log_prob(
    value: Float[Array, "*#rows A"], mean: Float[Array, "*#rows A"], log_std: Float[Array, "*#rows A"]
) -> Float[Array, "*#rows"]:
    """log N(value; mean, diag(exp(log_std))^2), summed over dimensions."""
    standardised = (value - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(standardised) + log_std + LOG_SQRT_2PI, axis=-1)


def normal_entropy(log_std: Float[Array, "*rows A"]) -> Float[Array, "*rows"]:
    """Of N(., diag(exp(log_std))^2), in nats: sum log_std + log(2 pi e) / 2."""
    return jnp.sum(log_std + LOG_SQRT_2PI + 0.5, axis=-1)


def tanh_log_det(pre_tanh: Float[Array, "*rows A"]) -> Float[Array, "*rows"]:
    """log |d tanh(u) / du| summed over dimensions: sum log(1 - tanh(u)^2), in the form that does not underflow."""
    return jnp.sum(2.0 * (LOG_2 - pre_tanh - jax.nn.softplus(-2.0 * pre_tanh)), axis=-1)


def tanh_normal_log_prob(
    pre_tanh: Float[Array, "*#rows A"], mean: Float[Array, "*#rows A"], log_std: Float[Array, "*#rows A"]
) -> Float[Array, "*#rows"]:
    """log density of a = tanh(u) in action space, given u: log N(u) - log |da/du|."""
    return normal_log_prob(pre_tanh, mean, log_std) - tanh_log_det(pre_tanh)


def normal_sample(
    noise: Float[Array, "*#rows A"], mean: Float[Array, "*#rows A"], log_std: Float[Array, "*#rows A"]
) -> Float[Array, "*#rows A"]:
    """mean + exp(log_std) * noise, noise ~ N(0, I): reparameterised, so gradients flow into mean and log_std."""
    return mean + jnp.exp(log_std) * noise


def mixture_log_prob(
    value: Float[Array, "*#rows A"],
    logits: Float[Array, "*#rows K"],
    means: Float[Array, "*#rows K A"],
    log_stds: Float[Array, "*#rows K A"],
) -> Float[Array, "*#rows"]:
    """log sum_k softmax(logits)_k N(value; means_k, log_stds_k): one mixture over all dimensions, not one for each."""
    components = normal_log_prob(value[..., None, :], means, log_stds)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + components, axis=-1)


def mixture_sample(
    key: Key[Array, ""],
    logits: Float[Array, "*rows K"],
    means: Float[Array, "*rows K A"],
    log_stds: Float[Array, "*rows K A"],
) -> Float[Array, "*rows A"]:
    """One sample per row. The choice of component passes no gradient; the sample within it does."""
    choose_key, normal_key = jax.random.split(key)
    component = jax.random.categorical(choose_key, logits)[..., None, None]
    mean, log_std = (jnp.take_along_axis(each, component, axis=-2)[..., 0, :] for each in (means, log_stds))
    return normal_sample(jax.random.normal(normal_key, mean.shape), mean, log_std)


def factored_mixture_log_prob(
    value: Float[Array, "*#rows A"],
    logits: Float[Array, "*#rows A K"],
    means: Float[Array, "*#rows A K"],
    log_stds: Float[Array, "*#rows A K"],
) -> Float[Array, "*#rows"]:
    """Sum over dimensions of the log densities of one mixture each."""
    return jnp.sum(mixture_log_prob(value[..., None], logits, means[..., None], log_stds[..., None]), axis=-1)


def factored_mixture_sample(
    key: Key[Array, ""],
    logits: Float[Array, "*rows A K"],
    means: Float[Array, "*rows A K"],
    log_stds: Float[Array, "*rows A K"],
) -> Float[Array, "*rows A"]:
    """One sample per row: in each dimension a component, and a value of it."""
    return mixture_sample(key, logits, means[..., None], log_stds[..., None])[..., 0]


def tanh_normal_sample(
    noise: Float[Array, "*#rows A"], mean: Float[Array, "*#rows A"], log_std: Float[Array, "*#rows A"]
) -> tuple[Float[Array, "*#rows A"], Float[Array, "*#rows"]]:
    """The action tanh(mean + exp(log_std) * noise) and its log density, noise ~ N(0, I): reparameterised.

    The density is taken at the u that was drawn, so it is exact where the tanh saturates.
    """
    pre_tanh = normal_sample(noise, mean, log_std)
    return jnp.tanh(pre_tanh), tanh_normal_log_prob(pre_tanh, mean, log_std)


def for_actions(parameters: tuple[Array, "..."], value: Float[Array, "B *n A"]) -> tuple[Array, "..."]:
    """A distribution's parameters at each state [B, ...], with an axis for the values [B, 1, ...] where there are n."""
    return tuple(jnp.expand_dims(each, 1) for each in parameters) if value.ndim == 3 else parameters
