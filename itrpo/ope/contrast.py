"""What policies do where the log did something else: numbers by region of the observations. Nothing is estimated here.

Actions are in [-1, 1]; P policies, N rows, A dimensions of actions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from itrpo.ope.log import Log, by_episode
from itrpo.ope.support import BINS, in_bins

NEAR = 0.01  # of the range: at a limit
USUAL = 0.1  # the log's actions between this quantile and that from above are its usual ones


class Contrast(NamedTuple):
    """Rows whose column lies in one bin between two quantiles."""

    column: int
    low: float
    high: float
    centre: float  # the column's mean here
    weight: float  # share of the rows
    log: np.ndarray  # [A] mean action
    usual: np.ndarray  # [2, A] between which the middle 80% of the log's actions lie
    policy: np.ndarray  # [P, A] mean actions
    apart: np.ndarray  # [P, A] mean |policy - log|, row by row


def contrasts(observation: np.ndarray, log_action: np.ndarray, actions: np.ndarray, bins: int = BINS) -> list[Contrast]:
    """For each column of observations [N, O] that varies and each of its bins; actions [P, N, A]."""
    found: list[Contrast] = []
    for column in range(observation.shape[1]):
        values = observation[:, column]
        for here, (low, high) in in_bins(values, bins):
            logged, ours = log_action[here].astype(np.float64), actions[:, here].astype(np.float64)
            found.append(
                Contrast(
                    column,
                    low,
                    high,
                    float(values[here].mean(dtype=np.float64)),
                    float(here.mean()),
                    logged.mean(axis=0),
                    np.quantile(logged, (USUAL, 1 - USUAL), axis=0),
                    ours.mean(axis=1),
                    np.abs(ours - logged).mean(axis=1),
                )
            )
    return found


def telling(found: list[Contrast]) -> list[int]:
    """Columns, first those over which policies, or their difference to the log, vary most from bin to bin."""
    scores: dict[int, float] = {}
    for column in dict.fromkeys(it.column for it in found):
        own = [it for it in found if it.column == column]
        weight = np.array([it.weight for it in own])
        policy = np.stack([it.policy for it in own])
        difference = policy - np.stack([it.log for it in own])[:, None]
        scores[column] = sum(float(_variance(it, weight).sum(axis=-1).mean()) for it in (policy, difference))
    return sorted(scores, key=lambda column: -scores[column])


def _variance(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[P, A] of values [bins, P, A]."""
    share = (weight / weight.sum())[:, None, None]
    return (share * (values - (share * values).sum(axis=0)) ** 2).sum(axis=0)


def at_limits(action: np.ndarray) -> np.ndarray:
    """[2, A]: the shares of actions [N, A] within 1% of the range from the lower limit, and from the upper."""
    return np.stack([(action <= -1 + 2 * NEAR).mean(axis=0), (action >= 1 - 2 * NEAR).mean(axis=0)])


def beyond(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[2, D]: the shares of rows [N, D] below the least and above the largest value of the known rows, by column."""
    return np.stack([(values < known.min(axis=0)).mean(axis=0), (values > known.max(axis=0)).mean(axis=0)])


def typical_episode(log: Log) -> int:
    """Of the episodes that are at least of median length, the one whose return is nearest to their median."""
    returns = by_episode(log, log.rows.reward).sum(axis=1)
    long = np.flatnonzero(log.lengths >= np.median(log.lengths))
    return int(long[np.abs(returns[long] - np.median(returns[long])).argmin()])
