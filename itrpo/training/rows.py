"""A compiled function of rows, for more of them than go into memory at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ROWS = 4_096  # at once


def in_pieces(program: Callable[..., Any], params: Any, *columns: np.ndarray) -> np.ndarray:
    """`program(params, *columns)` [N, ...], for `ROWS` rows at a time: one size, so that it compiles once."""
    count = len(columns[0])
    starts = range(0, max(count, 1), ROWS)  # of no rows, too, a program alone knows the other axes
    padding = len(starts) * ROWS - count
    padded = [np.concatenate([it, np.zeros((padding, *it.shape[1:]), it.dtype)]) for it in columns]
    pieces = [np.asarray(program(params, *(it[i : i + ROWS] for it in padded))) for i in starts]
    return np.concatenate(pieces)[:count]
