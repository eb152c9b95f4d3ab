"""When a run has diverged: a metric that is not finite, or a mean of Q that no rewards of the data could add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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


def divergence(first_bad: Mapping[str, Any], seeds: range, checkpoints: Path) -> str | None:
    """What to say of the first metric, seed and step that was not finite or beyond its limit; None if all are good."""
    at, name, index = min(
        (int(step), name, index)
        for name, steps in first_bad.items()
        for index, step in zip(seeds, np.asarray(steps), strict=True)
    )
    if at == loop.NEVER:
        return None
    return (
        f"training diverged: {name} of seed {index} was not finite, or beyond its limit, at step {at:,}."
        f" The last good checkpoint in {checkpoints} is intact."
        " A smaller learning rate may help, and --critic-layer-norm true where the algorithm has it"
    )
