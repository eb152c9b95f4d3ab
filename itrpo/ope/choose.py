"""Which of several policies is best by their estimates, and which can't be told apart. Axes: P policies, F folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from itrpo.ope.bootstrap import interval
from itrpo.report.statistics import Estimate

TAIL = 0.025  # of each side of an interval, shared by all that are compared with one


class Ranked(NamedTuple):
    """One of P policies, or of runs; 0 is the best."""

    place: int  # its place in what was given
    group: int  # those of one group can't be told from the first of it
    behind: Estimate  # how much the first of all is better, and a simultaneous 95% interval


def rank(folds: np.ndarray, episodes: int, known: Sequence[bool], spread: np.ndarray | None = None) -> list[Ranked]:
    """Best first, by fold 0 of `folds` [P, F]: values in the same folds of the same `episodes`.

    A group begins with the best that is in none, and has all others whose difference to it has 0 in its interval: over
    folds, which are paired, with the tail shared by all P - 1 that may be compared (Bonferroni), for the first was
    chosen because it is the largest. Not `known` [P]: a value without an interval, which can be told from none.
    `spread` [P] is a standard error of each that folds do not see, such as that over a run's seeds.
    """
    count = len(folds)
    more = np.zeros(count) if spread is None else spread
    tail = TAIL / max(count - 1, 1)

    def difference(first: int, other: int) -> Estimate:
        if first == other:
            return Estimate(0.0, 0.0, 0.0)
        gap = folds[first] - folds[other]
        if not (known[first] and known[other]):
            return Estimate(float(gap[0]), -np.inf, np.inf)
        return interval(gap, episodes, tail, float(np.hypot(more[first], more[other])))

    values = np.where(np.isfinite(folds[:, 0]), folds[:, 0], -np.inf)
    left = [int(it) for it in np.argsort(-values, kind="stable")]
    best, found, group = left[0], list[Ranked](), 0
    while left:
        same = [it for it in left if not difference(left[0], it).low > 0]
        found += [Ranked(it, group, difference(best, it)) for it in same]
        left, group = [it for it in left if it not in same], group + 1
    return found
