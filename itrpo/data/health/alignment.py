"""Rows that do not belong together: sensors read after the action of their row, successors that are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.episodes import follows
from itrpo.data.health.rows import Finding, Rows, finding

TRIPLES, COLUMNS = 50_000, 200  # rows that are looked at, and columns up to which it pays
NOISE = 1e-4  # of the variance of every column, added to it: what is determined exactly stays finite
KNOWN, RATIO = 0.05, 5.0  # nats
DETERMINED = 2.3  # nats for each action: 99% of its variance
LATEST = 5  # rows by which sensors may be late


def misaligned(rows: Rows) -> Iterator[Finding]:
    """Does an action work before or after the observation of its row?

    In a sound log (o_t, a_t) moves o_{t+1}. Where sensors are read after the action, a_t has moved o_t already, and was
    chosen at o_{t-1}. Then, in a Markov process, a_t says nothing about o_{t+1} once o_t and a_{t+1} are known, and
    much about o_{t-1}. Information is that of normal variables with the covariance of the log. Controllers without
    noise make both logs alike: nothing is said then unless the observations are determined as well, or a_t by o_{t-1}.
    1.9 and 0.1 nats in Hopper with its sensors shifted so; 0.1 and 1.9 without.
    """
    episodes = rows.episodes
    joined = ~rows.ends[:-1] & rows.sound[:-1] & rows.sound[1:]  # row i and row i + 1
    if episodes.next_observations is not None:
        joined &= follows(episodes.observations, episodes.next_observations)[:-1]
    apart = np.concatenate([[0], np.cumsum(~joined)])  # equal in rows of one stretch
    found: list[tuple[float, Finding] | None] = []
    for late in range(1, LATEST + 1):  # a_t moves the observation that stands `late` rows before that of a sound log
        middle = np.arange(late, len(joined))  # all from `late` rows before to one after must be of one stretch
        middle = middle[apart[middle - late] == apart[middle + 1]]
        found.append(_moved_before(rows, middle[:: max(1, -(-len(middle) // TRIPLES))], late))
    known = [it for it in found if it is not None]
    if known:
        yield max(known, key=lambda it: it[0])[1]


def _moved_before(rows: Rows, at: np.ndarray, late: int) -> tuple[float, Finding] | None:
    """Whether the actions of rows `at` [M] have moved the observations of rows at - late to those one row on."""
    episodes, middle = rows.episodes, at - (late - 1)
    observations = episodes.observations[:, rows.std > 0]
    actions = episodes.actions[:, np.ptp(episodes.actions[at], axis=0) > 0] if len(at) else episodes.actions
    sizes = [observations.shape[1]] * 3 + [actions.shape[1]] * 3
    if not (0 < sizes[0] <= COLUMNS and sizes[3] > 0 and len(at) >= 10 * sum(sizes)):
        return None
    parts = [observations[middle + step] for step in (-1, 0, 1)] + [actions[at + step] for step in (0, -1, 1)]
    values = np.concatenate(parts, axis=1).astype(np.float64)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    covariance = values.T @ values / len(values) + NOISE * np.eye(sum(sizes))
    before, now, after, action, action_before, action_after = (
        list(range(stop - size, stop)) for size, stop in zip(sizes, np.cumsum(sizes).tolist(), strict=True)
    )
    chance = sizes[0] * sizes[3] / (2 * len(values))  # what independent columns seem to know of each other

    def known(other: list[int], given: list[int]) -> float:
        return _information(covariance, action, other, given) - chance

    backward, forward = known(before, now + action_before), known(after, now + action_after)
    if backward < KNOWN or backward < RATIO * forward:
        return None
    shares = [_explained(covariance, step, action, start) for step, start in ((now, before), (after, now))]
    determined = _information(covariance, action, before + now + action_before, []) > DETERMINED * sizes[3]
    plant_too = shares[0] >= 0.9 and (sizes[0] > sizes[3] or known(after, now) <= 0.01 * backward)
    if determined and not plant_too and known(now, before + action_before) > 0.1 * backward:
        return None
    rows_late = "" if late == 1 else f", by {late} rows"
    what = (
        f"actions work before the observation of their row{rows_late}: they explain {shares[0]:.0%} of the step to it"
        f" and {shares[1]:.0%} of the step after it (information: {backward:.2f} nats about the row before,"
        f" {forward:.2f} about the row after)"
    )
    advice = (
        "sensors seem to be read after the action: pair each action with the observation of the row before it. A"
        " controller that acts on trends (derivative action) and never explores looks the same: then leave it"
    )
    if late > 1:
        advice = (
            f"the sensors' clock seems to run {late} rows ahead of the actions': pair each action with the observation"
            f" {late} rows before it"
        )
    return backward, finding("warning", "misaligned", what, advice)


def _information(covariance: np.ndarray, first: list[int], second: list[int], given: list[int]) -> float:
    """I(first; second | given) in nats, of a normal distribution."""

    def entropy(which: list[int]) -> float:
        return float(np.linalg.slogdet(covariance[np.ix_(which, which)])[1]) / 2

    return entropy(first + given) + entropy(second + given) - entropy(given) - entropy(first + second + given)


def _explained(covariance: np.ndarray, of: list[int], by: list[int], given: list[int]) -> float:
    """Share of the variance of `of` that `given` leaves over which `by` explains."""

    def left(known: list[int]) -> float:
        some = covariance[np.ix_(of, known)]
        whole = covariance[np.ix_(of, of)] - some @ np.linalg.solve(covariance[np.ix_(known, known)], some.T)
        return max(float(np.trace(whole)) - NOISE * len(of), 1e-12)

    return max(0.0, 1 - left(given + by) / left(given))


def repeated_successors(rows: Rows) -> Iterator[Finding]:
    """The last observation of an episode, written again where its successor was not known."""
    episodes, observations, following = rows.episodes, rows.episodes.observations, rows.episodes.next_observations
    same = (observations[1:] == observations[:-1]).all(axis=1)  # row i + 1 repeats row i
    if following is not None:
        same, asked = (following == observations).all(axis=1), rows.ends.copy()
        asked[-1] = True
    else:
        asked = rows.ends[1:] & ~rows.ends[:-1]
        same &= ~rows.ends[:-1]
    found = np.flatnonzero(same & asked)
    if found.size < 0.5 * asked.sum() or same[~asked].mean() > 0.05 or not found.size or not (~asked).any():
        return
    what = f"the successor repeats the observation itself at {found.size:,} of {int(asked.sum()):,} ends of episodes"
    masked = following is not None and bool(episodes.terminals[found].all())
    advice = (
        "harmless, as nothing follows a terminal"
        if masked
        else "values bootstrap from their own state there: log what followed the last action, or leave the row out"
    )
    yield finding("note" if masked else "warning", "repeated-successors", what, advice, found)
