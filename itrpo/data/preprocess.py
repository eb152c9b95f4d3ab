"""What is done to observations before a network sees them: fitted on the dataset, saved with the run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from itrpo.types import Transition

STD_OFFSET = 1e-3  # added to the standard deviation, as in TD3+BC (arXiv:2106.06860) and IQL's successors


class Preprocess(NamedTuple):
    """A network sees `(observation - observation_mean) / observation_std`."""

    observation_mean: np.ndarray  # [O] float32
    observation_std: np.ndarray  # [O] float32, STD_OFFSET included, so never 0


def fit_preprocess(transitions: Transition, normalize_observations: bool) -> Preprocess:
    """Mean and standard deviation of `transitions.observation` (sums in float64), or the identity (zeros and ones)."""
    size = transitions.observation.shape[1]
    if not normalize_observations:
        return Preprocess(np.zeros(size, np.float32), np.ones(size, np.float32))
    mean = transitions.observation.mean(axis=0, dtype=np.float64)
    std = transitions.observation.std(axis=0, dtype=np.float64) + STD_OFFSET
    return Preprocess(mean.astype(np.float32), std.astype(np.float32))


def apply(preprocess: Preprocess, transitions: Transition) -> Transition:
    """Transitions with both observations normalised; the very same arrays where `preprocess` is the identity."""
    mean, std = preprocess
    if not mean.any() and (std == 1).all():
        return transitions
    return transitions._replace(
        observation=(transitions.observation - mean) / std,
        next_observation=(transitions.next_observation - mean) / std,
    )
