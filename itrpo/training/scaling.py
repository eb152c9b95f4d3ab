"""A run's algorithm and its model of pi_beta, from the config, with what is as long as the run is: the fit, and an
algorithm's fields that count gradient steps.
"""

from __future__ import annotations

from typing import Any

from itrpo import registry
from itrpo.config import RunConfig, leaves, replace_leaves
from itrpo.types import Algorithm, AlgorithmEntry, BehaviorModel, DiscreteSpec, Preset, SpaceSpec

MIN_BEHAVIOR_STEPS = 100


def preset_of(config: RunConfig) -> Preset:
    return registry.algorithm(config.algorithm).presets[config.preset]


def behavior_steps(config: RunConfig) -> int:
    """Gradient steps of the fit: as given, or the source's length times steps over the source's steps, at least 100."""
    if config.train.behavior_steps is not None:
        return config.train.behavior_steps
    source = preset_of(config)
    return max(MIN_BEHAVIOR_STEPS, round(source.behavior_steps * config.train.steps / source.steps))


def scaled_config(config: RunConfig, steps: int) -> Any:
    """The algorithm's config for a run of `steps`: counts of steps in a run of the source's, like the length of a
    warm-up, become the same share of this one, at least 1 where they are not 0.
    """
    source_steps = preset_of(config).steps
    counts = {name: value for name, _, value in leaves(config.algorithm_config) if name in config.scaled_fields}
    scaled = {name: max(1, round(value * steps / source_steps)) for name, value in counts.items() if value}
    return replace_leaves(config.algorithm_config, scaled)


def behavior_of(config: RunConfig, spec: SpaceSpec | DiscreteSpec, fit_steps: int) -> BehaviorModel | None:
    """The model of pi_beta; None for an algorithm that fits none."""
    if config.behavior is None:
        return None
    model = registry.lookup(config.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
    return model.make(config.behavior_config, spec, fit_steps)


def algorithm_of(
    config: RunConfig, spec: SpaceSpec | DiscreteSpec, behavior: BehaviorModel | None, steps: int
) -> Algorithm:
    """The algorithm of a run that began as one of `steps`."""
    entry: AlgorithmEntry = registry.algorithm(config.algorithm)
    return entry.make(scaled_config(config, steps), spec, behavior)
