"""Rows and names in messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def first_rows(rows: np.ndarray) -> str:
    """'row 3', or 'rows 3, 8, 12, 13, 40, ...': the first few of the sorted `rows`."""
    listed = ", ".join(f"{row}" for row in rows[:5])
    return f"row {listed}" if len(rows) == 1 else f"rows {listed}{', ...' if len(rows) > 5 else ''}"


def listed(names: Sequence[str]) -> str:
    """'a, b, c', or the first six and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
