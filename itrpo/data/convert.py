"""`itrpo datasets convert SOURCE TARGET`: a dataset in another format, every value as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data import contents, minari_files, tabular
from itrpo.data.contents import Contents
from itrpo.data.load import dataset_file
from itrpo.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

ENDINGS = (".hdf5", ".h5", ".npz", ".parquet", ".csv")


class Converted(NamedTuple):
    """What a conversion did."""

    path: Path
    rows: int
    episodes: int  # with an unfinished last one
    notes: tuple[str, ...]  # what the target can't hold, or means differently


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    columns: tabular.ColumnMap | None = None,
    env: str | None = None,
    console: Console | None = None,
) -> Converted:
    """Writes the dataset `source` in the format that the ending of `target` names.

    `source` is what `load_dataset` takes, but no mapping; `target` a path ending in .hdf5, .h5, .npz, .parquet or .csv,
    or `minari:ID`, or a path without an ending, which becomes a Minari folder of that name. `columns` maps the columns
    of a CSV, Parquet or NPZ source (see `itrpo.data.tabular`). `env` is the gymnasium id to write down [the source's].

    No value is changed. HDF5, NPZ, Parquet and Minari keep every type; CSV keeps values that fit float32. What the
    target has no place for is named in the notes. Raises InputError if the source can't be read or the target exists,
    StorageError if the target can't be written.
    """
    path = target_path(target)
    found = read_contents(source, columns, console)
    if env is not None:
        found = Contents(found.columns, None if env.lower() == "none" else env, found.extras, found.notes)
    notes = [*found.notes]
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        notes += minari_files.write(found, path, _minari_id(target, path), console)
    elif ending in (".hdf5", ".h5"):
        contents.write_hdf5(found, path)
        notes += _successors(found)
    else:
        write = {".npz": contents.write_npz, ".parquet": tabular.write_parquet, ".csv": tabular.write_csv}[ending]
        write(found, path)
        notes += contents.left_out(contents.extras_in(found))
        if "next_observations" in found.columns:
            notes.append("next_observations are there, so every row is a transition, rows cut by the clock too")
        if ending == ".csv" and found.env_id is not None:
            notes.append(
                f"a CSV file can't say that it came from {found.env_id}: give --env {found.env_id} when you use it"
            )
    ends = np.asarray(found.columns["terminals"], bool) | np.asarray(found.columns["timeouts"], bool)
    return Converted(path, len(ends), int(ends.sum()) + (not ends[-1]), tuple(notes))


def target_path(target: str | os.PathLike[str]) -> Path:
    """Where `convert` writes. Raises InputError if something is there already, or the ending is unknown."""
    name = os.fspath(target)
    if name.startswith(minari_files.PREFIX):
        path = minari_files.dataset_folder(name.removeprefix(minari_files.PREFIX))
    else:
        path = Path(name).expanduser()
        if path.suffix and path.suffix.lower() not in ENDINGS:
            raise InputError(
                f"{path}: unknown file ending; a dataset is written as {', '.join(ENDINGS)},"
                f" {minari_files.PREFIX}ID, or a Minari folder named like NAME-v0"
            )
    if path.exists():
        raise InputError(f"{path}: exists already; delete it or choose another name")
    return path


def read_contents(
    source: str | os.PathLike[str], columns: tabular.ColumnMap | None = None, console: Console | None = None
) -> Contents:
    """All of a dataset in its own types. Raises InputError if it can't be read."""
    path, env_id = dataset_file(source, console)
    ending = path.suffix.lower()
    if columns is not None or ending in (".parquet", ".csv"):
        found = tabular.read_contents(path, columns)
    elif path.is_dir():
        found = minari_files.read_contents(path)
    elif ending == ".npz":
        found = contents.read_npz(path)
    else:
        found = contents.read_hdf5(path)
    return found if env_id is None else Contents(found.columns, env_id, found.extras, found.notes)


def _minari_id(target: str | os.PathLike[str], path: Path) -> str:
    name = os.fspath(target)
    return name.removeprefix(minari_files.PREFIX) if name.startswith(minari_files.PREFIX) else path.name


def _successors(found: Contents) -> list[str]:
    """A note on rows whose successor D4RL's meaning of an HDF5 file passes over."""
    timeouts = int(np.asarray(found.columns["timeouts"], bool).sum())
    if "next_observations" not in found.columns or not timeouts:
        return []
    return [
        f"read as D4RL reads it, the file's {timeouts:,} rows cut by the clock are no transitions, though their"
        " next_observations are in it"
    ]
