"""Statistics of many runs on several tasks, as rliable defines them (Agarwal et al., NeurIPS 2021, arXiv 2108.13264).

Scores are arrays [..., R, T] of R runs (seeds) on each of T tasks; functions work on the last two axes, so that they
take all resamples of a bootstrap at once. Intervals are 95% percentile intervals of a bootstrap that is stratified by
task: the runs of each task are resampled, the tasks stay. They say how the number would vary with other seeds on the
same tasks. With few runs they are too narrow: 4 runs have 35 different resamples. For the cells of a table, of one task
each, `aggregate.mean_interval` has Student's t.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from itrpo.errors import InputError

TARGET = 100.0  # D4RL's score of an expert, from which the optimality gap is measured
REPETITIONS = 20_000
CHUNK = 1_000  # resamples in memory at once


class Estimate(NamedTuple):
    """A statistic and its 95% interval: numbers, or arrays of one shape."""

    value: Any
    low: Any
    high: Any


# --- aggregates: [..., R, T] -> [...] ------------------------------------------------------------------------------


def mean(scores: np.ndarray) -> np.ndarray:
    return scores.mean((-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """The median over tasks of their means over runs."""
    return np.median(scores.mean(-2), -1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over all R * T runs: without the lowest and the highest quarter, each rounded down."""
    pooled = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(-1)


def optimality_gap(scores: np.ndarray, target: float = TARGET) -> np.ndarray:
    """How far runs fall short of `target` on average; what is above it makes up for nothing."""
    return target - np.minimum(scores, target).mean((-2, -1))


AGGREGATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": mean,
    "median": median,
    "IQM": iqm,
    "optimality gap": optimality_gap,
}


def score_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """[K]: the share of runs above each of K thresholds."""
    return np.stack([(scores > threshold).mean((-2, -1)) for threshold in thresholds], axis=-1)


def mean_score_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """[K]: the share of tasks whose mean over runs is above each of K thresholds."""
    return (scores.mean(-2)[..., None] > thresholds).mean(-2)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(X > Y) of a run of each, averaged over tasks; a tie counts half. R may differ between x and y."""
    left, right = x[..., :, None, :], y[..., None, :, :]
    return ((left > right) + 0.5 * (left == right)).mean((-3, -2, -1))


# --- intervals -----------------------------------------------------------------------------------------------------


def bootstrap(
    statistic: Callable[..., np.ndarray], *scores: np.ndarray, repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """`statistic(*scores)` with its interval; each of `scores` [R, T] is resampled by itself.

    Raises InputError for scores of another shape, and for those that are not finite.
    """
    for each in scores:
        if np.ndim(each) != 2 or not np.size(each):
            raise InputError(f"scores must be [runs, tasks], got an array of shape {list(np.shape(each))}")
        if not np.isfinite(each).all():
            raise InputError("a score is NaN or infinite; statistics are of runs that have finished")
    generator = np.random.default_rng(seed)
    resampled: list[np.ndarray] = []
    for start in range(0, repetitions, CHUNK):
        count = min(CHUNK, repetitions - start)
        drawn = [np.take_along_axis(it[None], generator.integers(len(it), size=(count, *it.shape)), 1) for it in scores]
        resampled.append(statistic(*drawn))
    low, high = np.quantile(np.concatenate(resampled), (0.025, 0.975), axis=0)
    return Estimate(*(float(it) if np.ndim(it) == 0 else it for it in (statistic(*scores), low, high)))


def aggregates(scores: np.ndarray, repetitions: int = REPETITIONS, seed: int = 0) -> dict[str, Estimate]:
    """The four of `AGGREGATES`, over the same resamples."""

    def all_of_them(values: np.ndarray) -> np.ndarray:
        return np.stack([statistic(values) for statistic in AGGREGATES.values()], axis=-1)

    found = bootstrap(all_of_them, scores, repetitions=repetitions, seed=seed)
    return {name: Estimate(*(float(it[index]) for it in found)) for index, name in enumerate(AGGREGATES)}


def profile(scores: np.ndarray, thresholds: np.ndarray, of_means: bool = False, repetitions: int = 2_000) -> Estimate:
    """A performance profile [K] with its band (pointwise); of_means: of the tasks' means, not of runs."""
    distribution = mean_score_profile if of_means else score_profile
    return bootstrap(partial(distribution, thresholds=thresholds), scores, repetitions=repetitions)


def improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """`probability_of_improvement` of x over y with its interval."""
    return bootstrap(probability_of_improvement, x, y, repetitions=2_000)


def difference(x: np.ndarray, y: np.ndarray, paired: bool = False) -> Estimate:
    """mean(x) - mean(y) with its interval. paired: row i of both is the same seed, and is resampled as one.

    Pairs help where a seed means the same to both arms: the same rows of data in the same order, the same fit of
    pi_beta, the same start states. Between algorithms it means little, and pairing then changes little.
    """
    return bootstrap(mean, x - y) if paired else bootstrap(lambda a, b: mean(a) - mean(b), x, y)
