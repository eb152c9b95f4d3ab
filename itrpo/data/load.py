"""From whatever names a dataset to transitions that training can read, with every check on the values on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data import formats, minari_ids, ogbench_names, sources, tables
from itrpo.data.actions import (
    BOUNDS,
    DISCRETE,
    INSIST,
    Choices,
    bounds_advice,
    choices,
    choices_in,
    extremes,
    never_made,
    numbered,
    said_quantities,
)
from itrpo.data.attributes import action_bounds
from itrpo.data.column_map import ColumnMap, without
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.episodes import both_flags, episode_statistics, left_out_rows, to_transitions, transition_rows
from itrpo.data.fit import users_env
from itrpo.data.formats import FORMATS, hdf5, minari_metadata, npz
from itrpo.data.history import with_history
from itrpo.data.holdout import split, starts_of, transition_episodes
from itrpo.data.layout import SUBTRACT, Contents, left_out, rounded_away, to_episodes
from itrpo.data.memory import blocks, empty_rows
from itrpo.data.series import AS_IT_IS, Rules, rules_of
from itrpo.data.several import joined, joined_contents, source_of
from itrpo.data.sources import Source
from itrpo.data.wording import first_rows, listed, refuse
from itrpo.errors import InputError
from itrpo.evaluation.environments import check_sizes, numbers, spaces_of
from itrpo.files import generated_path
from itrpo.registry import GENERATED_DATASETS, MAKE_DATASET, nearest, resolve
from itrpo.types import BoundsFrom, Dataset, Episodes, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

ONE_SIDED = (
    "without bounds -1 to 1 are taken, so that policies may act on the other side too: give --action-low and"
    " --action-high (action_low, action_high in Python), such as 0 and 1"
)
TELLING = 100  # rows from which it is no chance that actions are all of one sign
ROUNDING = 1e-6  # an action may exceed 1 by this much: float32 rounding in the file, or in our rescaling


def _check_words(columns: Any, env: Any, stack: Any, holdout: Any) -> None:
    """Raises InputError for what is of another kind than `load_dataset` says."""
    for name, value, wanted, fits in (
        ("columns", columns, "a mapping, such as {'observations': ['level'], ...}", isinstance(columns, Mapping)),
        ("env", env, "the id of an environment, or 'none'", isinstance(env, str)),
        ("stack", stack, "a whole number from 1 on", isinstance(stack, int | np.integer) and stack >= 1),
        ("holdout", holdout, "a share of the episodes, in [0, 1)", _is_number(holdout) and 0 <= holdout < 1),
    ):
        if value is not None and not fits:
            raise InputError(f"{name} must be {wanted}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def load_dataset(
    source: Source,
    *,
    columns: ColumnMap | None = None,
    exclude: str | Sequence[str] = (),
    env: str | None = None,
    max_gap: str | float | None = None,
    fill: str | None = None,
    period: str | float | None = None,
    period_rewards: str | None = None,
    action_low: float | Sequence[float] | np.ndarray | None = None,
    action_high: float | Sequence[float] | np.ndarray | None = None,
    continuous_actions: bool = False,
    num_actions: int | None = None,
    stack: int = 1,
    holdout: float = 0.0,
    console: Console | None = None,
) -> Dataset:
    """Reads and checks a dataset.

    `source` is a name (`hopper-demo`, `hopper-medium-v2`; downloaded or generated into the cache on first use), a path
    to an .hdf5, .h5, .npz, .parquet or .csv file, a Minari dataset (`minari:ID`, or its folder), a single task of
    OGBench (`ogbench:NAME`, see `itrpo.data.ogbench_names`), a mapping of arrays
    (see `itrpo.data.formats.npz`), or a frame of polars or pandas. Several are one dataset: a list of these, or a
    pattern such as "logs/*.parquet"; a list may also hold a mapping for each step, or for each episode.
    `columns` says which columns are what (see `itrpo.data.column_map`); `exclude` names columns, or parts of a Dict
    observation, that are left out, such as images.
    `max_gap`, `fill`, `period` and `period_rewards` are for tables in time (see `itrpo.data.series`).
    `env` is the gymnasium id to evaluate in: None takes what the file or the name says, "none" means no evaluation.
    MODULE:ID names one that a module of yours registers; it is imported.
    `action_low` and `action_high`, numbers or one per action dimension, are the raw actions that become -1 and +1;
    without them the bounds that the data declare are taken (`itrpo.data.attributes`), and where there are none actions
    must lie in [-1, 1] already. Nothing is ever clipped.
    `num_actions`: an action is one of so many choices, whole numbers from `action_low` [0] on; without it the data or
    the environment say so, or the actions look like it (`itrpo.data.actions`); `continuous_actions`: they do, and are
    quantities all the same.
    `stack` observations in a row, with the actions between them, are one observation (see `itrpo.data.history`).
    `holdout` is the share of its episodes that are not in the result, but in its `held`: to judge policies by.
    `console` shows progress of downloads and roll-outs; None is silent.

    Reading a file needs little more memory than its transitions: they take over the memory of its rows.
    Raises InputError if the source is unknown or can't be used as it is, with what to do about it.
    """
    _check_words(columns, env, stack, holdout)
    named = users_env(env)
    quantities = said_quantities(continuous_actions, num_actions, action_low, action_high)
    rules = rules_of(max_gap, fill, period, period_rewards, quantities)
    episodes = read_episodes(source, console, without(columns, exclude), rules)
    in_place = episodes.source.kind != "arrays"  # those of the user's own stay as they are
    where = episodes.source.where
    _check_finite(episodes, where)
    env_id, bounds = episodes.env_id if env is None else named, bounds_from(episodes, action_low, action_high)
    found = choices_in(
        episodes.actions,
        episodes.attributes,
        env_id,
        action_low,
        action_high,
        num_actions,
        continuous_actions,
        where,
    )
    discrete, sides, unused = None, "", ""
    if found is not None:
        episodes, low, high = as_choices(episodes, found, stack, where)
        bounds = found.said_by
        unused = "; ".join(filter(None, never_made(np.bincount(episodes.actions, minlength=found.number), found.first)))
    else:
        logged, discrete = extremes(episodes.actions), None if continuous_actions else choices(episodes.actions)
        episodes, low, high, rescaled = rescale(episodes, action_low, action_high, in_place)
        _check_actions(episodes, where, rescaled, logged, discrete, env_id)
        episodes = with_history(episodes, stack, where)
        if bounds == "assumed" and env_id is None and not discrete:
            sides = one_sided(episodes, *logged)
    returns, lengths = episode_statistics(episodes)
    references = minari_metadata.references(episodes.attributes.minari, env_id)
    lost = rounded_away(episodes)
    notes = (
        lost and f"{lost}; {SUBTRACT}",
        *episodes.source.recipe.get("changes", ()),
        sides and f"{sides}; {ONE_SIDED}",
        left_out_rows(episodes),
        both_flags(episodes),
        discrete and f"actions are {discrete}: {DISCRETE}",
        unused,
        found and found.note,
        references.note,
    )
    rows, log_probs = transition_rows(episodes), episodes.behavior_log_probs
    number = transition_episodes(episodes)  # before the transitions take over the memory of the rows
    dataset = Dataset(
        name=episodes.source.name,
        transitions=to_transitions(episodes, in_place=in_place),
        env_id=env_id,
        action_low=low,
        action_high=high,
        episode_returns=returns,
        episode_lengths=lengths,
        num_rows=len(episodes.rewards),
        num_terminals=int(episodes.terminals.sum()),
        num_timeouts=int(episodes.timeouts.sum()),
        source=episodes.source,
        behavior_log_probs=log_probs if log_probs is None or rows is None else log_probs[rows],
        bounds=bounds,
        discrete=discrete,
        attributes=episodes.attributes,
        notes=tuple(note for note in notes if note),
        stack=stack,
        starts=starts_of(number),
        num_actions=None if found is None else found.number,
        reference=references.known,
    )
    return split(dataset, holdout, episodes, number, where, in_place) if holdout else dataset


def read_episodes(
    source: Source,
    console: Console | None = None,
    columns: ColumnMap | None = None,
    rules: Rules = AS_IT_IS,
) -> Episodes:
    """The raw rows behind `source`, as `load_dataset` takes it, before any check on their values."""
    parts = sources.parts(source, columns)
    if found := _arranged(parts, columns, rules):
        recipe = {"columns": found.selected} if columns is not None else {}
        recipe |= {name: value for name, value in (("rules", rules.given()), ("changes", list(found.notes))) if value}
        if any(sources.is_frame(it) or isinstance(it, Mapping) for it in parts):
            episodes = npz.read_mapping(found.values)
            source = replace(episodes.source, recipe={**episodes.source.recipe, **recipe})
            return replace(episodes, env_id=found.env_id, source=source, attributes=found.attributes)
        made_of = source_of([Path(it).expanduser() for it in parts], sources.label(parts), recipe)
        return to_episodes(found.values, sources.place(parts), made_of, found.env_id, found.attributes)
    listed = isinstance(source, list | tuple) and isinstance(parts[0], Mapping)  # of episodes, even if it is only one
    if len(parts) > 1 or listed:
        items = [f"item {at} of the list" for at in range(len(parts))]
        read = [_read_one(part, console, columns, item) for part, item in zip(parts, items, strict=True)]
        made = zip(read, items, strict=True)
        names = [item if it.source.kind == "arrays" else it.source.where for it, item in made]
        return joined(read, names, sources.label(parts))
    return _read_one(parts[0], console, columns)


def read_contents(
    source: Source, columns: ColumnMap | None = None, console: Console | None = None, rules: Rules = AS_IT_IS
) -> Contents:
    """All of a dataset in its own types. Raises InputError if it can't be read."""
    parts = sources.parts(source, columns)
    if found := _arranged(parts, columns, rules):
        taken = {name for names in found.selected.values() for name in names}
        left = left_out([name for name in found.names if name not in taken])
        return Contents(found.values, found.env_id, found.attributes, notes=(*found.notes, *left))
    read: list[Contents] = []
    for part in parts:
        if isinstance(part, Mapping):
            raise InputError("a mapping of arrays can't be converted; write it with numpy.savez, and convert that file")
        if os.fspath(part).startswith(ogbench_names.PREFIX):
            read.append(ogbench_names.read_contents(ogbench_name(part, columns)))
            continue
        path, env_id = dataset_file(part, console)
        one = formats.read_contents(path, columns)
        read.append(one if env_id is None else replace(one, env_id=env_id))
    return read[0] if len(read) == 1 else joined_contents(read, [str(part) for part in parts])


def _arranged(parts: Sequence[Any], columns: ColumnMap | None, rules: Rules) -> tables.Arranged | None:
    """The rows of tables that have to be put together or arranged; None for other sources.

    Raises InputError for other sources to which rules are to be applied.
    """
    given = rules.given()
    if all(sources.is_table(it) or (given and isinstance(it, Mapping)) for it in parts):
        if len(parts) > 1 or given or "time" in (columns or ()) or sources.is_frame(parts[0]):
            opened = [partial(sources.opener, it) for it in parts]
            return tables.read(opened, columns, rules, sources.place(parts))
    elif given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        endings = " and ".join(sources.TABLES)
        raise InputError(
            f"{sources.label(parts)}: {flags}: for {endings} files and frames alone; `itrpo datasets convert` makes one"
        )
    return None


def _read_one(source: Any, console: Console | None, columns: ColumnMap | None, item: str | None = None) -> Episodes:
    """`item`: what to call a mapping that is one of several, and so a whole episode or more."""
    if isinstance(source, Mapping):
        return npz.read_mapping(source, columns, item is not None, item or "the arrays")
    name = os.fspath(source)
    if name.startswith(ogbench_names.PREFIX):
        return ogbench_names.read(ogbench_name(name, columns))
    path, _ = dataset_file(name, console)
    if name in D4RL_FILES and columns is None:
        from itrpo.data.download import download_url

        known = D4RL_FILES[name]
        episodes = hdf5.read(path, sha256=known.sha256, probe=known.sha256 is None)  # else its bytes are the known ones
        fetched = replace(episodes.source, name=name, kind="d4rl", url=download_url(path))
        said = episodes.attributes._replace(d4rl_view=True)
        return replace(episodes, env_id=known.env_id, source=fetched, attributes=said)
    episodes = formats.read(path, columns)
    if name in GENERATED_DATASETS:
        return replace(episodes, source=replace(episodes.source, name=name, kind="generated"))
    return episodes


def ogbench_name(source: str | os.PathLike[str], columns: ColumnMap | None) -> str:
    """Without its prefix. Raises InputError if there is a column map."""
    if columns is not None:
        raise InputError(f"{source}: its columns are known; leave --columns and --exclude away")
    return os.fspath(source).removeprefix(ogbench_names.PREFIX)


def dataset_file(source: str | os.PathLike[str], console: Console | None = None) -> tuple[Path, str | None]:
    """The file or Minari folder behind a name or path, fetched or made first where it must be, and the environment that
    the name stands for, if it does.
    """
    name = os.fspath(source)
    if name in D4RL_FILES:
        from itrpo.data.download import fetch

        return fetch(name, console), D4RL_FILES[name].env_id
    if name in GENERATED_DATASETS:
        path = generated_path(name)
        if not path.exists():
            resolve(MAKE_DATASET)(name, console=console)
        return path, None
    if name.startswith(minari_ids.PREFIX):
        return minari_ids.find(name.removeprefix(minari_ids.PREFIX)), None
    path = Path(name).expanduser()
    if path.suffix.lower() in FORMATS or minari_ids.data_folder(path) is not None:
        return path, None
    if path.exists() or len(path.parts) > 1:
        kind = "no such file" if not path.exists() else "a folder" if path.is_dir() else "unknown file ending"
        raise InputError(f"{path}: {kind}; a dataset is a file ending in {', '.join(FORMATS)}, or a Minari folder")
    raise InputError(
        f"unknown dataset {name!r}{_likely(name)}; `itrpo datasets list` shows all names,"
        f" and a path to a file ({', '.join(FORMATS)}), minari:ID or ogbench:NAME works too"
    )


def _likely(name: str) -> str:
    """What `name` may mean: both sets, D4RL's and ours, where only the ending is missing."""
    if re.fullmatch(r"[A-Z]\w*-v\d+", name):
        return " (an environment's id? a dataset is what was logged in one, and --env names where its policies play)"
    whole = [it for it in dataset_names() if it.rpartition("-")[0] == name]
    return f" (did you mean {' or '.join(map(repr, whole))}?)" if whole else nearest(name, dataset_names())


def dataset_names() -> list[str]:
    """Every dataset that goes by name."""
    return [*GENERATED_DATASETS, *D4RL_FILES]


def _check_finite(episodes: Episodes, where: str) -> None:
    problems: list[str] = []
    for key in ("observations", "actions", "rewards", "next_observations"):
        values = getattr(episodes, key)
        if values is None or all(np.isfinite(values[block]).all() for block in blocks(len(values))):
            continue
        finite = np.isfinite(values)
        rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
        nan = int(np.isnan(values).sum())
        infinite = int(finite.size - finite.sum()) - nan
        problems.append(
            f"{where}: {key!r} holds {nan:,} NaN and {infinite:,} infinite values (as float32), in {len(rows):,} of"
            f" {len(values):,} rows (first: {first_rows(rows)}); remove those episodes or mend the values"
            " (in a table or a mapping, --fill previous, interpolate or drop does)"
        )
    refuse(problems, where)


def rescale(
    episodes: Episodes, low: Any, high: Any, in_place: bool = False
) -> tuple[Episodes, np.ndarray, np.ndarray, bool]:
    """`episodes` with actions mapped so that low becomes -1 and high +1, and densities of the mapped actions; both
    bounds as float32 [A], those that the data declare where none is given, else -1 and +1; and whether that changes
    anything. Raises InputError for bounds that are none.
    """
    raw, log_probs = episodes.actions, episodes.behavior_log_probs
    declared = action_bounds(episodes.attributes)
    low, high = _action_bounds(declared[0] if low is None else low, declared[1] if high is None else high, raw.shape[1])
    if (low == -1).all() and (high == 1).all():
        return episodes, low, high, False
    actions = raw if in_place and raw.flags.writeable else empty_rows(*raw.shape)
    for block in blocks(len(raw)):
        actions[block] = (raw[block] - low) / (high - low) * 2 - 1
    if log_probs is not None:
        log_probs = log_probs + np.float32(np.log((high - low) / 2).sum())
    return replace(episodes, actions=actions, behavior_log_probs=log_probs), low, high, True


def as_choices(episodes: Episodes, found: Choices, stack: int, where: str) -> tuple[Episodes, np.ndarray, np.ndarray]:
    """`episodes` with actions int32 [N] from 0 on, and the first and the last raw choice, float32 [1]. A history holds
    an action as one number between -1, the first choice, and +1, the last.
    """
    number = numbered(episodes.actions, found)
    scaled = 2 * number[:, None].astype(np.float32) / (found.number - 1) - 1
    episodes = replace(with_history(replace(episodes, actions=scaled), stack, where), actions=number)
    last = found.first + found.number - 1
    return episodes, np.array([found.first], np.float32), np.array([last], np.float32)


def bounds_from(episodes: Episodes, low: Any, high: Any) -> BoundsFrom:
    """Whose word the bounds are that `rescale` takes."""
    if low is not None or high is not None:
        return "given"
    return "assumed" if action_bounds(episodes.attributes)[0] is None else "declared"


def one_sided(episodes: Episodes, low: np.ndarray, high: np.ndarray) -> str:
    """Which actions, of extremes `low` and `high` [A], were on one side of 0 alone; '' for none, and in few rows."""
    if len(episodes.rewards) < TELLING:
        return ""
    names = episodes.attributes.action_names or [f"action {index}" for index in range(len(low))]
    sides = [
        f"{name} is never {'below' if least >= 0 else 'above'} 0 ({least:.4g} to {most:.4g})"
        for name, least, most in zip(names, low, high, strict=True)
        if least < most and (least >= 0 or most <= 0)
    ]
    return listed(sides) if max(-low.min(), high.max()) <= 1 + ROUNDING else ""  # else they are refused


def _action_bounds(low: Any, high: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    bounds = []
    for name, value, default in (("low", low, -1.0), ("high", high, 1.0)):
        flag = f"action_{name} (--action-{name})"
        try:
            bound = np.asarray(default if value is None else value, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"{flag} must be a number, or one number per action dimension, not {value!r}") from None
        if bound.shape not in ((), (1,), (size,)):
            raise InputError(f"{flag} has shape {list(bound.shape)}, but actions have {size} dimensions")
        if not np.isfinite(bound).all():
            raise InputError(f"{flag} must be finite, not {value!r}")
        bounds.append(np.broadcast_to(bound, (size,)).copy())
    if (bounds[0] >= bounds[1]).any():
        one = "high" if high is None else "low" if low is None else None
        advice = f"; action_{one} was not given, and is {1 if one == 'high' else -1} then: give --action-{one} too"
        choice = ", or for choices --num-actions with --action-low (num_actions, action_low in Python)"
        raise InputError(
            f"action_low (--action-low) {bounds[0].tolist()} must be below"
            f" action_high (--action-high) {bounds[1].tolist()}{'' if one is None else advice + choice}"
        )
    return bounds[0], bounds[1]


def _bounds_of(env_id: str, episodes: Episodes, where: str) -> str | None:
    """What to give as bounds where actions are in the environment's units, if these are not -1 to 1 anyway; None where
    it can't be built here.

    Raises InputError if the rows have other sizes than it.
    """
    try:
        spaces = spaces_of(env_id)
    except InputError:
        return None
    check_sizes(env_id, spaces, SpaceSpec(episodes.observations.shape[1], episodes.actions.shape[1]), where)
    low, high = numbers(spaces.low), numbers(spaces.high)
    if (low, high) == ("-1", "1"):
        return None
    return f"{env_id} takes actions from {low} to {high}: --action-low {low} --action-high {high}"


def _check_actions(
    episodes: Episodes,
    where: str,
    rescaled: bool,
    logged: tuple[np.ndarray, np.ndarray],
    discrete: str | None,
    env_id: str | None,
) -> None:
    """Raises InputError unless actions are within [-1, 1], but where the environment is another one, for that."""
    actions = episodes.actions
    if max(-actions.min(), actions.max()) <= 1 + ROUNDING:
        return
    rows = np.flatnonzero((np.abs(actions) > 1 + ROUNDING).any(axis=1))
    after = " after rescaling" if rescaled else ""
    if discrete and not rescaled:
        raise InputError(f"{where}: 'actions' are {discrete}: {DISCRETE}; {INSIST}")
    theirs = None if env_id in (None, "none") else _bounds_of(env_id, episodes, where)
    known = bounds_advice(*logged) if theirs is None or rescaled else theirs
    advice = f"{'widen the bounds' if rescaled else BOUNDS}; {known} (action_low, action_high in Python)"
    raise InputError(
        f"{where}: {len(rows):,} of {len(actions):,} rows have 'actions' outside [-1, 1]{after}: they range from"
        f" {actions.min():.6g} to {actions.max():.6g} (first: {first_rows(rows)}); {advice}"
    )
