"""Random instances, each fixed by (seed, index) alone, drawn singly and solved in batches of one size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.theory.mdp import Array, FiniteMDP, make_mdp, random_mdp, random_policy, stack

# Instance i has size SIZES[i % 4]: (states, actions).
SIZES = ((2, 2), (3, 3), (4, 3), (6, 4))


class Instance(NamedTuple):
    """One problem, or a batch of them with a leading axis [N, ...].

    behavior, policy, previous [..., S, A]: pi_beta, and the pi and pi_k of Corollary 1; initial_q [..., S, A];
    alpha, tau [...]; number [...]: what draws the instance again, with its seed.
    """

    mdp: FiniteMDP
    behavior: Array
    policy: Array
    previous: Array
    initial_q: Array
    alpha: Array
    tau: Array
    number: Array


def draw(seed: int, index: int) -> Instance:
    """Instance `index` of `seed`.

    gamma uniform in [0.1, 0.97]; tau uniform in [0, 0.97], one in eight exactly 0; alpha log-uniform in [0.03, 100];
    Dirichlet transitions with concentration log-uniform in [0.05, 2]; policies from near-uniform to near-deterministic,
    and pi at a log-uniform distance (scale 1e-3 to 5 in logits) from either pi_k or pi_beta.
    """
    rng = np.random.default_rng([seed, index])
    states, actions = SIZES[index % len(SIZES)]
    mdp = random_mdp(rng, states, actions, rng.uniform(0.1, 0.97), _log_uniform(rng, 0.05, 2.0))
    behavior = random_policy(rng, states, actions, _log_uniform(rng, 0.1, 3.0))
    previous = random_policy(rng, states, actions, _log_uniform(rng, 0.1, 3.0))
    anchor = behavior if rng.random() < 0.5 else previous
    policy = anchor * np.exp(_log_uniform(rng, 1e-3, 5.0) * rng.standard_normal((states, actions)))
    policy /= policy.sum(-1, keepdims=True)
    return Instance(
        mdp,
        behavior,
        policy,
        previous,
        initial_q=rng.uniform(-2, 2, size=(states, actions)),
        alpha=np.asarray(_log_uniform(rng, 0.03, 100.0)),
        tau=np.asarray(0.0 if rng.random() < 1 / 8 else rng.uniform(0, 0.97)),
        number=np.asarray(index),
    )


def draw_batches(seed: int, instances: int) -> list[Instance]:
    """Instances 0 .. `instances` - 1, stacked by size. Raises InputError for instances < 1."""
    if instances < 1:
        raise InputError(f"instances must be at least 1; got {instances}")
    drawn = [draw(seed, index) for index in range(instances)]
    return [batch(drawn[first :: len(SIZES)]) for first in range(min(len(SIZES), instances))]


def batch(drawn: list[Instance]) -> Instance:
    """Instances of one size as one batched Instance."""
    mdps, *rest = zip(*drawn, strict=True)
    return Instance(stack(list(mdps)), *(np.stack(parts) for parts in rest))


def draw_errors(seed: int, instance: Instance, iterations: int) -> Array:
    """Zero-mean Gaussian errors epsilon_1 .. epsilon_K for each instance of a batch, [K, N, S, A]."""
    shape = (iterations, *instance.mdp.reward.shape[-2:])
    drawn = [np.random.default_rng([seed, int(i), 1]).standard_normal(shape) for i in instance.number]
    return 0.1 * np.stack(drawn, axis=1)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# Hand-made counter-examples -----------------------------------------------------------------------------------------


class Counterexample(NamedTuple):
    """Everything Theorem 2 needs. errors [K, S, A], or None for zero error; d^D is the behavior's occupancy."""

    mdp: FiniteMDP
    behavior: Array
    alpha: float
    tau: float
    iterations: int
    errors: Array | None


def large_temperature() -> Counterexample:
    """Zero error, 8 states, 4 actions, alpha = 100, tau = 0.95, gamma = 0.5: lambda = 5 > gamma and tau^2 > gamma."""
    rng = np.random.default_rng(0)
    return Counterexample(random_mdp(rng, 8, 4, 0.5), random_policy(rng, 8, 4), 100.0, 0.95, 60, None)


def unlikely_error(rarity: float = 1e-8) -> Counterexample:
    """One error at a pair that pi* avoids and the data hardly holds: Assumption 1's c(t) does not see it for t >= 1.

    State 0 (start): action 0 leads to state 1, action 1 to state 2, both free. State 1: action 0 costs 2 and has
    behavior probability `rarity`, action 1 costs 1 (times 20, so that lambda = 1). State 2 absorbs at no cost. One
    critic error raises the rare pair; the next cancels what the moving average would keep of it. The value has by then
    carried the error to state 0, so the policy walks into state 1 while E_k = 0.
    """
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = 1
    transition[1:, :, 2] = 1
    reward = np.array([[0.0, 0.0], [-40.0, -20.0], [0.0, 0.0]])
    behavior = np.array([[0.5, 0.5], [rarity, 1 - rarity], [0.5, 0.5]])
    mdp = make_mdp(transition, reward, np.array([1.0, 0.0, 0.0]), 0.9)
    tau, iterations, size = 0.5, 201, 120.0
    errors = np.zeros((iterations, 3, 2))
    errors[-3, 1, 0] = size / (1 - tau)
    errors[-2, 1, 0] = -tau * size / (1 - tau)
    return Counterexample(mdp, behavior, 2.0, tau, iterations, errors)


def rare_and_rewarding(rarity: float = 1e-40) -> Counterexample:
    """No error and r = -lambda log pi_beta: the shaped reward vanishes, and the printed constant misses Q_0 = 0."""
    behavior = np.array([[1 - rarity, rarity]])
    alpha, tau = 1.0, 0.9
    reward = -alpha * (1 - tau) * np.log(behavior)
    mdp = make_mdp(np.ones((1, 2, 1)), reward, np.ones(1), 0.5)
    return Counterexample(mdp, behavior, alpha, tau, 60, None)
