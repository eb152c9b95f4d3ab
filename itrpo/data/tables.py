"""Tables put together and in order of time: one or several CSV and Parquet files, or frames, as one dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.data import series
from itrpo.data.column_map import (
    LABELS,
    NONE,
    UNREAD,
    ColumnMap,
    Table,
    assemble,
    attributes_of,
    last_rows,
    read_from,
    select,
)
from itrpo.data.formats import table as tables
from itrpo.data.layout import FLAGS
from itrpo.data.series import EPISODE, OWN_EPISODE, TIME, Rules
from itrpo.data.wording import refuse
from itrpo.errors import InputError
from itrpo.types import Attributes

if TYPE_CHECKING:
    import polars

Opened = AbstractContextManager[Table]


class Arranged(NamedTuple):
    values: dict[str, np.ndarray]  # by our names, as `column_map.assemble` gives them
    selected: dict[str, list[str]]  # field -> the columns that it took
    notes: tuple[str, ...]  # what was made up or left out
    env_id: str | None
    attributes: Attributes
    names: list[str]  # all columns of the first table


def read(parts: Sequence[Callable[[], Opened]], columns: ColumnMap | None, rules: Rules, where: str) -> Arranged:
    """The rows of all parts, in their order. Raises InputError naming file, column, row and fix."""
    frames: list[polars.DataFrame] = []
    selected: dict[str, list[str]] = {}
    split: dict[str, list[str]] = {}
    env_id, about, names, first = None, dict[str, Any](), list[str](), where
    problems: list[str] = []  # of all files, so that one message names all that is wrong
    for part in parts:
        with part() as table:
            if (steps := tables.of_steps(table, columns)).lengths is not None:
                if len(parts) > 1 or rules.given():
                    raise InputError(
                        f"{table.where}: a row is an episode here; several such tables, and --max-gap, --fill and"
                        " --period, need a row for each step: `itrpo datasets convert` makes them"
                    )
                values, selected, named = assemble(steps, columns)
                said = attributes_of(steps, values, named)
                return Arranged(values, selected, (), table.env_id, said, table.names)
            found = select(table.names, columns, table.where, ends_known=rules.max_gap is not None)
            if not frames:
                selected, env_id, about = found, table.env_id, dict(table.about)
                names, first = table.names, table.where
            elif {field: sorted(it) for field, it in found.items()} != {f: sorted(it) for f, it in selected.items()}:
                field = next(it for it in (*selected, *found) if selected.get(it) != found.get(it))
                theirs, ours = (", ".join(it.get(field, ["none"])) for it in (selected, found))
                raise InputError(f"{table.where}: its columns for {field!r} are {ours}; those of {first}: {theirs}")
            if table.env_id != env_id:
                raise InputError(f"{table.where}: its env_id is {table.env_id}; that of {first}: {env_id}")
            if dict(table.about) != about:
                raise InputError(f"{table.where}: its attributes are {dict(table.about)}; those of {first}: {about}")
            frame, own = _frame(table, selected, rules, problems)
            if frames and not problems and own != split:
                field = next(it for it in split if split[it] != own[it])
                sizes = f"{len(own[field])} numbers a row; those of {first}: {len(split[field])}"
                raise InputError(f"{table.where}: its columns for {field!r} hold {sizes}")
            split = own
            frames.append(frame)
    refuse(problems, where)
    if rules.quantities is None and ("num_actions" in about or {"action_low", "action_high"} & {*about, *split}):
        rules = rules._replace(quantities="num_actions" not in about)  # the user said nothing, and the files did
    data, notes = series.arranged(frames, split, rules, where)
    arranged = tables.series_table(data.columns, data.__getitem__, where)
    fields = {field: it for field, it in split.items() if field != "time"} | {"episode": [EPISODE]}
    values, _, named = assemble(arranged, fields)
    said = attributes_of(arranged._replace(about=about), values, named if columns is not None else {})
    return Arranged(values, selected, tuple(notes), env_id, said, names)


def _frame(
    table: Table, selected: dict[str, list[str]], rules: Rules, problems: list[str]
) -> tuple[polars.DataFrame, dict[str, list[str]]]:
    """The selected columns, each of single numbers, and their names: 'x[0]', 'x[1]' for a column 'x' of lists."""
    import polars

    assert table.raw is not None
    table.expect(read_from(selected, table.names))
    made: dict[str, polars.Series] = {}
    split: dict[str, list[str]] = {}
    place = (table.where, table.line_of_first)
    for field, names in selected.items():
        split[field] = list(names) if field in LABELS else []
        for name in names if field not in LABELS else ():
            try:
                if name == NONE and name not in table.names:
                    found = []
                elif field == "time":
                    found = [tables.moments(table.raw(name), *place).alias(TIME)]
                elif field == "episode":
                    codes = table.raw(name)
                    last_rows(tables.codes(codes, table.where), name, table.where)
                    found = [codes.cast(polars.String).alias(OWN_EPISODE)]
                else:
                    found = _numbers(table, name, rules.fill is not None and field not in FLAGS)
            except InputError as error:
                problems.append(str(error))
                continue
            made |= {it.name: it for it in found}
            split[field] += [name] if field in UNREAD or not found else [it.name for it in found]
    return polars.DataFrame([] if problems else list(made.values())), split


def _numbers(table: Table, name: str, may_miss: bool) -> list[polars.Series]:
    import polars

    assert table.raw is not None
    if may_miss:
        raw = table.raw(name)
        known = tables.numbers_where_known(raw, table.where, table.line_of_first)
        values = tables.series_numbers(raw, table.where) if known is None else None
        if known is not None:
            return [known]
    else:
        values = table.numbers(name)
    assert values is not None
    if values.ndim == 1:
        return [polars.Series(name, values)]
    wide = values.reshape(len(values), -1).T
    parts = [polars.Series(f"{name}[{index}]", np.ascontiguousarray(it)) for index, it in enumerate(wide)]
    return [it.fill_nan(None) if may_miss and it.dtype.is_float() else it for it in parts]
