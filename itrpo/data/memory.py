"""The memory that rows are read into, and how much of it is worked on at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from itrpo.errors import InputError

BLOCK = 1 << 16  # rows worked on at once: temporary arrays stay small, however many rows there are
ALIGNMENT = 64  # bytes: JAX on a CPU takes arrays that begin at a multiple of it as they are, without a copy


def empty_rows(*shape: int) -> np.ndarray:
    """An uninitialised float32 array that begins at a multiple of ALIGNMENT."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def blocks(rows: int) -> Iterator[slice]:
    """Slices that cover `rows` rows, BLOCK at a time."""
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))


def unmasked(values: Any, what: str) -> np.ndarray:
    """An array; of a masked one, NaN where a value is masked. Raises InputError, about `what`, if its type has none."""
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return np.asarray(values)
    if values.dtype.kind != "f":
        raise InputError(
            f"{what} is masked in {np.ma.count_masked(values):,} places, and {values.dtype} has no place for a missing"
            " value: leave those rows out, or give floats"
        )
    return values.filled(np.nan)


def to_float32(values: np.ndarray) -> np.ndarray:
    """float32 without a copy where possible; values too large become infinite, which `load` then reports."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)
