"""Values of a policy by importance sampling, and doubly robust ones: NumPy in float64.

With rho_t = prod_{k<=t} pi(a_k|s_k) / pi_beta(a_k|s_k) of an episode:

    PDIS    mean over episodes of sum_t gamma^t rho_t r_t                      (Precup, Sutton and Singh, 2000)
    WPDIS   sum_t gamma^t sum_i rho_it r_it / sum_i rho_it                     (the same; self-normalised)
    DR      V_t = V(s_t) + rho(s_t,a_t) (r_t + gamma V_{t+1} - Q(s_t,a_t))     (Jiang and Li, 2016, Eq. 10)
    WDR     sum_t gamma^t sum_i [w_it r_it - w_it Q(s_it,a_it) + w_i,t-1 V(s_it)],  w_it = rho_it / sum_j rho_jt
                                                                               (Thomas and Brunskill, 2016)

An episode that ended stays where it is, with rewards of 0 and its last rho, as both sources have it: it counts in the
sums over episodes. One that was cut has `tail`, the value of the state where it was: as if one last reward came, and
the episode ended. Without a tail it ends with nothing, and values are too small by as much.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from itrpo.ope.log import Log, by_episode

LARGEST = 600.0  # of log rho: beyond it nothing is known, and exp overflows soon


class Weighted(NamedTuple):
    """Of each episode and step, padded; the last column is where a tail is a reward."""

    log_rho: np.ndarray  # [E, T+1]: of all steps up to this one
    reward: np.ndarray  # [E, T+1], undiscounted


def weighted(log: Log, log_ratio: np.ndarray, tail: np.ndarray | None = None) -> Weighted:
    """log_ratio [N]: log pi(a|s) - log pi_beta(a|s) of each row; tail [E]."""
    steps = by_episode(log, log_ratio)
    log_rho = np.minimum(np.cumsum(np.pad(steps, ((0, 0), (0, 1))), axis=1), LARGEST)
    reward = np.pad(by_episode(log, log.rows.reward), ((0, 0), (0, 1)))
    if tail is not None:
        reward[np.arange(len(reward)), log.lengths] = np.where(log.cut, tail, 0.0)
    return Weighted(log_rho, reward)


def per_decision(log: Log, log_ratio: np.ndarray, gamma: float, tail: np.ndarray | None = None) -> np.ndarray:
    """PDIS of each episode, [E]."""
    given = weighted(log, log_ratio, tail)
    return (np.exp(given.log_rho) * given.reward) @ gamma ** np.arange(given.reward.shape[1])


def self_normalised(
    log: Log, log_ratio: np.ndarray, gamma: float, weights: np.ndarray, tail: np.ndarray | None = None
) -> np.ndarray:
    """WPDIS in each fold, [F]. weights: [F, E]."""
    given = weighted(log, log_ratio, tail)
    rho = _scaled(given.log_rho)
    return _ratio(weights @ (rho * given.reward), weights @ rho) @ gamma ** np.arange(given.reward.shape[1])


def doubly_robust(
    log: Log, log_ratio: np.ndarray, gamma: float, q: np.ndarray, v: np.ndarray, tail: np.ndarray | None = None
) -> np.ndarray:
    """DR of each episode, [E]. q: Q(s,a) of the rows' own actions, v: E_pi Q(s,.), both [N]."""
    ratio = np.exp(np.minimum(by_episode(log, log_ratio), LARGEST))
    rewards, q, v = (by_episode(log, it) for it in (log.rows.reward, q, v))
    last = np.zeros(len(ratio)) if tail is None else np.where(log.cut, tail, 0.0)
    value = np.zeros(len(ratio))
    with np.errstate(over="ignore", invalid="ignore"):  # who has such weights is told by their effective sample size
        for step in reversed(range(ratio.shape[1])):
            after = np.where(step == log.lengths - 1, last, value)
            here = v[:, step] + ratio[:, step] * (rewards[:, step] + gamma * after - q[:, step])
            value = np.where(step < log.lengths, here, value)
    return value


def weighted_doubly_robust(
    log: Log,
    log_ratio: np.ndarray,
    gamma: float,
    q: np.ndarray,
    v: np.ndarray,
    weights: np.ndarray,
    tail: np.ndarray | None = None,
) -> np.ndarray:
    """WDR in each fold, [F]. As `doubly_robust`, weights: [F, E]."""
    given = weighted(log, log_ratio, tail)
    rho = _scaled(given.log_rho)
    q, v = (np.pad(by_episode(log, it), ((0, 0), (0, 1))) for it in (q, v))
    if tail is not None:  # the state where an episode was cut: its value is known, and nothing is done there
        places = np.arange(len(v)), log.lengths
        v[places] = q[places] = np.where(log.cut, tail, 0.0)
    now = _ratio(weights @ (rho * (given.reward - q)), weights @ rho)
    before = np.concatenate([np.ones((len(rho), 1)), rho[:, :-1]], axis=1)
    values = _ratio(weights @ (before * v), weights @ before)
    return (now + values) @ gamma ** np.arange(v.shape[1])


def effective_sample_size(log: Log, log_ratio: np.ndarray) -> np.ndarray:
    """[T]: (sum_i rho_it)^2 / sum_i rho_it^2, of how many episodes the weights at each step are worth."""
    rho = _scaled(weighted(log, log_ratio).log_rho)[:, :-1]
    return rho.sum(axis=0) ** 2 / (rho**2).sum(axis=0)


class Overlap(NamedTuple):
    """How much the weights of a log can say, as means over steps with weights gamma^t, by which steps matter."""

    sample_size: float  # `effective_sample_size`, of E episodes
    mean_weight: float  # of rho, whose expectation is 1 at every step: far less where the log never did what pi does


def overlap(log: Log, log_ratio: np.ndarray, gamma: float) -> Overlap:
    """Both, for where no episode does what pi does, all have equally small weights, and the sample size is full."""
    log_rho = weighted(log, log_ratio).log_rho[:, :-1]
    discounts = gamma ** np.arange(log_rho.shape[1])
    discounts /= discounts.sum()
    sizes, means = effective_sample_size(log, log_ratio), np.exp(log_rho).mean(axis=0)
    return Overlap(float(sizes @ discounts), float(means @ discounts))


def _scaled(log_rho: np.ndarray) -> np.ndarray:
    """rho up to a factor for each step, which drops out where a step's weights are divided by their sum."""
    return np.exp(log_rho - log_rho.max(axis=0))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 0 where a fold has no weight at all: it has lost the one episode that had it."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
