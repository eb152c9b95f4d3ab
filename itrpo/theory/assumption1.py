"""Assumption 1: concentrability c(t), computed exactly, and what it leaves out (docs/theory.md, 7.2).

d^pi P_{pi*}^t <= c(t) d^D for every pi. Corrected: C(t) bounds products of any policies in place of P_{pi*}^t.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, FiniteMDP, inner, occupancy, optimal_values, soft_optimum


def data_distribution(mdp: FiniteMDP, behavior: Array) -> Array:
    """d^D taken as the behavior policy's own discounted state-action occupancy, [..., S, A]."""
    return occupancy(mdp, behavior)[..., None] * behavior


def assumed_concentrability(mdp: FiniteMDP, behavior: Array, temperature: float | Array, horizon: int) -> Array:
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


def both_concentrabilities(
    mdp: FiniteMDP, behavior: Array, temperature: float | Array, horizon: int
) -> tuple[Array, Array]:
    """(Assumption 1's c(t), the path concentrability C(t)), each [horizon, ...]."""
    assumed = assumed_concentrability(mdp, behavior, temperature, horizon)
    return assumed, path_concentrability(mdp, behavior, horizon)


def check(batches: list[Instance], seed: int) -> list[Row]:
    mass, at_least_one, covers, paths, dominates, outside = (Tally() for _ in range(6))
    horizon = 8
    for b in batches:
        temperature = b.alpha * (1 - b.tau)
        mass.add(b, np.abs(occupancy(b.mdp, b.policy).sum(-1) - 1))
        assumed = assumed_concentrability(b.mdp, b.behavior, temperature, horizon)
        full = path_concentrability(b.mdp, b.behavior, horizon)
        at_least_one.add(b, (1 / assumed).max(0))
        dominates.add(b, (assumed / full).max(0))
        data = data_distribution(b.mdp, b.behavior)
        optimal = np.exp(soft_optimum(b.mdp, b.behavior, temperature).log_policy)
        states = occupancy(b.mdp, b.policy)
        along_optimal = states[..., None] * b.policy
        along_learned = along_optimal
        worst_assumed, worst_full, worst_crossed = [], [], []
        for t in range(horizon):
            worst_assumed.append((along_optimal / data).max((-2, -1)) / assumed[t])
            worst_full.append((along_learned / data).max((-2, -1)) / full[t])
            worst_crossed.append((along_learned / data).max((-2, -1)) / assumed[t])
            along_optimal = _next_pairs(b.mdp, along_optimal, optimal)
            along_learned = _next_pairs(b.mdp, along_learned, b.previous)
        covers.add(b, np.max(worst_assumed, axis=0))
        paths.add(b, np.max(worst_full, axis=0))
        outside.add(b, np.max(worst_crossed, axis=0))
    return [
        mass.row("occupancies sum to one", "residual", ROUNDING),
        covers.row("d^pi P_{pi*}^t <= c(t) d^D for a random pi, t < 8", "ratio", RATIO_LIMIT),
        at_least_one.row("c(t) >= 1", "1 / c(t)", RATIO_LIMIT),
        dominates.row("c(t) <= C(t)", "ratio", RATIO_LIMIT),
        paths.row("d^pi P_{pi'}^t <= C(t) d^D for another policy pi'", "ratio", RATIO_LIMIT),
        outside.row(
            "d^pi P_{pi'}^t <= c(t) d^D, what a proof from Assumption 1 needs", "ratio", RATIO_LIMIT, "observed"
        ),
    ]


def _next_pairs(mdp: FiniteMDP, pairs: Array, policy: Array) -> Array:
    """d P_pi on state-action pairs, [..., S, A]."""
    flat = mdp.transition.reshape(*mdp.transition.shape[:-3], -1, mdp.states)
    states = (pairs.reshape(*pairs.shape[:-2], 1, -1) @ flat)[..., 0, :]
    return states[..., None] * policy


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
    """max_pi E_{d^pi}[reward]: (1 - gamma) times an optimal return. reward [..., S, A] >= 0 -> [...]"""
    return (1 - mdp.discount) * (mdp.start * optimal_values(mdp._replace(reward=reward))).sum(-1)
