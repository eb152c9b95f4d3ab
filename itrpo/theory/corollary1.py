"""Corollary 1: the lower bound on eta(pi), how tight it is, and the sharper constant (docs/theory.md, 6).

eta(pi) >= L_{pi_beta}(pi) - C sqrt(max_s KL(pi || pi_k) E_{d^beta}[KL(pi || pi_beta)]) with
C = 2 epsilon gamma / (1 - gamma)^2. It holds as printed; from gamma = 0.874 on less is enough (`sharper_factor`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, FiniteMDP, advantages, expected_return, inner, kl, occupancy

# prod_{j>=1} 1 / (1 - 2^-j): the constant of the chain rule for squared Hellinger distances (docs/theory.md, 6.3).
HELLINGER_CHAIN = float(np.prod(1 / (1 - 2.0 ** -np.arange(1, 60))))


class Terms(NamedTuple):
    """Both sides of the corollary, each [...]. `loss` is L_{pi_beta}(pi) - eta(pi); `bound` is C sqrt(KLmax KLexp)."""

    loss: Array
    bound: Array


def terms(mdp: FiniteMDP, policy: Array, previous: Array, behavior: Array) -> Terms:
    """Both sides of Corollary 1, pi = `policy`, pi_k = `previous`; C = 2 epsilon gamma / (1 - gamma)^2 as printed."""
    advantage = advantages(mdp, previous)
    mean_advantage = inner(policy, advantage)
    shift = occupancy(mdp, behavior) - occupancy(mdp, policy)
    loss = (shift * mean_advantage).sum(-1) / (1 - mdp.discount)
    largest = np.abs(advantage).max((-2, -1))
    near = kl(policy, previous).max(-1)
    far = (occupancy(mdp, behavior) * kl(policy, behavior)).sum(-1)
    constant = 2 * largest * mdp.discount / (1 - mdp.discount) ** 2
    return Terms(loss, constant * np.sqrt(near * far))


def sharper_factor(discount: float | Array) -> Array:
    """How much of the printed C is enough, proven: min(1, sqrt(2 c (1 - gamma) / gamma)), c = HELLINGER_CHAIN.

    Below 1 from gamma = 0.874 on; the constant then grows like (1 - gamma)^(-3/2), not (1 - gamma)^(-2).
    """
    discount = np.asarray(discount, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.minimum(1.0, np.sqrt(2 * HELLINGER_CHAIN * (1 - discount) / discount))


def local_factor(discount: float | Array) -> Array:
    """The exact supremum of bound use as pi -> pi_beta: sqrt(1 - gamma), attained by `fork` (docs/theory.md, 6.4)."""
    return np.sqrt(1 - np.asarray(discount, dtype=np.float64))


def occupancy_ratio(mdp: FiniteMDP, policy: Array, behavior: Array) -> Array:
    """||d^pi - d^beta||_1 over the corollary's own bound on it, sqrt(2) gamma / (1 - gamma) sqrt(KLexp). [...]

    `lift` turns any (MDP, pi, pi_beta) into an instance of Corollary 1 that uses exactly this share of the bound.
    """
    visits = occupancy(mdp, behavior)
    shift = np.abs(occupancy(mdp, policy) - visits).sum(-1)
    far = (visits * kl(policy, behavior)).sum(-1)
    return shift / (np.sqrt(2) * mdp.discount / (1 - mdp.discount) * np.sqrt(far))


def lift(mdp: FiniteMDP, policy: Array, behavior: Array, tilt: float = 1e-3) -> tuple[FiniteMDP, Array, Array, Array]:
    """(MDP, pi, pi_k, pi_beta) of Corollary 1 whose share of the bound tends to `occupancy_ratio` as `tilt` -> 0.

    Every action gets a payoff bit worth +1 or -1 that moves nothing: pi_k flips it fairly, so its advantages are +-1;
    pi favours +1 where it visits less than pi_beta does, and -1 elsewhere.
    """
    sign = np.sign(occupancy(mdp, behavior) - occupancy(mdp, policy))
    coin = np.stack([(1 + tilt * sign) / 2, (1 - tilt * sign) / 2], axis=-1)
    fair = np.full_like(coin, 0.5)

    def with_coin(table: Array, bit: Array) -> Array:
        joint = table[..., :, None] * bit[..., None, :]
        return joint.reshape(*table.shape[:-1], -1)

    reward = with_coin(np.ones_like(mdp.reward), np.broadcast_to([1.0, -1.0], fair.shape))
    lifted = mdp._replace(transition=np.repeat(mdp.transition, 2, axis=-2), reward=reward)
    return lifted, with_coin(policy, coin), with_coin(policy, fair), with_coin(behavior, coin)


def fork(discount: float | Array, tilt: float = 1e-3) -> tuple[FiniteMDP, Array, Array]:
    """One choice between two absorbing states: (MDP, pi, pi_beta) with occupancy_ratio -> sqrt(1 - gamma)."""
    return leaky_fork(discount, np.array([0.5]), np.array([0.5 + tilt / 2]), np.array([0.0]))


def leaky_fork(discount: float | Array, choice: Array, tilted: Array, leak: Array) -> tuple[FiniteMDP, Array, Array]:
    """The worst shape found: state 0 chooses states 1 or 2; under pi_beta state 1 leaks into 2, under pi never.

    choice, tilted, leak [N]: the probability of state 1 under pi_beta and under pi, and pi_beta's leak from state 1.
    Returns (MDP, pi, pi_beta) with a leading axis N.
    """
    count = len(choice)
    transition = np.zeros((count, 3, 2, 3))
    transition[:, 0, 0, 1] = transition[:, 0, 1, 2] = 1
    transition[:, 1, 0, 1] = transition[:, 1, 1, 2] = 1
    transition[:, 2, :, 2] = 1
    start = np.broadcast_to(np.array([1.0, 0, 0]), (count, 3))
    mdp = FiniteMDP(transition, np.zeros((count, 3, 2)), start, np.broadcast_to(np.float64(discount), count))
    half = np.full_like(choice, 0.5)

    def table(first: Array, leaving: Array) -> Array:
        return np.stack([np.stack([x, 1 - x], -1) for x in (first, 1 - leaving, half)], axis=-2)

    return mdp, table(tilted, np.zeros_like(leak)), table(choice, leak)


def worst_leaky_fork(discount: float, rng: np.random.Generator, rounds: int = 150) -> tuple[FiniteMDP, Array, Array]:
    """`leaky_fork` with its three numbers climbed to the largest `occupancy_ratio`. Unbatched (MDP, pi, pi_beta)."""

    def build(logits: Array) -> tuple[FiniteMDP, Array, Array]:
        return leaky_fork(discount, *(1 / (1 + np.exp(-logits.T))))

    return _climb(rng.normal(size=(60, 3)), build, rng, rounds)


def climb_random(
    discount: float, rng: np.random.Generator, population: int = 200, rounds: int = 300
) -> tuple[FiniteMDP, Array, Array]:
    """Hill climbing over whole MDPs (3 states, 2 actions), pi and pi_beta from random starts. Unbatched result."""
    states, actions = 3, 2
    cells = states * actions

    def build(x: Array) -> tuple[FiniteMDP, Array, Array]:
        transition = _softmax(x[:, : cells * states].reshape(-1, states, actions, states))
        behavior = _softmax(x[:, cells * states : cells * (states + 1)].reshape(-1, states, actions))
        policy = _softmax(x[:, cells * (states + 1) :].reshape(-1, states, actions))
        count = len(x)
        start = np.broadcast_to(np.eye(states)[0], (count, states))
        reward = np.zeros((count, states, actions))
        return FiniteMDP(transition, reward, start, np.broadcast_to(np.float64(discount), count)), policy, behavior

    return _climb(2 * rng.normal(size=(population, cells * (states + 2))), build, rng, rounds)


def _climb(
    points: Array, build: Callable[[Array], tuple[FiniteMDP, Array, Array]], rng: np.random.Generator, rounds: int
) -> tuple[FiniteMDP, Array, Array]:
    """The best point. Each keeps a random step when its `occupancy_ratio` grows; steps shrink where they fail."""
    values, size = occupancy_ratio(*build(points)), np.ones(len(points))
    for _ in range(rounds):
        direction = rng.normal(size=points.shape) * (rng.random(points.shape) < 0.4)
        trial = np.clip(points + size[:, None] * direction, -30, 30)
        scores = occupancy_ratio(*build(trial))
        better = scores > values
        points, values = np.where(better[:, None], trial, points), np.where(better, scores, values)
        size = np.where(better, 1.5 * size, np.maximum(0.9 * size, 1e-3))
    mdp, policy, behavior = build(points[values.argmax()][None])
    return FiniteMDP(*(part[0] for part in mdp)), policy[0], behavior[0]


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


# The check ------------------------------------------------------------------------------------------------------------


def check(batches: list[Instance], seed: int) -> list[Row]:
    printed, sharper, identity, shift = (Tally() for _ in range(4))
    for b in batches:
        sides = terms(b.mdp, b.policy, b.previous, b.behavior)
        ratio = sides.loss / sides.bound
        printed.add(b, ratio)
        sharper.add(b, ratio / sharper_factor(b.mdp.discount))
        shift.add(b, occupancy_ratio(b.mdp, b.policy, b.behavior) / sharper_factor(b.mdp.discount))
        difference = expected_return(b.mdp, b.policy) - expected_return(b.mdp, b.previous)
        gained = inner(b.policy, advantages(b.mdp, b.previous))
        advantage = (occupancy(b.mdp, b.policy) * gained).sum(-1) / (1 - b.mdp.discount)
        scale = np.abs(b.mdp.reward).max((-2, -1)) / (1 - b.mdp.discount)
        identity.add(b, np.abs(difference - advantage) / scale)
    rows = [
        identity.row("eta(pi) - eta(pi_k) = E_{d^pi}[A-bar] / (1 - gamma)", "residual", ROUNDING),
        printed.row("eta(pi) >= L - C sqrt(KLmax KLexp), random instances", "share of C", RATIO_LIMIT),
        sharper.row("the same with the sharper C (x min(1, 2.63 sqrt((1-g)/g)))", "share of C", RATIO_LIMIT),
        shift.row("|d^pi - d^beta|_1 <= the sharper bound on it", "ratio", RATIO_LIMIT),
    ]
    rng = np.random.default_rng([seed, 20])
    for discount in (0.1, 0.9, 0.99):
        local = float(local_factor(discount))
        mdp, policy, behavior = fork(discount)
        used = _share_used(*lift(mdp, policy, behavior))
        claim = f"fork at gamma {discount}: share -> sqrt(1-gamma) = {local:.4f}"
        rows.append(Row(claim, 1, int(abs(used / local - 1) > 1e-5), used, "share of C", None, "holds"))
    for discount in (0.9, 0.99):
        limit = float(sharper_factor(discount))
        found = max(_share_used(*lift(*search(discount, rng))) for search in (climb_random, worst_leaky_fork))
        claim = f"worst found by search, gamma {discount} (proven limit {limit:.3f})"
        rows.append(Row(claim, 260, int(found > limit), found, "share of C", None, "holds"))
    return rows


def _share_used(mdp: FiniteMDP, policy: Array, previous: Array, behavior: Array) -> float:
    sides = terms(mdp, policy, previous, behavior)
    return float(np.squeeze(sides.loss / sides.bound))
