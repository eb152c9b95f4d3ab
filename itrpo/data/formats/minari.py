"""Minari datasets: a folder with `data/main_data.hdf5` and `data/metadata.json`, under an id like `D4RL/door/human-v2`.

The files are read and written with h5py and json alone. So a folder opens without the minari package and in whatever
version of the format it was written; nothing that `metadata.json` names (entry points of environments) is imported; and
rows go straight into arrays of their final size, which an interface that hands out episodes can't do. Only
downloading an id is left to the package, whose server and protocol change.

Layout: one group per episode of T steps: `observations` [T + 1, O] or a group of such, `actions` [T, A], `rewards`,
`terminations`, `truncations` [T], and optionally `infos/...` [T] or [T + 1]. Observation T is the successor of the last
step, so every row has its true next observation, truncated ones too.

What D4RL's layout knows and Minari's has no place for, and the other way round:

- A file without `next_observations` does not know the last observation of an episode. It is written as a repetition of
  the one before, and `metadata.json` says so (`"itrpo": {"final_observations": "repeated"}`); reading such a folder
  here gives back rows without next observations, so training sees the very transitions that the file gave.
- Arrays that are not one row per step, and attributes, are kept beside the rows in `data/itrpo_extras.hdf5`.
- Per-step arrays outside `infos/` are kept in `infos/itrpo/`; types of flags other than bool in `metadata.json`.
- `infos` of Minari's own datasets may have a row for the reset: T + 1 rows. The last one is left out, so that row t
  belongs to observation t, as in D4RL.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.console import progress_bar, silent_console
from itrpo.data import attributes, column_map
from itrpo.data.column_map import ColumnMap, Table
from itrpo.data.formats import hdf5_table
from itrpo.data.formats.hostile import check_storage, opened_hdf5, refuse_links
from itrpo.data.formats.minari_metadata import Record, about, metadata_of, open_record
from itrpo.data.layout import (
    LOG_PROBS,
    NUMERIC,
    SAMPLE,
    Contents,
    check_columns,
    check_layout,
    sample,
    to_episodes,
    to_flags,
)
from itrpo.data.memory import empty_rows
from itrpo.data.minari_ids import METADATA, id_of
from itrpo.errors import InputError, StorageError
from itrpo.types import Attributes, DataSource, Episodes

if TYPE_CHECKING:
    import h5py
    from rich.console import Console

MAIN, EXTRAS = "main_data.hdf5", "itrpo_extras.hdf5"
SHOWN = 1000  # episodes from which on writing takes more than a moment

# A maze's observation as itrpo.evaluation.environments lays it out; keys of the dict, in order.
MAZE_KEYS = {"AntMaze": ("achieved_goal", "observation"), "PointMaze": ("observation",)}


class _Rows(NamedTuple):
    columns: dict[str, np.ndarray]
    cut: np.ndarray  # [N] bool: last row of an episode whose flags don't say that it ended
    attributes: Attributes
    notes: tuple[str, ...]
    samples: dict[str, np.ndarray]  # a few rows in the file's own types, where the columns are float32


def read(path: str | os.PathLike[str], columns: ColumnMap | None = None) -> Episodes:
    """The rows of a Minari folder as float32, each with its true next observation.

    An episode that ends without a flag was cut by whoever recorded it: its last row becomes a timeout, except in the
    last episode, which stays open. Dict observations are laid out as a vector: a maze's as in evaluation, others in
    alphabetical order of their keys. Raises InputError if the folder is damaged or holds anything but vectors.
    """
    folder, record = open_record(Path(path))
    source = DataSource(
        record.dataset_id, "minari", str(folder.resolve()), files.file_sha256(_main(folder)), recipe=record.about
    )
    if columns is not None:
        with _mapped(folder, record, columns) as (table, given):
            return column_map.read(table, given, source)
    rows = _read_rows(folder, record, everything=False)
    values = rows.columns | {"timeouts": rows.columns["timeouts"] | rows.cut}
    return to_episodes(values, str(folder), source, record.env_id, rows.attributes, rows.samples)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """All of a Minari folder, in its own types. Raises InputError as `read` does."""
    folder, record = open_record(path)
    if columns is not None:
        with _mapped(folder, record, columns) as (table, given):
            return column_map.read_contents(table, given)
    rows = _read_rows(folder, record, everything=True)
    values, notes = rows.columns, rows.notes
    if record.final_observations is None and rows.cut.any():
        values["timeouts"] = values["timeouts"] | rows.cut
        notes += (f"{rows.cut.sum():,} episodes ended without a flag; their last rows became timeouts",)
    for name, dtype in record.dtypes.items():
        if name in ("terminals", "timeouts"):
            values[name] = values[name].astype(np.dtype(dtype))
    extras = folder / EXTRAS
    kept = extras.read_bytes() if extras.is_file() else None
    return Contents(values, record.env_id, rows.attributes, kept, notes)


def write(contents: Contents, folder: Path, console: Console | None = None) -> tuple[str, ...]:
    """Writes a Minari folder, which appears whole or not at all, and returns notes for a person.

    Episodes end at terminals and timeouts, and where `next_observations` do not lead to the next row. Raises InputError
    if the folder exists or its name is no id, or if `next_observations` have another type than `observations`;
    StorageError if it can't be written.
    """
    dataset_id = id_of(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already; delete it or choose another name")
    columns = check_columns(contents.columns, str(folder))
    flags = {name: to_flags(columns[name], name, str(folder)) for name in ("terminals", "timeouts")}
    ends = flags["terminals"] | flags["timeouts"]
    notes: tuple[str, ...] = ()
    following = columns.get("next_observations")
    if following is not None:
        if following.dtype != columns["observations"].dtype:
            raise InputError(
                f"{folder}: 'observations' are {columns['observations'].dtype} and 'next_observations'"
                f" {following.dtype}; Minari keeps both in one array: give them the same type"
            )
        broken = ~ends
        broken[:-1] &= ~_same_bits(following[:-1], columns["observations"][1:])
        broken[-1] = False
        if broken.any():
            notes += (
                f"in {broken.sum():,} rows next_observations do not lead to the next row, though no flag ends the"
                " episode there: in Minari a new episode starts after each",
            )
        ends |= broken
    else:
        notes += (
            "the source does not know the last observation of an episode; it is repeated, and metadata.json says so",
        )
    stops = np.union1d(np.flatnonzero(ends) + 1, [len(ends)])
    metadata = metadata_of(contents, dataset_id, len(stops), flags)
    shown = console if console is not None and len(stops) > SHOWN else silent_console()
    try:
        with files.replacing_folder(folder) as temporary:
            data = temporary / "data"
            files.make_folder(data)
            with progress_bar(shown, f"Writing {dataset_id}", len(ends)) as advance:
                _write_rows(data / MAIN, columns | flags, stops, advance)
            if contents.extras is not None:
                files.write(data / EXTRAS, contents.extras)
            metadata["dataset_size"] = round(sum(file.stat().st_size for file in data.iterdir()) / 1e6, 1)
            files.write(data / METADATA, json.dumps(metadata).encode())
    except RuntimeError as error:  # HDF5 reports a full disk so, or as an OSError
        raise StorageError(f"can't write {folder}: {error}") from error
    return notes


@contextmanager
def _mapped(folder: Path, record: Record, columns: ColumnMap) -> Generator[tuple[Table, ColumnMap]]:
    """The episodes as a table, and the map with Minari's own names where it gives none."""
    path = _main(folder)
    with opened_hdf5(path) as file:
        said = {key: value for key, value in about(record, []).items() if not key.startswith("observation")}
        table = hdf5_table.table(file, str(path), record.env_id, said)
        patterns = columns.get(column_map.EXCLUDE, [])
        patterns = patterns.split(",") if isinstance(patterns, str) else patterns
        excluded = column_map.excluded_names(table.names, patterns, str(path))
        parts = [name for name in table.names if name.partition("/")[0] == "observations" and name not in excluded]
        usual = {"actions": "actions", "rewards": "rewards", "terminals": "terminations", "timeouts": "truncations"}
        yield table, {"observations": parts, **usual, **columns}


def _main(folder: Path) -> Path:
    path = folder / MAIN
    if not path.is_file():
        raise InputError(f"{path}: no such file; the dataset is not complete")
    return path


def _read_rows(folder: Path, record: Record, everything: bool) -> _Rows:
    """The columns of all episodes under D4RL's names; as float32 and only what training needs unless `everything`."""
    path = _main(folder)
    with opened_hdf5(path) as file, np.errstate(over="ignore"):
        refuse_links(file, str(path))
        return _stack(_open_episodes(file, record, path), record, path, everything)


def _open_episodes(file: h5py.File, record: Record, path: Path) -> list[h5py.Group]:
    """The groups of all episodes, in order."""
    import h5py

    numbers = sorted(int(name[8:]) for name in map(str, file) if re.fullmatch(r"episode_\d{1,12}", name))
    if not numbers:
        raise InputError(f"{path}: no episodes (groups episode_0, episode_1, ...) in it")
    if record.total_episodes is not None and len(numbers) != record.total_episodes:
        raise InputError(
            f"{path}: {len(numbers):,} episodes, but {METADATA} says {record.total_episodes:,}; copy or download the"
            " dataset again"
        )
    entries = [file[f"episode_{number}"] for number in numbers]
    episodes = [entry for entry in entries if isinstance(entry, h5py.Group)]
    if len(episodes) != len(entries):
        raise InputError(f"{path}: an episode is not a group; the file is not Minari's")
    return episodes


class _Span(NamedTuple):
    """One episode of the file, and the rows it becomes."""

    group: h5py.Group
    start: int
    stop: int


def _stack(episodes: list[h5py.Group], record: Record, path: Path, everything: bool) -> _Rows:
    columns: dict[str, np.ndarray] = {}
    rewards = [_values(episode, "rewards", 1, path) for episode in episodes]
    lengths = [len(part) for part in rewards]
    columns["rewards"] = np.concatenate(rewards).astype(rewards[0].dtype if everything else np.float32, copy=False)
    for name, key in (("terminals", "terminations"), ("timeouts", "truncations")):
        flags = [_values(episode, key, 1, path) for episode in episodes]
        if [len(part) for part in flags] != lengths:
            raise InputError(f"{path}: {key!r} and 'rewards' of an episode have unequal lengths")
        columns[name] = to_flags(np.concatenate(flags), key, str(path))
    stops = np.cumsum(lengths).tolist()
    spans = [_Span(*span) for span in zip(episodes, [0, *stops[:-1]], stops, strict=True)]
    cut = np.zeros(stops[-1], dtype=bool)
    cut[[span.stop - 1 for span in spans[:-1] if span.stop > span.start]] = True  # the last episode stays open
    cut &= ~(columns["terminals"] | columns["timeouts"])

    leaves = _leaves(episodes[0], "observations")
    used = _observation_keys(leaves, record.env_id)
    dtype = None if everything else np.dtype(np.float32)
    if _values(episodes[0], "actions", 2, path).ndim == 1:
        values = [_values(group, "actions", 2, path) for group, _, _ in spans]
        columns["actions"] = np.concatenate(values)
    else:
        columns["actions"] = _fill(spans, ["actions"], path, dtype)[0]
    columns["observations"], columns["next_observations"] = _fill(spans, used, path, dtype, ahead=True)
    if record.final_observations == "repeated":
        del columns["next_observations"]
    infos = _leaves(episodes[0], "infos") if "infos" in episodes[0] else []
    skipped: list[str] = []
    for key in infos if everything else [key for key in infos if key == LOG_PROBS]:
        values = _info(spans, key, path, dtype)
        if values is None:
            skipped.append(key)
        else:
            columns[key.removeprefix("infos/itrpo/")] = values
    for key in leaves if everything else []:
        name = f"infos/{key.rpartition('/')[2]}"
        if key not in used and name not in columns:
            columns[name] = _fill(spans, [key], path, dtype, ahead=True)[0]
    first = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = {key: columns[key] for key in first if key in columns} | columns
    known = {key: columns[key] for key in (*first, LOG_PROBS) if key in columns}
    check_layout(known, str(path))
    notes = (f"left out, not one row of numbers per step: {', '.join(skipped)}",) if skipped else ()
    said = about(record, [key.rpartition("/")[2] for key in used])
    if used != ["observations"]:
        sizes = [(key.partition("/")[2], _values(episodes[0], key, 2, path).shape[1]) for key in used]
        names = [f"{key}[{index}]" if size > 1 else key for key, size in sizes for index in range(size)]
        said.setdefault("observation_names", names)
    samples = {} if everything else {"rewards": sample(np.concatenate(rewards))}
    for key, parts in (("observations", used), ("actions", ["actions"])) if samples else ():
        if columns[key].ndim == 2:
            some = spans[:: max(1, len(spans) // 10)]
            rows = ([_values(it.group, part, 2, path)[: SAMPLE // 10] for part in parts] for it in some)
            samples[key] = np.concatenate([np.concatenate(it, axis=1) for it in rows])
    return _Rows(columns, cut, attributes.parse(said, columns, str(path.parent)), notes, samples)


def _leaves(episode: h5py.Group, key: str) -> list[str]:
    """Paths of all datasets at or below `key`, in alphabetical order of the keys on the way."""
    import h5py

    if key not in episode:
        return []
    entry = episode[key]
    if not isinstance(entry, h5py.Group):
        return [key]
    return [leaf for child in sorted(map(str, entry)) for leaf in _leaves(episode, f"{key}/{child}")]


def _observation_keys(leaves: list[str], env_id: str | None) -> list[str]:
    """Which datasets make up the observation, in order."""
    family = (env_id or "").partition("_")[0]
    keys = [f"observations/{key}" for key in MAZE_KEYS.get(family, ())]
    return keys if keys and set(keys) <= set(leaves) else leaves or ["observations"]


def _fill(
    spans: list[_Span], keys: list[str], path: Path, dtype: np.dtype[Any] | None, ahead: bool = False
) -> list[np.ndarray]:
    """The datasets `keys` of all episodes side by side, [N, size]; with `ahead`, where each episode has one row more
    than steps, the rows 0 .. T-1 and the rows 1 .. T. `dtype` None: as in the file.
    """
    first = [_values(spans[0].group, key, 2, path) for key in keys]
    shape = (spans[-1].stop, sum(values.shape[1] for values in first))
    as_in_file = np.result_type(*first)
    results = [empty_rows(*shape) if dtype == np.float32 else np.empty(shape, as_in_file) for _ in range(1 + ahead)]
    for group, start, stop in spans:
        left = 0
        for key, model in zip(keys, first, strict=True):
            values = model if group is spans[0].group else _values(group, key, 2, path)
            right = left + model.shape[1]
            if values.shape != (stop - start + ahead, model.shape[1]):
                raise InputError(
                    f"{path}: {key!r} of {str(group.name)[1:]!r} has shape {list(values.shape)}; with"
                    f" {stop - start:,} steps it must be {[stop - start + ahead, model.shape[1]]}"
                )
            for shift, result in enumerate(results):
                result[start:stop, left:right] = values[shift : shift + stop - start]
            left = right
    return results


def _info(spans: list[_Span], key: str, path: Path, dtype: np.dtype[Any] | None) -> np.ndarray | None:
    """An info of all steps, [N, ...]; None if it is not one row of numbers per step (or one more, for the reset)."""
    import h5py

    parts: list[np.ndarray] = []
    for group, start, stop in spans:
        dataset = group.get(key)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in NUMERIC or not dataset.ndim:
            return None
        values = _values(group, key, None, path)
        if len(values) not in (stop - start, stop - start + 1) or (parts and values.shape[1:] != parts[0].shape[1:]):
            return None
        parts.append(values[: stop - start])
    return np.concatenate(parts).astype(dtype or parts[0].dtype, copy=False)


def _values(episode: h5py.Group, key: str, ndim: int | None, path: Path) -> np.ndarray:
    """A dataset of numbers with `ndim` axes. Raises InputError if it is anything else.

    Through HDF5's low-level functions, in less than half the time: a file has thousands of episodes.
    """
    import h5py

    where, name = str(path), f"{str(episode.name)[1:]}/{key}"
    try:
        dataset = h5py.h5d.open(episode.id, key.encode())
    except (KeyError, ValueError, TypeError):
        kind = "no" if key not in episode else "a group instead of an array under"
        raise InputError(f"{where}: {kind} {name!r}; itrpo reads Minari datasets of vectors (Box spaces)") from None
    shape, dtype = dataset.shape, dataset.dtype
    choices = key == "actions" and len(shape) == 1 and dtype.kind in "iu"
    if not choices and (dtype.kind not in NUMERIC or (ndim is not None and len(shape) != ndim)):
        advice = "no images and no text"
        if key.startswith("observations/"):
            advice += f"; leave this part out: --exclude {key.partition('/')[2]} (exclude=... in Python)"
        raise InputError(
            f"{where}: {name!r} has type {dtype} and shape {list(shape)}; itrpo learns from vectors of numbers:"
            f" {advice}"
        )
    check_storage(name, dataset, where)
    values = np.empty(shape, dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _same_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """bool [N]: rows that are equal to the bit (NaN equals itself; -0 and 0 differ)."""
    views = [np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1) for rows in (first, second)]
    return (views[0] == views[1]).all(axis=1)


def _write_rows(
    path: Path, columns: Mapping[str, np.ndarray], stops: np.ndarray, advance: Callable[[int], None]
) -> None:
    import h5py

    following = columns.get("next_observations")
    infos = {
        name if name.startswith("infos/") else f"infos/itrpo/{name}": values
        for name, values in columns.items()
        if name not in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    }
    per_step = {
        "actions": columns["actions"],
        "rewards": columns["rewards"],
        "terminations": columns["terminals"],
        "truncations": columns["timeouts"],
    }
    with h5py.File(path, "w") as file:
        for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = int(stop - start)
            last = columns["observations"] if following is None else following
            observations = np.concatenate([columns["observations"][start:stop], last[stop - 1 : stop]])
            group.create_dataset("observations", data=observations)
            for name, values in (per_step | infos).items():
                group.create_dataset(name, data=values[start:stop])
            advance(int(stop - start))
