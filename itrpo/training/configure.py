"""From what a user asks for to a complete RunConfig."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from itrpo import registry
from itrpo.config import (
    DataConfig,
    EvalConfig,
    RunConfig,
    TrainConfig,
    checked,
    checked_options,
    got,
    override,
    replace_leaves,
)
from itrpo.data.actions import CLIPPED, DISCRETE, INSIDE, INSIST, on_a_bound
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.fit import users_env
from itrpo.data.next_actions import rows_with_next
from itrpo.data.preprocess import reward_transform, scales_differ
from itrpo.data.series import rules_of
from itrpo.data.sources import WANTED, is_source
from itrpo.errors import InputError
from itrpo.evaluation.environments import is_antmaze, is_maze, reference_score
from itrpo.options import READING, SCALES, USUAL_SCALE, RunOptions, lengths
from itrpo.ranges import check_ranges
from itrpo.results.trackers import check_trackers
from itrpo.tasks import task_constants, task_of
from itrpo.types import AlgorithmEntry, Dataset, Preset

BEHAVIOR = "behavior_"  # before the names of the fields of pi_beta's model
EDGES = ("action_edge", "fit_action_edge")  # fields: actions are clipped to +-(1 - edge) where their density is asked
PUBLISHED = ("source", "paper", "perturbed")  # presets that are somebody else's, whatever the data


class AlgorithmSetup(NamedTuple):
    """An algorithm and its constants: what of a RunConfig is known before any data are read."""

    algorithm: str
    preset: str
    algorithm_config: Any
    behavior: str | None
    behavior_config: Any
    scaled_fields: tuple[str, ...]
    edges_given: tuple[str, ...] = ()  # of EDGES, as the user names them: those that no rule changes

    def constants(self) -> dict[str, Any]:
        """By the names that a RunConfig has for them."""
        return {name: value for name, value in self._asdict().items() if name != "edges_given"}


def choose(
    algorithm: str, preset: str | None = None, behavior: str | None = None, scale: str | None = None
) -> AlgorithmSetup:
    """An algorithm with a preset's constants, and those of a model of pi_beta.

    Without a preset it is that of the `scale`, where the algorithm has it, else the algorithm's default.
    Raises InputError for unknown names.
    """
    entry: AlgorithmEntry = registry.algorithm(checked(algorithm, str, "algorithm"))
    usual = SCALES[scale].preset if scale in SCALES else entry.default_preset
    name = preset or (usual if usual in entry.presets else entry.default_preset)
    if name not in entry.presets:
        known = ", ".join(entry.presets)
        raise InputError(f"{algorithm} has no preset {name!r}{registry.nearest(name, entry.presets)}; known: {known}")
    chosen: Preset = entry.presets[name]
    behavior_config = chosen.behavior_config
    if behavior not in (None, chosen.behavior):
        if behavior not in entry.behaviors:
            allowed = ", ".join(entry.behaviors) or "none: it fits no model of pi_beta"
            raise InputError(f"{algorithm} can't use behaviour model {behavior!r}; it can use: {allowed}")
        behavior_config = None
    behavior = behavior or chosen.behavior
    if behavior is not None and behavior_config is None:
        model = registry.lookup(behavior, registry.BEHAVIOR_MODELS, "behaviour model")
        behavior_config = replace_leaves(model.config(), chosen.model_constants)
    return AlgorithmSetup(algorithm, name, chosen.config, behavior, behavior_config, chosen.scaled_fields)


def make_setup(
    algorithm: str = "itrpo",
    *,
    preset: str | None = None,
    behavior: str | None = None,
    fields: Mapping[str, Any] | None = None,
    task: str | None = None,
    scale: str | None = None,
) -> AlgorithmSetup:
    """An algorithm with all of its constants, checked.

    `scale` decides on the preset where none is given. `task` is whose constants the preset takes where they differ by
    task; unknown ones change nothing. `fields` sets fields of the algorithm, and of pi_beta's model where the name has
    `behavior_` in front.
    Raises InputError for unknown names and values outside their range.
    """
    setup = choose(algorithm, preset, behavior, scale)
    entry: AlgorithmEntry = registry.algorithm(algorithm)
    own = {name: value for name, value in (fields or {}).items() if not name.startswith(BEHAVIOR)}
    others = {name.removeprefix(BEHAVIOR): value for name, value in (fields or {}).items() if name not in own}
    constants = task_constants(entry.presets[setup.preset].tasks, task)
    config = override(setup.algorithm_config, constants.fields, f"{constants.file} for {task}: algorithm {algorithm}")
    config = override(config, own, f"algorithm {algorithm}")
    check_ranges(config)
    behavior_config = setup.behavior_config
    if others and behavior_config is None:
        raise InputError(f"{algorithm} fits no model of pi_beta, so it has no field '{BEHAVIOR}{next(iter(others))}'")
    if behavior_config is not None:
        behavior_config = override(behavior_config, others, f"behaviour model {setup.behavior}")
        check_ranges(behavior_config, prefix=BEHAVIOR)
    if entry.validate is not None:
        entry.validate(config, setup.behavior, behavior_config)
    return setup._replace(
        algorithm_config=config,
        behavior_config=behavior_config,
        scaled_fields=tuple(name for name in setup.scaled_fields if name not in own),  # what is given stays as given
        edges_given=tuple(name for name in fields or () if name.removeprefix(BEHAVIOR) in EDGES),
    )


def setup_from(algorithm: str, options: RunOptions, fields: Mapping[str, Any] | None) -> AlgorithmSetup:
    """`make_setup` with what checked options say."""
    return make_setup(
        algorithm,
        preset=options.preset,
        behavior=options.behavior,
        fields=fields,
        task=options.task,
        scale=options.scale or USUAL_SCALE,
    )


def check_options(options: RunOptions, dataset: Any) -> RunOptions:
    """`options`, each value of its type and in its range, with the task that the dataset's name says if none is given.

    Raises InputError for anything else, and for a `dataset` that can't be one.
    """
    if not isinstance(options, RunOptions):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"options must be itrpo.RunOptions(...), such as RunOptions(scale='laptop'), got {got(options)}"
        )
    if hasattr(options.env, "reset"):
        raise InputError("env must be the id of an environment, such as env.spec.id, not the environment itself")
    options = checked_options(options, RunOptions, "options")
    if options.reward_scale == 0:
        raise InputError("reward_scale must not be 0: all rewards would be the same")
    users_env(options.env)
    check_trackers(options.track)
    if isinstance(dataset, Dataset):
        usual = RunOptions()
        late = [
            it for it in (*READING, "stack", "holdout") if it != "env" and getattr(options, it) != getattr(usual, it)
        ]
        if late:
            raise InputError(f"{', '.join(late)}: give it to load_dataset; here the dataset is read already")
        name = dataset.name
    elif is_source(dataset):
        name = dataset if isinstance(dataset, str | os.PathLike) else {}
    else:
        raise InputError(f"dataset must be {WANTED}, got an object of type {type(dataset).__name__}")
    rules_of(options.max_gap, options.fill, options.period, options.period_rewards)  # what is wrong with them, now
    return options if options.task is not None else replace(options, task=task_of(name))


def complete(setup: AlgorithmSetup, options: RunOptions, dataset: Dataset) -> RunConfig:
    """All that a run's bits follow from, apart from the data themselves."""
    preset: Preset = registry.algorithm(setup.algorithm).presets[setup.preset]
    env_id = options.env or dataset.env_id or "none"
    where = dataset.source.where
    check_kind(setup.algorithm, dataset)
    if dataset.discrete and env_id == "none" and dataset.bounds == "assumed":  # nobody says that they are quantities
        raise InputError(f"{where}: 'actions' are {dataset.discrete}: {DISCRETE}; {INSIST}")
    if registry.algorithm(setup.algorithm).reads_next_action(setup.algorithm_config):
        rows_with_next(dataset, setup.algorithm)  # raises where it is known of hardly any
    rewards, normalize = preset.rewards, preset.normalize_observations
    if is_antmaze(env_id) or (env_id == "none" and in_antmaze(options.task)):
        rewards, normalize = preset.antmaze_rewards, preset.antmaze_normalize_observations
    own = not is_benchmark(dataset, env_id)
    normalize = normalize or (own and scales_differ(*dataset.observation_moments))
    if options.normalize_observations is not None:
        normalize = options.normalize_observations
    scale, shift = options.reward_scale, rewards.shift
    if scale is None:
        scale, shift = reward_transform(rewards, dataset.transitions, where)
    length, recipe = lengths(options, is_maze(env_id)), dataset.source.recipe
    setup = inside_bounds(setup) if on_a_bound(dataset.transitions.action) >= CLIPPED else setup
    return RunConfig(
        data=DataConfig(
            dataset=dataset.name,
            env=env_id,
            task=options.task,
            normalize_observations=normalize,
            reward_scale=scale,
            reward_shift=shift if options.reward_shift is None else options.reward_shift,
            action_low=tuple(map(float, dataset.action_low)),
            action_high=tuple(map(float, dataset.action_high)),
            columns=recipe.get("columns"),
            rules=recipe.get("rules"),
            by_column=True if own and normalize else None,
            stack=dataset.stack if dataset.stack > 1 else None,
            holdout=dataset.holdout or None,
            num_actions=dataset.num_actions,
        ),
        train=TrainConfig(length.steps, length.seeds, options.seed, options.behavior_steps),
        evaluation=EvalConfig(length.eval_every, length.eval_episodes),
        **setup.constants(),
    )


def inside_bounds(setup: AlgorithmSetup) -> AlgorithmSetup:
    """For data of which many actions were clipped: with densities asked a little inside the bounds, unless preset or
    user say otherwise. atanh(1 - 1e-6) is 7, and a Gaussian that reaches for such a pile is too wide everywhere.
    """
    if setup.preset in PUBLISHED:
        return setup
    own, others = (
        {name: INSIDE for name in EDGES if prefix + name not in setup.edges_given} for prefix in ("", BEHAVIOR)
    )
    model = setup.behavior_config
    return setup._replace(
        algorithm_config=replace_leaves(setup.algorithm_config, own),
        behavior_config=None if model is None else replace_leaves(model, others),
    )


def in_antmaze(task: str | None) -> bool:
    return task is not None and task.startswith("antmaze-")


def check_kind(algorithm: str, dataset: Dataset) -> None:
    """Raises InputError unless the algorithm takes actions of the dataset's kind."""
    kind, takes = dataset.kind, registry.algorithm(algorithm).actions
    if takes != kind:
        own, other = "vectors", "if they number choices, give --num-actions N"
        if dataset.num_actions is not None:
            own = f"one of {dataset.num_actions} choices"
            other = "if they are quantities all the same, give --continuous-actions"
        raise InputError(
            f"{dataset.name}: its actions are {own}, and {algorithm} is for {takes} ones; for these there are"
            f" {', '.join(fitting(kind))}; {other}"
        )


def fitting(kind: str) -> list[str]:
    """The algorithms that go by name and take actions of this kind."""
    return [name for name in registry.algorithm_names() if registry.algorithm(name).actions == kind]


def is_benchmark(dataset: Dataset, env_id: str) -> bool:
    """Whether presets have a published rule for it: a set of D4RL's or of this package, or one of D4RL's tasks."""
    known = dataset.source.kind in ("d4rl", "generated") or reference_score(env_id) is not None
    return known or dataset.source.sha256 in {it.sha256 for it in D4RL_FILES.values() if it.sha256 is not None}
