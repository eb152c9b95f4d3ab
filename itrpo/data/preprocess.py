"""What is done to observations and rewards before training sees them: fitted on the dataset, saved with the run.

This is the one place that changes a reward. Reports and episode statistics always speak of the raw ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.types import RewardRule, Transition

STD_OFFSET = 1e-3  # added to the standard deviation, as in TD3+BC (arXiv:2106.06860) and IQL's successors
ROUNDING = 1e-6  # a standard deviation of so little of the mean is float32's rounding: the column is constant
LEAST = 1e-3  # of the mean: a column that varies by less is divided by this, not by its noise
LEFT_OUT = np.float32(1e30)  # what a constant column is divided by: a network then sees 0, whatever comes later
ALIKE = 10.0  # ratio of standard deviations up to which columns are of one scale; and the size of one that is too large


class Preprocess(NamedTuple):
    """Training sees `(observation - observation_mean) / observation_std` and `reward_scale * reward + reward_shift`."""

    observation_mean: np.ndarray  # [O] float32
    observation_std: np.ndarray  # [O] float32, never 0
    observation_low: np.ndarray  # [O] float32: the smallest of the raw observations
    observation_high: np.ndarray  # [O] float32: the largest
    reward_scale: float = 1.0
    reward_shift: float = 0.0


def fit_preprocess(
    transitions: Transition,
    normalize_observations: bool,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    by_column: bool = False,
) -> Preprocess:
    """Mean and standard deviation of `transitions.observation` (sums in float64), or the identity (zeros and ones).

    To the standard deviation STD_OFFSET is added, as published; `by_column` has no constant in units of the data: it
    leaves out columns that never vary, and takes at least `LEAST` of the mean.
    """
    observation = transitions.observation
    low, high = observation.min(axis=0), observation.max(axis=0)
    mean, std = np.zeros_like(low), np.ones_like(low)
    if normalize_observations:
        mean = observation.mean(axis=0, dtype=np.float64)
        std = observation.std(axis=0, dtype=np.float64)
        least = np.where(constant(mean, std), LEFT_OUT, np.maximum(std, LEAST * np.abs(mean)))
        std = least if by_column else std + STD_OFFSET
    return Preprocess(mean.astype(np.float32), std.astype(np.float32), low, high, reward_scale, reward_shift)


def kept_preprocess(
    kept: Mapping[str, Any], transitions: Transition, reward_scale: float, reward_shift: float
) -> Preprocess:
    """The normaliser of an earlier run, exactly; `kept` has the first four fields. Ranges grow to the new data's."""
    mean, std, low, high = (np.asarray(kept[name], np.float32) for name in Preprocess._fields[:4])
    low = np.minimum(low, transitions.observation.min(axis=0))
    high = np.maximum(high, transitions.observation.max(axis=0))
    return Preprocess(mean, std, low, high, reward_scale, reward_shift)


def constant(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """bool [O]: columns that vary by no more than float32's rounding."""
    return std <= ROUNDING * np.abs(mean)


def scales_differ(mean: np.ndarray, std: np.ndarray) -> bool:
    """Whether columns of this mean and standard deviation are too unequal, too large or too small for a network."""
    spread = std[~constant(mean, std)]
    if not len(spread):
        return False
    largest = max(spread.max(), np.abs(mean).max())
    return bool(spread.max() > ALIKE * spread.min() or largest > ALIKE or spread.max() < 1 / ALIKE)


def reward_transform(rule: RewardRule, transitions: Transition, where: str) -> tuple[float, float]:
    """(scale, shift) of a rule on this data. Raises InputError if it needs a range of returns and there is none."""
    if not rule.by_return_range:
        return rule.scale, rule.shift
    returns = trajectory_returns(transitions)
    spread = float(returns.max() - returns.min())
    if not spread > 0:
        several = f"all {len(returns):,} episodes have the same return" if len(returns) > 1 else "there is one episode"
        raise InputError(
            f"{where}: {several}, so rewards can't be scaled by the range of returns, as the preset does; give"
            " --reward-scale 1 (reward_scale=1 in Python)"
        )
    return rule.scale * 1000.0 / spread, rule.shift


def trajectory_returns(transitions: Transition) -> np.ndarray:
    """[E] float64: sums of rewards between cuts: terminals, and rows whose next observation is not the next row's.

    IQL's split (dataset_utils.py, tolerance 1e-6), which counts unfinished trajectories and misses the rows that
    D4RL's view drops at timeouts.
    """
    jumps = np.linalg.norm(transitions.observation[1:] - transitions.next_observation[:-1], axis=1) > 1e-6
    starts = np.flatnonzero(jumps | (transitions.continues[:-1] == 0)) + 1
    return np.add.reduceat(transitions.reward, np.concatenate([[0], starts]), dtype=np.float64)


def apply(preprocess: Preprocess, transitions: Transition) -> Transition:
    """Transitions with both observations and rewards transformed; the very same arrays where nothing changes."""
    mean, std, scale, shift = preprocess[:2] + preprocess[-2:]
    if (scale, shift) != (1.0, 0.0):
        transitions = transitions._replace(reward=(scale * transitions.reward + shift).astype(np.float32))
    if not mean.any() and (std == 1).all():
        return transitions
    return transitions._replace(
        observation=(transitions.observation - mean) / std,
        next_observation=(transitions.next_observation - mean) / std,
    )
