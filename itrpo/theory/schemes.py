"""The iterations of the paper, each as its equation, exact in float64.

All take an MDP, a behavior policy [..., S, A] and the coefficients alpha, tau (numbers, or one per instance), start
from Q_0 = `initial_q` (zero if not given) and add `errors[k]` = epsilon_{k+1} [K, ..., S, A] to iterate k+1 (Eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.theory.mdp import Array, FiniteMDP, backup, check_behavior, expand, inner, log_softmax, log_sum_exp


class Iterates(NamedTuple):
    """`policies[k]` is pi_{k+1}, [K, ..., S, A]; `q_values[k]` is the table of iterate k, [K+1, ..., S, A].

    `log_policies` holds log pi_{k+1}: finite where a probability underflows.
    """

    policies: Array
    q_values: Array
    log_policies: Array


def check_coefficients(alpha: float | Array, tau: float | Array, needs_entropy: bool = False) -> tuple[Array, Array]:
    """Raises InputError for alpha <= 0, tau outside [0, 1], and tau = 1 where lambda = alpha (1 - tau) divides."""
    alpha, tau = np.asarray(alpha, dtype=np.float64), np.asarray(tau, dtype=np.float64)
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise InputError(f"alpha must be a finite number > 0; got {alpha}")
    if not ((tau >= 0) & (tau <= 1)).all():
        raise InputError(f"tau must lie in [0, 1]; got {tau}")
    if needs_entropy and (tau == 1).any():
        raise InputError(
            "tau = 1 makes lambda = alpha (1 - tau) zero, and this statement divides by lambda; use tau < 1"
        )
    return alpha, tau


def brac_vi(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    iterations: int,
    errors: Array | None = None,
    initial_q: Array | None = None,
) -> Iterates:
    """Eq. 4: pi_{k+1} = argmax <pi, Q_k - alpha log(pi/pi_beta)>, Q_{k+1} = r + gamma P <pi_{k+1}, same bracket>."""
    return itrpo_vi(mdp, behavior, alpha, 0.0, iterations, errors, initial_q)


def itrpo_vi(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    initial_q: Array | None = None,
    low: float | Array = -np.inf,
) -> Iterates:
    """Eq. 5 (Eq. 7 with errors): Eq. 4 with the reward shaped by tau alpha log(pi_{k+1}/pi_beta). tau = 0 is Eq. 4.

    `low` is the author's clip of the log-ratio from below (docs/theory.md, 9.4); Eq. 5 has none.
    """
    alpha, tau = check_coefficients(alpha, tau)
    log_behavior = check_behavior(mdp, behavior)
    temperature, shaping, lowest = expand(alpha), expand(tau * alpha), expand(low)

    def step(q: Array) -> tuple[Array, Array]:
        log_policy = log_softmax(q / temperature + log_behavior)
        log_ratio = log_policy - log_behavior
        target = inner(np.exp(log_policy), q - temperature * log_ratio)
        return log_policy, mdp.reward + shaping * np.maximum(log_ratio, lowest) + backup(mdp, target)

    return _iterate(step, mdp, iterations, errors, initial_q)


def theorem1_vi(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    initial_q: Array | None = None,
    first_policy: Array | None = None,
    low: float | Array = -np.inf,
) -> Iterates:
    """Theorem 1: both KLs explicit. The tables are Q'_k; `initial_q` is still Q_0, so Q'_0 follows from its definition.

    pi_0 = `first_policy` (pi_beta if not given) is arbitrary: Eq. 5 never uses it, and Q'_0 absorbs it. With a clip
    `low` the trust region is around pi_k lifted to exp(low) pi_beta. What is not normalised is the bonus log Z_k.
    """
    alpha, tau = check_coefficients(alpha, tau)
    log_behavior = check_behavior(mdp, behavior)
    log_policy = log_behavior if first_policy is None else check_behavior(mdp, first_policy)
    near, far, temperature = expand(tau * alpha), expand((1 - tau) * alpha), expand(alpha)
    least = expand(low) + log_behavior
    start = np.zeros_like(mdp.reward) if initial_q is None else initial_q

    def step(q: Array) -> tuple[Array, Array]:
        nonlocal log_policy
        previous = np.maximum(log_policy, least)
        log_policy = log_softmax((q + near * previous + far * log_behavior) / temperature)
        policy = np.exp(log_policy)
        trust_region = near[..., 0] * inner(policy, log_policy - previous)
        behavior_penalty = far[..., 0] * inner(policy, log_policy - log_behavior)
        target = inner(policy, q) - trust_region - behavior_penalty
        return log_policy, mdp.reward + backup(mdp, target)

    return _iterate(step, mdp, iterations, errors, start - near * (np.maximum(log_policy, least) - log_behavior))


def lemma1_vi(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    initial_h: Array | None = None,
) -> Iterates:
    """Lemma 1: entropy-regularised VI with lambda = alpha (1 - tau), reward r + lambda log pi_beta; tables h_k."""
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    log_behavior = check_behavior(mdp, behavior)
    temperature = expand(alpha * (1 - tau))
    reward = mdp.reward + temperature * log_behavior

    def step(h: Array) -> tuple[Array, Array]:
        return log_softmax(h / temperature), reward + backup(mdp, soft_maximum(h, temperature))

    return _iterate(step, mdp, iterations, errors, initial_h)


def munchausen_vi(
    mdp: FiniteMDP,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    initial_q: Array | None = None,
) -> Iterates:
    """Munchausen VI (Vieillard, Pietquin, Geist 2020): softmax policy, reward shaped by tau alpha log pi_{k+1}."""
    alpha, tau = check_coefficients(alpha, tau)
    temperature, shaping = expand(alpha), expand(tau * alpha)

    def step(q: Array) -> tuple[Array, Array]:
        log_policy = log_softmax(q / temperature)
        target = inner(np.exp(log_policy), q - temperature * log_policy)
        return log_policy, mdp.reward + shaping * log_policy + backup(mdp, target)

    return _iterate(step, mdp, iterations, errors, initial_q)


def soft_maximum(h: Array, temperature: Array) -> Array:
    """lambda log sum_a exp(h / lambda) = max_pi <pi, h> + lambda H(pi). `temperature` as `expand` gives it. [..., S]"""
    return temperature[..., 0] * log_sum_exp(h / temperature)


def implicit_q(run: Iterates, behavior: Array, alpha: float | Array, tau: float | Array, first_policy: Array) -> Array:
    """Q'_k = Q_k - tau alpha log(pi_k / pi_beta) of a run of Eq. 5, with pi_0 = `first_policy`. [K+1, ..., S, A]"""
    first = np.broadcast_to(np.log(first_policy), run.q_values[0].shape)
    log_ratio = np.concatenate([first[None], run.log_policies]) - np.log(behavior)
    return run.q_values - expand(np.asarray(tau) * np.asarray(alpha)) * log_ratio


def averaged_q(run: Iterates, behavior: Array, alpha: float | Array, tau: float | Array, first_policy: Array) -> Array:
    """h_k = (1 - tau) sum_{j<=k} tau^(k-j) (Q'_j + lambda log pi_beta), Lemma 1's weighted sum, k = 0..K."""
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    shifted = implicit_q(run, behavior, alpha, tau, first_policy) + expand(alpha * (1 - tau)) * np.log(behavior)
    return moving_average(shifted, tau)


def moving_average(sequence: Array, tau: float | Array) -> Array:
    """(1 - tau) sum_{j<=k} tau^(k-j) x_j along the first axis: Lemma 1's h_k, and E_k of Theorem 2. Same shape."""
    weight = expand(tau)
    averages = np.empty_like(sequence)
    total = np.zeros_like(sequence[0])
    for k, term in enumerate(sequence):
        total = weight * total + (1 - weight) * term
        averages[k] = total
    return averages


def _iterate(
    step: Callable[[Array], tuple[Array, Array]],
    mdp: FiniteMDP,
    iterations: int,
    errors: Array | None,
    initial_q: Array | None,
) -> Iterates:
    """The run of a scheme, whose `step` takes Q_k to (log pi_{k+1}, Q_{k+1} without its error)."""
    if iterations < 1:
        raise InputError(f"iterations must be at least 1; got {iterations}")
    shape = mdp.reward.shape
    if errors is not None and np.shape(errors) != (iterations, *shape):
        raise InputError(f"errors {np.shape(errors)} must be [iterations, ..., S, A] = {(iterations, *shape)}")
    q_values, log_policies = np.zeros((iterations + 1, *shape)), np.zeros((iterations, *shape))
    if initial_q is not None:
        q_values[0] = initial_q
    for k in range(iterations):
        log_policies[k], q = step(q_values[k])
        q_values[k + 1] = q if errors is None else q + errors[k]
    return Iterates(np.exp(log_policies), q_values, log_policies)
