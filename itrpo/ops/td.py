"""Temporal-difference targets and losses, for batches (N: members of an ensemble of critics, its first axis)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

Scalar = Float[Array, ""] | float


def shaping_reward(
    log_ratio: Float[Array, "*rows"], alpha: Scalar, tau: Scalar, low: Scalar, high: Scalar
) -> Float[Array, "*rows"]:
    """tau * alpha * clip(log pi(a|s) - log pi_beta(a|s), low, high): the term that Eq. (5) adds to the reward.

    The clip acts on the raw log-ratio, before the scaling (the author's code; Munchausen DQN clips after it). The
    paper's text has no clip: low = -inf, high = inf.
    """
    return tau * alpha * jnp.clip(log_ratio, low, high)


def bellman_target(
    reward: Float[Array, "*rows"],
    continues: Float[Array, "*rows"],
    gamma: Scalar,
    next_value: Float[Array, "*members_and_rows"],
) -> Float[Array, "*members_and_rows"]:
    """r + gamma * continues * V(s'), Eq. (1). `continues` is 0 at a true terminal only."""
    return reward + gamma * continues * next_value


def regularised_value(
    expected_q: Float[Array, "*rows"], alpha: Scalar, kl: Float[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """<pi, Q - alpha * log(pi / pi_beta)> = E_pi[Q] - alpha * D_KL[pi || pi_beta]: the value of Eqs. (2), (4), (5)."""
    return expected_q - alpha * kl


def moved_scale(scale: Float[Array, ""], rate: Scalar, targets: Float[Array, "B"]) -> Float[Array, ""]:
    """The running mean of |y|, at least 1, after a batch of targets y: the unit of an alpha that is relative to |Q|."""
    return scale + rate * (jnp.maximum(jnp.mean(jnp.abs(targets)), 1.0) - scale)


def switched_on(step: Int[Array, ""], first_steps: int) -> Scalar:
    """0 in the first steps, then 1: what Q weighs in an actor that first follows its constraint alone (BRAC, BEAR)."""
    return jnp.where(step < first_steps, 0.0, 1.0) if first_steps else 1.0


def ensemble_min(q_values: Float[Array, "N *rows"]) -> Float[Array, "*rows"]:
    """min over critics (clipped double Q, Fujimoto et al. 2018)."""
    return jnp.min(q_values, axis=0)


def ensemble_mix(q_values: Float[Array, "N *rows"], min_weight: Scalar) -> Float[Array, "*rows"]:
    """min_weight * min_i Q_i + (1 - min_weight) * max_i Q_i (BCQ, arXiv 1812.02900)."""
    return min_weight * jnp.min(q_values, axis=0) + (1.0 - min_weight) * jnp.max(q_values, axis=0)


def best_action(actions: Float[Array, "B n A"], q_values: Float[Array, "B n"]) -> Float[Array, "B A"]:
    """Of n actions at each state, the one with the largest Q."""
    best = jnp.argmax(q_values, axis=1)
    return jnp.take_along_axis(actions, best[:, None, None], axis=1)[:, 0]


def squared_error(q_values: Float[Array, "N B"], targets: Float[Array, "#N B"]) -> Float[Array, ""]:
    """Mean over the batch of sum_i (Q_i(s,a) - y_i)^2; targets [1, B] are shared by the critics."""
    return jnp.sum(jnp.mean(jnp.square(q_values - targets), axis=1))


def expectile_loss(error: Float[Array, "*rows"], expectile: Scalar) -> Float[Array, "*rows"]:
    """|expectile - 1{error < 0}| error^2: its mean is least where V is that expectile of V + error.

    expectile 0.5 gives half the squared error; towards 1, V becomes the largest value (IQL, arXiv 2110.06169, Eq. 3).
    """
    return jnp.where(error > 0, expectile, 1.0 - expectile) * jnp.square(error)


def perturbed_action(
    action: Float[Array, "*rows A"], direction: Float[Array, "*rows A"], limit: Scalar
) -> Float[Array, "*rows A"]:
    """clip(a + limit * tanh(direction), -1, 1): an action moved by at most `limit` (BCQ's xi, arXiv 1812.02900)."""
    return jnp.clip(action + limit * jnp.tanh(direction), -1.0, 1.0)


def smoothed_action(
    action: Float[Array, "*rows A"], noise: Float[Array, "*rows A"], scale: Scalar, limit: Scalar
) -> Float[Array, "*rows A"]:
    """clip(a + clip(scale * noise, -limit, limit), -1, 1), noise ~ N(0, I): smooths TD3's target (arXiv 1802.09477)."""
    return jnp.clip(action + jnp.clip(scale * noise, -limit, limit), -1.0, 1.0)
