"""Column maps: which columns of a log, under names of its user's own, are what. For files of every format and mappings
of arrays.

    columns = {"observations": ["temp", "pressure"], "actions": "valve", "rewards": "r",
               "terminals": "tripped", "episode": "run_id"}

On the command line: `--columns observations=temp,pressure actions=valve rewards=r terminals=tripped episode=run_id`, or
the name of a TOML file that holds the same. Fields:

- observations, actions, next_observations: one or several columns side by side, in the order given; `obs_*` stands for
  all columns that match, in the file's order. A column may hold lists (Parquet) or have several axes (arrays).
- rewards; terminals, or `none` where no episode ends by itself. One flag for each episode is one for its last row.
- how rows become episodes, at least one of: `timeouts` (or `none`: one episode to the end of the file), `episode` (a
  number or text that is the same in all rows of one episode; or the rows at which episodes start or end, rising),
  `next_observations`. A file that keeps each episode by itself says it without.
- exclude, optional: columns, or patterns, that are left out of all others.
- log_probs, optional: log density of the action under the policy that acted.
- observation_units, action_units, optional: no columns, but a text for each column (`degC,bar`).
- action_low, action_high, observation_low, observation_high, optional: a number for each column, or one for all.
- time, optional, for tables: when the row was; what gaps, fills and periods go by (see `itrpo.data.series`).

Where each episode has one observation more than actions, the last is the successor of its last step.

Without a map, the columns must have these names (`observations`, or `observations_0`, `observations_1`, ...), as the
files that `itrpo datasets convert` writes. Flags may be numbers, booleans, or the texts true and false. Nothing may be
missing. Numbers in a CSV file are read as float32, correctly rounded.
"""

from __future__ import annotations

import fnmatch
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.data import attributes
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
from itrpo.types import Attributes, DataSource, Episodes

if TYPE_CHECKING:
    import polars

ColumnMap = Mapping[str, str | Sequence[str]]

VECTORS = ("observations", "actions", "next_observations")
EXCLUDE = "exclude"
UNITS = ("observation_units", "action_units")
BOUNDS = ("action_low", "action_high", "observation_low", "observation_high")
LABELS = (*UNITS, *BOUNDS)  # texts and numbers, not columns
# a.b.c...: parsing takes memory that grows with the square of their number
DEEP_KEY = re.compile(r"(?:[\w'\"-]{1,200}\s{0,9}\.\s{0,9}){100}")
UNREAD = ("episode", "time", *LABELS)  # no arrays of their own
GUESSES = {  # what others call the fields
    "observations": ("obs", "observation", "state", "states"),
    "actions": ("acts", "action", "act"),
    "rewards": ("rews", "reward", "rew", "r"),
    "terminals": ("dones", "done", "terminal", "terminated", "terminations", "is_terminal"),
    "timeouts": ("truncated", "truncations", "timeout"),
    "episode": ("episode_ends", "indices", "episode_id", "episodes"),
}
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
    *LABELS,
    EXCLUDE,
)
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
    about: Mapping[str, Any] = {}  # attributes, as the file has them
    about_in: str = ""  # the file that has them, if it is another
    # name -> [E] rows of each episode, where the file keeps them apart; each may have one more than steps
    lengths: Callable[[str], np.ndarray] | None = None
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
    values, selected, names = assemble(table, columns)
    if columns is not None:
        source = replace(source, recipe={"columns": selected})
    return to_episodes(values, table.where, source, table.env_id, attributes_of(table, values, names))


def read_contents(table: Table, columns: ColumnMap | None) -> Contents:
    """What `read` reads in the file's own types, and all columns infos/... . Raises InputError as `read` does."""
    values, selected, names = assemble(table, columns)
    values.setdefault("timeouts", flags_in(values, table.where)[1])
    groups = _groups(name for name in table.names if name.startswith("infos/") and name != LOG_PROBS)
    table.expect([name for members in groups.values() for name in members])
    for name, members in groups.items():
        if name not in values:
            parts = [table.numbers(member) for member in members]
            values[name] = parts[0] if members == [name] else _side_by_side(parts, members, table.where)
    used = [names for field, names in selected.items() if field != "time"]
    taken = {name for members in [*used, *groups.values()] for name in members}
    left = [name for name in table.names if name not in taken]
    return Contents(values, table.env_id, attributes_of(table, values, names), notes=left_out(left))


def attributes_of(table: Table, values: Mapping[str, np.ndarray], names: Mapping[str, Any]) -> Attributes:
    """What the table says of its columns, and `names`, what the map calls them."""
    return attributes.parse({**table.about, **names}, values, table.about_in or table.where)


def select(
    names: Sequence[str], columns: ColumnMap | None, where: str, ends_known: bool = False
) -> dict[str, list[str]]:
    """Which columns each field takes, patterns resolved. `ends_known`: no column need say where episodes end. Raises
    InputError for unknown fields and columns.
    """
    wanted = {_field(field, where): names_in(words) for field, words in (columns or {}).items()}
    excluded = excluded_names(names, wanted.pop(EXCLUDE, []), where)
    names = [name for name in names if name not in excluded]
    labels = {field: wanted.pop(field) for field in LABELS if field in wanted}
    selected = {} if wanted else _by_name(names)
    for field, patterns in wanted.items():
        selected[field] = [name for pattern in patterns for name in _matching(pattern, names, field, where)]
    selected |= labels
    for field, chosen in selected.items():
        if not chosen:
            raise InputError(f"{where}: no column is given for {field!r}")
        if field in LABELS:
            continue
        if field not in VECTORS and len(chosen) > 1:
            raise InputError(f"{where}: {field!r} takes one column, not {len(chosen)} ({', '.join(chosen)})")
        repeated = [name for name in chosen if chosen.count(name) > 1]
        if repeated:
            raise InputError(f"{where}: {field!r} takes the column {repeated[0]!r} twice")
    missing = [field for field in MINIMUM if field not in selected]
    if missing:
        advice = "; terminals=none if no episode ends by itself" if missing == ["terminals"] else ""
        raise InputError(
            f"{where}: no column for {', '.join(missing)}; its columns: {_some(names)}."
            f" {map_advice(names, ends_known)}{advice}"
        )
    if not ends_known and not {"timeouts", "episode", "next_observations"} & set(selected):
        raise InputError(
            f"{where}: nothing says where episodes end. Add episode=COLUMN (the same value in all rows of an episode),"
            " timeouts=COLUMN (1 in rows where the clock ended the episode), or next_observations=COLUMNS;"
            " timeouts=none if all rows of a file are one episode; with time=COLUMN also --max-gap 5m"
        )
    _check_order(selected, where)
    return selected


def names_in(given: Any) -> list[str]:
    """'a,b', ['a', 'b'], and numbers too, of bounds or as a frame's names, each written in one way."""
    listed = given.split(",") if isinstance(given, str) else [given] if np.ndim(given) == 0 else list(given)
    return [str(it) if isinstance(it, str | int | np.integer) else f"{it:.9g}" for it in listed]


def excluded_names(names: Sequence[str], patterns: Sequence[str], where: str) -> set[str]:
    """The columns that a map leaves out: by their names, or the last parts of them."""
    return {name for pattern in patterns for name in _matching(pattern, names, EXCLUDE, where)}


def without(columns: ColumnMap | None, names: str | Sequence[str]) -> ColumnMap | None:
    """The map, with these columns, or patterns, left out too."""
    if not names:
        return columns
    both = [names_in(it) for it in ((columns or {}).get(EXCLUDE, []), names)]
    return {**(columns or {}), EXCLUDE: both[0] + both[1]}


def map_advice(names: Collection[str], ends_known: bool = False) -> str:
    """The map that a file with these columns seems to need, in words."""
    guessed: list[str] = []
    for field, likely in GUESSES.items():
        groups = {name.partition("/")[0] for name in names if "/" in name}
        there = next((it for it in (field, *likely) if it in groups or it in names), None)
        if there is not None:
            guessed.append(f"{field}={there}{'' if there in names else '/*'}")
        elif field in MINIMUM or (field == "episode" and not ends_known):
            guessed.append(f"{field}={NONE if field == 'terminals' else 'COLUMN'}")
    example = EXAMPLE if sum("COLUMN" in it for it in guessed) > 2 else f"--columns {shlex.join(guessed)}"
    return f"Say which are what: {example} (columns={{...}} in Python)"


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
    if field == EXCLUDE:
        found += [name for name in names if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)]
    if not found:
        text = "; it is not UTF-8 text: save it so" if any("\ufffd" in name for name in names) else ""
        raise InputError(f"{where}: no column {pattern!r}{nearest(pattern, names)}; its columns: {_some(names)}{text}")
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
        text = path.read_text("utf-8")
        if DEEP_KEY.search(text):
            raise ValueError("a key has 100 parts or more")
        content = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(
            f"--columns {path}: no such file; give FIELD=COLUMN[,COLUMN...] words, or the name of a TOML file"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
    columns: dict[str, list[str]] = {}
    for field, value in content.items():
        names, own = value if isinstance(value, list) else [value], _field(field, str(path))
        if own in BOUNDS:
            names = [f"{it:.9g}" if isinstance(it, int | float) else it for it in names]
        if not all(isinstance(name, str) for name in names):
            kind = "a number or a list of numbers, like action_low = 0" if own in BOUNDS else "a name or a list of"
            kind += "" if own in BOUNDS else ' names, like observations = ["temp", "speed"]'
            raise InputError(f"{path}: {field!r} must be {kind}")
        columns[own] = names
    return columns


def assemble(
    table: Table, columns: ColumnMap | None, ends_known: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, list[str]]]:
    """The fields as arrays under our names, flags as bool, `episode` turned into timeouts, layout checked; the columns
    that they came from; and, with a map, the attributes that it gives: names of dimensions, and units.
    """
    selected = select(table.names, columns, table.where, ends_known or table.lengths is not None)
    table.expect(read_from(selected, table.names))
    values: dict[str, np.ndarray] = {}
    about = {label: selected[label] for label in LABELS if label in selected}
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
                if columns is not None and field != "next_observations":
                    about[f"{field[:-1]}_names"] = _dimensions(parts, names)
        elif field not in UNREAD and names != [NONE]:
            column = attempt(table.numbers, names[0])
            column = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
            if field in FLAGS and column.ndim == 1:
                column = attempt(lambda name, column=column: to_flags(column, name, table.where), names[0])
            values[LOG_PROBS if field == "log_probs" else field] = column
    codes = attempt(table.codes, selected["episode"][0]) if "episode" in selected and table.lengths is None else None
    refuse(problems, table.where)
    rows = len(values["rewards"])
    last = _last_rows(table, selected, rows, codes)
    for field in FLAGS:
        if selected.get(field) == [NONE]:
            values[field] = np.zeros(rows, dtype=bool)
        elif field in values and last is not None and values[field].shape == (last.sum(),) != (rows,):
            flags, values[field] = values[field], np.zeros(rows, dtype=bool)
            values[field][last] = flags
    _split_observations(values, last)
    check_layout(values, table.where, 1 if ends_known else 2)
    if last is not None:
        timeouts = values.get("timeouts", np.zeros(rows, dtype=bool))
        values["timeouts"] = timeouts | (last & ~values["terminals"])
    return values, selected, about


def _last_rows(
    table: Table, selected: Mapping[str, Sequence[str]], rows: int, codes: np.ndarray | None
) -> np.ndarray | None:
    """bool [N]: the last row of each episode, where the file or its column `episode` says so. Raises InputError if an
    episode's rows are not all together, or its columns not equally long.
    """
    if table.lengths is not None:
        return _marked(_steps(table, selected), rows)
    if codes is None:
        return None
    name = selected["episode"][0]
    if codes.shape != (rows,):
        return _marked(_lengths(table.numbers(name), rows, name, table.where), rows)
    return last_rows(codes, name, table.where)


def last_rows(codes: np.ndarray, name: str, where: str) -> np.ndarray:
    """bool [N]: the last row of each episode. Raises InputError if an episode's rows are not all together."""
    if not len(codes):
        return np.zeros(0, dtype=bool)
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


def _marked(lengths: np.ndarray, rows: int) -> np.ndarray:
    last = np.zeros(rows, dtype=bool)
    last[np.cumsum(lengths[lengths > 0]) - 1] = True
    return last


def _steps(table: Table, selected: Mapping[str, Sequence[str]]) -> np.ndarray:
    """[E]: steps of each episode in a file that keeps them apart."""
    assert table.lengths is not None
    steps = table.lengths(selected["rewards"][0])
    for field, names in selected.items():
        for name in names if field not in LABELS and list(names) != [NONE] else ():
            found = table.lengths(name)
            longer = found == steps + 1 if field == "observations" else found < 0
            if not ((found == steps).all() or longer.all()):
                at = int(np.flatnonzero((found != steps) & ~longer)[:1].sum())
                raise InputError(
                    f"{table.where}: episode {at} has {steps[at]:,} rewards but {found[at]:,} rows of {name!r};"
                    " only observations may have one more"
                )
    return steps


def _lengths(marks: np.ndarray, rows: int, name: str, where: str) -> np.ndarray:
    """[E] steps of episodes that start, or end, at rows `marks`."""
    edges = np.unique(np.concatenate([[0], marks.reshape(-1), [rows]]))
    if (np.diff(marks.reshape(-1)) <= 0).any() or edges[0] < 0 or edges[-1] > rows or (edges != np.round(edges)).any():
        raise InputError(
            f"{where}: {name!r} must hold one value per step, or the rows at which episodes start or end, rising"
        )
    return np.diff(edges).astype(np.int64)


def _split_observations(values: dict[str, np.ndarray], last: np.ndarray | None) -> None:
    """Where each episode has one observation more than steps: all but its last, and all but its first."""
    observations, rows = values["observations"], len(values["rewards"])
    if len(observations) == rows:
        return
    flags = [values[field] for field in FLAGS if field in values and values[field].shape == (rows,)]
    ends = last if last is not None else np.any([np.arange(rows) == rows - 1, *flags], axis=0)
    if len(observations) != rows + ends.sum():
        return
    final = np.flatnonzero(ends) + 1 + np.arange(ends.sum())
    values.setdefault("next_observations", np.delete(observations, [0, *(final[:-1] + 1)], axis=0))
    values["observations"] = np.delete(observations, final, axis=0)


def read_from(selected: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """The columns that will be read."""
    found = {name for field, chosen in selected.items() if field not in LABELS for name in chosen}
    return sorted(found - ({NONE} - set(names)))


def _dimensions(parts: Sequence[np.ndarray], names: Sequence[str]) -> list[str]:
    """A name for each number of a row: 'x', or 'x[0]', 'x[1]' for a column 'x' of several."""
    sizes = [math.prod(part.shape[1:]) for part in parts]
    return [
        f"{name}[{index}]" if size > 1 else name
        for name, size in zip(names, sizes, strict=True)
        for index in range(size)
    ]


def _side_by_side(parts: Sequence[np.ndarray], names: Sequence[str], where: str) -> np.ndarray:
    """Columns as [N, size]."""
    parts = [part[:, None] if part.ndim == 1 else part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
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
