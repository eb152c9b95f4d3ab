"""For who can try policies a few times: which one next, and when to stop. The returns that came are kept in a file.

UCB1 as in unifloral's protocol (Jackson et al., 2025, arXiv 2504.11453): each policy once, then that with the largest

    mean of its returns + scale sqrt(exploration ln(trials so far) / its trials)

with exploration 2. Two things are ours. The first round goes in the order of the offline estimates, not in a random
one, so that who stops early has tried what seemed best. And `scale`, which makes returns the 0 to 1 that UCB1 is made
for, is the spread of all returns so far.

Stopping: with b the best mean so far and s^2 the variance pooled over policies, a rival i may be better by at most

    mean_i - mean_b + t sqrt(1/n_i + 1/n_b) s,     t: Student's quantile 1 - 0.05 / (P - 1) at sum (n_i - 1)

Trials end where that is at most `worth` for every rival, or where the budget is spent. It is looked at after every
trial, which the 95% does not account for: docs/judging.md has what was measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import InputError, StorageError
from itrpo.ranges import Count, NonNegative, Positive

VERSION = 1
WORTH = 0.05  # of the size of the best mean
ERROR = 0.05


@dataclass(frozen=True)
class Rule:
    """How trials go. None: what is in brackets."""

    exploration: NonNegative = 2.0  # weighs the bonus of what has been tried little
    scale: Positive | None = None  # what returns differ by at most [spread of those that came]
    worth: NonNegative | None = None  # a difference that is not worth more trials [5% of the best mean]
    budget: Count | None = None  # trials after which it ends in any case
    keep: Count | None = None  # only so many are tried, the best by their estimates [all]


class Advice(NamedTuple):
    """What to do after some trials."""

    best: int | None  # the largest mean so far; None: nothing was tried
    following: int | None  # which to try next; None: stop
    better_by: float  # what any other may be better by at most, at 95%; infinite while one is untried
    worth: float
    spent: bool  # the budget is


def advise(returns: Sequence[Sequence[float]], rule: Rule = Rule()) -> Advice:
    """`returns` of each policy so far, in the order of the offline estimates, best first."""
    from scipy.special import stdtrit  # scipy comes with jax

    counts = np.array([len(it) for it in returns])
    tried = counts > 0
    total, pool = int(counts.sum()), len(returns)
    spent = rule.budget is not None and total >= rule.budget
    if not total:
        return Advice(None, None if spent else 0, np.inf, rule.worth or 0.0, spent)
    means = np.array([np.mean(it) if len(it) else -np.inf for it in returns])
    best = int(np.argmax(means))
    worth = WORTH * abs(float(means[best])) if rule.worth is None else rule.worth
    if not tried.all():
        return Advice(best, None if spent else int(np.argmin(tried)), np.inf, worth, spent)
    freedom, better_by = total - pool, np.inf
    if pool == 1:
        better_by = -np.inf
    elif freedom:
        variance = sum(float(np.var(it)) * len(it) for it in returns) / freedom
        half = stdtrit(freedom, 1 - ERROR / (pool - 1)) * np.sqrt(variance * (1 / counts + 1 / counts[best]))
        better_by = float(np.max(np.delete(means - means[best] + half, best)))
    if spent or better_by <= worth:
        return Advice(best, None, better_by, worth, spent)
    every = np.concatenate([np.asarray(it) for it in returns])
    scale = rule.scale or float(np.ptp(every)) or 1.0
    bonus = scale * np.sqrt(rule.exploration * np.log(total) / counts)
    return Advice(best, int(np.argmax(means + bonus)), better_by, worth, spent)


# --- the file ------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    policy: str  # RUN/seedK, as seen from the folder of the file
    step: int  # gradient steps of the policy: another one is another policy
    value: float  # the return that came


@dataclass(frozen=True)
class Trials:
    rule: Rule
    tried: tuple[Trial, ...]


def read(path: Path) -> Trials:
    """What `write` wrote; nothing tried where the file is not there. Raises StorageError for what is none."""
    if not path.exists():
        return Trials(Rule(), ())
    given: Any = files.read_json(path)
    try:
        if given["version"] != VERSION:
            raise ValueError("it is of another version of itrpo")
        tried = tuple(Trial(str(it["policy"]), int(it["step"]), float(it["return"])) for it in given["tried"])
        if not np.isfinite([it.value for it in tried]).all():
            raise ValueError("a return is not finite")
        return Trials(Rule(**given["rule"]), tried)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: not a file of trials ({error})") from error


def write(path: Path, trials: Trials) -> None:
    """The file, whole or not at all. Raises StorageError."""
    tried = [{"policy": it.policy, "step": it.step, "return": it.value} for it in trials.tried]
    files.write_json(path, {"version": VERSION, "rule": asdict(trials.rule), "tried": tried})


def name_from(path: Path, folder: Path, seed: int) -> str:
    """A policy's name in the file at `path`: it holds as long as both move together."""
    return Path(os.path.relpath(folder.resolve(), path.resolve().parent), f"seed{seed}").as_posix()


def parse(words: Sequence[str]) -> list[tuple[Path, int, float]]:
    """'RUN/seed0=123.4' -> folder, seed, return. Raises InputError."""
    found: list[tuple[Path, int, float]] = []
    for word in words:
        name, _, value = word.rpartition("=")
        seed = Path(name).name.removeprefix("seed")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not np.isfinite(number) or not seed.isdecimal() or not Path(name).name.startswith("seed"):
            raise InputError(f"--tried {word}: give what came of a trial as RUN/seed0=123.4")
        found.append((Path(name).parent, int(seed), number))
    return found
