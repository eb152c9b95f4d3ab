"""The list of the paper's statements, each with the check that stands beside its mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from itrpo.theory import (
    assumption1,
    corollary1,
    definition1,
    error_averaging,
    fixed_point,
    lemma1,
    table1,
    theorem1,
    theorem2,
)
from itrpo.theory.checks import Row
from itrpo.theory.instances import Instance


class Statement(NamedTuple):
    name: str
    description: str
    check: Callable[[list[Instance], int], list[Row]]


STATEMENTS: tuple[Statement, ...] = (
    Statement("definition1", "the KL-entropy-regularised operator and its greedy policy", definition1.check),
    Statement("theorem1", "shaping the reward is a trust region: Eq. 5 equals the two-KL scheme", theorem1.check),
    Statement("lemma1", "the scheme averages Q' and solves an entropy-regularised MDP", lemma1.check),
    Statement("table1", "the regularisers that BRAC, Munchausen VI and iTRPO imply, identified from their runs",
              table1.check),
    Statement("corollary1", "the lower bound on the return, and how much of its constant is needed", corollary1.check),
    Statement("assumption1", "concentrability c(t) computed exactly, and what it leaves out", assumption1.check),
    Statement("theorem2", "the error bound as printed and corrected, against the exact gap", theorem2.check),
    Statement("error_averaging", "what the moving average E_k does to single, independent and constant errors",
              error_averaging.check),
    Statement("fixed_point", "iTRPO(alpha, tau) and BRAC(alpha(1-tau)) share their fixed point",
              fixed_point.check_fixed_point),
    Statement("advantage_learning", "the shaping is advantage learning: action gaps grow by 1/(1-tau)",
              fixed_point.check_advantage_learning),
)  # fmt: skip
