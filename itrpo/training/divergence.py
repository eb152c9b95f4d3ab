"""When a run has diverged: a metric that is not finite, or a mean of Q that no rewards of the data could add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from itrpo.config import TrainConfig
from itrpo.training import loop

FLOAT_MAX = float(np.finfo(np.float32).max)


def limits(names: Iterable[str], value_metric: str | None, config: TrainConfig, rewards: Array) -> dict[str, float]:
    """Largest absolute value of each metric that is still believed; `value_metric` is the mean of Q, if any."""
    believed = dict.fromkeys(names, FLOAT_MAX)
    if value_metric is not None:
        believed[value_metric] = value_limit(config, rewards)
    return believed


def value_limit(config: TrainConfig, rewards: Array) -> float:
    """Of |Q|: far above any discounted sum of the rewards in the data."""
    if config.divergence_limit is not None:
        return config.divergence_limit
    return 1e5 * max(1.0, float(np.abs(rewards).max()))


def divergence(
    first_bad: Mapping[str, Any], seeds: range, checkpoints: Path, state: Any = (), now: int = 0
) -> str | None:
    """What to say of the first metric, seed and step that was not finite or beyond its limit; None if all are good.

    Or of an array of the `state` [S, ...] at step `now`: an infinite moment of an optimiser stops a weight for good,
    and an infinite weight before a tanh is an action, with every metric finite.
    """
    at, name, index = min(
        (int(step), name, index)
        for name, steps in first_bad.items()
        for index, step in zip(seeds, np.asarray(steps), strict=True)
    )
    what = f"{name} of seed {index} was not finite, or beyond its limit, at step {at:,}."
    if at == loop.NEVER:
        bad = not_finite(state, seeds)
        if bad is None:
            return None
        what = f"{bad[0]} of seed {bad[1]} holds a number that is not finite at step {now:,}, or had it before."
    return (
        f"training diverged: {what}"
        f" The last good checkpoint in {checkpoints} is intact."
        " A smaller learning rate may help, and --critic-layer-norm true where the algorithm has it"
    )


def not_finite(state: Any, seeds: range) -> tuple[str, int] | None:
    """Name and seed of the first array of a state [S, ...] with a number that is not finite."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if not jax.numpy.issubdtype(leaf.dtype, np.floating) or leaf.size == 0:
            continue
        good = np.isfinite(np.asarray(leaf)).reshape(len(seeds), -1).all(axis=1)
        if not good.all():
            return jax.tree_util.keystr(path, simple=True, separator="/"), seeds[int(np.argmin(good))]
    return None
