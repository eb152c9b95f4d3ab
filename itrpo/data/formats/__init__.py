"""The formats that datasets come in: the one table that loading, checking, describing and converting go by.

To look at it imports neither h5py nor polars nor minari: each module imports its library when it opens a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from itrpo.data.column_map import ColumnMap
from itrpo.data.formats import hdf5, minari, npz, table
from itrpo.data.layout import Contents
from itrpo.errors import InputError
from itrpo.types import Episodes


class Format(NamedTuple):
    """A kind of file or folder. What reads it takes the path and, if it `takes_columns`, a column map."""

    read: Callable[..., Episodes]  # what training needs, as float32
    read_contents: Callable[..., Contents]  # all of it, in its own types
    write: Callable[[Contents, Path], tuple[str, ...]]  # returns what the format has no place for, for a person
    takes_columns: bool = False


_HDF5 = Format(hdf5.read, hdf5.read_contents, hdf5.write)
_TABLE = Format(table.read, table.read_contents, table.write, takes_columns=True)

# by the ending of the file's name
FORMATS = {
    ".hdf5": _HDF5,
    ".h5": _HDF5,
    ".npz": Format(npz.read, npz.read_contents, npz.write, takes_columns=True),
    ".parquet": _TABLE,
    ".csv": _TABLE,
}
MINARI = Format(minari.read, minari.read_contents, minari.write)  # a folder


def read(path: Path, columns: ColumnMap | None = None) -> Episodes:
    """The rows of a file or Minari folder. Raises InputError if they can't be read, or take no column map."""
    chosen = _format(path, columns)
    return chosen.read(path) if columns is None else chosen.read(path, columns)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """All of a file or Minari folder, in its own types. Raises InputError as `read` does."""
    chosen = _format(path, columns)
    return chosen.read_contents(path) if columns is None else chosen.read_contents(path, columns)


def _format(path: Path, columns: ColumnMap | None) -> Format:
    chosen = MINARI if path.is_dir() else FORMATS[path.suffix.lower()]
    if columns is not None and not chosen.takes_columns:
        mapped = ", ".join(ending for ending, known in FORMATS.items() if known.takes_columns)
        raise InputError(f"{path}: a column map is for {mapped} files and mappings; others have fixed names")
    return chosen
