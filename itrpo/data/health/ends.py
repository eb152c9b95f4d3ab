"""Episodes: ends that are missing, shifted, marked the wrong way, or that aren't ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.episodes import follows, left_out
from itrpo.data.health.rows import Finding, Rows, finding

LOST = 0.1  # share of the rewards other than 0 in rows that training leaves out; 1 row in 10 if all rows have one
SMOOTH = 0.3  # share of ends after which a step is no longer than usual: in MuJoCo's tasks it is below 0.05


def ends(rows: Rows) -> Iterator[Finding]:
    episodes, lengths, horizon, count = rows.episodes, rows.lengths, rows.horizon, len(rows.ends)
    ended = np.flatnonzero(rows.ends)
    open_rows = count - (ended[-1] + 1 if ended.size else 0)
    starts = np.concatenate([[0], ended[:-1] + 1]) if ended.size else np.zeros(0, np.int64)
    if not ended.size:
        what = f"no episode ever ends: no terminal and no timeout in {count:,} rows"
        advice = "mark the ends; all timeouts 0 is right only if these rows are one uninterrupted run"
        yield finding("warning", "no-ends", what, advice)
    elif open_rows:
        what = f"the last {open_rows:,} rows belong to an episode that the file doesn't finish"
        advice = "they are trained on; statistics of returns leave them out"
        yield finding("note", "unfinished-episode", what, advice, np.array([count - open_rows]))
    if len(lengths) == 1:
        what = "only one completed episode" + (f", and {open_rows:,} rows after it" if open_rows > lengths[0] else "")
        yield finding("warning", "one-episode", what, "if there were more, their ends are not marked", ended)
    if episodes.terminals.mean() > 0.5:
        what = f"{episodes.terminals.mean():.1%} of all rows are terminal"
        advice = "is the flag the wrong way round (1 in rows that go on)?"
        yield finding("error", "mostly-terminal", what, advice, np.flatnonzero(episodes.terminals))
        return
    both = np.flatnonzero(episodes.terminals & episodes.timeouts)
    if both.size:
        most = both.size > 0.5 * episodes.terminals.sum()
        what = f"rows that are both terminal and timeout: {both.size:,} of {episodes.terminals.sum():,} terminals"
        advice = (
            "each is taken for a terminal, after which nothing follows: set terminals to 0 where the clock ended it"
        )
        if episodes.attributes.d4rl_view and episodes.next_observations is None:
            advice = "such a row is dropped, as in D4RL, and its end with it"
        yield finding("warning" if most else "note", "both-flags", what, advice, both)
    held, dropped = episodes.rewards != 0, left_out(episodes)
    if (held & dropped).sum() > LOST * held.sum():
        what = f"rows without a successor, which training leaves out, hold {(held & dropped).sum():,} of the"
        what += f" {held.sum():,} rewards other than 0"
        advice = "mark them as terminals if the episodes end there by themselves, or give next_observations"
        yield finding("warning", "lost-rewards", what, advice, np.flatnonzero(held & dropped))
    single = starts[lengths == 1]
    if single.size:
        what = f"episodes of a single step: {single.size:,} of {len(lengths):,}"
        most = single.size > 0.1 * len(lengths)
        yield finding("warning" if most else "note", "one-step-episodes", what, "are ends marked twice?", single)
    if horizon is not None:
        long = starts[lengths > horizon]
        if open_rows > horizon:
            long = np.append(long, count - open_rows)
        if long.size:
            what = f"episodes longer than the clock allows ({horizon:,} steps): {long.size:,}, up to"
            what += f" {max(int(lengths.max(initial=0)), open_rows):,} steps"
            advice = "timeouts are missing, or it is another environment (--env, --horizon)"
            yield finding("warning", "too-long", what, advice, long)
    by_terminal = episodes.terminals[ended] & ~episodes.timeouts[ended]
    clock = horizon or int(lengths.max(initial=0))
    at_clock = ended[by_terminal & (lengths == clock)]
    if at_clock.size >= max(3, 0.05 * len(lengths)) and clock > 1:
        kind = "the environment's clock" if horizon else "the longest episode"
        what = f"{at_clock.size:,} terminals come after exactly {clock:,} steps, {kind}"
        advice = "the clock ended these, it seems: as terminals they teach that nothing follows; make them timeouts"
        yield finding("warning", "terminals-at-the-clock", what, advice, at_clock)
    by_timeout = ~episodes.terminals[ended]
    by_clock, clock_lengths = ended[by_timeout], lengths[by_timeout]
    if by_clock.size < 5:
        return
    commonest = int(np.bincount(clock_lengths).argmax())
    if horizon is None and (clock_lengths == commonest).sum() < 0.5 * by_clock.size:
        shortest, longest = clock_lengths.min(), clock_lengths.max()
        what = f"timeouts after anything from {shortest:,} to {longest:,} steps: no clock does that"
        early = by_clock
    else:
        clock = horizon or commonest
        early = by_clock[clock_lengths < clock]
        what = f"timeouts before the clock's {clock:,} steps: {early.size:,} of {by_clock.size:,}"
    if early.size >= max(5, 0.05 * by_clock.size):
        advice = "fine if recording was cut; if the environment ended these episodes, make them terminals"
        yield finding("note", "early-timeouts", what, advice, early)


def going_on(rows: Rows) -> Iterator[Finding]:
    """Ends after which the observations go on as within an episode, and places within episodes that look like ends."""
    episodes, moved = rows.episodes, rows.moved
    inside = ~rows.ends[:-1] & np.isfinite(moved)
    if inside.sum() < 10 or not moved[inside].any():
        return
    # Half of the steps within episodes are below the usual one, and 90% below `most`.
    usual, most = (float(value) for value in np.quantile(moved[inside], [0.5, 0.9]))
    for key in ("terminals", "timeouts"):
        flags = getattr(episodes, key)[:-1] & np.isfinite(moved)
        marked = np.flatnonzero(flags & ~episodes.terminals[:-1] if key == "timeouts" else flags)
        if not marked.size:
            continue
        if episodes.next_observations is not None:
            smooth = marked[follows(episodes.observations, episodes.next_observations)[marked]]
            if not smooth.size:
                continue
        else:
            shift = next((offset for offset in (1, -1) if _jumps_beside(moved, marked, offset, usual)), None)
            if shift is not None:
                side = "after" if shift == 1 else "before"
                what = f"the jump to another episode comes one row {side} the flag at most of the {marked.size:,} {key}"
                yield finding("warning", "shifted-flags", what, "shift the flags by one row", marked)
                continue
            smooth = marked[moved[marked] <= most]
            if (moved[marked] <= usual).sum() < SMOOTH * marked.size:
                continue
            if marked.size >= 5 and _share_at(rows, marked + 1, inside) < 0.2:
                continue  # the rows after them lie where few others do: true starts, however near
        what = f"after {smooth.size:,} of {marked.size:,} {key} the next row goes on as within an episode"
        if key == "terminals":
            advice = "a terminal says that nothing follows: unmark those where the episode went on"
            yield finding("warning", "terminals-go-on", what, advice, smooth)
        else:
            advice = "an uninterrupted run was cut into pieces: harmless, but each cut drops a row"
            yield finding("note", "timeouts-go-on", what, advice, smooth)
    if episodes.next_observations is not None:
        joined = follows(episodes.observations, episodes.next_observations)[:-1]
        loose = np.flatnonzero(~joined & ~rows.ends[:-1])
        if loose.size:
            what = f"rows within episodes whose next_observations are not the next row: {loose.size:,}"
            advice = "rows are shuffled or missing, or ends are not marked; next actions are unknown there"
            yield finding("note", "loose-rows", what, advice, loose)
        return
    far = np.flatnonzero(inside & (moved > 3 * usual))
    starts = np.concatenate([[0], np.flatnonzero(rows.ends[:-1]) + 1])
    ordinary = inside.copy()
    ordinary[np.minimum(far + 1, len(inside) - 1)] = False
    unmarked = far[_near(rows, starts, far + 1)]
    if unmarked.size > 5 * far.size * _share_at(rows, starts, ordinary):  # more often than by chance
        what = "rows within episodes after which the observations jump back to a start"
        advice = "an end seems to be missing there: mark a terminal or a timeout"
        yield finding("warning", "unmarked-ends", what, advice, unmarked)


def _jumps_beside(moved: np.ndarray, marked: np.ndarray, offset: int, usual: float) -> bool:
    """Whether the large steps come `offset` rows from the marked ones, and not there."""
    inner = marked[(marked + offset >= 0) & (marked + offset < len(moved))]
    if inner.size < 3:
        return False
    there, beside = np.median(moved[inner]), np.median(moved[inner + offset])
    return bool(beside > 3 * usual and beside > 2 * there)


def _share_at(rows: Rows, starts: np.ndarray, among: np.ndarray) -> float:
    """Share of the rows marked in `among` [N - 1] that are `_near` the rows `starts`; of at most 10,000 of them."""
    others = np.flatnonzero(among)
    return float(_near(rows, starts, others[:: max(1, len(others) // 10_000)]).mean())


def _near(rows: Rows, starts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """bool: which rows of `asked` lie as near to the middle of the rows `starts` as 90% of these do."""
    varying = rows.std > 0

    def scaled(which: np.ndarray) -> np.ndarray:
        return rows.episodes.observations[which][:, varying] / rows.std[varying]

    center = np.median(scaled(starts), axis=0)
    distances = np.sqrt(((scaled(starts) - center) ** 2).mean(axis=1))
    reach = max(float(np.nanquantile(distances, 0.9)), 0.25 * float(np.nanmedian(rows.moved)))
    return np.sqrt(((scaled(asked) - center) ** 2).mean(axis=1)) <= reach
