"""Rewards: all the same, sparse, out of proportion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrpo.data.health.rows import Finding, Rows, finding

OUTLIER = 20.0  # robust standard deviations; a normal distribution has none beyond 6 in a million rows
FEW = 0.001  # share of rows up to which outliers are taken for faults rather than for the task's own
LARGE_REWARD = 100.0


def rewards(rows: Rows) -> Iterator[Finding]:
    episodes = rows.episodes
    where = np.flatnonzero(rows.sound)
    rewards = episodes.rewards[where]
    if not len(rewards):
        return
    if rewards.min() == rewards.max():
        if episodes.terminals.any():
            advice = "then only the length of episodes tells policies apart; make sure that this is meant"
            yield finding("warning", "constant-reward", f"every reward is {rewards[0]:.6g}", advice)
        else:
            advice = "every policy is as good as any other: there is nothing to learn; was the right column logged?"
            yield finding("error", "constant-reward", f"every reward is {rewards[0]:.6g}, and no episode ends", advice)
        return
    typical, usual = np.median(rewards), where
    scale = _robust_std(rewards)
    if scale == 0:  # most rewards are one value
        rare = rewards != typical
        what = f"sparse rewards: {rare.sum():,} of {len(rewards):,} rows differ from {typical:.6g}"
        advice = "normal for tasks with a goal; returns then say little about single steps"
        yield finding("note", "sparse-rewards", what, advice, where[rare])
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
            yield finding("warning" if few else "note", "reward-outliers", what, advice, usual[mask])
    rewards = rewards[sane]
    mean, std = float(rewards.mean(dtype=np.float64)), float(rewards.std(dtype=np.float64))
    size = max(abs(mean), std)
    if size > LARGE_REWARD:
        what = f"large rewards: mean {mean:.4g}, standard deviation {std:.4g}"
        advice = f"Q values will be larger still; divide rewards by about {10 ** np.floor(np.log10(size)):g}"
        yield finding("note", "large-rewards", what, advice)


def _robust_std(values: np.ndarray) -> float:
    """Half the width of the middle 50%, in units of a normal distribution's: no outlier moves it."""
    quarter, three_quarters = np.quantile(values, [0.25, 0.75])
    return float(three_quarters - quarter) / 1.349
