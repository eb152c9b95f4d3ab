"""Theorem 2: the exact gap V*_lambda(rho) - V_lambda^{pi_{k+1}}(rho), every form of its bound (docs/theory.md, 7)."""

from __future__ import annotations

import numpy as np

from itrpo.errors import InputError
from itrpo.theory.mdp import (
    Array,
    FiniteMDP,
    check_behavior,
    inner,
    occupancy,
    soft_optimum,
    state_values,
)
from itrpo.theory.schemes import Iterates, check_coefficients, moving_average


def regularised_gap(mdp: FiniteMDP, behavior: Array, temperature: float | Array, run: Iterates) -> Array:
    """V*_lambda(rho) - V_lambda^{pi_{k+1}}(rho) for k = 0 .. K-1, [K, ...].

    V_lambda^pi is the value of pi with reward r - lambda KL(pi || pi_beta) = r-hat + lambda H(pi). The gap is computed
    as E_{d^pi}[lambda KL(pi || pi*)] / (1 - gamma), which is the same number without a difference of close values.
    """
    optimum = soft_optimum(mdp, behavior, temperature)
    temperature = np.asarray(temperature, dtype=np.float64)
    # KL(p||q) = sum p (log p - log q) - p + q, written so that every term is >= 0 and close policies keep their digits.
    difference = optimum.log_policy - run.log_policies
    close = run.policies * (np.expm1(np.minimum(difference, 1)) - difference)
    far = np.exp(optimum.log_policy) - run.policies * (1 + difference)
    divergence = np.where(difference < 1, close, far).sum(-1)
    visits = occupancy(mdp, run.policies)
    return temperature * (visits * divergence).sum(-1) / (1 - mdp.discount)


def zero_h_start(behavior: Array, alpha: float | Array, tau: float | Array) -> Array:
    """The Q_0 for which Lemma 1's h_0 = 0 (pi_1 uniform), the start at which the printed constant is valid. [..., S, A]

    Q_0 = -alpha log pi_beta - tau alpha log |A|: the root of Q_0 + tau alpha log(|A| pi_beta) + lambda log pi_beta.
    """
    alpha, tau = check_coefficients(alpha, tau)
    return -alpha[..., None, None] * (np.log(behavior) + tau[..., None, None] * np.log(behavior.shape[-1]))


def data_distribution(mdp: FiniteMDP, behavior: Array) -> Array:
    """d^D taken as the behavior policy's own discounted state-action occupancy, [..., S, A]."""
    return occupancy(mdp, behavior)[..., None] * behavior


def as_printed(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    concentration: Array | None = None,
) -> Array:
    """The printed right-hand side for k = 0 .. K-1, with (tau/lambda)^j. `concentration` is c(0..K-1), [K, ...]."""
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    tail = _tail(mdp.discount, tau, alpha * (1 - tau), iterations)
    return _error_term(mdp, behavior, tau, iterations, errors, concentration) + tail * _printed_constant(
        mdp, behavior, alpha, tau
    )


def corrected(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    concentration: Array | None = None,
) -> Array:
    """With (tau/gamma)^j. Proven from the start h_0 = 0 with `path_concentrability` as the concentration, [K, ...]."""
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    tail = _tail(mdp.discount, tau, mdp.discount, iterations)
    return _error_term(mdp, behavior, tau, iterations, errors, concentration) + tail * _printed_constant(
        mdp, behavior, alpha, tau
    )


def corrected_from_behavior(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
    concentration: Array | None = None,
) -> Array:
    """`corrected` for the natural start Q_0 = 0 (pi_1 = pi_beta): max |r| replaces r-hat_max + lambda log |A|."""
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    tail = _tail(mdp.discount, tau, mdp.discount, iterations)
    constant = np.abs(mdp.reward).max((-2, -1))
    return _error_term(mdp, behavior, tau, iterations, errors, concentration) + tail * constant


def quadratic_from_behavior(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None = None,
) -> Array:
    """Second-order form for Q_0 = 0, in the maximum norm: D_k^2 / (2 lambda (1 - gamma)), [K, ...].

    D_k >= ||q* - h_k|| is the corrected bound's own estimate: the gap is quadratic in it (docs/theory.md, 7.4).
    """
    alpha, tau = check_coefficients(alpha, tau, needs_entropy=True)
    ones = None if errors is None else np.ones((iterations, *mdp.discount.shape))
    linear = corrected_from_behavior(mdp, behavior, alpha, tau, iterations, errors, ones)
    distance = linear * (1 - mdp.discount) / 2
    return distance**2 / (2 * alpha * (1 - tau) * (1 - mdp.discount))


def _printed_constant(mdp: FiniteMDP, behavior: Array, alpha: Array, tau: Array) -> Array:
    temperature = alpha * (1 - tau)
    shaped = mdp.reward + temperature[..., None, None] * check_behavior(mdp, behavior)
    return np.abs(shaped).max((-2, -1)) + temperature * np.log(mdp.actions)


def _tail(discount: Array, tau: Array, base: Array, iterations: int) -> Array:
    """2 gamma^k / (1 - gamma) (1 / (1 - gamma) + sum_{j=1..k} (tau / base)^j), k = 0 .. K-1, [K, ...]."""
    rows = []
    power, series, ratio_power = np.ones_like(discount * tau), np.zeros_like(discount * tau), 1.0
    for k in range(iterations):
        if k > 0:
            ratio_power = ratio_power * (tau / base)
            power, series = power * discount, series + ratio_power
        rows.append(2 * power / (1 - discount) * (1 / (1 - discount) + series))
    return np.stack(rows)


def _error_term(
    mdp: FiniteMDP, behavior: Array, tau: Array, iterations: int, errors: Array | None, concentration: Array | None
) -> Array:
    """2 / (1 - gamma) sum_{j=1..k} gamma^(k-j) sqrt(c(k-j)) ||E_j||, k = 0 .. K-1, [K, ...].

    The norm is ||.||_{2, d^D}. With `concentration` all ones it is the maximum norm, the sup-norm form of the theorem.
    """
    total = np.zeros((iterations, *mdp.discount.shape))
    if errors is None:
        return total
    if concentration is None or len(concentration) < iterations:
        raise InputError("with errors, Theorem 2 needs the concentration c(0) .. c(K-1)")
    averages = moving_average(errors, tau)
    if (concentration == 1).all():
        norms = np.abs(averages).max((-2, -1))
    else:
        norms = np.sqrt((data_distribution(mdp, behavior) * averages**2).sum((-2, -1)))
    for k in range(iterations):
        for j in range(1, k + 1):
            total[k] += mdp.discount ** (k - j) * np.sqrt(concentration[k - j]) * norms[j - 1]
    return 2 / (1 - mdp.discount) * total


# Concentrability ----------------------------------------------------------------------------------------------------


def assumption1_concentrability(mdp: FiniteMDP, behavior: Array, temperature: float | Array, horizon: int) -> Array:
    """Assumption 1's smallest c(t), t = 0 .. horizon-1, [horizon, ...]: max over pi, s, a of d^pi P_{pi*}^t / d^D.

    pi* is the optimum of the regularised MDP, d^D the behavior's occupancy. For a fixed pair, (d^pi P_{pi*}^t)(s, a) is
    the expectation under d^pi of f_t = P_{pi*}^t 1_(s,a): its maximum over pi is (1 - gamma) times the optimal value of
    the MDP with reward f_t, solved exactly.
    """
    states, actions = mdp.states, mdp.actions
    optimal = np.exp(soft_optimum(mdp, behavior, temperature).log_policy)
    pairs = states * actions
    # One target pair per column: reward tables [..., pairs, S, A], the same target pushed through P_{pi*} t times.
    reward = np.broadcast_to(
        np.eye(pairs).reshape(pairs, states, actions), (*mdp.discount.shape, pairs, states, actions)
    )
    data = data_distribution(mdp, behavior).reshape(*mdp.discount.shape, pairs)
    wide = _per_target(mdp, pairs)
    rows = []
    for _ in range(horizon):
        rows.append((_largest_occupancy(wide, reward) / data).max(-1))
        reward = _expected_next(wide, inner(optimal[..., None, :, :], reward))
    return np.stack(rows)


def path_concentrability(mdp: FiniteMDP, behavior: Array, horizon: int) -> Array:
    """C(t), t < horizon, [horizon, ...]: max over pi, pi_0, ..., pi_t of (d^pi x pi_0) P_{pi_1} ... P_{pi_t} / d^D.

    The coefficient under which the corrected theorem is proven: the errors travel along products of the learned
    policies, not along pi* alone. d^pi x pi_0 is a state drawn from d^pi with the action drawn from any pi_0.
    """
    states = mdp.states
    # Any policy may choose the target's action in the target's state, so only the state must be reached.
    ratio = 1 / data_distribution(mdp, behavior).min(-1)
    wide = _per_target(mdp, states)
    reach = np.broadcast_to(np.eye(states), (*mdp.discount.shape, states, states))
    rows = []
    for _ in range(horizon):
        reward = np.broadcast_to(reach[..., None], (*reach.shape, mdp.actions))
        rows.append((_largest_occupancy(wide, reward) * ratio).max(-1))
        reach = _expected_next(wide, reach).max(-1)
    return np.stack(rows)


def _per_target(mdp: FiniteMDP, targets: int) -> FiniteMDP:
    """The MDP with a target axis before the state axes, [..., targets, S, A, S], without copying the transitions."""
    lead = mdp.discount.shape
    return FiniteMDP(
        np.broadcast_to(mdp.transition[..., None, :, :, :], (*lead, targets, *mdp.transition.shape[-3:])),
        np.broadcast_to(mdp.reward[..., None, :, :], (*lead, targets, *mdp.reward.shape[-2:])),
        np.broadcast_to(mdp.start[..., None, :], (*lead, targets, mdp.states)),
        np.broadcast_to(mdp.discount[..., None], (*lead, targets)),
    )


def _expected_next(mdp: FiniteMDP, values: Array) -> Array:
    return (mdp.transition @ values[..., None, :, None])[..., 0]


def _largest_occupancy(mdp: FiniteMDP, reward: Array) -> Array:
    """max_pi E_{d^pi}[reward], by policy iteration. reward [..., S, A] -> [...]"""
    problem = mdp._replace(reward=reward)
    choice = reward.argmax(-1)
    values = state_values(problem, np.eye(mdp.actions)[choice])
    for _ in range(mdp.states * mdp.actions + 10):
        table = reward + mdp.discount[..., None, None] * _expected_next(mdp, values)
        current = np.take_along_axis(table, choice[..., None], -1)[..., 0]
        better = table.max(-1) > current * (1 + 1e-12)
        if not better.any():
            break
        choice = np.where(better, table.argmax(-1), choice)
        values = state_values(problem, np.eye(mdp.actions)[choice])
    return (1 - mdp.discount) * (mdp.start * values).sum(-1)
