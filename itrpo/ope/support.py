"""How far a policy's actions are from those of a log: where nothing was ever tried, no estimate knows what happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

LOW = 0.01  # quantile of the log's own actions below which an action is called unseen
REFERENCE, QUERIES = 20_000, 2_000  # rows that distances are taken to, and from
BINS = 5  # of each column of observations
CHUNK = 256  # rows whose distances are in memory at once


class Region(NamedTuple):
    """Rows whose column lies in one bin between two quantiles."""

    column: int
    low: float  # of the column in the bin
    high: float
    weight: float  # share of the rows that lie here
    outside: float  # share of them where the policy's action leaves the range that the log's actions have here


def unlikely_share(log_prob_policy: np.ndarray, log_prob_log: np.ndarray) -> float:
    """The share of a policy's actions whose log pi_beta [N] is below that of all but LOW of the log's own."""
    return float((log_prob_policy < np.quantile(log_prob_log, LOW)).mean())


def nearest_distances(
    points: np.ndarray, reference: np.ndarray, queries: int = QUERIES, limit: int = REFERENCE
) -> tuple[np.ndarray, np.ndarray]:
    """(which of the points, their Euclidean distances to the nearest of `reference`): exact, of at most `queries`
    points to at most `limit` rows, both drawn from seed 0. points [N, D], reference [M, D], in units of one size.
    """
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.permutation(len(points))[:queries])
    known = reference[np.sort(generator.permutation(len(reference))[:limit])].astype(np.float64)
    squares, nearest = (known**2).sum(axis=1), np.empty(len(chosen))
    for start in range(0, len(chosen), CHUNK):
        some = points[chosen[start : start + CHUNK]].astype(np.float64)
        distance = (some**2).sum(axis=1)[:, None] - 2.0 * some @ known.T + squares
        nearest[start : start + CHUNK] = np.sqrt(np.maximum(distance.min(axis=1), 0.0))
    return chosen, nearest


def far_share(
    observation: np.ndarray,
    policy_action: np.ndarray,
    log_action: np.ndarray,
    known_observation: np.ndarray,
    known_action: np.ndarray,
) -> float:
    """The share of (s, pi(s)) that are farther from the known rows than all but LOW of the log's own (s, a) are.

    Observations and actions [N, .] are divided by the deviations of the known rows, of other episodes than the log's.
    """
    scale = np.concatenate([_deviation(known_observation), _deviation(known_action)])
    known = np.concatenate([known_observation, known_action], axis=1) / scale
    both = [np.concatenate([observation, action], axis=1) / scale for action in (policy_action, log_action)]
    (_, ours), (_, theirs) = (nearest_distances(points, known) for points in both)
    return float((ours > np.quantile(theirs, 1.0 - LOW)).mean())


def regions(observation: np.ndarray, policy_action: np.ndarray, log_action: np.ndarray) -> list[Region]:
    """Where the policy leaves the log: for each column of the observations [N, O] and each of its bins, between its
    quantiles, `leaving` of the actions [N, A] there. Columns that never vary have none.
    """
    return [
        Region(column, *ends, float(here.mean()), leaving(policy_action[here], log_action[here]))
        for column in range(observation.shape[1])
        for here, ends in in_bins(observation[:, column])
    ]


def leaving(policy_action: np.ndarray, log_action: np.ndarray) -> float:
    """The share of a policy's actions [N, A] that are in some dimension farther out than all but `rank` of the log's.

    The rank is the one at which nearest to 2 LOW of the log's own actions are so, each held against the others. Where
    more of them are, and even at 0 (few rows, many dimensions), that excess is taken off: a policy that does what the
    log does leaves it in 2 LOW of the rows, whatever N and A are.
    """
    ordered, last = np.sort(log_action, axis=0), len(log_action) - 1

    def beyond(actions: np.ndarray, rank: int) -> float:
        rank = min(rank, last // 2)
        return float(((actions < ordered[rank]) | (actions > ordered[last - rank])).any(axis=1).mean())

    def own(rank: int) -> float:
        return beyond(log_action, rank + 1)  # one of those is the action itself

    rank, highest = 0, int(LOW * len(log_action))
    while rank < highest:
        middle = (rank + highest + 1) // 2
        rank, highest = (middle, highest) if own(middle) <= 2 * LOW else (rank, middle - 1)
    rank = min((rank, rank + 1), key=lambda it: abs(own(it) - 2 * LOW))
    excess = max(own(rank) - 2 * LOW, 0.0)
    return max((beyond(policy_action, rank) - excess) / (1.0 - excess), 0.0)


def in_bins(values: np.ndarray, bins: int = BINS) -> Iterator[tuple[np.ndarray, tuple[float, float]]]:
    """For each of so many bins between quantiles of a column: which rows lie in it (bool [N]), and its ends. A column
    that never varies has none, one with few different values has fewer.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    for index in range(len(edges) - 1):
        here = places == index
        if here.any():
            yield here, (float(edges[index]), float(edges[index + 1]))


def _deviation(rows: np.ndarray) -> np.ndarray:
    """Of each column; infinite where it never varies, so that it counts for nothing."""
    deviation = rows.std(axis=0, dtype=np.float64)
    return np.where(deviation > 0, deviation, np.inf)
