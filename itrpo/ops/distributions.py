"""Densities of policies, for one state: means and log standard deviations are [A]; mixtures are [K], [K, A], [K, A].

Policies are tanh-Gaussian: u ~ N(mean, exp(log_std)), a = tanh(u). tanh is a bijection, so the Jacobian cancels in any
ratio of two such densities; ratios and divergences are therefore taken of u ("pre-tanh"), where nothing saturates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from itrpo.types import Array, PRNGKey

LOG_2 = 0.6931471805599453
LOG_SQRT_2PI = 0.9189385332046727


def to_pre_tanh(action: Array, edge: float) -> Array:
    """u = atanh(a), with |a| clipped to 1 - edge: the only place where a dataset action is clipped.

    atanh(+-1) is infinite, and one such action would poison a run. `edge` trades bias at the boundary against ratios
    dominated by saturated actions: 1e-6 lets |u| reach 7.25, 1e-3 stops at 3.8.
    """
    return jnp.arctanh(jnp.clip(action, -1.0 + edge, 1.0 - edge))


def normal_log_prob(value: Array, mean: Array, log_std: Array) -> Array:
    """log N(value; mean, diag(exp(log_std))^2), summed over dimensions: a scalar."""
    standardised = (value - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(standardised) + log_std + LOG_SQRT_2PI)


def tanh_log_det(pre_tanh: Array) -> Array:
    """log |d tanh(u) / du| summed over dimensions: sum log(1 - tanh(u)^2), in the form that does not underflow."""
    return jnp.sum(2.0 * (LOG_2 - pre_tanh - jax.nn.softplus(-2.0 * pre_tanh)))


def tanh_normal_log_prob(pre_tanh: Array, mean: Array, log_std: Array) -> Array:
    """log density of a = tanh(u) in action space, given u: log N(u) - log |da/du|."""
    return normal_log_prob(pre_tanh, mean, log_std) - tanh_log_det(pre_tanh)


def sample_normal(key: PRNGKey, mean: Array, log_std: Array) -> Array:
    """One reparameterised sample: gradients flow into mean and log_std. The key is consumed."""
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def tanh_normal_sample(noise: Array, mean: Array, log_std: Array) -> tuple[Array, Array]:
    """The action tanh(mean + exp(log_std) * noise) and its log density, noise [A] ~ N(0, I): reparameterised.

    The density is taken at the u that was drawn, so it is exact where the tanh saturates.
    """
    pre_tanh = mean + jnp.exp(log_std) * noise
    return jnp.tanh(pre_tanh), tanh_normal_log_prob(pre_tanh, mean, log_std)


def mixture_log_prob(value: Array, logits: Array, means: Array, log_stds: Array) -> Array:
    """log sum_k softmax(logits)_k N(value; means_k, log_stds_k): one mixture over all dimensions, not one for each."""
    components = jax.vmap(normal_log_prob, in_axes=(None, 0, 0))(value, means, log_stds)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + components)


def sample_mixture(key: PRNGKey, logits: Array, means: Array, log_stds: Array) -> Array:
    """One sample. The choice of component passes no gradient; the sample within it does. The key is consumed."""
    choose_key, normal_key = jax.random.split(key)
    component = jax.random.categorical(choose_key, logits)
    return sample_normal(normal_key, means[component], log_stds[component])


def factored_mixture_log_prob(value: Array, logits: Array, means: Array, log_stds: Array) -> Array:
    """Sum over dimensions of the log densities of one mixture each. value [A]; the others [A, K]."""
    one = jax.vmap(mixture_log_prob)(value[:, None], logits, means[..., None], log_stds[..., None])
    return jnp.sum(one)


def sample_factored_mixture(key: PRNGKey, logits: Array, means: Array, log_stds: Array) -> Array:
    """One sample [A]: in each dimension a component, and a value of it. The key is consumed."""
    keys = jax.random.split(key, logits.shape[0])
    return jax.vmap(sample_mixture)(keys, logits, means[..., None], log_stds[..., None])[:, 0]
