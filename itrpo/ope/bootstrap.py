"""Uncertainty by resampling episodes: rows of one episode are not independent, episodes are."""

from __future__ import annotations

import numpy as np

from itrpo.report.statistics import Estimate


def fold_weights(episodes: int, folds: int, seed: int = 0) -> np.ndarray:
    """[F, E] float64: how often each episode is in each fold: in fold 0 once, in the others as often as drawn with
    replacement. The first folds are the same however many there are.
    """
    drawn = [np.random.default_rng((seed, fold)).integers(episodes, size=episodes) for fold in range(1, folds)]
    counts = [np.bincount(it, minlength=episodes) for it in drawn]
    return np.stack([np.ones(episodes), *counts]).astype(np.float64)


def over_folds(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[F]: the mean over episodes of `values` [E], or [F, E] where folds have values of their own, in each fold."""
    return (weights * values).sum(axis=1) / weights.sum(axis=1)


def interval(folds: np.ndarray, episodes: int, tail: float = 0.025, more: float = 0.0) -> Estimate:
    """The value of fold 0 with a 95% interval (`tail` on either side): Student's t times the standard deviation of the
    other folds, with `more` for a standard error that folds do not see.

    The deviation is that of the bootstrap, for which E episodes spread by (E - 1) / E too little; t has the degrees of
    freedom of the fewer of episodes and folds. Infinite where there are too few to know.
    """
    from scipy.special import stdtrit  # scipy comes with jax

    resampled, value = folds[1:], float(folds[0])
    freedom = min(len(resampled), episodes) - 1
    if freedom < 1 or not np.isfinite(folds).all():
        return Estimate(value, -np.inf, np.inf)
    deviation = np.hypot(resampled.std(ddof=1) * np.sqrt(episodes / (episodes - 1)), more)
    half = stdtrit(freedom, 1 - tail) * deviation
    return Estimate(value, value - float(half), value + float(half))
