"""Rows, names and several problems in messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itrpo.errors import InputError

MOST = 20  # problems in one message


def first_rows(rows: np.ndarray) -> str:
    """'row 3', or 'rows 3, 8, 12, 13, 40, ...': the first few of the sorted `rows`."""
    listed = ", ".join(f"{row}" for row in rows[:5])
    return f"row {listed}" if len(rows) == 1 else f"rows {listed}{', ...' if len(rows) > 5 else ''}"


def listed(names: Sequence[str]) -> str:
    """'a, b, c', or the first six and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def column_word(kind: str, index: int, names: Sequence[str] | None) -> str:
    """'observation 3', or 'observation 3 (speed)' where all of its kind have names."""
    return f"{kind} {index}" + (f" ({names[index]})" if names else "")


def refuse(problems: Sequence[str], where: str) -> None:
    """Raises InputError with all of them, if there are any; each begins with `where`."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "".join(f"\n  {it.removeprefix(f'{where}: ')}" for it in problems[:MOST])
        more = f"\n  and {len(problems) - MOST} more" if len(problems) > MOST else ""
        raise InputError(f"{where}: {len(problems)} columns can't be used as they are:{lines}{more}")
