"""Finite MDPs, policies and their exact values.

Every array may carry leading batch axes, written `...`: a thousand instances of one size are solved by one call.
Policies are `[..., S, A]` probabilities; where a probability may underflow, the logarithm is what is carried.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from itrpo.errors import InputError

Array = NDArray[np.float64]


class FiniteMDP(NamedTuple):
    """transition [..., S, A, S], reward [..., S, A], start [..., S] (the distribution rho), discount [...]."""

    transition: Array
    reward: Array
    start: Array
    discount: Array

    @property
    def states(self) -> int:
        return self.reward.shape[-2]

    @property
    def actions(self) -> int:
        return self.reward.shape[-1]


def make_mdp(transition: Array, reward: Array, start: Array, discount: float | Array) -> FiniteMDP:
    """A checked MDP. Raises InputError for rows that are not distributions, wrong shapes, or gamma outside [0, 1)."""
    transition, reward, start = (np.asarray(x, dtype=np.float64) for x in (transition, reward, start))
    discount = np.asarray(discount, dtype=np.float64)
    if transition.ndim < 3 or transition.shape[:-1] != reward.shape or transition.shape[-1] != reward.shape[-2]:
        raise InputError(
            f"MDP: transition {transition.shape} must be [..., S, A, S] and reward {reward.shape} [..., S, A]"
        )
    if start.shape != reward.shape[:-1]:
        raise InputError(f"MDP: start {start.shape} must be [..., S] = {reward.shape[:-1]}")
    for name, rows in (("transition", transition), ("start", start)):
        if not np.isfinite(rows).all() or rows.min() < 0 or np.abs(rows.sum(-1) - 1).max() > 1e-9:
            raise InputError(f"MDP: every row of {name} must be a probability distribution (>= 0, sum 1)")
    if not np.isfinite(reward).all():
        raise InputError("MDP: reward must be finite")
    if not ((discount >= 0) & (discount < 1)).all():
        raise InputError(f"discount gamma must lie in [0, 1); got {discount}")
    return FiniteMDP(transition, reward, start, discount)


def stack(mdps: list[FiniteMDP]) -> FiniteMDP:
    """One batched MDP from MDPs of the same size."""
    return FiniteMDP(*(np.stack(parts) for parts in zip(*mdps, strict=True)))


def check_behavior(mdp: FiniteMDP, behavior: Array) -> Array:
    """log pi_beta. Raises InputError for a wrong shape, rows that do not sum to one, or zeros (infinite KL)."""
    behavior = np.asarray(behavior, dtype=np.float64)
    if behavior.shape[-2:] != mdp.reward.shape[-2:]:
        raise InputError(f"behavior policy {behavior.shape} must be [..., S, A] = {mdp.reward.shape}")
    if not (behavior > 0).all():
        raise InputError(
            "behavior policy has zeros: KL(pi || pi_beta) is infinite there; smooth it or remove those actions"
        )
    if np.abs(behavior.sum(-1) - 1).max() > 1e-9:
        raise InputError("behavior policy: every row must sum to one")
    return np.log(behavior)


def expand(value: float | Array) -> Array:
    """A per-instance number [...] shaped to multiply an [..., S, A] table."""
    return np.asarray(value, dtype=np.float64)[..., None, None]


def inner(left: Array, right: Array) -> Array:
    """<u, v> = sum over actions: [..., S, A] x [..., S, A] -> [..., S]."""
    return (left * right).sum(-1)


def backup(mdp: FiniteMDP, values: Array) -> Array:
    """gamma P v: [..., S] -> [..., S, A]."""
    shape = mdp.transition.shape
    flat = mdp.transition.reshape(*shape[:-3], shape[-3] * shape[-2], shape[-1])
    expected = (flat @ values[..., None])[..., 0]
    return expand(mdp.discount) * expected.reshape(*expected.shape[:-1], shape[-3], shape[-2])


def log_sum_exp(logits: Array) -> Array:
    """log sum_a exp: [..., A] -> [...], safe for large logits."""
    top = logits.max(-1, keepdims=True)
    return np.log(np.exp(logits - top).sum(-1)) + top[..., 0]


def log_softmax(logits: Array) -> Array:
    return logits - log_sum_exp(logits)[..., None]


def kl(policy: Array, other: Array) -> Array:
    """KL(policy || other) per state, [..., S]. Both must be positive where `policy` is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(policy > 0, policy * (np.log(policy) - np.log(other)), 0.0)
    return terms.sum(-1)


def state_transition(mdp: FiniteMDP, policy: Array) -> Array:
    """P_pi over states, [..., S, S]."""
    return (policy[..., None, :] @ mdp.transition)[..., 0, :]


def state_values(mdp: FiniteMDP, policy: Array, bonus: Array | float = 0.0) -> Array:
    """V of `policy` with an extra state reward `bonus` [..., S] (an entropy or a -KL), by one linear solve. [..., S]"""
    reward = inner(policy, mdp.reward) + bonus
    matrix = np.eye(mdp.states) - expand(mdp.discount) * state_transition(mdp, policy)
    return np.asarray(np.linalg.solve(matrix, reward[..., None])[..., 0], dtype=np.float64)


def action_values(mdp: FiniteMDP, policy: Array) -> Array:
    """Q^pi (Eq. 1's fixed point), [..., S, A]."""
    return mdp.reward + backup(mdp, state_values(mdp, policy))


def advantages(mdp: FiniteMDP, policy: Array) -> Array:
    """A^pi = Q^pi - V^pi, [..., S, A]."""
    values = action_values(mdp, policy)
    return values - inner(policy, values)[..., None]


def occupancy(mdp: FiniteMDP, policy: Array) -> Array:
    """Discounted state distribution d = (1 - gamma) sum_t gamma^t Pr(s_t = s | s_0 ~ rho), [..., S]; sums to one."""
    matrix = np.eye(mdp.states) - expand(mdp.discount) * state_transition(mdp, policy)
    start = (1 - mdp.discount)[..., None] * mdp.start
    start = np.broadcast_to(start, matrix.shape[:-1])
    return np.asarray(np.linalg.solve(np.swapaxes(matrix, -1, -2), start[..., None])[..., 0], dtype=np.float64)


def expected_return(mdp: FiniteMDP, policy: Array) -> Array:
    """eta(pi) = E[sum_t gamma^t r_t | s_0 ~ rho], [...]."""
    return (mdp.start * state_values(mdp, policy)).sum(-1)


def optimal_values(mdp: FiniteMDP) -> Array:
    """max_pi V^pi without regularisation, [..., S], by policy iteration (each step an exact solve)."""
    choice = mdp.reward.argmax(-1)
    values = state_values(mdp, np.eye(mdp.actions)[choice])
    for _ in range(mdp.states * mdp.actions + 10):
        table = mdp.reward + backup(mdp, values)
        best = table.max(-1)
        current = np.take_along_axis(table, choice[..., None], -1)[..., 0]
        better = best > current + 1e-12 * np.abs(current)
        if not better.any():
            break
        choice = np.where(better, table.argmax(-1), choice)
        values = state_values(mdp, np.eye(mdp.actions)[choice])
    return values


class SoftOptimum(NamedTuple):
    """Optimum of the KL-regularised MDP with temperature lambda: log_policy [..., S, A], q [..., S, A], v [..., S].

    `q` is the fixed point of Q = r + gamma P v(Q) with v(Q) = lambda log sum_a pi_beta exp(Q / lambda).
    """

    log_policy: Array
    q: Array
    v: Array


def soft_optimum(mdp: FiniteMDP, behavior: Array, temperature: float | Array) -> SoftOptimum:
    """Regularised policy iteration: exact evaluation, then the greedy step. Newton's method, so it ends in a few steps.

    Raises InputError for temperature <= 0.
    """
    log_behavior = check_behavior(mdp, behavior)
    temperature = np.asarray(temperature, dtype=np.float64)
    if not (temperature > 0).all():
        raise InputError(f"temperature lambda = alpha (1 - tau) must be > 0; got {temperature}")
    scale = expand(temperature)
    log_policy = np.broadcast_to(log_behavior, mdp.reward.shape)
    q, change = mdp.reward, np.inf
    for _ in range(200):
        policy = np.exp(log_policy)
        penalty = -temperature[..., None] * inner(policy, log_policy - log_behavior)
        q = mdp.reward + backup(mdp, state_values(mdp, policy, penalty))
        improved = log_softmax(q / scale + log_behavior)
        previous, change = change, np.abs(np.exp(improved) - policy).max()
        log_policy = improved
        if change < 1e-15 or (change < 1e-12 and change >= previous):
            break
    return SoftOptimum(log_policy, q, temperature[..., None] * log_sum_exp(q / scale + log_behavior))


# Instances ----------------------------------------------------------------------------------------------------------


def random_policy(rng: np.random.Generator, states: int, actions: int, spread: float = 1.0) -> Array:
    """Softmax of Gaussian logits with standard deviation `spread`: full support, near-uniform for a small spread."""
    return np.exp(log_softmax(spread * rng.standard_normal((states, actions))))


def random_mdp(
    rng: np.random.Generator, states: int, actions: int, discount: float, concentration: float = 0.3
) -> FiniteMDP:
    """Dirichlet transitions (a small `concentration` means few successors per pair), rewards uniform in [-1, 1]."""
    transition = rng.dirichlet(np.full(states, concentration), size=(states, actions))
    reward = rng.uniform(-1, 1, size=(states, actions))
    return make_mdp(transition, reward, rng.dirichlet(np.ones(states)), discount)


def chain_mdp(length: int = 6, discount: float = 0.9, slip: float = 0.1) -> FiniteMDP:
    """States on a line, actions left and right, which slip to the other side. Reward 1 on entering the right end."""
    if length < 2:
        raise InputError(f"chain: length must be at least 2; got {length}")
    transition = np.zeros((length, 2, length))
    for state in range(length):
        for action, step in enumerate((-1, 1)):
            transition[state, action, np.clip(state + step, 0, length - 1)] += 1 - slip
            transition[state, action, np.clip(state - step, 0, length - 1)] += slip
    reward = transition[:, :, -1].copy()
    return make_mdp(transition, reward, np.eye(length)[0], discount)


def gridworld_mdp(side: int = 4, discount: float = 0.95) -> FiniteMDP:
    """Side x side grid, four moves, walls keep the agent in place. Entering the last cell gives 1 and ends all."""
    if side < 2:
        raise InputError(f"gridworld: side must be at least 2; got {side}")
    goal = side * side - 1
    transition = np.zeros((goal + 1, 4, goal + 1))
    for cell in range(goal + 1):
        row, column = divmod(cell, side)
        for action, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            target = np.clip(row + down, 0, side - 1) * side + np.clip(column + right, 0, side - 1)
            transition[cell, action, goal if cell == goal else target] = 1
    reward = transition[:, :, goal].copy()
    reward[goal] = 0
    return make_mdp(transition, reward, np.eye(goal + 1)[0], discount)


def logged_behavior(mdp: FiniteMDP, rng: np.random.Generator, episodes: int = 200, horizon: int = 50) -> Array:
    """A behavior policy as a log holds it: the add-one smoothed action counts of episodes of a half-greedy policy."""
    greedy = np.eye(mdp.actions)[(mdp.reward + backup(mdp, optimal_values(mdp))).argmax(-1)]
    sampled = 0.5 * greedy + 0.5 / mdp.actions
    counts = np.ones((mdp.states, mdp.actions))
    states = rng.choice(mdp.states, size=episodes, p=mdp.start)
    for _ in range(horizon):
        actions = sample_rows(rng, sampled[states])
        np.add.at(counts, (states, actions), 1)
        states = sample_rows(rng, mdp.transition[states, actions])
    return counts / counts.sum(-1, keepdims=True)


def sample_rows(rng: np.random.Generator, rows: Array) -> NDArray[np.int64]:
    """An index drawn from each row of probabilities: [N, K] -> [N]."""
    cumulative = rows.cumsum(-1)
    draws = rng.random((len(rows), 1)) * cumulative[:, -1:]
    return (draws > cumulative).sum(-1)


def wandering_mdp() -> tuple[FiniteMDP, Array]:
    """Figure 1's MDP and behavior policy: one decision state with three actions, of which the third is the best.

    Action i leads to rest state i+1 and then back, so the values bootstrap; the behavior prefers the worst action.
    """
    transition = np.zeros((4, 3, 4))
    transition[0, [0, 1, 2], [1, 2, 3]] = 1
    transition[1:, :, 0] = 1
    reward = np.zeros((4, 3))
    reward[0] = (0.0, 0.3, 0.8)
    behavior = np.full((4, 3), 1 / 3)
    behavior[0] = (0.55, 0.3, 0.15)
    return make_mdp(transition, reward, np.eye(4)[0], 0.8), behavior
