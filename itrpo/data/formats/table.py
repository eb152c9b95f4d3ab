"""Tables: Parquet and CSV files, a column for each array or number.

Without a column map (see `itrpo.data.column_map`) the columns must have our own names (`observations`, or
`observations_0`, `observations_1`, ...), as in the files that `itrpo datasets convert` writes. Nothing may be missing.
Numbers in a CSV file are read as float32, correctly rounded, and as float64 where that keeps too few of them apart.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrpo import files
from itrpo.data import attributes, column_map
from itrpo.data.column_map import ColumnMap, Table
from itrpo.data.formats.hdf5 import notes_of_flat_files
from itrpo.data.layout import SAMPLE, Contents, rounded
from itrpo.data.wording import first_rows
from itrpo.errors import InputError
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import polars

SEPARATORS = ",;\t|"
FILL = (
    "--fill previous, interpolate or drop (fill=... in Python) says what becomes of missing observations, actions and"
    " rewards; flags must be known"
)
NO_FILL = "no --fill fills it: write the value into each of these rows, or leave the rows out"
UTC = r"(Z|[+-]00:?00)$"  # at the end of a text that is a time
TIMES = {  # what a text that is a time looks like -> its format, but for a time zone
    r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d": "%Y-%m-%d %H:%M:%S%.f",
    r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d$": "%Y-%m-%d %H:%M",
    r"^\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d": "%d.%m.%Y %H:%M:%S%.f",
    r"^\d\d\.\d\d\.\d{4} \d\d:\d\d$": "%d.%m.%Y %H:%M",
}


def read(path: str | os.PathLike[str], columns: ColumnMap | None = None) -> Episodes:
    """The rows of a .csv or .parquet file. Raises InputError naming file, column, row and fix."""
    path = Path(path)
    with opened(path) as table:
        source = DataSource(path.stem, path.suffix.lower()[1:], str(path.resolve()), files.file_sha256(path))
        return column_map.read(of_steps(table, columns), columns, source)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """What `read` reads in the file's own types, and all columns infos/... . Raises InputError as `read` does."""
    with opened(path) as table:
        return column_map.read_contents(of_steps(table, columns), columns)


def write(contents: Contents, path: Path) -> tuple[str, ...]:
    """A .csv or .parquet file; returns notes for a person. Raises StorageError if it can't be written.

    Parquet: one column per array; those with several axes hold fixed-size lists. CSV: one column per number,
    observations_0, observations_1, ...; every float is written so that it reads back as the same float; attributes are
    in a file beside it (`itrpo.data.attributes`).
    """
    import polars

    notes, columns = notes_of_flat_files(contents), {name: plain(it) for name, it in contents.columns.items()}
    if path.suffix.lower() == ".parquet":
        with files.replacing(path) as target:
            metadata = attributes.to_texts(contents.attributes)
            if contents.env_id is not None:
                metadata["env_id"] = contents.env_id
            polars.DataFrame(columns).write_parquet(target, metadata=metadata or None)
        return notes
    flat: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            flat |= {f"{name}_{index}": column for index, column in enumerate(values.reshape(len(values), -1).T)}
    about = attributes.write_beside(path, contents.env_id, contents.attributes)
    try:
        with files.replacing(path) as target:
            polars.DataFrame(flat).write_csv(target)
    except BaseException:  # of a file that is not there it would only be in the way
        if about is not None:
            about.unlink(missing_ok=True)
        raise
    return notes if about is None else (*notes, f"environment, bounds, names and units are in {about.name}, beside it")


@contextmanager
def opened(path: Path) -> Generator[Table]:
    """A file's columns, read when they are asked for. Raises InputError, in the block too, if it can't be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    from polars.exceptions import PanicException, PolarsError

    try:
        yield _csv_table(path) if path.suffix.lower() == ".csv" else _parquet_table(path)
    except (PolarsError, PanicException, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: not a readable {path.suffix[1:].upper()} file ({reason})") from error


def _csv_table(path: Path) -> Table:
    import polars

    with path.open("rb") as file:
        begins = file.read(1 << 20)
    header = begins.partition(b"\n")[0].decode("utf-8-sig", "replace")
    separator = max(SEPARATORS, key=header.count)  # a comma where there is none at all
    titles = next(csv.reader([header], delimiter=separator), [])
    # asked for the names itself, polars maps the file, and one that another program cuts meanwhile ends us by SIGBUS
    names = polars.read_csv(begins, separator=separator, infer_schema=False, n_rows=0).columns
    scanned = polars.scan_csv(
        path, separator=separator, schema=dict.fromkeys(names, polars.String), glob=False, truncate_ragged_lines=True
    )
    where, parsed = str(path), dict[str, polars.Series]()

    def expect(names: Sequence[str]) -> None:  # one pass over the file, not one for each column
        refuse_twins(names, titles, where)
        refuse_long_lines(path, separator, len(titles))
        parsed.update({series.name: series for series in scanned.select(names).collect()})

    def series(name: str) -> polars.Series:
        return parsed.pop(name) if name in parsed else scanned.select(name).collect().to_series()

    about = attributes.read_beside(path)
    table = series_table(names, series, where, about.pop("env_id", None), line_of_first=2)
    return table._replace(expect=expect, about=about, about_in=str(attributes.beside(path)) if about else "")


def refuse_long_lines(path: Path, separator: str, cells: int) -> None:
    """Raises InputError for a line with more cells than the header, as a decimal comma makes them: polars stops at the
    last column that it is asked for, and would take the wrong ones. Empty cells at the end of a line do no harm.
    """
    import polars

    lines = polars.scan_csv(
        path,
        separator="\x1f",
        quote_char=None,
        has_header=False,
        schema={"line": polars.String},
        encoding="utf8-lossy",
        glob=False,
    ).with_row_index("number", offset=1)
    many = polars.col("line").str.count_matches(separator, literal=True) >= cells
    for number, line in lines.filter(many).collect().iter_rows():
        if line.count('"') % 2:  # a part of a cell that goes on over several lines
            continue
        found = next(csv.reader([line], delimiter=separator))
        if any(it.strip() for it in found[cells:]):
            raise InputError(
                f"{path}: line {number:,} has {len(found)} cells, and the header {cells}: {line[:80]!r}; decimals are"
                f" written with a point, and a cell that holds {separator!r} stands in quotes"
            )


def refuse_twins(names: Sequence[str], titles: Sequence[str], where: str) -> None:
    """Raises InputError where one of `names` is the title of several columns: nobody knows which is meant."""
    for name in names:
        if titles.count(name) > 1:
            raise InputError(f"{where}: {titles.count(name)} columns are called {name!r}; give each a name of its own")


def series_table(
    names: list[str],
    series: Callable[[str], polars.Series],
    where: str,
    env_id: str | None = None,
    line_of_first: int | None = None,
) -> Table:
    """A table whose columns are those of polars."""
    return Table(
        names,
        numbers=lambda name: series_numbers(series(name), where, line_of_first),
        codes=lambda name: codes(series(name), where),
        where=where,
        env_id=env_id,
        raw=series,
        line_of_first=line_of_first,
    )


def of_steps(table: Table, columns: ColumnMap | None) -> Table:
    """The table; where a row is an episode, its columns lists with a value for each step, a table of steps."""
    import polars

    map_ = columns or {}
    wanted = column_map.names_in(map_.get("rewards", map_.get("reward", "rewards")))
    name, raw = next(iter(wanted), "rewards"), table.raw
    if raw is None or table.line_of_first is not None or name not in table.names:
        return table

    def lists(name: str) -> polars.Series:
        series = raw(name)
        return series.arr.to_list() if isinstance(series.dtype, polars.Array) else series

    def lengths(name: str) -> np.ndarray:
        series = lists(name)
        return series.list.len().fill_null(0).to_numpy().astype(int) if series.dtype == polars.List else steps

    def numbers(name: str) -> np.ndarray:
        series = lists(name)
        if series.dtype == polars.List:
            series = series.filter(series.list.len().fill_null(1) > 0).explode()
        return series_numbers(series, table.where)

    if lists(name).dtype != polars.List or (steps := lengths(name)).max(initial=1) <= 1:
        return table
    return table._replace(numbers=numbers, lengths=lengths)


def _parquet_table(path: Path) -> Table:
    import polars

    where = str(path)
    frame = polars.scan_parquet(path, glob=False, hive_partitioning=False)
    names = frame.collect_schema().names()
    rows, size = frame.select(polars.len()).collect().item(), path.stat().st_size
    if rows > max(1 << 28, 1000 * size):  # runs of one value take no room, but no log is all runs
        raise InputError(f"{where}: declares {rows:,} rows in {size:,} bytes; the file is damaged")
    metadata = polars.read_parquet_metadata(path)

    def series(name: str) -> polars.Series:
        return frame.select(name).collect().to_series()

    table = series_table(names, series, where, metadata.get("env_id"))
    return table._replace(about=attributes.from_texts(metadata, where))


def series_numbers(series: polars.Series, where: str, line_of_first: int | None = None) -> np.ndarray:
    """A column as [N], or as [N, k, ...] if it holds lists of numbers."""
    import polars

    dtype = series.dtype
    if dtype == polars.String:
        _refuse_missing(_empty(series), series.name, where, line_of_first)
        return _text_numbers(series, where, line_of_first).to_numpy()
    _refuse_missing(series.is_null(), series.name, where)
    if isinstance(dtype, polars.Array):
        shape, inner = dtype.shape, series.reshape((-1,))
    elif isinstance(dtype, polars.List):
        lengths = series.list.len().to_numpy()
        shape = (int(lengths[0]) if len(lengths) else 0,)
        uneven = np.flatnonzero(lengths != shape[0])
        if uneven.size:
            raise InputError(
                f"{where}: the lists in column {series.name!r} have unequal lengths: {shape[0]} numbers in row 0,"
                f" {lengths[uneven[0]]} in row {uneven[0]}"
            )
        inner = series.explode()
    else:
        shape, inner = (), series
    if isinstance(inner.dtype, polars.Decimal):
        inner = inner.cast(polars.Float64)
    if not (inner.dtype.is_numeric() or inner.dtype == polars.Boolean):
        raise InputError(f"{where}: column {series.name!r} holds {dtype}; it must hold numbers, or lists of numbers")
    if shape and inner.null_count():
        rows = np.any(inner.is_null().to_numpy().reshape(len(series), -1), axis=1)
        _refuse_missing(polars.Series(rows.tolist()), series.name, where)
    return inner.to_numpy().reshape(len(series), *shape)


def numbers_where_known(series: polars.Series, where: str, line_of_first: int | None) -> polars.Series | None:
    """A column of single numbers, null where one is missing; None if it holds lists. Raises InputError as reading does
    for what is neither.
    """
    import polars

    if series.dtype == polars.String:
        series = _text_numbers(series, where, line_of_first)
    elif series.dtype.is_nested():
        return None
    elif isinstance(series.dtype, polars.Decimal | polars.Null):
        series = series.cast(polars.Float64)
    elif not (series.dtype.is_numeric() or series.dtype == polars.Boolean):
        raise InputError(f"{where}: column {series.name!r} holds {series.dtype}; it must hold numbers")
    return series.fill_nan(None) if series.dtype.is_float() else series


def moments(series: polars.Series, where: str, line_of_first: int | None = None) -> polars.Series:
    """Times as microseconds: dates, times of day with a date, texts of them, or numbers. Numbers are seconds, or where
    they are too large for that (since 1970), milliseconds, microseconds or nanoseconds.
    """
    import polars

    name, text = series.name, series
    missing = _empty(series) if series.dtype == polars.String else series.is_null()
    _refuse_missing(missing, name, where, line_of_first, NO_FILL)
    if series.dtype == polars.String:
        text = series.str.strip_chars()
        series = text.cast(polars.Float64, strict=False)
        for shape, form in TIMES.items() if series.null_count() else ():
            if text.str.contains(shape).all():
                iso = text.str.replace("T", " ", literal=True)
                offset = iso.str.replace(r"Z$", "+00:00")
                zoned = offset.str.contains(r"[+-]\d\d:?\d\d$").all() and not iso.str.contains(UTC).all()
                iso, zone = (offset, "%:z") if zoned else (iso.str.replace(UTC, ""), "")
                parsed = iso.str.to_datetime(form + zone, strict=False, time_unit="us")
                series = parsed if not parsed.null_count() else series
    if series.dtype.is_numeric() and not series.null_count():
        largest = abs(float(np.abs(series.to_numpy()).max(initial=0)))
        unit = next(unit for least, unit in ((1e17, 1e-3), (1e14, 1.0), (1e11, 1e3), (0.0, 1e6)) if largest >= least)
        whole = unit >= 1 and series.dtype.is_integer()
        scaled = series.cast(polars.Int64) * int(unit) if whole else (series.cast(polars.Float64) * unit).round()
        return scaled.cast(polars.Int64)
    if not series.dtype.is_temporal() or series.dtype == polars.Time:
        example = text.filter(series.is_null())[0] if series.null_count() else series.dtype
        raise InputError(
            f"{where}: column {name!r} must hold times, not {str(example)[:40]!r}; write them as 2024-03-01 12:00:05,"
            " as 01.03.2024 12:00:05, or as seconds"
        )
    if series.dtype == polars.Duration:
        return series.dt.total_microseconds()
    return series.cast(polars.Datetime("us")).dt.epoch("us")


def _empty(series: polars.Series) -> polars.Series:
    return series.is_null() | (series.str.strip_chars() == "")


def _text_numbers(series: polars.Series, where: str, line_of_first: int | None) -> polars.Series:
    """Text as float32 [N], or float64 where that loses much: numbers, or true and false; null where it is empty."""
    import polars

    text = series.str.strip_chars()
    some = text.gather_every(max(1, len(text) // SAMPLE)).cast(polars.Float64, strict=False).drop_nulls()
    numbers = text.cast(polars.Float64 if rounded(some.to_numpy()) else polars.Float32, strict=False)
    if numbers.null_count():
        flags = text.str.to_lowercase().replace_strict(
            {"true": 1.0, "false": 0.0}, default=None, return_dtype=polars.Float32
        )
        numbers = polars.select(polars.coalesce(numbers, flags)).to_series()
    wrong = np.flatnonzero((numbers.is_null() & ~_empty(series)).to_numpy())
    if wrong.size:
        example = str(text[int(wrong[0])])[:40]
        advice = "write the decimal point as a point"
        if not re.fullmatch(r"[+-]?\d+,\d+", example):
            advice = "leave the cells of missing values empty, and write words as columns of 0 and 1, one for each word"
        raise InputError(
            f"{where}: column {series.name!r} must hold numbers, but {len(wrong):,} of {len(series):,} rows are"
            f" something else, such as {example!r} (first: {_placed(wrong, line_of_first)}); {advice}"
        )
    return numbers.alias(series.name)


def codes(series: polars.Series, where: str) -> np.ndarray:
    _refuse_missing(series.is_null(), series.name, where, advice=NO_FILL)
    if series.dtype.is_nested():
        raise InputError(f"{where}: column {series.name!r} must hold one number or text per step")
    return series.rank("dense").to_numpy()


def _refuse_missing(
    missing: polars.Series, name: str, where: str, line_of_first: int | None = None, advice: str = FILL
) -> None:
    rows = np.flatnonzero(missing.to_numpy())
    if rows.size:
        raise InputError(
            f"{where}: column {name!r} is empty in {len(rows):,} of {len(missing):,} rows (first:"
            f" {_placed(rows, line_of_first)}); {advice}"
        )


def _placed(rows: np.ndarray, line_of_first: int | None) -> str:
    """'rows 3, 8', and for text files also the line of the first one."""
    line = "" if line_of_first is None else f", line {rows[0] + line_of_first:,} of the file"
    return f"{first_rows(rows)}{line}"


def plain(values: np.ndarray) -> np.ndarray:
    """A type that Polars has: the processor's byte order, and float32 for float16."""
    kind = np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, dtype=kind)
