"""Numbers for a table from the rows of a run. The spread is always over seeds, never over evaluations or episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import polars

FINAL_EVALUATIONS = 10  # "the average of the final 10 evaluations" (the paper, section on experiments)


FEW = 4  # seeds, below which their own values say more than an interval: Student's t of two is 12.7 deviations wide


class Interval(NamedTuple):
    """A mean over seeds and the half-width of its 95% interval; `half_width` is None for a single seed."""

    mean: float
    half_width: float | None
    each: tuple[float, ...] = ()  # of few seeds their own values, which tables show in place of the interval


class FinalScore(NamedTuple):
    """The final value of a metric: of each seed, the mean of its last evaluations."""

    per_seed: np.ndarray  # [S] float64, in the order of `seeds`
    seeds: tuple[int, ...]
    evaluations: int  # how many evaluations it is the mean of


class FinalValues(NamedTuple):
    """What `FinalScore` is the mean of."""

    values: np.ndarray  # [S, E] float64
    seeds: tuple[int, ...]


def mean_interval(values: Any) -> Interval:
    """Mean of `values` [S] with its 95% interval: t(0.975, S - 1) * s / sqrt(S), Student's t, s with S - 1."""
    from scipy.special import stdtrit  # scipy comes with jax

    sample = np.asarray(values, np.float64)
    count = len(sample)
    if count == 1:
        return Interval(float(sample[0]), None)
    half_width = float(stdtrit(count - 1, 0.975) * sample.std(ddof=1) / np.sqrt(count))
    return Interval(float(sample.mean()), half_width, tuple(sample.tolist()) if count < FEW else ())


def over_seeds(metrics: polars.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """A metric of a run as (steps [T], values [S, T], seeds), at the steps where every seed has it."""
    rows = metrics.filter((metrics["metric"] == metric) & metrics["value"].is_not_null())
    seeds, seed_index = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    steps, step_index = np.unique(rows["step"].to_numpy(), return_inverse=True)
    values, there = np.zeros((len(seeds), len(steps))), np.zeros((len(seeds), len(steps)), bool)
    values[seed_index, step_index] = rows["value"].to_numpy()
    there[seed_index, step_index] = True
    everywhere = there.all(axis=0)
    return steps[everywhere], values[:, everywhere], tuple(seeds.tolist())


def final_score(metrics: polars.DataFrame, metric: str = "return", last: int | None = None) -> FinalScore | None:
    """Mean of each seed's last evaluations, those of `final_values`."""
    final = final_values(metrics, metric, last)
    return None if final is None else FinalScore(final.values.mean(axis=1), final.seeds, final.values.shape[1])


def final_values(metrics: polars.DataFrame, metric: str = "return", last: int | None = None) -> FinalValues | None:
    """Each seed's `last` evaluations after step 0, or None if there was none.

    `last` defaults to the `window` of what this run has; runs that are compared have one for all.
    """
    steps, values, seeds = over_seeds(metrics, metric)
    trained = values[:, steps > 0]
    if trained.size == 0:
        return None
    return FinalValues(trained[:, -(last or window(trained.shape[1])) :], seeds)


def window(evaluations: int) -> int:
    """Of how many evaluations a result is the mean: of the last ten, the paper's, but in a short run not more than the
    later half, for what a policy scored on its way is not what it scores.
    """
    return min(FINAL_EVALUATIONS, max(1, evaluations // 2))


def one_window(runs: Sequence[polars.DataFrame]) -> int | None:
    """For runs that are compared: that of the one with the fewest evaluations; None if none has any."""
    found = [final_values(rows) for rows in runs]
    return min((final.values.shape[1] for final in found if final is not None), default=None)
