"""Actions: out of range, clipped, of a few values only, and how much they vary in one state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.actions import BOUNDS, DISCRETE, INSIST, UNKNOWN, bounds_advice, never_made
from itrpo.data.health.rows import Finding, Rows, finding
from itrpo.data.load import ROUNDING
from itrpo.data.wording import listed

CLIPPED = (0.005, 0.05)  # share of rows with the very largest or smallest action: note, warning
FEW = 10  # an action with at most so many values isn't a continuous one
NARROW = 0.2  # of the range of actions
RARE = 0.01  # share of the rows below which a choice is rare
NOISELESS = 0.02  # standard deviation of the actions in one state, in a range of [-1, 1]


def chosen(rows: Rows) -> Iterator[Finding]:
    """Of choices: those that the data hardly know."""
    assert rows.counts is not None
    shares = rows.counts / max(1, rows.counts.sum())
    unused, advice = never_made(rows.counts, rows.first)
    if unused:
        yield finding("warning", "unused-actions", unused, advice)
    rare = np.flatnonzero((rows.counts > 0) & (shares < RARE))
    if rare.size:
        named = listed([f"{rows.first + it} ({rows.counts[it]:,} times)" for it in rare])
        yield finding("note", "rare-actions", f"choices made in fewer than {RARE:.0%} of the rows: {named}", UNKNOWN)


def actions(rows: Rows) -> Iterator[Finding]:
    if rows.counts is not None:
        yield from chosen(rows)
        return
    actions = rows.episodes.actions
    outside = np.flatnonzero((np.abs(actions) > 1 + ROUNDING).any(axis=1) & rows.sound)
    sound = actions if rows.sound.all() else actions[rows.sound]
    if not len(sound):
        return
    low, high = sound.min(axis=0), sound.max(axis=0)
    if outside.size:
        what = f"actions outside [-1, 1]{' after rescaling' if rows.scaled else ''}: they range from {low.min():.6g} to"
        advice = (
            f"training refuses them: {'widen the bounds' if rows.scaled else BOUNDS}; {bounds_advice(*rows.logged)}"
        )
        if rows.discrete and not rows.scaled:
            what, advice = f"actions are {rows.discrete}, from", f"{DISCRETE}; {INSIST}"
        yield finding("error", "action-range", f"{what} {high.max():.6g}", advice, outside)
    discrete: list[str] = []
    clipped: list[tuple[str, np.ndarray]] = []
    for index in np.flatnonzero(low < high):
        column, name = sound[:, index], rows.name("actions", int(index))
        sample = column[:: max(1, len(column) // 10_000)]
        values = np.unique(sample)
        if len(values) <= FEW and len(sample) > 10 * FEW:
            discrete.append(f"{name} ({', '.join(f'{value:.4g}' for value in values)})")
            continue
        edges = [(low[index], column == low[index]), (high[index], column == high[index])]
        if max(mask.mean() for _, mask in edges) >= CLIPPED[0]:
            shares = " and ".join(f"{mask.mean():.1%} at {edge:.4g}" for edge, mask in edges)
            clipped.append((f"{name}: {shares}", edges[0][1] | edges[1][1]))
    if rows.discrete:
        refused = "" if rows.scaled else f"; training without an environment that takes them refuses them; {INSIST}"
        yield finding("warning", "discrete-actions", f"actions are {rows.discrete}", f"{DISCRETE}{refused}")
    elif discrete:
        what = f"actions of a few values only: {listed(discrete)}"
        yield finding("warning", "discrete-actions", what, DISCRETE)
    if clipped:
        piles = listed([text for text, _ in clipped])
        what = f"rows in which an action is exactly its largest or smallest value: {piles}"
        advice = (
            "clipped, it seems. A density can't describe a pile of values on a bound: log the command before it was"
            " clipped, or expect pi_beta to fit poorly there"
        )
        masks = np.stack([mask for _, mask in clipped])
        severity = "warning" if masks.mean(axis=1).max() >= CLIPPED[1] else "note"
        yield finding(severity, "clipped-actions", what, advice, np.flatnonzero(rows.sound)[masks.any(axis=0)])
    widest = float(np.max(high - low)) / 2
    if 0 < widest < NARROW:
        what = f"actions use {widest:.1%} of the range [-1, 1]"
        advice = "if the bounds are wider than the environment's, narrow --action-low and --action-high"
        yield finding("note", "narrow-actions", what, advice)


def little_noise(rows: Rows) -> Iterator[Finding]:
    if rows.noise is None:
        return
    share = float((rows.noise < NOISELESS).mean())
    if share > 0.5:
        what = f"in {share:.0%} of the states looked at, actions vary by less than {NOISELESS} (of a range of [-1, 1])"
        advice = (
            "the behaviour is close to deterministic: log densities are huge and nothing is known about other actions;"
            " keep a floor on pi_beta's standard deviation, and prefer data with exploration"
        )
        yield finding("warning", "little-noise", what, advice)
