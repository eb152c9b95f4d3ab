"""Temporal-difference targets for one transition (scalars in, a scalar out)."""

from __future__ import annotations

import jax.numpy as jnp

from itrpo.types import Array


def shaping_reward(log_ratio: Array, alpha: Array, tau: Array, low: float, high: float) -> Array:
    """tau * alpha * clip(log pi(a|s) - log pi_beta(a|s), low, high): the term that Eq. (5) adds to the reward.

    The clip acts on the raw log-ratio, before the scaling (the author's code; Munchausen DQN clips after it). The
    paper's text has no clip: low = -inf, high = inf.
    """
    return tau * alpha * jnp.clip(log_ratio, low, high)


def bellman_target(reward: Array, continues: Array, gamma: Array, next_value: Array) -> Array:
    """r + gamma * continues * V(s'), Eq. (1). `continues` is 0 at a true terminal only."""
    return reward + gamma * continues * next_value


def regularised_value(expected_q: Array, alpha: Array, kl: Array) -> Array:
    """<pi, Q - alpha * log(pi / pi_beta)> = E_pi[Q] - alpha * D_KL[pi || pi_beta]: the value of Eqs. (2), (4), (5)."""
    return expected_q - alpha * kl


def ensemble_min(q_values: Array) -> Array:
    """min over critics: [..., num_critics] -> [...] (clipped double Q, Fujimoto et al. 2018)."""
    return jnp.min(q_values, axis=-1)


def ensemble_mix(q_values: Array, min_weight: Array | float) -> Array:
    """min_weight * min_i Q_i + (1 - min_weight) * max_i Q_i: [..., num_critics] -> [...] (BCQ, arXiv 1812.02900)."""
    return min_weight * jnp.min(q_values, axis=-1) + (1.0 - min_weight) * jnp.max(q_values, axis=-1)


def expectile_loss(error: Array, expectile: Array | float) -> Array:
    """|expectile - 1{error < 0}| error^2: its mean is least where V is that expectile of V + error.

    expectile 0.5 gives half the squared error; towards 1, V becomes the largest value (IQL, arXiv 2110.06169, Eq. 3).
    """
    return jnp.where(error > 0, expectile, 1.0 - expectile) * jnp.square(error)


def perturbed_action(action: Array, direction: Array, limit: Array | float) -> Array:
    """clip(a + limit * tanh(direction), -1, 1): an action moved by at most `limit` (BCQ's xi, arXiv 1812.02900)."""
    return jnp.clip(action + limit * jnp.tanh(direction), -1.0, 1.0)


def smoothed_action(action: Array, noise: Array, scale: Array | float, limit: Array | float) -> Array:
    """clip(a + clip(scale * noise, -limit, limit), -1, 1), noise ~ N(0, I): smooths TD3's target (arXiv 1802.09477)."""
    return jnp.clip(action + jnp.clip(scale * noise, -limit, limit), -1.0, 1.0)
