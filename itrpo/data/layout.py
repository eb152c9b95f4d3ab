"""What the columns of a dataset are called and how they are laid out, whatever format they come in.

`Episodes` is what training needs: float32, known columns. `Contents` is everything that a dataset's file holds, in the
file's own types: what `convert` carries from one format to another. Names are those of D4RL's HDF5 layout:
observations, actions, rewards, terminals, timeouts, next_observations, infos/action_log_probs, infos/qpos, ...

The checks look at shapes and types only, so that a reader can run them on an opened file before it reads a single row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from itrpo.data.episodes import follows
from itrpo.data.memory import to_float32
from itrpo.data.wording import column_word, listed
from itrpo.errors import InputError
from itrpo.registry import nearest
from itrpo.types import NO_ATTRIBUTES, Attributes, DataSource, Episodes

LOG_PROBS = "infos/action_log_probs"
SUBTRACT = "subtract a constant before logging, such as the column's first value, or log differences"
FLAGS = ("terminals", "timeouts")
MINIMUM = ("observations", "actions", "rewards", "terminals")  # where episodes are cut can be told in several ways
REQUIRED = (*MINIMUM, "timeouts")
NUMERIC = "biuf"  # kinds of NumPy's types
NDIM = {
    "observations": 2,
    "actions": 2,
    "rewards": 1,
    "terminals": 1,
    "timeouts": 1,
    "next_observations": 2,
    LOG_PROBS: 1,
}
SAMPLE = 1_000  # rows, at least, in which it is looked at what float32 keeps
KEPT = 0.9  # of the different values of a column, at least
NOISE = 1e-12  # a range of so little of the largest value is float64's rounding
STEPS = 1e6  # values closer than the range divided by this are one
SHAPES = {1: "[N]", 2: "[N, size]"}


@dataclass(frozen=True)
class Contents:
    """The rows of a file, N of them, and the rest of it."""

    columns: Mapping[str, np.ndarray]  # name -> [N, ...], in the file's order and types; holds REQUIRED
    env_id: str | None
    attributes: Attributes = NO_ATTRIBUTES
    extras: bytes | None = None  # an HDF5 file in memory: root attributes and arrays that aren't one row per step
    notes: tuple[str, ...] = ()  # what reading had to leave out or decide, for a person


class Column(Protocol):
    """What a NumPy array and an unread column of a file have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


def require_keys(
    present: Collection[str], required: Collection[str], where: str, advice: str = "", has: str = "it has"
) -> None:
    """Raises InputError naming the missing keys, the nearest one that is there and no other key, and all that are."""
    missing = [key for key in required if key not in present]
    if missing:
        others = set(present) - {*required, *NDIM}
        named = ", ".join(f"{key!r}{nearest(key, others)}" for key in missing)
        there = ", ".join(sorted(present)) or "nothing"
        raise InputError(f"{where}: no key {named}; {has}: {there}{advice and f'. {advice}'}")


def check_layout(columns: Mapping[str, Column], where: str, least: int = 2) -> None:
    """Raises InputError unless every column is numeric, has the right number of axes and the same number of rows, at
    least `least`, and the transitions fit into this machine's memory. A column of single numbers may be [N, 1] instead
    of [N].
    """
    for key, column in columns.items():
        if column.dtype.kind not in NUMERIC:
            raise InputError(f"{where}: {key!r} has type {column.dtype}; it must hold plain numbers")
        if key == "actions" and len(column.shape) == 1 and column.dtype.kind in "iu":
            continue  # choices
        if len(column.shape) != NDIM[key] and not (NDIM[key] == 1 and column.shape[1:] == (1,)):
            shape = SHAPES[NDIM[key]]
            advice = "; [:, None] makes it so" if len(column.shape) < NDIM[key] == 2 else ""
            if len(column.shape) > 2 == NDIM[key]:
                advice = "; images and other arrays of several axes can't be learned from: leave them out (--exclude),"
                advice += " or flatten them, .reshape(len(it), -1)"
            raise InputError(
                f"{where}: {key!r} has shape {list(column.shape)}; it must be {shape}, one row per step{advice}"
            )
        if 0 in column.shape[1:]:
            raise InputError(f"{where}: {key!r} has shape {list(column.shape)}, so its rows are empty")
    lengths = {key: column.shape[0] for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length:,}" for key, length in lengths.items())
        advice = "they must have one row per step each"
        if lengths["observations"] > lengths["actions"]:
            advice += "; with a column map (--columns) observations may have one more per episode, its last"
        raise InputError(f"{where}: the columns have unequal lengths ({listed}); {advice}")
    check_rows(lengths["observations"], where, least)
    if "next_observations" in columns and columns["next_observations"].shape != columns["observations"].shape:
        shapes = [list(columns[key].shape) for key in ("observations", "next_observations")]
        raise InputError(f"{where}: 'observations' has shape {shapes[0]} but 'next_observations' {shapes[1]}")
    _check_memory(columns, where)


def check_rows(rows: int, where: str, least: int = 2) -> None:
    """Raises InputError where there are too few; an episode in a list may be one row, its last and first."""
    if rows < least:
        raise InputError(
            f"{where}: {rows} rows; {'an episode' if least < 2 else 'a transition'} needs at least {least}"
        )


def _check_memory(columns: Mapping[str, Column], where: str) -> None:
    rows, *_ = columns["observations"].shape
    observation, action = (math.prod(columns[key].shape[1:]) for key in ("observations", "actions"))
    check_memory(rows, observation, action, where, "split the file")


def check_memory(rows: int, observation_size: int, action_size: int, where: str, advice: str) -> None:
    """Raises InputError unless so many transitions fit into this machine's memory."""
    needed = 8 * rows * (observation_size + action_size)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed:
        raise InputError(
            f"{where}: {rows:,} rows become {needed / 1e9:,.1f} GB of transitions, and this machine has"
            f" {installed / 1e9:,.1f} GB of memory; {advice}, or use a larger machine"
        )


def to_flags(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """Zeros and ones of any type, [N] or [N, 1] -> bool [N]. Raises InputError on any other value."""
    values = values.reshape(-1)
    if values.dtype == bool:
        values = values.view(np.uint8)  # a file can hold "booleans" other than 0 and 1
    flags = values.astype(bool)
    wrong = np.flatnonzero(values != flags)
    if wrong.size:
        raise InputError(
            f"{where}: {key!r} must be 0 or 1, but {wrong.size:,} of {len(values):,} rows are not"
            f" (first: row {wrong[0]} = {values[wrong[0]]})"
        )
    return flags


def to_episodes(
    columns: Mapping[str, np.ndarray],
    where: str,
    source: DataSource,
    env_id: str | None,
    attributes: Attributes = NO_ATTRIBUTES,
    samples: Mapping[str, np.ndarray] = {},
) -> Episodes:
    """Columns, their layout checked already, as `Episodes`; `samples` of those that are float32 already, in the types
    of the file. Raises InputError for flags other than 0 and 1.
    """
    lost: dict[str, str] = {}
    for key in ("observations", "actions", "rewards"):
        for index, (kept, there) in rounded(samples[key] if key in samples else sample(columns[key])).items():
            lost[key if key == "rewards" else f"{key[:-1]} {index}"] = f"{kept:,} of {there:,} values"
    if lost or "float32" in source.recipe:  # a file's own recipe may hold anything
        source = replace(source, recipe={**source.recipe, "float32": lost})
    following, log_probs = columns.get("next_observations"), columns.get(LOG_PROBS)
    terminals, timeouts = flags_in(columns, where)
    return Episodes(
        observations=to_float32(columns["observations"]),
        actions=to_float32(columns["actions"]).reshape(len(columns["actions"]), -1),
        rewards=to_float32(columns["rewards"]).reshape(-1),
        terminals=terminals,
        timeouts=timeouts,
        next_observations=None if following is None else to_float32(following),
        behavior_log_probs=None if log_probs is None else to_float32(log_probs).reshape(-1),
        env_id=env_id,
        source=source,
        attributes=attributes,
    )


def sample(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // SAMPLE)]


def rounded(values: np.ndarray) -> dict[int, tuple[int, int]]:
    """Of a sample [n, ...] in its own type: columns of which float32 keeps few of the different values, how many of how
    many. A counter around 1e8 moves in steps of 8 there.
    """
    if not values.size or np.can_cast(values.dtype, np.float32):
        return {}
    wide = values.reshape(len(values), -1).astype(np.float64)
    wide[~(np.abs(wide) <= np.finfo(np.float32).max)] = np.nan  # as float32 neither NaN nor infinite
    low, span = np.fmin.reduce(wide), np.fmax.reduce(wide) - np.fmin.reduce(wide)
    largest = np.fmax.reduce(np.abs(wide))
    coarse = STEPS * np.spacing(largest.astype(np.float32))  # a wider range has no step that float32 can't do
    found: dict[int, tuple[int, int]] = {}
    for index in np.flatnonzero((span > NOISE * largest) & (span < coarse)).tolist():
        column = wide[~np.isnan(wide[:, index]), index]
        there = len(np.unique(np.rint((column - low[index]) / span[index] * STEPS)))
        kept = len(np.unique(column.astype(np.float32)))
        if kept < KEPT * there:
            found[index] = (kept, there)
    return found


def rounded_away(episodes: Episodes) -> str:
    """What float32 lost of the columns, in words, else ''."""
    named: list[str] = []
    for label, stay in episodes.source.recipe.get("float32", {}).items():
        kind, _, index = label.partition(" ")
        names = getattr(episodes.attributes, f"{kind}_names", None)
        named.append(f"{column_word(kind, int(index), names) if index else label}: {stay} stay")
    if not named:
        return ""
    return f"numbers are read as float32, which rounds differences away (in a sample of rows): {listed(named)}"


def flags_in(columns: Mapping[str, np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray]:
    """bool [N]: terminals and timeouts. Where there are no timeouts, an episode is cut wherever the next row does not
    start where `next_observations` led to; the last row is an episode still open.
    """
    terminals = to_flags(columns["terminals"], "terminals", where)
    if "timeouts" in columns:
        return terminals, to_flags(columns["timeouts"], "timeouts", where)
    timeouts = ~terminals & ~follows(*(to_float32(columns[key]) for key in ("observations", "next_observations")))
    timeouts[-1] = False
    return terminals, timeouts


def check_columns(columns: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The columns, with [N] where single numbers came as [N, 1]. Raises InputError unless the required ones are there
    and all known ones are laid out as they must be.
    """
    require_keys(columns, REQUIRED, where)
    check_layout({key: values for key, values in columns.items() if key in NDIM}, where)
    return {key: values.reshape(-1) if NDIM.get(key) == 1 else values for key, values in columns.items()}


def left_out(names: Sequence[str]) -> tuple[str, ...]:
    """A note that says so, or nothing."""
    return (f"left out: {listed(names)}",) if names else ()
