"""Column maps: which columns of a log, under names of its user's own, are what. For Parquet, CSV and NPZ files and
mappings of arrays.

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
- time, optional, for tables: when the row was; what gaps, fills and periods go by (see `itrpo.data.series`).

Without a map, the columns must have these names (`observations`, or `observations_0`, `observations_1`, ...), as the
files that `itrpo datasets convert` writes. Flags may be numbers, booleans, or the texts true and false. Nothing may be
missing. Numbers in a CSV file are read as float32, correctly rounded.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data.layout import (
    FLAGS,
    LOG_PROBS,
    MINIMUM,
    NUMERIC,
    Contents,
    check_layout,
    flags_in,
    left_out,
    to_episodes,
    to_flags,
)
from itrpo.data.wording import first_rows, refuse
from itrpo.errors import InputError
from itrpo.registry import nearest
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import polars

ColumnMap = Mapping[str, str | Sequence[str]]

VECTORS = ("observations", "actions", "next_observations")
FIELDS = (
    "observations",
    "actions",
    "rewards",
    "terminals",
    "timeouts",
    "episode",
    "next_observations",
    "log_probs",
    "time",
)
UNREAD = ("episode", "time")  # say how rows go together; no arrays of their own
SINGULAR = {field.removesuffix("s"): field for field in FIELDS} | {"episodes": "episode"}
NONE = "none"
EXAMPLE = "--columns observations=COLUMN,COLUMN actions=COLUMN rewards=COLUMN terminals=COLUMN episode=COLUMN"


class Table(NamedTuple):
    """Named columns of one file, or of a mapping."""

    names: list[str]
    numbers: Callable[[str], np.ndarray]  # name -> [N] or [N, k] numbers; InputError if it holds anything else
    codes: Callable[[str], np.ndarray]  # name -> [N] integers that are equal where the values are
    where: str
    env_id: str | None = None
    expect: Callable[[Sequence[str]], None] = lambda names: None  # these columns will be asked for
    raw: Callable[[str], polars.Series] | None = None  # a column of a table as it is stored
    line_of_first: int | None = None  # line of the first row, in a text file


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


def read(table: Table, columns: ColumnMap | None, source: DataSource) -> Episodes:
    """The rows of a table. Raises InputError naming file, column, row and fix."""
    values, selected = assemble(table, columns)
    if columns is not None:
        source = replace(source, recipe={"columns": selected})
    return to_episodes(values, table.where, source, table.env_id)


def read_contents(table: Table, columns: ColumnMap | None) -> Contents:
    """What `read` reads in the file's own types, and all columns infos/... . Raises InputError as `read` does."""
    values, selected = assemble(table, columns)
    values.setdefault("timeouts", flags_in(values, table.where)[1])
    groups = _groups(name for name in table.names if name.startswith("infos/") and name != LOG_PROBS)
    table.expect([name for members in groups.values() for name in members])
    for name, members in groups.items():
        if name not in values:
            parts = [table.numbers(member) for member in members]
            values[name] = parts[0] if members == [name] else _side_by_side(parts, members, table.where)
    used = [names for field, names in selected.items() if field != "time"]
    taken = {name for members in [*used, *groups.values()] for name in members}
    return Contents(values, table.env_id, notes=left_out([name for name in table.names if name not in taken]))


def select(
    names: Sequence[str], columns: ColumnMap | None, where: str, ends_known: bool = False
) -> dict[str, list[str]]:
    """Which columns each field takes, patterns resolved. `ends_known`: no column need say where episodes end. Raises
    InputError for unknown fields and columns.
    """
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
    missing = [field for field in MINIMUM if field not in selected]
    if missing:
        advice = "; terminals=none if no episode ends by itself" if missing == ["terminals"] else ""
        raise InputError(
            f"{where}: no column for {', '.join(missing)}; its columns: {_some(names)}. Say which are what: {EXAMPLE}"
            f" (columns={{...}} in Python){advice}"
        )
    if not ends_known and not {"timeouts", "episode", "next_observations"} & set(selected):
        raise InputError(
            f"{where}: nothing says where episodes end. Add episode=COLUMN (the same value in all rows of an episode),"
            " timeouts=COLUMN (1 in rows where the clock ended the episode), or next_observations=COLUMNS;"
            " timeouts=none if all rows of a file are one episode."
            " (with time=COLUMN also --max-gap 5m)"
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


def assemble(
    table: Table, columns: ColumnMap | None, ends_known: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The fields as arrays under our names, flags as bool, `episode` turned into timeouts, layout checked; and the
    columns that they came from.
    """
    selected = select(table.names, columns, table.where, ends_known)
    table.expect(sorted({name for names in selected.values() for name in names} - ({NONE} - set(table.names))))
    values: dict[str, np.ndarray] = {}
    problems: list[str] = []  # all columns are looked at, so that one message names all that is wrong

    def attempt(read: Callable[[str], np.ndarray], name: str) -> np.ndarray:
        try:
            return read(name)
        except InputError as error:
            problems.append(str(error))
            return np.zeros(0)

    for field, names in selected.items():
        if field in VECTORS:
            parts = [attempt(table.numbers, name) for name in names]
            if not problems:
                values[field] = _side_by_side(parts, names, table.where)
        elif field not in UNREAD and names != [NONE]:
            column = attempt(table.numbers, names[0])
            if field in FLAGS and column.ndim == 1:
                column = attempt(lambda name, column=column: to_flags(column, name, table.where), names[0])
            key = LOG_PROBS if field == "log_probs" else field
            values[key] = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    codes = attempt(table.codes, selected["episode"][0]) if "episode" in selected else None
    refuse(problems, table.where)
    rows = len(values["rewards"])
    values |= {field: np.zeros(rows, dtype=bool) for field in FLAGS if selected.get(field) == [NONE]}
    check_layout(values, table.where)
    if codes is not None:
        if codes.shape != (rows,):
            raise InputError(f"{table.where}: {selected['episode'][0]!r} must hold one value per step")
        last = last_rows(codes, selected["episode"][0], table.where)
        timeouts = values.get("timeouts", np.zeros(rows, dtype=bool))
        values["timeouts"] = timeouts | (last & ~values["terminals"])
    return values, selected


def last_rows(codes: np.ndarray, name: str, where: str) -> np.ndarray:
    """bool [N]: the last row of each episode. Raises InputError if an episode's rows are not all together."""
    last = np.append(codes[1:] != codes[:-1], True)
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    first_of_code = np.unique(codes[starts], return_index=True)[1]
    if len(first_of_code) != len(starts):
        again = np.setdiff1d(starts, starts[first_of_code])
        raise InputError(
            f"{where}: {name!r} comes back to a value that it had before, in {len(again):,} places (first:"
            f" {first_rows(again)}); put the rows of each episode together, in the order in which they happened"
        )
    return last


def _side_by_side(parts: Sequence[np.ndarray], names: Sequence[str], where: str) -> np.ndarray:
    """Columns as [N, size]."""
    parts = [part[:, None] if part.ndim == 1 else part.reshape(len(part), -1) for part in parts]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{name} {len(part):,}" for name, part in zip(names, parts, strict=True))
        raise InputError(f"{where}: the columns have unequal lengths ({lengths})")
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def array_table(names: list[str], load: Callable[[str], np.ndarray], where: str) -> Table:
    """Arrays by their names; `load` reads one."""

    def numbers(name: str) -> np.ndarray:
        values = load(name)
        if values.dtype.kind not in NUMERIC or not values.ndim:
            raise InputError(
                f"{where}: {name!r} has type {values.dtype} and shape {list(values.shape)}; it must hold one row of"
                " numbers per step"
            )
        return values

    def codes(name: str) -> np.ndarray:
        values = load(name)
        if values.ndim != 1 or values.dtype.kind not in NUMERIC + "US":
            raise InputError(f"{where}: {name!r} must hold one number or text per step")
        return np.unique(values, return_inverse=True)[1]

    return Table(names, numbers, codes, where)


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:20])
    return f"{listed}, ... ({len(names)} in all)" if len(names) > 20 else listed or "none"
