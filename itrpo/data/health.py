"""`itrpo datasets check SOURCE`: what is wrong or unusual in a dataset, said before training.

Every check takes the rows as they are and gives findings: what was found, in which rows, and what to do about it. An
error makes training fail or go wrong; a warning is probably a fault of the log; a note is worth knowing. Nothing is
quadratic in the number of rows: a million rows take a few seconds. The thresholds are the constants below; each was set
so that data rolled out in MuJoCo's Hopper, HalfCheetah and Walker2d by good and bad policies stay below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from itrpo.data.columns import blocks, first_rows
from itrpo.data.episodes import episode_statistics, follows, transition_rows
from itrpo.data.load import ROUNDING, action_bounds, read_episodes
from itrpo.data.tabular import ColumnMap
from itrpo.evaluation.environments import time_limit
from itrpo.types import Episodes

if TYPE_CHECKING:
    from rich.console import Console

CLIPPED = (0.005, 0.05)  # share of rows with the very largest or smallest action: note, warning
DISCRETE = 10  # an action with at most so many values isn't a continuous one
NARROW = 0.2  # of the range of actions
OUTLIER = 20.0  # robust standard deviations; a normal distribution has none beyond 6 in a million rows
FEW = 0.001  # share of rows up to which outliers are taken for faults rather than for the task's own
LARGE = (10.0, 100.0)  # mean or standard deviation of an observation: note, warning
UNEQUAL = (100.0, 10_000.0)  # ratio of the standard deviations of two observations: note, warning
LARGE_REWARD = 100.0
SMALL = 10_000  # rows; D4RL's sets have 200,000 to 2,000,000
REPEATED = 0.01  # share of rows that repeat another: warning
NOISELESS = 0.02  # standard deviation of the actions in one state, in a range of [-1, 1]
SAMPLE, QUERIES, SAMPLE_BLOCKS = 20_000, 300, 20  # rows from which actions in similar states are compared
SMOOTH = 0.3  # share of ends after which a step is no longer than usual: in MuJoCo's tasks it is below 0.05
MAX_ROWS = 5  # listed


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: Literal["error", "warning", "note"]
    name: str  # of the check, stable: "not-finite", "terminals-go-on", ...
    what: str
    advice: str
    rows: tuple[int, ...] = ()  # the first few
    count: int = 0  # of rows


@dataclass(frozen=True)
class Health:
    """The result of all checks, and what a picture of the dataset needs."""

    name: str
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]  # errors first
    returns: np.ndarray  # [E] of completed episodes
    lengths: np.ndarray  # [E]
    by_terminal: np.ndarray  # [E] bool: ended by the environment, not by the clock
    actions: np.ndarray  # [N, A], scaled to [-1, 1]
    action_names: tuple[str, ...]  # [A]

    def number(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)


@dataclass(frozen=True)
class _Rows:
    """What several checks share."""

    episodes: Episodes  # actions scaled to [-1, 1]
    scaled: bool  # by bounds that were given or declared
    sound: np.ndarray  # [N] bool: no NaN or infinity in the row
    ends: np.ndarray  # [N] bool
    returns: np.ndarray
    lengths: np.ndarray
    names: Mapping[str, Sequence[str]]  # of columns, where the user mapped them
    std: np.ndarray  # [O] of the observations
    equal: Sequence[tuple[int, int]]  # pairs of observation columns that are the same in all rows
    moved: np.ndarray  # [N - 1]: distance from an observation to the next row's, in std, averaged over dimensions

    def name(self, key: str, index: int) -> str:
        """'observation 3', or 'observation 3 (speed)'."""
        mapped = self.names.get(key, ())
        whole = getattr(self.episodes, key).shape[1]
        return f"{key[:-1]} {index}" + (f" ({mapped[index]})" if len(mapped) == whole else "")


def check_dataset(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    *,
    columns: ColumnMap | None = None,
    env: str | None = None,
    action_low: float | Sequence[float] | np.ndarray | None = None,
    action_high: float | Sequence[float] | np.ndarray | None = None,
    horizon: int | None = None,
    console: Console | None = None,
) -> Health:
    """Checks a dataset, which `load_dataset` would take with the same arguments.

    `horizon`: steps after which the clock ends an episode; None takes the environment's, if it is known and has one.
    Raises InputError if the source can't be read at all.
    """
    episodes = read_episodes(source, console, columns)
    env_id = episodes.env_id if env is None else None if env.lower() == "none" else env
    if horizon is None and env_id is not None:
        horizon = time_limit(env_id)
    action_low = episodes.action_low if action_low is None else action_low
    action_high = episodes.action_high if action_high is None else action_high
    low, high = action_bounds(action_low, action_high, episodes.actions.shape[1])
    scaled = bool((low != -1).any() or (high != 1).any())
    if scaled:
        episodes = replace(episodes, actions=(episodes.actions - low) / (high - low) * 2 - 1)
    with np.errstate(all="ignore"):  # what isn't finite is a finding of its own
        rows = _prepare(episodes, scaled)
        noise, spectrum = _noise(rows), _spectrum(rows)
        findings = [
            *_not_finite(rows),
            *_columns(rows),
            *_actions(rows),
            *_rewards(rows),
            *_ends(rows, horizon),
            *_going_on(rows),
            *_repetitions(rows),
            *_scales(rows),
            *_coverage(rows, noise, spectrum),
        ]
        facts = _facts(rows, noise, spectrum, env_id, horizon)
    if scaled:
        facts["actions rescaled from"] = f"{low.tolist()} to {high.tolist()}"
    order = ("error", "warning", "note")
    ended = np.flatnonzero(rows.ends)
    return Health(
        name=episodes.source.name,
        facts=facts,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        returns=rows.returns,
        lengths=rows.lengths,
        by_terminal=episodes.terminals[ended],
        actions=episodes.actions,
        action_names=tuple(rows.name("actions", index) for index in range(episodes.actions.shape[1])),
    )


def _finding(
    severity: Literal["error", "warning", "note"], name: str, what: str, advice: str, rows: np.ndarray | None = None
) -> Finding:
    if rows is None:
        return Finding(severity, name, what, advice)
    return Finding(severity, name, what, advice, tuple(int(row) for row in rows[:MAX_ROWS]), len(rows))


def _prepare(episodes: Episodes, scaled: bool) -> _Rows:
    sound = np.ones(len(episodes.rewards), dtype=bool)
    for values in (episodes.observations, episodes.actions, episodes.rewards, episodes.next_observations):
        if values is not None:
            for block in blocks(len(values)):
                sound[block] &= np.isfinite(values[block].reshape(len(values[block]), -1)).all(axis=1)
    returns, lengths = episode_statistics(episodes)
    mapped = episodes.source.recipe.get("columns")
    observations = episodes.observations if sound.all() else episodes.observations[sound]
    std = observations.std(axis=0, dtype=np.float64) if len(observations) else np.zeros(observations.shape[1])
    varying = np.flatnonzero(std > 0).tolist()
    moved = np.zeros(len(sound) - 1, np.float32)
    for block in blocks(len(moved)) if varying else ():
        steps = episodes.observations[block.start + 1 : block.stop + 1] - episodes.observations[block]
        moved[block] = np.sqrt(((steps[:, varying] / std[varying]) ** 2).mean(axis=1))
    return _Rows(
        episodes=episodes,
        scaled=scaled,
        sound=sound,
        ends=episodes.terminals | episodes.timeouts,
        returns=returns,
        lengths=lengths,
        names=mapped if isinstance(mapped, dict) else {},
        std=std,
        equal=_equal_columns(observations, varying),
        moved=moved,
    )


def _not_finite(rows: _Rows) -> Iterator[Finding]:
    for key in ("observations", "actions", "rewards", "next_observations"):
        values = getattr(rows.episodes, key)
        if values is None or rows.sound.all():
            continue
        wide = values.reshape(len(values), -1)
        nan, infinite = np.isnan(wide), np.isinf(wide)
        bad = np.flatnonzero((nan | infinite).any(axis=1))
        if not bad.size:
            continue
        where = ""
        if values.ndim == 2 and key != "next_observations":
            dimensions = np.flatnonzero((nan | infinite).any(axis=0))
            where = " in " + _listed([rows.name(key, int(index)) for index in dimensions])
        what = f"'{key}' holds {nan.sum():,} NaN and {infinite.sum():,} infinite values{where}"
        advice = "training refuses them: remove those episodes, or mend the values where you know them"
        yield _finding("error", "not-finite", what, advice, bad)


def _columns(rows: _Rows) -> Iterator[Finding]:
    """Columns that say nothing, say the same twice, or say what can't be known when acting."""
    episodes = rows.episodes
    sound = slice(None) if rows.sound.all() else rows.sound
    observations, actions, rewards = episodes.observations[sound], episodes.actions[sound], episodes.rewards[sound]
    if not len(rewards):
        return
    for key, values, advice in (
        ("observations", observations, "it tells a policy nothing; leave it out, or find out why it never changed"),
        ("actions", actions, "nothing can be learned about the others; leave this dimension out"),
    ):
        constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
        if constant.size:
            named = _listed([f"{rows.name(key, int(index))} = {values[0, index]:.6g}" for index in constant])
            yield _finding("warning", "constant-column", f"the same value in all rows: {named}", advice)
    changing = [index for index in range(observations.shape[1]) if np.ptp(observations[:, index]) > 0]
    for first, second in rows.equal:
        what = f"{rows.name('observations', second)} equals {rows.name('observations', first)} in all rows"
        yield _finding("warning", "duplicate-column", what, "it adds nothing: leave one of the two out")
    for index in range(actions.shape[1]):
        if np.ptp(actions[:, index]) > 0:
            for other in changing:
                if np.array_equal(observations[:, other], actions[:, index]):
                    what = f"{rows.name('observations', other)} is {rows.name('actions', index)} of the same row"
                    advice = (
                        "a policy can't see its own action before it acts, and would learn to copy it: log the"
                        " observation from before the action, or leave it out"
                    )
                    yield _finding("error", "action-in-observation", what, advice)
    if np.ptp(rewards) > 0:
        for other in changing:
            if np.array_equal(observations[:, other], rewards):
                what = f"{rows.name('observations', other)} is the reward of the same row"
                advice = "it isn't known before the action: leave it out, or shift it by a step"
                yield _finding("warning", "reward-in-observation", what, advice)


def _equal_columns(values: np.ndarray, candidates: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of equal columns; each later one is paired with the first that it equals."""
    probe = values[:: max(1, len(values) // 64)]
    seen: dict[bytes, list[int]] = {}
    pairs: list[tuple[int, int]] = []
    for index in candidates:
        alike = seen.setdefault(probe[:, index].tobytes(), [])
        first = next((other for other in alike if np.array_equal(values[:, other], values[:, index])), None)
        if first is None:
            alike.append(index)
        else:
            pairs.append((first, index))
    return pairs


def _actions(rows: _Rows) -> Iterator[Finding]:
    actions = rows.episodes.actions
    outside = np.flatnonzero((np.abs(actions) > 1 + ROUNDING).any(axis=1) & rows.sound)
    sound = actions if rows.sound.all() else actions[rows.sound]
    if not len(sound):
        return
    low, high = sound.min(axis=0), sound.max(axis=0)
    if outside.size:
        what = f"actions outside [-1, 1]{' after rescaling' if rows.scaled else ''}: they range from {low.min():.6g} to"
        advice = "widen --action-low and --action-high"
        if not rows.scaled:
            bounds = [_bound(values, limit) for values, limit in ((low, np.floor), (high, np.ceil))]
            advice = (
                "training refuses them: give the environment's bounds, which the data can't show; they need at least"
                f" --action-low {bounds[0]} --action-high {bounds[1]}"
            )
        yield _finding("error", "action-range", f"{what} {high.max():.6g}", advice, outside)
    discrete: list[str] = []
    clipped: list[tuple[str, np.ndarray]] = []
    for index in np.flatnonzero(low < high):
        column, name = sound[:, index], rows.name("actions", int(index))
        sample = column[:: max(1, len(column) // 10_000)]
        values = np.unique(sample)
        if len(values) <= DISCRETE and len(sample) > 10 * DISCRETE:
            discrete.append(f"{name} ({', '.join(f'{value:.4g}' for value in values)})")
            continue
        edges = [(low[index], column == low[index]), (high[index], column == high[index])]
        if max(mask.mean() for _, mask in edges) >= CLIPPED[0]:
            shares = " and ".join(f"{mask.mean():.1%} at {edge:.4g}" for edge, mask in edges)
            clipped.append((f"{name}: {shares}", edges[0][1] | edges[1][1]))
    if discrete:
        what = f"actions of a few values only: {_listed(discrete)}"
        yield _finding("warning", "discrete-actions", what, "itrpo learns densities of continuous actions")
    if clipped:
        piles = _listed([text for text, _ in clipped])
        what = f"rows in which an action is exactly its largest or smallest value: {piles}"
        advice = (
            "clipped, it seems. A density can't describe a pile of values on a bound: log the command before it was"
            " clipped, or expect pi_beta to fit poorly there"
        )
        masks = np.stack([mask for _, mask in clipped])
        severity = "warning" if masks.mean(axis=1).max() >= CLIPPED[1] else "note"
        yield _finding(severity, "clipped-actions", what, advice, np.flatnonzero(rows.sound)[masks.any(axis=0)])
    widest = float(np.max(high - low)) / 2
    if 0 < widest < NARROW:
        what = f"actions use {widest:.1%} of the range [-1, 1]"
        advice = "if the bounds are wider than the environment's, narrow --action-low and --action-high"
        yield _finding("note", "narrow-actions", what, advice)


def _rewards(rows: _Rows) -> Iterator[Finding]:
    episodes = rows.episodes
    where = np.flatnonzero(rows.sound)
    rewards = episodes.rewards[where]
    if not len(rewards):
        return
    if rewards.min() == rewards.max():
        if episodes.terminals.any():
            advice = "then only the length of episodes tells policies apart; make sure that this is meant"
            yield _finding("warning", "constant-reward", f"every reward is {rewards[0]:.6g}", advice)
        else:
            advice = "every policy is as good as any other: there is nothing to learn; was the right column logged?"
            yield _finding("error", "constant-reward", f"every reward is {rewards[0]:.6g}, and no episode ends", advice)
        return
    typical, usual = np.median(rewards), where
    scale = _robust_std(rewards)
    if scale == 0:  # most rewards are one value
        rare = rewards != typical
        what = f"sparse rewards: {rare.sum():,} of {len(rewards):,} rows differ from {typical:.6g}"
        advice = "normal for tasks with a goal; returns then say little about single steps"
        yield _finding("note", "sparse-rewards", what, advice, where[rare])
        usual, rewards = where[rare], rewards[rare]
        typical, scale = np.median(rewards), _robust_std(rewards)
    sane = np.ones(len(rewards), dtype=bool)
    if scale > 0:
        far = np.abs(rewards - typical) > OUTLIER * scale
        for at_end, kind in ((False, ""), (True, " in terminal rows")):
            mask = far & (episodes.terminals[usual] == at_end)
            if not mask.any():
                continue
            few = mask.sum() <= FEW * len(rows.sound) and not at_end
            extreme = rewards[mask][np.argmax(np.abs(rewards[mask] - typical))]
            what = (
                f"rewards{kind} beyond {OUTLIER:.0f} robust standard deviations ({scale:.3g}) of the median"
                f" ({typical:.4g}): up to {extreme:.6g}"
            )
            if few:
                sane &= ~mask
            advice = (
                "a critic learns little else than these: mend or remove them if they are faults of the log"
                if few
                else "if the task pays so, consider smaller bonuses or penalties: the critic's errors grow with them"
            )
            yield _finding("warning" if few else "note", "reward-outliers", what, advice, usual[mask])
    rewards = rewards[sane]
    size = max(abs(float(rewards.mean())), float(rewards.std()))
    if size > LARGE_REWARD:
        what = f"large rewards: mean {rewards.mean():.4g}, standard deviation {rewards.std():.4g}"
        advice = f"Q values will be larger still; divide rewards by about {10 ** np.floor(np.log10(size)):.0f}"
        yield _finding("note", "large-rewards", what, advice)


def _ends(rows: _Rows, horizon: int | None) -> Iterator[Finding]:
    episodes, lengths, count = rows.episodes, rows.lengths, len(rows.ends)
    ended = np.flatnonzero(rows.ends)
    open_rows = count - (ended[-1] + 1 if ended.size else 0)
    starts = np.concatenate([[0], ended[:-1] + 1]) if ended.size else np.zeros(0, np.int64)
    if not ended.size:
        what = f"no episode ever ends: no terminal and no timeout in {count:,} rows"
        advice = "mark the ends; all timeouts 0 is right only if these rows are one uninterrupted run"
        yield _finding("warning", "no-ends", what, advice)
    elif open_rows:
        what = f"the last {open_rows:,} rows belong to an episode that the file doesn't finish"
        advice = "they are trained on; statistics of returns leave them out"
        yield _finding("note", "unfinished-episode", what, advice, np.array([count - open_rows]))
    if len(lengths) == 1:
        what = "only one completed episode" + (f", and {open_rows:,} rows after it" if open_rows > lengths[0] else "")
        yield _finding("warning", "one-episode", what, "if there were more, their ends are not marked", ended)
    if episodes.terminals.mean() > 0.5:
        what = f"{episodes.terminals.mean():.1%} of all rows are terminal"
        advice = "is the flag the wrong way round (1 in rows that go on)?"
        yield _finding("error", "mostly-terminal", what, advice, np.flatnonzero(episodes.terminals))
        return
    both = np.flatnonzero(episodes.terminals & episodes.timeouts)
    if both.size and episodes.next_observations is None:
        most = both.size > 0.5 * episodes.terminals.sum()
        what = f"rows that are both terminal and timeout: {both.size:,} of {episodes.terminals.sum():,} terminals"
        advice = (
            "such a row is dropped, as in D4RL, and its end with it: set timeouts to 0 where the environment ended it"
        )
        yield _finding("warning" if most else "note", "both-flags", what, advice, both)
    single = starts[lengths == 1]
    if single.size:
        what = f"episodes of a single step: {single.size:,} of {len(lengths):,}"
        most = single.size > 0.1 * len(lengths)
        yield _finding("warning" if most else "note", "one-step-episodes", what, "are ends marked twice?", single)
    if horizon is not None:
        long = starts[lengths > horizon]
        if open_rows > horizon:
            long = np.append(long, count - open_rows)
        if long.size:
            what = f"episodes longer than the clock allows ({horizon:,} steps): {long.size:,}, up to"
            what += f" {max(int(lengths.max(initial=0)), open_rows):,} steps"
            advice = "timeouts are missing, or it is another environment (--env, --horizon)"
            yield _finding("warning", "too-long", what, advice, long)
    by_terminal = episodes.terminals[ended] & ~episodes.timeouts[ended]
    clock = horizon or int(lengths.max(initial=0))
    at_clock = ended[by_terminal & (lengths == clock)]
    if at_clock.size >= max(3, 0.05 * len(lengths)) and clock > 1:
        kind = "the environment's clock" if horizon else "the longest episode"
        what = f"{at_clock.size:,} terminals come after exactly {clock:,} steps, {kind}"
        advice = "the clock ended these, it seems: as terminals they teach that nothing follows; make them timeouts"
        yield _finding("warning", "terminals-at-the-clock", what, advice, at_clock)
    by_timeout = ~episodes.terminals[ended]
    by_clock, of_clock = ended[by_timeout], lengths[by_timeout]
    if by_clock.size < 5:
        return
    commonest = int(np.bincount(of_clock).argmax())
    if horizon is None and (of_clock == commonest).sum() < 0.5 * by_clock.size:
        what = f"timeouts after anything from {of_clock.min():,} to {of_clock.max():,} steps: no clock does that"
        early = by_clock
    else:
        clock = horizon or commonest
        early = by_clock[of_clock < clock]
        what = f"timeouts before the clock's {clock:,} steps: {early.size:,} of {by_clock.size:,}"
    if early.size >= max(5, 0.05 * by_clock.size):
        advice = "fine if recording was cut; if the environment ended these episodes, make them terminals"
        yield _finding("note", "early-timeouts", what, advice, early)


def _going_on(rows: _Rows) -> Iterator[Finding]:
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
                yield _finding("warning", "shifted-flags", what, "shift the flags by one row", marked)
                continue
            smooth = marked[moved[marked] <= most]
            if (moved[marked] <= usual).sum() < SMOOTH * marked.size:
                continue
            if marked.size >= 5 and _share_at(rows, marked + 1, inside) < 0.2:
                continue  # the rows after them lie where few others do: true starts, however near
        what = f"after {smooth.size:,} of {marked.size:,} {key} the next row goes on as within an episode"
        if key == "terminals":
            advice = "a terminal says that nothing follows: unmark those where the episode went on"
            yield _finding("warning", "terminals-go-on", what, advice, smooth)
        else:
            advice = "an uninterrupted run was cut into pieces: harmless, but each cut drops a row"
            yield _finding("note", "timeouts-go-on", what, advice, smooth)
    if episodes.next_observations is not None:
        joined = follows(episodes.observations, episodes.next_observations)[:-1]
        loose = np.flatnonzero(~joined & ~rows.ends[:-1])
        if loose.size:
            what = f"rows within episodes whose next_observations are not the next row: {loose.size:,}"
            advice = "rows are shuffled or missing, or ends are not marked; next actions are unknown there"
            yield _finding("note", "loose-rows", what, advice, loose)
        return
    far = np.flatnonzero(inside & (moved > 3 * usual))
    starts = np.concatenate([[0], np.flatnonzero(rows.ends[:-1]) + 1])
    ordinary = inside.copy()
    ordinary[np.minimum(far + 1, len(inside) - 1)] = False
    unmarked = far[_near(rows, starts, far + 1)]
    if unmarked.size > 5 * far.size * _share_at(rows, starts, ordinary):  # more often than by chance
        what = "rows within episodes after which the observations jump back to a start"
        advice = "an end seems to be missing there: mark a terminal or a timeout"
        yield _finding("warning", "unmarked-ends", what, advice, unmarked)


def _jumps_beside(moved: np.ndarray, marked: np.ndarray, offset: int, usual: float) -> bool:
    """Whether the large steps come `offset` rows from the marked ones, and not there."""
    inner = marked[(marked + offset >= 0) & (marked + offset < len(moved))]
    if inner.size < 3:
        return False
    there, beside = np.median(moved[inner]), np.median(moved[inner + offset])
    return bool(beside > 3 * usual and beside > 2 * there)


def _share_at(rows: _Rows, starts: np.ndarray, among: np.ndarray) -> float:
    """Share of the rows marked in `among` [N - 1] that are `_near` the rows `starts`; of at most 10,000 of them."""
    others = np.flatnonzero(among)
    return float(_near(rows, starts, others[:: max(1, len(others) // 10_000)]).mean())


def _near(rows: _Rows, starts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """bool: which rows of `asked` lie as near to the middle of the rows `starts` as 90% of these do."""
    varying = rows.std > 0

    def scaled(which: np.ndarray) -> np.ndarray:
        return rows.episodes.observations[which][:, varying] / rows.std[varying]

    center = np.median(scaled(starts), axis=0)
    distances = np.sqrt(((scaled(starts) - center) ** 2).mean(axis=1))
    reach = max(float(np.nanquantile(distances, 0.9)), 0.25 * float(np.nanmedian(rows.moved)))
    return np.sqrt(((scaled(asked) - center) ** 2).mean(axis=1)) <= reach


def _repetitions(rows: _Rows) -> Iterator[Finding]:
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
        yield _finding("warning", "duplicate-episodes", what, advice, starts[copies])
    repeated = _later_copies(codes)
    repeated = repeated[~copied[repeated]]
    if repeated.size:
        share = repeated.size / len(codes)
        what = f"rows that repeat an earlier one exactly (observation, action and reward): {share:.2%}"
        advice = "a logger that writes faster than it measures does this; keep one row for each decision"
        yield _finding("warning" if share >= REPEATED else "note", "duplicate-rows", what, advice, repeated)


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


def _scales(rows: _Rows) -> Iterator[Finding]:
    observations = rows.episodes.observations[rows.sound] if not rows.sound.all() else rows.episodes.observations
    if len(observations) < SMALL:
        what = f"only {len(observations):,} rows"
        yield _finding("warning", "small", what, f"few methods learn from fewer than {SMALL:,}; scores will be noise")
    varying = np.flatnonzero(rows.std > 0)
    if not varying.size:
        return
    mean = np.abs(observations.mean(axis=0, dtype=np.float64))
    size = np.maximum(mean, rows.std)
    ratio = rows.std[varying].max() / rows.std[varying].min()
    if size.max() > LARGE[0] or ratio > UNEQUAL[0]:
        largest = int(np.argmax(size))
        what = (
            f"observations of very different sizes: standard deviations from {rows.std[varying].min():.3g} to"
            f" {rows.std[varying].max():.3g}; {rows.name('observations', largest)} is largest, mean"
            f" {observations[:, largest].mean(dtype=np.float64):.4g}"
        )
        severe = size.max() > LARGE[1] or ratio > UNEQUAL[1]
        yield _finding("warning" if severe else "note", "scales", what, "train with --normalize-observations")


def _coverage(rows: _Rows, noise: np.ndarray | None, spectrum: np.ndarray) -> Iterator[Finding]:
    flat = int((spectrum < 1e-9 * spectrum.max(initial=0)).sum()) - len(rows.equal)
    if flat > 0:
        what = (
            f"{flat} of {len(spectrum)} directions of the observations never vary: columns are combinations of others"
        )
        yield _finding("note", "dependent-columns", what, "harmless for networks; they cost inputs and say nothing new")
    if noise is None:
        return
    share = float((noise < NOISELESS).mean())
    if share > 0.5:
        what = f"in {share:.0%} of the states looked at, actions vary by less than {NOISELESS} (of a range of [-1, 1])"
        advice = (
            "the behaviour is close to deterministic: log densities are huge and nothing is known about other actions;"
            " keep a floor on pi_beta's standard deviation, and prefer data with exploration"
        )
        yield _finding("warning", "little-noise", what, advice)


def _spectrum(rows: _Rows) -> np.ndarray:
    """Eigenvalues of the correlation matrix of the observations that vary, from at most 200,000 rows."""
    sound = np.flatnonzero(rows.sound)
    observations = rows.episodes.observations[sound[:: max(1, len(sound) // 200_000)]][:, rows.std > 0]
    if not observations.size:
        return np.zeros(0)
    scaled = (observations - observations.mean(axis=0, dtype=np.float64)) / rows.std[rows.std > 0]
    return np.linalg.eigvalsh(scaled.T @ scaled / len(scaled))


def _noise(rows: _Rows) -> np.ndarray | None:
    """Standard deviation of the actions in one state, for some states: from the recorded log densities if there are
    any, else the residual of a linear fit among the nearest states. None where there are too few rows to tell.

    A density p of A independent actions has the entropy of a normal one with standard deviation
    (1 / p)^(1/A) / sqrt(2 pi e). The fit is too large where states are far apart, so noise is never understated.
    """
    episodes = rows.episodes
    if episodes.behavior_log_probs is not None and not rows.scaled:
        log_probs = episodes.behavior_log_probs[rows.sound]
        return np.exp(-log_probs / episodes.actions.shape[1]) / np.sqrt(2 * np.pi * np.e)
    varying = np.flatnonzero(rows.std > 0)
    sound = np.flatnonzero(rows.sound)
    neighbors = 3 * (len(varying) + 1)
    if not varying.size or len(sound) < 10 * neighbors or len(varying) > 100:
        return None
    size = min(SAMPLE, len(sound)) // SAMPLE_BLOCKS
    first = np.linspace(0, len(sound) - size, SAMPLE_BLOCKS).astype(np.int64)
    chosen = sound[np.unique(first[:, None] + np.arange(size))]  # blocks of rows in a row: near states are among them
    states = (episodes.observations[chosen][:, varying] / rows.std[varying]).astype(np.float32)
    states -= states.mean(axis=0)
    actions = episodes.actions[chosen].astype(np.float64)
    queries = np.unique(np.linspace(0, len(chosen) - 1, QUERIES).astype(np.int64))
    squares = (states**2).sum(axis=1)
    spread = np.empty(len(queries))
    for block in (slice(at, at + 100) for at in range(0, len(queries), 100)):
        asked = queries[block]
        distances = squares - 2 * states[asked] @ states.T  # less the square of the query's own norm
        near = np.argpartition(distances, neighbors, axis=1)[:, :neighbors]
        inputs = np.concatenate([states[near].astype(np.float64), np.ones((*near.shape, 1))], axis=2)
        targets = actions[near]
        gram = np.einsum("qki,qkj->qij", inputs, inputs) + 1e-8 * np.eye(inputs.shape[2])
        fit = np.linalg.solve(gram, np.einsum("qki,qka->qia", inputs, targets))
        residual = targets - np.einsum("qki,qia->qka", inputs, fit)
        spread[block] = np.sqrt((residual**2).sum(axis=(1, 2)) / (neighbors - inputs.shape[2]) / targets.shape[2])
    return spread


def _facts(
    rows: _Rows, noise: np.ndarray | None, spectrum: np.ndarray, env_id: str | None, horizon: int | None
) -> dict[str, str]:
    episodes = rows.episodes
    kept = transition_rows(episodes)
    facts = {
        "rows": f"{len(rows.ends):,}, of which {len(rows.ends) if kept is None else len(kept):,} are transitions",
        "observations, actions": f"{episodes.observations.shape[1]}, {episodes.actions.shape[1]} dimensions",
        "environment": (env_id or "none known") + (f", {horizon:,} steps" if horizon is not None else ""),
        "completed episodes": f"{len(rows.returns):,}: {episodes.terminals.sum():,} terminals,"
        f" {episodes.timeouts.sum():,} timeouts",
    }
    if len(rows.returns):
        facts["returns"] = f"{rows.returns.mean():,.1f} ± {rows.returns.std():,.1f}, max {rows.returns.max():,.1f}"
        facts["lengths"] = f"{rows.lengths.mean():,.0f}, from {rows.lengths.min():,} to {rows.lengths.max():,}"
    if spectrum.sum() > 0:
        effective = spectrum.sum() ** 2 / (spectrum**2).sum()
        facts["effective dimension"] = f"{effective:.1f} of {episodes.observations.shape[1]} observations"
    if rows.sound.any():
        spread = episodes.actions[rows.sound].std(axis=0)
        facts["spread of actions"] = f"{_range(spread)} (standard deviation over all rows, by dimension)"
    if noise is not None:
        known = (
            "recorded densities" if episodes.behavior_log_probs is not None and not rows.scaled else "similar states"
        )
        facts["noise of actions"] = f"{np.median(noise):.2g} (standard deviation in one state, from {known})"
    return facts


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low} to {high}"


def _robust_std(values: np.ndarray) -> float:
    """Half the width of the middle 50%, in units of a normal distribution's: no outlier moves it."""
    quarter, three_quarters = np.quantile(values, [0.25, 0.75])
    return float(three_quarters - quarter) / 1.349


def _bound(values: np.ndarray, rounding: np.ufunc) -> str:
    """One number per dimension, rounded outwards to two digits; only one if they are all the same."""
    digits = 10.0 ** (1 - np.floor(np.log10(np.maximum(np.abs(values), 1e-12))))
    texts = [f"{value:g}" for value in rounding(values.astype(np.float64) * digits) / digits]
    return texts[0] if len(set(texts)) == 1 else " ".join(texts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def print_health(health: Health, console: Console) -> None:
    """Prints the facts, every finding with its rows and what to do, and the sum of it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=health.name, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in health.facts.items():
        table.add_row(label, Text(text))
    console.print(table)
    styles = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
    listing = Table.grid(padding=(0, 2))
    listing.add_column(no_wrap=True)
    listing.add_column(overflow="fold")
    for finding in health.findings:
        text = Text(f"{finding.what}", style="bold")
        text.append(f"  [{finding.name}]", style="not bold dim")
        listing.add_row(Text(finding.severity, style=styles[finding.severity]), text)
        if finding.rows:
            named = first_rows(np.array(finding.rows))
            more = f", ... ({finding.count:,} rows)" if finding.count > len(finding.rows) else ""
            listing.add_row("", Text(f"{named}{more}"))
        listing.add_row("", Text(f"-> {finding.advice}"))
    console.print()
    if health.findings:
        console.print(listing)
        console.print()
    numbers = [(health.number(severity), severity) for severity in styles]
    said = ", ".join(f"{number} {severity}{'s' if number != 1 else ''}" for number, severity in numbers if number)
    console.print(Text(said or "Nothing unusual was found."))
