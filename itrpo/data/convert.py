"""`itrpo datasets convert SOURCE TARGET`: a dataset in another format, every value as it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data import formats, minari_ids
from itrpo.data.actions import choices_in, said_quantities
from itrpo.data.attributes import beside, parse
from itrpo.data.column_map import ColumnMap, without
from itrpo.data.fit import refuse_dataset
from itrpo.data.formats import minari
from itrpo.data.load import read_contents
from itrpo.data.series import rules_of
from itrpo.data.sources import Source
from itrpo.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


class Converted(NamedTuple):
    """What a conversion did."""

    path: Path
    rows: int
    episodes: int  # with an unfinished last one
    notes: tuple[str, ...]  # what the target can't hold, or means differently


def convert(
    source: Source,
    target: str | os.PathLike[str],
    *,
    columns: ColumnMap | None = None,
    exclude: str | Sequence[str] = (),
    env: str | None = None,
    max_gap: str | float | None = None,
    fill: str | None = None,
    period: str | float | None = None,
    period_rewards: str | None = None,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    num_actions: int | None = None,
    console: Console | None = None,
) -> Converted:
    """Writes the dataset `source` in the format that the ending of `target` names.

    `source` and the rules for tables are what `load_dataset` takes, but no mapping of arrays; `target` a path ending in
    .hdf5, .h5, .npz, .parquet or .csv, or `minari:ID`, or a path without an ending, which becomes a Minari folder of
    that name. `columns` maps the columns of the source (see `itrpo.data.column_map`), `exclude` leaves some out.
    `env`, `action_low`, `action_high`, `num_actions`: the gymnasium id, the bounds of actions and how many choices they
    are, from `action_low` [0] on, to write down [the source's].

    No value is changed. HDF5, NPZ and Minari keep every type, Parquet all but float16 (float32 there), flags (bool) and
    choices [N] ([N, 1]); CSV keeps values that fit float32, and has bounds, names, units and the environment in a file
    beside it (`itrpo.data.attributes.beside`). What the target has no place for is named in the notes. Raises
    InputError if the source can't be read or the target exists, StorageError if the target can't be written.
    """
    path = target_path(target)
    quantities = said_quantities(False, num_actions, action_low, action_high)
    rules = rules_of(max_gap, fill, period, period_rewards, quantities)
    found = read_contents(source, without(columns, exclude), console, rules)
    if env is not None:
        refuse_dataset(env)
        found = replace(found, env_id=None if env.lower() == "none" else env)
    given = {"action_low": action_low, "action_high": action_high, "num_actions": num_actions}
    given = {name: it for name, it in given.items() if it is not None}
    said = found.attributes._asdict()
    if num_actions is not None:  # bounds of quantities say nothing of choices, and the last follows from their number
        said |= {"action_high": None} if found.attributes.num_actions else {"action_low": None, "action_high": None}
    found = replace(found, attributes=parse(said | given, found.columns, "the bounds given")) if given else found
    if num_actions is not None:
        actions = found.columns["actions"]
        choices_in(actions.reshape(len(actions), -1), found.attributes, None, where=os.fspath(path))
    chosen = formats.FORMATS.get(path.suffix.lower())
    notes = minari.write(found, path, console) if chosen is None else chosen.write(found, path)
    ends = np.asarray(found.columns["terminals"], bool) | np.asarray(found.columns["timeouts"], bool)
    return Converted(path, len(ends), int(ends.sum()) + (not ends[-1]), (*found.notes, *notes))


def target_path(target: str | os.PathLike[str]) -> Path:
    """Where `convert` writes. Raises InputError if something is there already, or the ending is unknown."""
    name = os.fspath(target)
    if name.startswith(minari_ids.PREFIX):
        path = minari_ids.dataset_folder(name.removeprefix(minari_ids.PREFIX))
    else:
        path = Path(name).expanduser()
        if path.suffix and path.suffix.lower() not in formats.FORMATS:
            raise InputError(
                f"{path}: unknown file ending; a dataset is written as {', '.join(formats.FORMATS)},"
                f" {minari_ids.PREFIX}ID, or a Minari folder named like NAME-v0"
            )
    if path.exists():
        raise InputError(f"{path}: exists already; delete it or choose another name")
    if path.suffix.lower() == ".csv" and beside(path).exists():
        raise InputError(
            f"{beside(path)}: exists already, and is read with {path.name}, which is not there; delete it (a "
            "conversion that was killed leaves it) or choose another name"
        )
    return path
