"""What a dataset may be handed over as: names and paths, patterns of paths, arrays, frames, and lists of these.

Frames are polars' and pandas', known by what they can do: pandas is not imported, and need not be there.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data.column_map import ColumnMap, Table, names_in
from itrpo.data.formats import table
from itrpo.data.memory import unmasked
from itrpo.errors import InputError

if TYPE_CHECKING:
    import polars

TABLES = (".csv", ".parquet")
Source = Any  # see the first line; `is_source` decides
WANTED = (
    "a name, a path, a pattern of paths, a mapping of arrays, a frame of polars or pandas, a list of these, or what"
    " itrpo.load_dataset returns"
)


def is_source(source: Any) -> bool:
    if isinstance(source, list | tuple):
        return bool(source) and all(is_source(it) and not isinstance(it, list | tuple) for it in source)
    return isinstance(source, str | os.PathLike | Mapping) or is_frame(source)


def is_frame(source: Any) -> bool:
    """A table with named columns, in memory: polars', eager or lazy, or pandas'."""
    if hasattr(source, "collect_schema"):  # polars'
        return True
    return hasattr(source, "to_numpy") and hasattr(source, "columns") and hasattr(source, "__getitem__")


def is_table(part: Any) -> bool:
    """A frame, or the path of a table's file."""
    if isinstance(part, str | os.PathLike):
        return Path(part).suffix.lower() in TABLES
    return is_frame(part)


def parts(source: Source, columns: ColumnMap | None = None) -> list[Any]:
    """The names, paths, mappings and frames that a dataset consists of, in order; patterns opened, a list of mappings
    for each step as one frame. Raises InputError for what is none, and for a pattern that nothing fits.
    """
    if not is_source(source):
        raise InputError(f"a dataset must be {WANTED}; got an object of type {type(source).__name__}")
    given: list[Any] = list(source) if isinstance(source, list | tuple) else [source]
    reward = next(iter(names_in((columns or {}).get("rewards", "rewards"))), None)
    if isinstance(source, list | tuple) and all(isinstance(it, Mapping) and _is_number(it.get(reward)) for it in given):
        return [frame_of({name: [row.get(name) for row in given] for row in given[:1] for name in row})]
    return [part for it in given for part in (matching(it) if isinstance(it, str | os.PathLike) else [it])]


def _is_number(value: Any) -> bool:
    return value is None or np.ndim(value) == 0


def matching(path: str | os.PathLike[str]) -> list[str]:
    """The files that a pattern stands for, 2 before 10; what is no pattern, or a file's own name, as it is."""
    name = os.fspath(path)
    if not glob.has_magic(name) or Path(name).expanduser().exists():
        return [name]
    found = [it for it in glob.glob(os.path.expanduser(name), recursive=True) if Path(it).is_file()]
    if not found:
        raise InputError(f"{name}: no file fits this pattern")
    return sorted(found, key=lambda it: [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", it)])


def label(given: Sequence[Any]) -> str:
    """What a dataset of these parts is called: by its first one, and how many others there are."""
    first = given[0]
    named = isinstance(first, str | os.PathLike)
    name = Path(first).stem if named and Path(first).suffix.lower()[1:] else str(first) if named else "arrays"
    return name if len(given) == 1 else f"{Path(name).name}+{len(given) - 1}"


def place(given: Sequence[Any]) -> str:
    """What messages call it: a file by its path."""
    return os.fspath(given[0]) if len(given) == 1 and isinstance(given[0], str | os.PathLike) else label(given)


def opener(part: Any) -> AbstractContextManager[Table]:
    """A table among the parts, opened."""
    if isinstance(part, str | os.PathLike):
        return table.opened(Path(part).expanduser())
    frame = frame_of(part)
    return nullcontext(table.series_table(frame.columns, frame.__getitem__, "the table"))


def frame_of(source: Any) -> polars.DataFrame:
    """A frame of polars', of pandas', or a mapping of columns."""
    import polars

    if isinstance(source, polars.LazyFrame):
        return source.collect()
    if isinstance(source, polars.DataFrame):
        return source
    if hasattr(source, "reset_index"):  # pandas': what its index is called is a column like others
        named = [name for name in source.index.names if name is not None and name not in source.columns]
        source = source.reset_index(level=named) if named else source
    names = list(source) if isinstance(source, Mapping) else list(source.columns)
    table.refuse_twins(names, names, "the table")
    try:
        return polars.DataFrame([_series(str(name), source[name]) for name in names])
    except (polars.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InputError(
            f"the table: can't be read as columns of one value, or one list, per step ({error})"
        ) from error


def _series(name: str, values: Any) -> polars.Series:
    """A column of pandas', or a list or array. What pandas holds for missing values becomes null."""
    import polars

    missing = np.asarray(values.isna()) if hasattr(values, "isna") else None
    if isinstance(values, np.ma.MaskedArray):
        missing, values = (
            (np.ma.getmaskarray(values), values.data) if values.ndim == 1 else (None, unmasked(values, name))
        )
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(array, np.ndarray) or array.dtype.kind == "O":
        listed = [it.tolist() if isinstance(it, np.ndarray | np.generic) else it for it in array]
        if missing is not None:
            listed = [None if gone else it for it, gone in zip(listed, missing, strict=True)]
        return polars.Series(name, listed, strict=False)
    series = polars.Series(name, table.plain(array))
    return series if missing is None or not missing.any() else series.set(polars.Series(missing), None)
