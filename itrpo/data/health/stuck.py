"""Columns that stand still for a while: frozen sensors and stuck actuators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.health.rows import Finding, Rows, finding
from itrpo.data.wording import listed

RUN = 20  # rows with one value, at the least
USUAL = 0.1  # share of steps without a change, apart from such runs, up to which a column is one that changes


def stuck(rows: Rows) -> Iterator[Finding]:
    """Runs of one value in columns that otherwise change from row to row.

    Not a run: rows that repeat as a whole (another finding), and a value on the edge of its range that others come
    near to: saturation.
    """
    episodes = rows.episodes
    both = (episodes.observations, episodes.actions)
    moved = np.zeros(len(rows.ends) - 1, bool)
    for values in both:
        for column in values.T:
            moved |= column[1:] != column[:-1]
    inside = moved & ~rows.ends[:-1]
    for key, values, name, word in (
        ("observations", both[0], "frozen-sensor", "sensors"),
        ("actions", both[1], "stuck-actuator", "actuators"),
    ):
        texts: list[str] = []
        found: list[int] = []
        for index, column in enumerate(values.T):
            still = (column[1:] == column[:-1]) & inside
            edges = np.flatnonzero(np.diff(still, prepend=False, append=False))
            starts, lengths = edges[::2], edges[1::2] - edges[::2] + 1
            long = lengths >= RUN
            if not long.any() or still.sum() - (lengths[long] - 1).sum() > USUAL * len(still):
                continue
            if lengths[long].sum() > 0.5 * len(column):
                continue  # it stands still by nature
            kept = [at for at in np.flatnonzero(long) if not _saturated(column, column[starts[at]], key == "actions")]
            if kept:
                longest = max(kept, key=lambda at: lengths[at])
                more = f", {len(kept):,} times" if len(kept) > 1 else ""
                value, rows_long = column[starts[longest]], lengths[longest]
                texts.append(f"{rows.name(key, index)} = {value:.6g} for {rows_long:,} rows{more}")
                found += [int(starts[at]) for at in kept]
        if texts:
            what = f"{word} that stand still, though they change from row to row otherwise: {listed(texts)}"
            advice = (
                "a policy would learn from what was not so: leave those rows out"
                if key == "observations"
                else "what was commanded was not done, it seems: leave those rows out"
            )
            yield finding("warning", name, what, advice, sorted(set(found)))


def _saturated(column: np.ndarray, value: np.float32, action: bool) -> bool:
    if value not in (column.min(), column.max()):
        return False
    others = column[column != value]
    return action or bool(np.abs(others - value).min() <= 0.5 * others.std())
