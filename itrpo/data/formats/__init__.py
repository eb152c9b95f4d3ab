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
from itrpo.types import Episodes


class Format(NamedTuple):
    """A kind of file or folder. What reads it takes the path and a column map, or None."""

    read: Callable[..., Episodes]  # what training needs, as float32
    read_contents: Callable[..., Contents]  # all of it, in its own types
    write: Callable[[Contents, Path], tuple[str, ...]]  # returns what the format has no place for, for a person


_HDF5 = Format(hdf5.read, hdf5.read_contents, hdf5.write)
_TABLE = Format(table.read, table.read_contents, table.write)

# by the ending of the file's name
FORMATS = {
    ".hdf5": _HDF5,
    ".h5": _HDF5,
    ".npz": Format(npz.read, npz.read_contents, npz.write),
    ".parquet": _TABLE,
    ".csv": _TABLE,
}
MINARI = Format(minari.read, minari.read_contents, minari.write)  # a folder


def read(path: Path, columns: ColumnMap | None = None) -> Episodes:
    """The rows of a file or Minari folder. Raises InputError if they can't be read."""
    return _format(path).read(path, columns)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """All of a file or Minari folder, in its own types. Raises InputError as `read` does."""
    return _format(path).read_contents(path, columns)


def _format(path: Path) -> Format:
    return MINARI if path.is_dir() else FORMATS[path.suffix.lower()]
