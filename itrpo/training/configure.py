"""From what a user asks for to a complete RunConfig."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from itrpo import registry
from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig, override
from itrpo.console import make_console
from itrpo.data.column_map import ColumnMap
from itrpo.data.load import load_dataset
from itrpo.data.preprocess import reward_transform
from itrpo.errors import InputError
from itrpo.evaluation.environments import is_antmaze, is_maze
from itrpo.ranges import check_ranges
from itrpo.tasks import task_constants, task_of
from itrpo.training.run import Run, run
from itrpo.types import AlgorithmEntry, Dataset, Preset

if TYPE_CHECKING:
    from rich.console import Console

SCALES = {
    "smoke": (TrainConfig(steps=300, seeds=2), EvalConfig(eval_every=100, eval_episodes=2)),
    "laptop": (TrainConfig(steps=12_000, seeds=4), EvalConfig(eval_every=2_000, eval_episodes=10)),
    "paper": (TrainConfig(), EvalConfig()),
}
Scale = Literal["smoke", "laptop", "paper"]


def make_config(
    algorithm: str = "itrpo",
    *,
    preset: str | None = None,
    behavior: str | None = None,
    fields: Mapping[str, Any] | None = None,
    train: TrainConfig | None = None,
    evaluation: EvalConfig | None = None,
    task: str | None = None,
) -> RunConfig:
    """A checked RunConfig, its data still unnamed.

    `task` is whose constants the preset takes where they differ by task; unknown ones change nothing. `fields` sets
    fields of the algorithm, and of pi_beta's model where the name has `behavior_` in front.
    Raises InputError for unknown names and values outside their range.
    """
    entry: AlgorithmEntry = registry.lookup(algorithm, registry.ALGORITHMS, "algorithm")
    preset = preset or entry.default_preset
    if preset not in entry.presets:
        known = ", ".join(entry.presets)
        raise InputError(
            f"{algorithm} has no preset {preset!r}{registry.nearest(preset, entry.presets)}; known: {known}"
        )
    chosen: Preset = entry.presets[preset]
    behavior_name, behavior_config = chosen.behavior, chosen.behavior_config
    if behavior is not None and behavior != behavior_name:
        if behavior not in entry.behaviors:
            allowed = ", ".join(entry.behaviors) or "none: it fits no model of pi_beta"
            raise InputError(f"{algorithm} can't use behaviour model {behavior!r}; it can use: {allowed}")
        behavior_name, behavior_config = behavior, None
    if behavior_name is not None and behavior_config is None:
        behavior_config = registry.lookup(behavior_name, registry.BEHAVIOR_MODELS, "behaviour model").config()

    own = {name: value for name, value in (fields or {}).items() if not name.startswith("behavior_")}
    others = {name.removeprefix("behavior_"): value for name, value in (fields or {}).items() if name not in own}
    constants = task_constants(chosen.tasks, task)
    algorithm_config = override(chosen.config, constants.fields, f"{constants.file} for {task}: algorithm {algorithm}")
    algorithm_config = override(algorithm_config, own, f"algorithm {algorithm}")
    if others and behavior_config is None:
        raise InputError(f"{algorithm} fits no model of pi_beta, so it has no field 'behavior_{next(iter(others))}'")
    if others:
        behavior_config = override(behavior_config, others, f"behaviour model {behavior_name}")
    if behavior_config is not None:
        check_ranges(behavior_config, prefix="behavior_")
    check_ranges(algorithm_config)
    if entry.validate is not None:
        entry.validate(algorithm_config, behavior_name, behavior_config)

    config = RunConfig(
        data=DataConfig("", task=task),
        algorithm=algorithm,
        preset=preset,
        algorithm_config=algorithm_config,
        behavior=behavior_name,
        behavior_config=behavior_config,
        train=train or TrainConfig(),
        evaluation=evaluation or EvalConfig(),
        scaled_fields=tuple(name for name in chosen.scaled_fields if name not in own),  # what is given stays as given
    )
    for group, names in (
        (config.train, ("steps", "seeds")),
        (config.evaluation, ("eval_every", "eval_episodes")),
    ):
        for name in names:
            if getattr(group, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(group, name)}")
    if config.train.behavior_steps is not None and config.train.behavior_steps < 1:
        raise InputError(f"behavior_steps must be at least 1, got {config.train.behavior_steps}")
    if not 0 <= config.train.seed < 2**31:
        raise InputError(f"seed must be in [0, 2^31), got {config.train.seed}")
    return config


def train(
    dataset: Dataset | str | os.PathLike[str] | Mapping[str, np.ndarray],
    algorithm: str = "itrpo",
    *,
    steps: int | None = None,
    seeds: int | None = None,
    scale: Scale = "paper",
    out: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    fields: Mapping[str, Any] | None = None,
    behavior: str | None = None,
    seed: int = 0,
    behavior_steps: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int | None = None,
    env: str | None = None,
    task: str | None = None,
    columns: ColumnMap | None = None,
    normalize_observations: bool | None = None,
    reward_scale: float | None = None,
    reward_shift: float | None = None,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    track: Sequence[str] = (),
    console: Console | None = None,
) -> Run:
    """Trains `seeds` policies on a dataset and evaluates them as they learn; continues `out` if it has begun.

    `scale` sets steps, seeds and evaluations ("smoke", "laptop", "paper"); the arguments after it win. `fields` sets
    the algorithm's own, e.g. {"alpha": 0.9, "tau": 0.5}. `out` defaults to runs/NAME-HASH. `task`,
    `normalize_observations`, `reward_scale` and `reward_shift` default to what the preset does for this dataset.
    Raises InputError before any long work, DivergenceError if a run blows up, StorageError if the disk refuses.
    """
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}{registry.nearest(scale, SCALES)}; known: {', '.join(SCALES)}")
    if isinstance(dataset, Dataset) and not (action_low is None and action_high is None and columns is None):
        raise InputError("columns, action_low and action_high are for load_dataset where the dataset is read already")
    train_config, evaluation = SCALES[scale]
    for name, value in (
        ("steps", steps),
        ("seeds", seeds),
        ("eval_every", eval_every),
        ("eval_episodes", eval_episodes),
    ):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    train_config = replace(
        train_config,
        steps=steps or train_config.steps,
        seeds=seeds or train_config.seeds,
        seed=seed,
        behavior_steps=behavior_steps,
    )
    evaluation = replace(
        evaluation,
        eval_every=eval_every or evaluation.eval_every,
        eval_episodes=eval_episodes or evaluation.eval_episodes,
    )
    if task is None:
        task = task_of(dataset.name if isinstance(dataset, Dataset) else dataset)
    config = make_config(
        algorithm, preset=preset, behavior=behavior, fields=fields, train=train_config, evaluation=evaluation, task=task
    )
    if isinstance(dataset, Dataset):
        loaded = dataset
    else:
        loaded = load_dataset(
            dataset, columns=columns, env=env, action_low=action_low, action_high=action_high, console=console
        )
    env_id = env or loaded.env_id or "none"
    chosen = registry.lookup(algorithm, registry.ALGORITHMS, "algorithm").presets[config.preset]
    rule, normalize = chosen.rewards, chosen.normalize_observations
    if is_antmaze(env_id):
        rule, normalize = chosen.antmaze_rewards, chosen.antmaze_normalize_observations
    rule_scale, rule_shift = reward_transform(rule, loaded.transitions) if reward_scale is None else (0.0, rule.shift)
    data = DataConfig(
        loaded.name,
        env_id,
        config.data.task,
        normalize if normalize_observations is None else normalize_observations,
        rule_scale if reward_scale is None else reward_scale,
        rule_shift if reward_shift is None else reward_shift,
        tuple(float(it) for it in loaded.action_low),
        tuple(float(it) for it in loaded.action_high),
    )
    if is_maze(env_id):  # where a return says little by itself: ten times the episodes, a tenth as often
        evaluation = replace(
            evaluation,
            eval_every=eval_every or 10 * evaluation.eval_every,
            eval_episodes=eval_episodes or 10 * evaluation.eval_episodes,
        )
        config = replace(config, evaluation=evaluation)
    return run(replace(config, data=data), loaded, Path(out) if out else None, console or make_console(), track)
