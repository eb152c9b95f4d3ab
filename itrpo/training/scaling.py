"""What is as long as a run is: the fit of pi_beta, and an algorithm's fields that count gradient steps."""

from __future__ import annotations

from typing import Any

from itrpo.config import RunConfig, leaves, replace_leaves

MIN_BEHAVIOR_STEPS = 100


def behavior_steps(config: RunConfig, source_steps: int, source_behavior_steps: int) -> int:
    """Gradient steps of the fit: as given, or the source's length times steps over the source's steps, at least 100."""
    if config.train.behavior_steps is not None:
        return config.train.behavior_steps
    return max(MIN_BEHAVIOR_STEPS, round(source_behavior_steps * config.train.steps / source_steps))


def scaled_config(config: RunConfig, source_steps: int, steps: int) -> Any:
    """The algorithm's config for a run of `steps`: counts of steps in a run of `source_steps`, like the length of a
    warm-up, become the same share of this one, at least 1 where they are not 0.
    """
    counts = {name: value for name, _, value in leaves(config.algorithm_config) if name in config.scaled_fields}
    scaled = {name: max(1, round(value * steps / source_steps)) for name, value in counts.items() if value}
    return replace_leaves(config.algorithm_config, scaled)
