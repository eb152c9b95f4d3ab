"""Rows and episodes that are there twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.health.rows import Finding, Rows, finding
from itrpo.types import Episodes

REPEATED = 0.01  # share of rows that repeat the one before: warning; another: states are few, or parts were copied


def repetitions(rows: Rows) -> Iterator[Finding]:
    episodes = rows.episodes
    codes = _row_codes(episodes)
    starts = np.concatenate([[0], np.flatnonzero(rows.ends[:-1]) + 1])
    lengths = np.diff(np.append(starts, len(codes)))
    position = np.arange(len(codes), dtype=np.uint64) - np.repeat(starts, lengths).astype(np.uint64)
    episode_codes = np.add.reduceat(codes * (2 * position + 1), starts)
    long = np.flatnonzero(lengths > 1)
    copies = long[_later_copies(episode_codes[long])]
    copied = np.zeros(len(codes), dtype=bool)
    for episode in copies:
        copied[starts[episode] : starts[episode] + lengths[episode]] = True
    if copies.size:
        what = f"episodes that are copies of earlier ones: {copies.size:,} of {len(starts):,}, {copied.sum():,} rows"
        advice = "they weigh twice in training; leave them out unless that is meant"
        yield finding("warning", "duplicate-episodes", what, advice, starts[copies])
    repeated = _later_copies(codes)
    repeated = repeated[~copied[repeated]]
    if repeated.size:
        share = repeated.size / len(codes)
        what = f"rows that repeat an earlier one exactly (observation, action and reward): {share:.2%}"
        advice = "a logger that writes faster than it measures does this; keep one row for each decision"
        at_once = repeated[codes[repeated] == codes[repeated - 1]]
        severe = share >= REPEATED
        if repeated.size - at_once.size >= REPEATED * len(codes):  # they come back later, too
            severe = False
            advice = "a problem of few states and actions does this; in any other, parts were logged twice"
        yield finding("warning" if severe else "note", "duplicate-rows", what, advice, repeated)


def _row_codes(episodes: Episodes) -> np.ndarray:
    """uint64 [N] that are equal where observation, action and reward are: 64-bit mixing (as in SplitMix64) of all
    numbers of a row.
    """
    codes = np.zeros(len(episodes.rewards), np.uint64)
    columns = (
        column
        for values in (episodes.observations, episodes.actions, episodes.rewards[:, None])
        for column in np.ascontiguousarray(values, np.float32).view(np.uint32).T
    )
    for column in columns:
        codes += column
        codes += np.uint64(0x9E3779B97F4A7C15)
        codes ^= codes >> np.uint64(30)
        codes *= np.uint64(0xBF58476D1CE4E5B9)
        codes ^= codes >> np.uint64(27)
    return codes


def _later_copies(codes: np.ndarray) -> np.ndarray:
    """Sorted indices of entries that equal an earlier one."""
    order = np.argsort(codes, kind="stable")
    return np.sort(order[1:][codes[order[1:]] == codes[order[:-1]]])
