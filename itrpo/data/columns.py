"""What readers of every format share: checks on columns, and the memory that rows are read into.

The checks look at shapes and types only, so that a reader can run them on an opened file before it reads a single row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
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
BLOCK = 1 << 16  # rows worked on at once: temporary arrays stay small, however many rows there are
ALIGNMENT = 64  # bytes: JAX on a CPU takes arrays that begin at a multiple of it as they are, without a copy


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
    """Raises InputError unless every column is numeric, has the right number of axes and the same number of rows, and
    the transitions fit into this machine's memory. A column of single numbers may be [N, 1] instead of [N]."""
    for key, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise InputError(f"{where}: {key!r} has type {column.dtype}; it must hold plain numbers")
        if len(column.shape) != NDIM[key] and not (NDIM[key] == 1 and column.shape[1:] == (1,)):
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
    _check_memory(columns, where)


def _check_memory(columns: Mapping[str, Column], where: str) -> None:
    rows, *_ = columns["observations"].shape
    needed = 4 * rows * sum(2 * math.prod(columns[key].shape[1:]) for key in ("observations", "actions"))
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed:
        raise InputError(
            f"{where}: {rows:,} rows become {needed / 1e9:,.1f} GB of transitions, and this machine has"
            f" {installed / 1e9:,.1f} GB of memory; split the file, or use a larger machine"
        )


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


def to_float32(values: np.ndarray) -> np.ndarray:
    """float32 without a copy where possible; values too large become infinite, which `load` then reports."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def empty_rows(*shape: int) -> np.ndarray:
    """An uninitialised float32 array that begins at a multiple of ALIGNMENT."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def blocks(rows: int) -> Iterator[slice]:
    """Slices that cover `rows` rows, BLOCK at a time."""
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))
