"""Logs of the user's own under names of their own: Parquet and CSV tables, NPZ files and mappings with a column map.

A column map says which columns are what:

    columns = {"observations": ["temp", "pressure"], "actions": "valve", "rewards": "r",
               "terminals": "tripped", "episode": "run_id"}

On the command line: `--columns observations=temp,pressure actions=valve rewards=r terminals=tripped episode=run_id`, or
the name of a TOML file that holds the same. Fields:

- observations, actions, next_observations: one or several columns side by side, in the order given; `obs_*` stands for
  all columns that match, in the file's order. A column may hold lists (Parquet) or have two axes (NPZ, mappings).
- rewards; terminals, or `none` where no episode ends by itself.
- how rows become episodes, at least one of: `timeouts` (or `none`: one episode to the end of the file), `episode` (a
  number or text that is the same in all rows of one episode), `next_observations`.
- log_probs, optional: log density of the action under the policy that acted.

Without a map, the columns must have these names (`observations`, or `observations_0`, `observations_1`, ...), as the
files that `itrpo datasets convert` writes. Flags may be numbers, booleans, or the texts true and false. Nothing may be
missing. Numbers in a CSV file are read as float32, correctly rounded.
"""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data import arrays
from itrpo.data.columns import check_layout, to_flags
from itrpo.data.contents import Contents, left_out, replaced
from itrpo.data.d4rl import LOG_PROBS
from itrpo.data.wording import first_rows
from itrpo.errors import InputError
from itrpo.files import file_sha256
from itrpo.registry import nearest
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import polars

ColumnMap = Mapping[str, str | Sequence[str]]

VECTORS = ("observations", "actions", "next_observations")
FLAGS = ("terminals", "timeouts")
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "episode", "next_observations", "log_probs")
SINGULAR = {"observation": "observations", "action": "actions", "reward": "rewards", "terminal": "terminals"} | {
    "timeout": "timeouts",
    "next_observation": "next_observations",
    "episodes": "episode",
    "log_prob": "log_probs",
}
REQUIRED = ("observations", "actions", "rewards", "terminals")
NONE = "none"
SEPARATORS = ",;\t|"
EXAMPLE = "--columns observations=COLUMN,COLUMN actions=COLUMN rewards=COLUMN terminals=COLUMN episode=COLUMN"


class _Table(NamedTuple):
    """Named columns of one file, or of a mapping."""

    names: list[str]
    numbers: Callable[[str], np.ndarray]  # name -> [N] or [N, k] numbers; InputError if it holds anything else
    codes: Callable[[str], np.ndarray]  # name -> [N] integers that are equal where the values are
    where: str
    env_id: str | None = None
    expect: Callable[[Sequence[str]], None] = lambda names: None  # these columns will be asked for


def parse_columns(words: Sequence[str]) -> dict[str, list[str]]:
    """['observations=temp,speed', 'reward=r'], or ['map.toml'], -> a column map. Raises InputError."""
    if len(words) == 1 and "=" not in words[0]:
        return _read_map(Path(words[0]))
    columns: dict[str, list[str]] = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"--columns takes FIELD=COLUMN[,COLUMN...], or one TOML file; not {word!r}")
        field = _field(field, "--columns")
        if field in columns:
            raise InputError(f"--columns: {field!r} is given twice; name all its columns after one '=', with commas")
        columns[field] = [name for name in value.split(",") if name]
    return columns


def read(path: str | os.PathLike[str], columns: ColumnMap | None = None) -> Episodes:
    """The rows of a .csv, .parquet or (with a map) .npz file. Raises InputError naming file, column, row and fix."""
    path = Path(path)
    table, values, selected = _load(path, columns)
    recipe = {} if columns is None else {"columns": selected}
    source = DataSource(path.stem, path.suffix.lower()[1:], str(path.resolve()), file_sha256(path), recipe=recipe)
    return _episodes(values, table, source)


def from_mapping(values: Mapping[str, np.ndarray], columns: ColumnMap) -> Episodes:
    """The rows of a mapping of arrays, [N] or [N, k], under names of the user's own. Raises InputError."""
    table = _mapping_table(values, "the arrays")
    selected = select(table.names, columns, table.where)
    episodes = arrays.from_mapping(_assemble(table, selected))
    return replace(episodes, source=replace(episodes.source, recipe={"columns": selected}))


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """What `read` reads in the file's own types, and all columns infos/... . Raises InputError as `read` does."""
    table, values, selected = _load(path, columns)
    kept = dict(values)
    if "timeouts" not in kept:
        kept["timeouts"] = _episodes(values, table, DataSource(path.stem, path.suffix[1:])).timeouts
    groups = _groups(name for name in table.names if name.startswith("infos/") and name != LOG_PROBS)
    table.expect([name for members in groups.values() for name in members])
    for name, members in groups.items():
        if name not in kept:
            kept[name] = _vector(table, members) if members != [name] else table.numbers(name)
    taken = {name for members in [*selected.values(), *groups.values()] for name in members}
    return Contents(kept, table.env_id, notes=left_out([name for name in table.names if name not in taken]))


def write_parquet(contents: Contents, path: Path) -> None:
    """One column per array; those with several axes hold fixed-size lists. Raises StorageError."""
    import polars

    frame = polars.DataFrame({name: _plain(values) for name, values in contents.columns.items()})
    metadata = None if contents.env_id is None else {"env_id": contents.env_id}
    with replaced(path) as target:
        frame.write_parquet(target, metadata=metadata)


def write_csv(contents: Contents, path: Path) -> None:
    """One column per number: observations_0, observations_1, ... Every float is written so that it reads back as the
    same float. Raises StorageError if it can't be written.
    """
    import polars

    flat: dict[str, np.ndarray] = {}
    for name, values in contents.columns.items():
        plain = _plain(values)
        if plain.ndim == 1:
            flat[name] = plain
        else:
            wide = plain.reshape(len(plain), -1)
            flat |= {f"{name}_{index}": wide[:, index] for index in range(wide.shape[1])}
    with replaced(path) as target:
        polars.DataFrame(flat).write_csv(target)


def select(names: Sequence[str], columns: ColumnMap | None, where: str) -> dict[str, list[str]]:
    """Which columns each field takes, patterns resolved. Raises InputError for unknown fields and columns."""
    if columns is None:
        selected = _by_name(names)
    else:
        selected = {}
        for field, wanted in columns.items():
            patterns = wanted.split(",") if isinstance(wanted, str) else list(wanted)
            selected[_field(field, where)] = [
                name for pattern in patterns for name in _matching(pattern, names, field, where)
            ]
    for field, chosen in selected.items():
        if not chosen:
            raise InputError(f"{where}: no column is given for {field!r}")
        if field not in VECTORS and len(chosen) > 1:
            raise InputError(f"{where}: {field!r} takes one column, not {len(chosen)} ({', '.join(chosen)})")
        repeated = [name for name in chosen if chosen.count(name) > 1]
        if repeated:
            raise InputError(f"{where}: {field!r} takes the column {repeated[0]!r} twice")
    missing = [field for field in REQUIRED if field not in selected]
    if missing:
        advice = "; terminals=none if no episode ends by itself" if missing == ["terminals"] else ""
        raise InputError(
            f"{where}: no column for {', '.join(missing)}; its columns: {_some(names)}. Say which are what: {EXAMPLE}"
            f" (columns={{...}} in Python){advice}"
        )
    if not {"timeouts", "episode", "next_observations"} & set(selected):
        raise InputError(
            f"{where}: nothing says where episodes end. Add episode=COLUMN (the same value in all rows of an episode),"
            " timeouts=COLUMN (1 in rows where the clock ended the episode), or next_observations=COLUMNS;"
            " timeouts=none if all rows are one episode"
        )
    _check_order(selected, where)
    return selected


def _field(name: str, where: str) -> str:
    field = SINGULAR.get(name, name)
    if field not in FIELDS:
        raise InputError(f"{where}: unknown field {name!r}{nearest(name, FIELDS)}; known: {', '.join(FIELDS)}")
    return field


def _matching(pattern: str, names: Sequence[str], field: str, where: str) -> list[str]:
    pattern = pattern.strip()
    if pattern in names:
        return [pattern]
    if SINGULAR.get(field, field) in FLAGS and pattern == NONE:
        return [NONE]
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"{where}: no column {pattern!r}{nearest(pattern, names)}; its columns: {_some(names)}")
    return found


def _by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """The fields whose columns have our own names."""
    groups = _groups(names)
    selected = {field: groups[field] for field in FIELDS if field in groups}
    if LOG_PROBS in groups and "log_probs" not in selected:
        selected["log_probs"] = groups[LOG_PROBS]
    return selected


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    """['a', 'b_0', 'b_1'] -> {'a': ['a'], 'b': ['b_0', 'b_1']}: numbered columns in the order of their numbers."""
    numbered: dict[str, dict[int, str]] = {}
    groups: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(r"(.+)_(\d{1,6})", name)
        if match:
            numbered.setdefault(match[1], {})[int(match[2])] = name
        else:
            groups[name] = [name]
    for base, members in numbered.items():
        groups.setdefault(base, [members[index] for index in sorted(members)])
    return groups


def _check_order(selected: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises InputError if next_observations are named like observations, but come in another order."""
    if "next_observations" not in selected:
        return
    endings: list[list[str]] = []
    for field in ("observations", "next_observations"):
        names = selected[field]
        shared = next((at for at, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)
        endings.append([name[shared:] for name in names])
    if endings[0] != endings[1] and sorted(endings[0]) == sorted(endings[1]):
        raise InputError(
            f"{where}: observations and next_observations come in different orders ({_some(selected['observations'])};"
            f" {_some(selected['next_observations'])}); name the columns one by one, in one order"
        )


def _read_map(path: Path) -> dict[str, list[str]]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"--columns {path}: no such file; give FIELD=COLUMN[,COLUMN...] words, or the name of a TOML file"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
    columns: dict[str, list[str]] = {}
    for field, value in content.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'{path}: {field!r} must be a name or a list of names, like observations = ["temp", "speed"]'
            )
        columns[_field(field, str(path))] = names
    return columns


def _load(path: Path, columns: ColumnMap | None) -> tuple[_Table, dict[str, np.ndarray], dict[str, list[str]]]:
    """The file's table, its fields as arrays, and the columns that they came from."""
    readers = {".csv": _csv_table, ".parquet": _parquet_table, ".npz": _npz_table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: a column map is for {', '.join(readers)} files and mappings; others have fixed names"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    from polars.exceptions import PanicException, PolarsError

    try:
        table = reader(path)
        selected = select(table.names, columns, table.where)
        table.expect(sorted({name for names in selected.values() for name in names} - ({NONE} - set(table.names))))
        return table, _assemble(table, selected), selected
    except (PolarsError, PanicException, OSError, MemoryError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: not a readable {path.suffix[1:].upper()} file ({reason})") from error


def _assemble(table: _Table, selected: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """The fields as arrays under our names, flags as bool, `episode` turned into timeouts, layout checked."""
    values: dict[str, np.ndarray] = {}
    for field, names in selected.items():
        if field in VECTORS:
            values[field] = _vector(table, names)
        elif field != "episode" and names != [NONE]:
            column = table.numbers(names[0])
            key = LOG_PROBS if field == "log_probs" else field
            values[key] = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    rows = len(values["rewards"])
    for field in FLAGS:
        if selected.get(field) == [NONE]:
            values[field] = np.zeros(rows, dtype=bool)
        elif field in values and values[field].ndim == 1:
            values[field] = to_flags(values[field], selected[field][0], table.where)
    check_layout(values, table.where)
    if "episode" in selected:
        last = _last_rows(table, selected["episode"][0], rows)
        timeouts = values.get("timeouts", np.zeros(rows, dtype=bool))
        values["timeouts"] = timeouts | (last & ~values["terminals"])
    return values


def _last_rows(table: _Table, name: str, rows: int) -> np.ndarray:
    """bool [N]: the last row of each episode. Raises InputError if an episode's rows are not all together."""
    codes = table.codes(name)
    if codes.shape != (rows,):
        raise InputError(f"{table.where}: {name!r} must hold one value per step")
    last = np.append(codes[1:] != codes[:-1], True)
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    first_of_code = np.unique(codes[starts], return_index=True)[1]
    if len(first_of_code) != len(starts):
        again = np.setdiff1d(starts, starts[first_of_code])
        raise InputError(
            f"{table.where}: {name!r} comes back to a value that it had before, in {len(again):,} places (first:"
            f" {first_rows(again)}); put the rows of each episode together, in the order in which they happened"
        )
    return last


def _vector(table: _Table, names: Sequence[str]) -> np.ndarray:
    """Columns side by side, [N, size]."""
    parts = [table.numbers(name) for name in names]
    parts = [part[:, None] if part.ndim == 1 else part.reshape(len(part), -1) for part in parts]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{name} {len(part):,}" for name, part in zip(names, parts, strict=True))
        raise InputError(f"{table.where}: the columns have unequal lengths ({lengths})")
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _episodes(values: Mapping[str, np.ndarray], table: _Table, source: DataSource) -> Episodes:
    episodes = arrays.to_episodes(values, table.where, source)
    return episodes if table.env_id is None else replace(episodes, env_id=table.env_id)


def _csv_table(path: Path) -> _Table:
    import polars

    with path.open("rb") as file:
        header = file.readline(1 << 20).decode("utf-8", "replace")
    separator = max(SEPARATORS, key=header.count)  # a comma where there is none at all
    scanned = polars.scan_csv(path, separator=separator, infer_schema=False, glob=False)
    where, parsed = str(path), dict[str, polars.Series]()

    def expect(names: Sequence[str]) -> None:  # one pass over the file, not one for each column
        parsed.update({series.name: series for series in scanned.select(names).collect()})

    def series(name: str) -> polars.Series:
        return parsed.pop(name) if name in parsed else scanned.select(name).collect().to_series()

    return _Table(
        scanned.collect_schema().names(),
        numbers=lambda name: _text_numbers(series(name), where, line_of_first=2),
        codes=lambda name: _codes(series(name), where),
        where=where,
        expect=expect,
    )


def _parquet_table(path: Path) -> _Table:
    import polars

    where = str(path)
    frame = polars.scan_parquet(path, glob=False, hive_partitioning=False)
    names = frame.collect_schema().names()
    rows, size = frame.select(polars.len()).collect().item(), path.stat().st_size
    if rows > max(1 << 28, 1000 * size):  # runs of one value take no room, but no log is all runs
        raise InputError(f"{where}: declares {rows:,} rows in {size:,} bytes; the file is damaged")
    env_id = polars.read_parquet_metadata(path).get("env_id")

    def series(name: str) -> polars.Series:
        return frame.select(name).collect().to_series()

    return _Table(
        names,
        numbers=lambda name: _series_numbers(series(name), where),
        codes=lambda name: _codes(series(name), where),
        where=where,
        env_id=env_id,
    )


def _npz_table(path: Path) -> _Table:
    where = str(path)
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]

    def load(name: str) -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as file:
                return file[name]
        except ValueError as error:
            raise InputError(f"{where}: {name!r} can't be read ({error})") from error

    return _array_table(names, load, where)


def _mapping_table(values: Mapping[str, np.ndarray], where: str) -> _Table:
    def load(name: str) -> np.ndarray:
        try:
            return np.asarray(values[name])
        except ValueError as error:  # a ragged list
            raise InputError(f"{where}: {name!r} is not an array ({error})") from error

    return _array_table([str(name) for name in values], load, where)


def _array_table(names: list[str], load: Callable[[str], np.ndarray], where: str) -> _Table:
    def numbers(name: str) -> np.ndarray:
        values = load(name)
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise InputError(
                f"{where}: {name!r} has type {values.dtype} and shape {list(values.shape)}; it must hold one row of"
                " numbers per step"
            )
        return values

    def codes(name: str) -> np.ndarray:
        values = load(name)
        if values.ndim != 1 or values.dtype.kind not in "biufUS":
            raise InputError(f"{where}: {name!r} must hold one number or text per step")
        return np.unique(values, return_inverse=True)[1]

    return _Table(names, numbers, codes, where)


def _series_numbers(series: polars.Series, where: str) -> np.ndarray:
    """A Parquet column as [N], or as [N, k, ...] if it holds lists of numbers."""
    import polars

    dtype = series.dtype
    if dtype == polars.String:
        return _text_numbers(series, where)
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


def _text_numbers(series: polars.Series, where: str, line_of_first: int | None = None) -> np.ndarray:
    """Text as float32 [N]: numbers, or true and false."""
    import polars

    text = series.str.strip_chars()
    _refuse_missing(text.is_null() | (text == ""), series.name, where, line_of_first)
    numbers = text.cast(polars.Float32, strict=False)
    if numbers.null_count():
        flags = text.str.to_lowercase().replace_strict(
            {"true": 1.0, "false": 0.0}, default=None, return_dtype=polars.Float32
        )
        numbers = polars.select(polars.coalesce(numbers, flags)).to_series()
    wrong = np.flatnonzero(numbers.is_null().to_numpy())
    if wrong.size:
        example = str(text[int(wrong[0])])[:40]
        advice = (
            "write the decimal point as a point" if re.fullmatch(r"[+-]?\d+,\d+", example) else "mend or remove them"
        )
        raise InputError(
            f"{where}: column {series.name!r} must hold numbers, but {len(wrong):,} of {len(series):,} rows are"
            f" something else, such as {example!r} (first: {_placed(wrong, line_of_first)}); {advice}"
        )
    return numbers.to_numpy()


def _codes(series: polars.Series, where: str) -> np.ndarray:
    _refuse_missing(series.is_null(), series.name, where)
    if series.dtype.is_nested():
        raise InputError(f"{where}: column {series.name!r} must hold one number or text per step")
    return series.rank("dense").to_numpy()


def _refuse_missing(missing: polars.Series, name: str, where: str, line_of_first: int | None = None) -> None:
    rows = np.flatnonzero(missing.to_numpy())
    if rows.size:
        raise InputError(
            f"{where}: column {name!r} is empty in {len(rows):,} of {len(missing):,} rows (first:"
            f" {_placed(rows, line_of_first)}); fill them in, or leave those episodes out"
        )


def _placed(rows: np.ndarray, line_of_first: int | None) -> str:
    """'rows 3, 8', and for text files also the line of the first one."""
    line = "" if line_of_first is None else f", line {rows[0] + line_of_first:,} of the file"
    return f"{first_rows(rows)}{line}"


def _plain(values: np.ndarray) -> np.ndarray:
    """A type that Polars has: the processor's byte order, and float32 for float16."""
    kind = np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, dtype=kind)


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:20])
    return f"{listed}, ... ({len(names)} in all)" if len(names) > 20 else listed or "none"
