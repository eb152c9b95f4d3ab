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

import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.console import progress_bar
from itrpo.data.columns import check_layout, check_stored_size, empty_rows, to_flags
from itrpo.data.contents import Contents, check_columns
from itrpo.data.d4rl import LOG_PROBS, opened
from itrpo.errors import InputError, StorageError
from itrpo.evaluation.environments import env_spec_json
from itrpo.files import file_sha256
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import h5py
    from rich.console import Console

PREFIX = "minari:"
MAIN, METADATA, EXTRAS = "main_data.hdf5", "metadata.json", "itrpo_extras.hdf5"
VERSION = "0.5.0"  # of the layout that `write` writes; every later minari reads it
MAX_METADATA = 1 << 24  # bytes; Minari's own are kilobytes
ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")
NUMERIC = "biuf"
SHOWN = 1000  # episodes from which on writing takes more than a moment
BOUNDLESS = 1e6  # actions "within" such bounds aren't scaled by them

# A maze's observation as itrpo.evaluation.environments lays it out; keys of the dict, in order.
MAZE_KEYS = {"AntMaze": ("achieved_goal", "observation"), "PointMaze": ("observation",)}


class _Record(NamedTuple):
    """What `metadata.json` says, as far as it matters here."""

    dataset_id: str
    env_id: str | None
    total_episodes: int | None
    final_observations: str | None  # "recorded", "repeated"; None: not written by `write`
    dtypes: Mapping[str, str]  # of flags that were not bool
    action_low: np.ndarray | None
    action_high: np.ndarray | None
    about: Mapping[str, Any]  # for `datasets info`


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Rows(NamedTuple):
    columns: dict[str, np.ndarray]
    cut: np.ndarray  # [N] bool: last row of an episode whose flags don't say that it ended
    notes: tuple[str, ...]


def data_folder(path: Path) -> Path | None:
    """The folder with Minari's two files if `path` is it or the folder above it, else None."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA).is_file()), None)


def dataset_folder(dataset_id: str) -> Path:
    """Where Minari keeps the dataset `dataset_id`, whether or not it is there: below $MINARI_DATASETS_PATH, or
    ~/.minari/datasets. Raises InputError if that is no Minari id.
    """
    if not ID.fullmatch(dataset_id):
        raise InputError(f"{PREFIX}{dataset_id}: a Minari id looks like NAME-v0 or GROUP/NAME-v0")
    return _root() / dataset_id


def find(dataset_id: str) -> Path:
    """The folder of the dataset `dataset_id`, downloaded by the minari package if it isn't there yet.

    Raises InputError, with what to do, if it can't be had.
    """
    folder = dataset_folder(dataset_id)
    if data_folder(folder) is not None:
        return folder
    missing = f"{PREFIX}{dataset_id}: not in {_root()}"
    elsewhere = (
        f"or run `minari download {dataset_id}` where there is a network and copy the folder to {folder}"
        " (MINARI_DATASETS_PATH names another root)"
    )
    try:
        import minari
    except ImportError:
        raise InputError(
            f"{missing}; to download it, pip install 'itrpo[minari]', {elsewhere}; reading a folder needs no package"
        ) from None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
    except ImportError as error:
        raise InputError(f"{missing}; to download it, pip install 'itrpo[minari]' ({error}), {elsewhere}") from error
    except Exception as error:  # whatever the server, the network or the package come up with
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{missing}, and downloading it failed ({type(error).__name__}: {reason}); try again, {elsewhere}"
        ) from error
    if data_folder(folder) is None:
        raise InputError(f"{missing}, though the minari package reports no error; {elsewhere}")
    return folder


def read(path: str | os.PathLike[str]) -> Episodes:
    """The rows of a Minari folder as float32, each with its true next observation.

    An episode that ends without a flag was cut by whoever recorded it: its last row becomes a timeout, except in the
    last episode, which stays open. Dict observations are laid out as a vector: a maze's as in evaluation, others in
    alphabetical order of their keys. Raises InputError if the folder is damaged or holds anything but vectors.
    """
    folder, record = _open_record(Path(path))
    rows = _read_rows(folder, record, everything=False)
    columns = rows.columns
    return Episodes(
        observations=columns["observations"],
        actions=columns["actions"],
        rewards=columns["rewards"],
        terminals=columns["terminals"],
        timeouts=columns["timeouts"] | rows.cut,
        next_observations=columns.get("next_observations"),
        behavior_log_probs=columns.get(LOG_PROBS),
        env_id=record.env_id,
        source=DataSource(
            record.dataset_id, "minari", str(folder.resolve()), file_sha256(folder / MAIN), recipe=record.about
        ),
        action_low=record.action_low,
        action_high=record.action_high,
    )


def read_contents(path: Path) -> Contents:
    """All of a Minari folder, in its own types. Raises InputError as `read` does."""
    folder, record = _open_record(path)
    rows = _read_rows(folder, record, everything=True)
    columns, notes = rows.columns, rows.notes
    if record.final_observations is None and rows.cut.any():
        columns["timeouts"] = columns["timeouts"] | rows.cut
        notes += (f"{rows.cut.sum():,} episodes ended without a flag; their last rows became timeouts",)
    for name, dtype in record.dtypes.items():
        if name in ("terminals", "timeouts"):
            columns[name] = columns[name].astype(np.dtype(dtype))
    extras = folder / EXTRAS
    return Contents(columns, record.env_id, extras.read_bytes() if extras.is_file() else None, notes)


def write(contents: Contents, folder: Path, dataset_id: str, console: Console | None = None) -> tuple[str, ...]:
    """Writes a Minari folder, which appears whole or not at all, and returns notes for a person.

    Episodes end at terminals and timeouts, and where `next_observations` do not lead to the next row. Raises InputError
    if the folder exists, the id is none, or `next_observations` have another type than `observations`; StorageError if
    it can't be written.
    """
    if not ID.fullmatch(dataset_id):
        raise InputError(f"{folder}: {dataset_id!r} is no Minari id; they look like NAME-v0 or GROUP/NAME-v0")
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
    metadata = _metadata(contents, dataset_id, len(stops), flags)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / "data").mkdir(parents=True)
        progress = contextlib.nullcontext[Callable[[int], None]](lambda steps: None)
        if console is not None and len(stops) > SHOWN:
            progress = progress_bar(console, f"Writing {dataset_id}", len(ends))
        with progress as advance:
            _write_rows(temporary / "data" / MAIN, columns | flags, stops, advance)
        if contents.extras is not None:
            (temporary / "data" / EXTRAS).write_bytes(contents.extras)
        size = sum(file.stat().st_size for file in (temporary / "data").iterdir())
        metadata["dataset_size"] = round(size / 1e6, 1)
        (temporary / "data" / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
        for file in (temporary / "data").iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        temporary.rename(folder)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise StorageError(f"can't write {folder}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return notes


def _root() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").expanduser()


def _open_record(path: Path) -> tuple[Path, _Record]:
    folder = data_folder(path)
    if folder is None:
        kind = "no such folder" if not path.exists() else f"no Minari dataset: it has no {METADATA}"
        raise InputError(f"{path}: {kind}")
    where = str(folder / METADATA)
    try:
        if (folder / METADATA).stat().st_size > MAX_METADATA:
            raise InputError(f"{where}: larger than any Minari metadata; the file is damaged")
        metadata = json.loads((folder / METADATA).read_text("utf-8"))
        if not isinstance(metadata, dict):
            raise ValueError("not a JSON object")
        return folder, _record(metadata, path)
    except (OSError, ValueError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not Minari's metadata ({error}); copy or download it again") from error


def _record(metadata: dict[str, Any], path: Path) -> _Record:
    data_format = metadata.get("data_format", "hdf5")
    if data_format != "hdf5":
        raise InputError(
            f"{path}: stored in Minari's format {data_format!r}; itrpo reads 'hdf5': load it with the minari package"
            " and write it with minari.create_dataset_from_buffers(..., data_format='hdf5')"
        )
    own = metadata.get("itrpo")
    own = own if isinstance(own, dict) else {}
    env_id, options = own.get("env_id"), None
    for key in ("eval_env_spec", "env_spec"):
        if env_id is None and isinstance(metadata.get(key), str):
            spec = json.loads(metadata[key])
            if isinstance(spec, dict) and isinstance(spec.get("id"), str):
                env_id, options = spec["id"], spec.get("kwargs")
    dtypes = own.get("dtypes")
    low, high = _action_bounds(metadata.get("action_space"))
    described = ("description", "algorithm_name", "author", "code_permalink", "minari_version")
    about = {key: metadata[key] for key in described if isinstance(metadata.get(key), str | list)}
    if options:
        about["environment options (not applied)"] = options
    total = metadata.get("total_episodes")
    return _Record(
        dataset_id=str(metadata.get("dataset_id") or (path.parent if path.name == "data" else path).name),
        env_id=env_id if isinstance(env_id, str) else None,
        total_episodes=total if isinstance(total, int) else None,
        final_observations=own.get("final_observations"),
        dtypes=dtypes if isinstance(dtypes, dict) else {},
        action_low=low,
        action_high=high,
        about=about,
    )


def _action_bounds(space: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The bounds [A] of a serialized Box, two None if they are no bounds."""
    described = json.loads(space) if isinstance(space, str) else None
    if not isinstance(described, dict) or described.get("type") != "Box":
        return None, None
    low, high = (np.asarray(described.get(key), np.float32) for key in ("low", "high"))
    if low.ndim != 1 or low.shape != high.shape or not ((low < high) & (low > -BOUNDLESS) & (high < BOUNDLESS)).all():
        return None, None
    return low, high


def _read_rows(folder: Path, record: _Record, everything: bool) -> _Rows:
    """The columns of all episodes under D4RL's names; as float32 and only what training needs unless `everything`."""
    path = folder / MAIN
    if not path.is_file():
        raise InputError(f"{path}: no such file; the dataset is not complete")
    with opened(path) as file, np.errstate(over="ignore"):
        _refuse_links(file, path)
        return _stack(_open_episodes(file, record, path), record, path, everything)


def _refuse_links(file: h5py.File, path: Path) -> None:
    from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue] (its stubs lack it)

    def look(name: bytes, info: Any) -> bytes | None:
        return None if info.type == h5l.TYPE_HARD else name

    found = file.id.links.visit(look, info=True)
    if found is not None:
        raise InputError(f"{path}: {found.decode()!r} is a link to somewhere else; copy its rows into this file")


def _open_episodes(file: h5py.File, record: _Record, path: Path) -> list[h5py.Group]:
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


def _stack(episodes: list[h5py.Group], record: _Record, path: Path, everything: bool) -> _Rows:
    columns: dict[str, np.ndarray] = {}
    lengths: list[int] = []
    for name, key in (("rewards", "rewards"), ("terminals", "terminations"), ("timeouts", "truncations")):
        parts = [_values(episode, key, 1, path) for episode in episodes]
        lengths = lengths or [len(part) for part in parts]
        if [len(part) for part in parts] != lengths:
            raise InputError(f"{path}: {key!r} and 'rewards' of an episode have unequal lengths")
        columns[name] = np.concatenate(parts)
    if not everything:
        columns["rewards"] = columns["rewards"].astype(np.float32, copy=False)
    for name, key in (("terminals", "terminations"), ("timeouts", "truncations")):
        columns[name] = to_flags(columns[name], key, str(path))
    stops = np.cumsum(lengths).tolist()
    spans = [_Span(*span) for span in zip(episodes, [0, *stops[:-1]], stops, strict=True)]
    cut = np.zeros(stops[-1], dtype=bool)
    cut[[span.stop - 1 for span in spans[:-1] if span.stop > span.start]] = True  # the last episode stays open
    cut &= ~(columns["terminals"] | columns["timeouts"])

    leaves = _leaves(episodes[0], "observations")
    used = _observation_keys(leaves, record.env_id)
    dtype = None if everything else np.dtype(np.float32)
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
    return _Rows(columns, cut, notes)


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
    shape, dtype, layout = dataset.shape, dataset.dtype, dataset.get_create_plist()
    if dtype.kind not in NUMERIC or (ndim is not None and len(shape) != ndim):
        raise InputError(
            f"{where}: {name!r} has type {dtype} and shape {list(shape)}; itrpo learns from vectors of numbers: no"
            " images, text, or discrete actions"
        )
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise InputError(f"{where}: {name!r} keeps its rows in another file; copy them into this one")
    check_stored_size(name, _Header(shape, dtype), dataset.get_storage_size(), where)
    values = np.empty(shape, dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _same_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """bool [N]: rows that are equal to the bit (NaN equals itself; -0 and 0 differ)."""
    views = [np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1) for rows in (first, second)]
    return (views[0] == views[1]).all(axis=1)


def _metadata(contents: Contents, dataset_id: str, episodes: int, flags: Mapping[str, np.ndarray]) -> dict[str, Any]:
    columns = contents.columns
    recorded = "next_observations" in columns
    final = "are the recorded ones" if recorded else "are unknown: each repeats the observation before it"
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": episodes,
        "total_steps": len(columns["rewards"]),
        "observation_space": json.dumps(_box(columns["observations"], bounded=False)),
        "action_space": json.dumps(_box(columns["actions"], bounded=True)),
        "description": f"Converted by itrpo. The last observations of episodes {final}.",
        "itrpo": {
            "env_id": contents.env_id,
            "final_observations": "recorded" if recorded else "repeated",
            "dtypes": {name: columns[name].dtype.str for name in flags if columns[name].dtype != bool},
        },
    }
    env_spec = env_spec_json(contents.env_id) if contents.env_id is not None else None
    if env_spec is not None:
        metadata["env_spec"] = env_spec
    return metadata


def _box(values: np.ndarray, bounded: bool) -> dict[str, Any]:
    """A Box space as Minari writes it: [-1, 1] where `bounded` and the values keep to it, else without bounds."""
    kind, size = values.dtype.kind, values.shape[1]
    low, high = {"f": (-math.inf, math.inf), "b": (False, True)}.get(kind, (0, 0))
    if kind in "iu":
        low, high = (int(bound) for bound in (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max))
    elif kind == "f" and bounded and (np.abs(values) <= 1 + 1e-6).all():
        low, high = -1.0, 1.0
    return {"type": "Box", "dtype": str(values.dtype), "shape": [size], "low": [low] * size, "high": [high] * size}


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
