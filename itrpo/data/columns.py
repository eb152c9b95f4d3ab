"""Checks on the columns of a file that are the same for every format. They look at shapes and types only, so that a
reader can run them on an opened file before it reads a single row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from itrpo.errors import InputError
from itrpo.registry import nearest

NDIM = {
    "observations": 2,
    "actions": 2,
    "rewards": 1,
    "terminals": 1,
    "timeouts": 1,
    "next_observations": 2,
    "infos/action_log_probs": 1,
}
SHAPES = {1: "[N]", 2: "[N, size]"}
MAX_COMPRESSION = 1100  # gzip and zip can't shrink anything by more than 1032 : 1


class Column(Protocol):
    """What a NumPy array and an unread column of a file have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


def require_keys(present: Collection[str], required: Collection[str], where: str) -> None:
    """Raises InputError naming the missing keys, the nearest present one, and all that are there."""
    missing = [key for key in required if key not in present]
    if missing:
        named = ", ".join(f"{key!r}{nearest(key, present)}" for key in missing)
        raise InputError(f"{where}: no key {named}; it has: {', '.join(sorted(present)) or 'nothing'}")


def check_layout(columns: Mapping[str, Column], where: str) -> None:
    """Raises InputError unless every column is numeric, has the right number of axes and the same number of rows."""
    for key, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise InputError(f"{where}: {key!r} has type {column.dtype}; it must hold plain numbers")
        if len(column.shape) != NDIM[key]:
            shape = SHAPES[NDIM[key]]
            raise InputError(f"{where}: {key!r} has shape {list(column.shape)}; it must be {shape}, one row per step")
        if 0 in column.shape[1:]:
            raise InputError(f"{where}: {key!r} has shape {list(column.shape)}, so its rows are empty")
    lengths = {key: column.shape[0] for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length:,}" for key, length in lengths.items())
        raise InputError(f"{where}: the columns have unequal lengths ({listed}); they must have one row per step each")
    if lengths["observations"] < 2:
        raise InputError(f"{where}: {lengths['observations']} rows; a transition needs at least 2")
    if "next_observations" in columns and columns["next_observations"].shape != columns["observations"].shape:
        shapes = [list(columns[key].shape) for key in ("observations", "next_observations")]
        raise InputError(f"{where}: 'observations' has shape {shapes[0]} but 'next_observations' {shapes[1]}")


def check_stored_size(key: str, column: Column, stored: int, where: str) -> None:
    """Raises InputError if a column declares more bytes than its `stored` bytes could expand to: a damaged or hostile
    header must not make us allocate memory for data that isn't there."""
    declared = math.prod(column.shape) * column.dtype.itemsize
    if declared > MAX_COMPRESSION * stored:
        raise InputError(
            f"{where}: {key!r} declares {declared:,} bytes (shape {list(column.shape)}), but only {stored:,} bytes are"
            " stored for it; the file is damaged or was never filled"
        )


def to_flags(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """Zeros and ones of any type -> bool [N]. Raises InputError on any other value."""
    flags = values.astype(bool)
    wrong = np.flatnonzero(values != flags)
    if wrong.size:
        raise InputError(
            f"{where}: {key!r} must be 0 or 1, but {wrong.size:,} of {len(values):,} rows are not"
            f" (first: row {wrong[0]} = {values[wrong[0]]})"
        )
    return flags


def to_float32(values: np.ndarray) -> np.ndarray:
    """float32 without a copy where possible; values too large become infinite, which `load` then reports."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)
