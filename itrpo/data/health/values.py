"""Columns: values that are not finite, that say nothing or say it twice, and sizes that networks learn badly from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.health.rows import Finding, Rows, finding
from itrpo.data.layout import SUBTRACT, rounded_away
from itrpo.data.preprocess import constant
from itrpo.data.wording import listed

LARGE = (10.0, 100.0)  # mean or standard deviation of an observation: note, warning
UNEQUAL = (100.0, 10_000.0)  # ratio of the standard deviations of two observations: note, warning
DIFFERENT = 10  # values that a column must have to be a measurement
SMALL = 10_000  # rows; D4RL's sets have 200,000 to 2,000,000


def not_finite(rows: Rows) -> Iterator[Finding]:
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
            where = " in " + listed([rows.name(key, int(index)) for index in dimensions])
        what = f"'{key}' holds {nan.sum():,} NaN and {infinite.sum():,} infinite values{where}"
        advice = "training refuses them: remove those episodes, or mend the values where you know them"
        yield finding("error", "not-finite", what, advice, bad)


def narrowed(rows: Rows) -> Iterator[Finding]:
    if lost := rounded_away(rows.episodes):
        yield finding("warning", "float32", lost, SUBTRACT)


def columns(rows: Rows) -> Iterator[Finding]:
    """Columns that say nothing, say the same twice, or say what can't be known when acting."""
    episodes = rows.episodes
    sound = slice(None) if rows.sound.all() else rows.sound
    observations, actions, rewards = episodes.observations[sound], episodes.actions[sound], episodes.rewards[sound]
    if not len(rewards):
        return
    for key, values, advice in (
        (
            "observations",
            observations,
            "it tells a policy nothing: why did it never change? leave it out",
        ),
        ("actions", actions, "nothing can be learned about the others; leave this dimension out"),
    ):
        flat = np.flatnonzero(constant(values.mean(0, np.float64), values.std(0, np.float64)))
        if flat.size:
            named = listed([f"{rows.name(key, int(index))} = {values[0, index]:.6g}" for index in flat])
            exactly = "" if not np.ptp(values[:, flat], axis=0).any() else " but for rounding"
            yield finding("warning", "constant-column", f"the same value in all rows{exactly}: {named}", advice)
    changing = [index for index in range(observations.shape[1]) if np.ptp(observations[:, index]) > 0]
    for first, second in rows.equal:
        what = f"{rows.name('observations', second)} equals {rows.name('observations', first)} in all rows"
        yield finding("warning", "duplicate-column", what, "it adds nothing: leave one of the two out")
    for index in range(actions.shape[1]):
        if np.ptp(actions[:, index]) > 0:
            raw = as_logged(rows, index, actions[:, index])
            for other in changing:
                if np.allclose(observations[:, other], raw, rtol=1e-5, atol=1e-5 * np.ptp(raw)):
                    what = f"{rows.name('observations', other)} is {rows.name('actions', index)} of the same row"
                    advice = (
                        "a policy can't see its own action before it acts, and would learn to copy it: log the"
                        " observation from before the action, or leave it out"
                    )
                    yield finding("error", "action-in-observation", what, advice)
    if np.ptp(rewards) > 0:
        for other in changing:
            if np.array_equal(observations[:, other], rewards):
                what = f"{rows.name('observations', other)} is the reward of the same row"
                advice = "it isn't known before the action: leave it out, or shift it by a step"
                yield finding("warning", "reward-in-observation", what, advice)


def as_logged(rows: Rows, index: int, action: np.ndarray) -> np.ndarray:
    """A component of actions [N] before it was scaled."""
    scaled, (low, high) = rows.episodes.actions[:, index].astype(np.float64), (float(it[index]) for it in rows.logged)
    least, most = np.nanmin(scaled), np.nanmax(scaled)
    return low + (action.astype(np.float64) - least) * (high - low) / (most - least)


def placeholders(rows: Rows) -> Iterator[Finding]:
    """-999 or 65535 where a sensor gave nothing: one value, farther from all others than these are from each other."""
    for index in range(rows.episodes.observations.shape[1]):
        column = np.ascontiguousarray(rows.episodes.observations[:, index])
        left = rows.sound.copy()
        for _ in range(2):  # there may be one on either side, and only without the other it stands out
            for value in (column[left].min(initial=np.inf), column[left].max(initial=-np.inf)):
                same = left & (column == value)
                if same.sum() < 2:
                    continue
                rest = column[left & ~same]
                if same.sum() >= len(rest) or len(np.unique(rest[:: max(1, len(rest) // 1000)])) < DIFFERENT:
                    continue
                low, high = float(rest.min()), float(rest.max())
                if max(low - value, value - high) > high - low:
                    left &= ~same
                    what = f"{rows.name('observations', index)} is {value:g} in {same.sum():,} rows, and from {low:.6g}"
                    advice = (
                        "a logger's mark for a missing value, it seems, which training takes for a measurement: empty"
                        " these cells (--fill says what becomes of them), or leave the rows out"
                    )
                    what += f" to {high:.6g} in all others"
                    yield finding("warning", "placeholder", what, advice, np.flatnonzero(same))


def scales(rows: Rows) -> Iterator[Finding]:
    observations = rows.episodes.observations[rows.sound] if not rows.sound.all() else rows.episodes.observations
    if len(observations) < SMALL:
        what = f"only {len(observations):,} rows"
        yield finding("warning", "small", what, f"few methods learn from fewer than {SMALL:,}; scores will be noise")
    if not rows.std.any():
        return
    mean = np.abs(observations.mean(axis=0, dtype=np.float64))
    varying = np.flatnonzero(~constant(mean, rows.std))
    if not varying.size:
        return
    size = np.maximum(mean, rows.std)
    ratio = rows.std[varying].max() / rows.std[varying].min()
    if size.max() > LARGE[0] or ratio > UNEQUAL[0]:
        largest = int(np.argmax(size))
        name, average = rows.name("observations", largest), observations[:, largest].mean(dtype=np.float64)
        unlike = "of very different sizes" if ratio > UNEQUAL[0] else "far from size 1"
        what = (
            f"observations {unlike}: standard deviations from {rows.std[varying].min():.3g} to"
            f" {rows.std[varying].max():.3g}; {name} is largest, mean {average:.4g}"
        )
        if len(varying) == 1:
            what = f"{name} is far from size 1: standard deviation {rows.std[largest]:.3g}, mean {average:.4g}"
        severe = size.max() > LARGE[1] or ratio > UNEQUAL[1]
        advice = "training normalises them; a benchmark's, if its preset says so or with --normalize-observations true"
        yield finding("warning" if severe else "note", "scales", what, advice)


def dependent_columns(rows: Rows) -> Iterator[Finding]:
    flat = int((rows.spectrum < 1e-9 * rows.spectrum.max(initial=0)).sum()) - len(rows.equal)
    if flat > 0:
        directions = f"{flat} of {len(rows.spectrum)} directions of the observations never vary"
        what = f"{directions}: columns are combinations of others"
        yield finding("note", "dependent-columns", what, "harmless for networks; they cost inputs and say nothing new")
