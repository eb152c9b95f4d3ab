"""What a check of a statement returns: rows, each the worst number over all instances and the instance that gives it.

`expected` says what the mathematics says: "holds" (proven: a violation is a failure), "fails" (a claim as printed that
has a counter-example: no violation is a failure), "observed" (a measurement, no verdict).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array
from itrpo.theory.schemes import Iterates

# Identities are exact in real arithmetic. Residuals are relative to the largest number that enters them, and equal
# policies may differ by the rounding of their logits, Q / alpha: what float64 leaves is a small multiple of 1e-16 times
# the iterations and the conditioning 1 / (1 - gamma).
ROUNDING = 1e-12
RATIO_LIMIT = 1 + 1e-9

Expected = Literal["holds", "fails", "observed"]


class Row(NamedTuple):
    """One line of a statement's table.

    `instance` is None for hand-made instances and pooled numbers; `violations` is None where nothing is claimed.
    """

    claim: str
    instances: int
    violations: int | None
    worst: float
    measure: str
    instance: int | None
    expected: Expected

    @property
    def as_expected(self) -> bool:
        return self.expected == "observed" or (self.violations == 0) == (self.expected == "holds")


class Tally:
    """Collects one number per instance over the batches and makes the row of the largest."""

    def __init__(self) -> None:
        self.values: list[Array] = []
        self.allowances: list[Array] = []
        self.indices: list[Array] = []

    def add(self, instance: Instance, values: Array, allowance: Array | float = 1.0) -> None:
        """`values` [N] may reach the row's limit times `allowance`."""
        self.values.append(np.asarray(values))
        self.allowances.append(np.broadcast_to(np.asarray(allowance, dtype=np.float64), np.shape(values)))
        self.indices.append(instance.number)

    def row(self, claim: str, measure: str, limit: float | None, expected: Expected = "holds") -> Row:
        values, indices = np.concatenate(self.values), np.concatenate(self.indices)
        values = np.where(np.isnan(values), np.inf, values)
        worst = int(values.argmax())
        violations = None if limit is None else int((values > limit * np.concatenate(self.allowances)).sum())
        return Row(claim, len(values), violations, float(values[worst]), measure, int(indices[worst]), expected)


def table_max(values: Array) -> Array:
    """Largest magnitude over iterates and cells: [K, N, S, A] -> [N]."""
    return np.abs(values).max((0, -2, -1))


def logit_size(instance: Instance, run: Iterates) -> Array:
    """Largest logit of a run's policies, at least 1: by how much rounding is magnified in a policy. [N]"""
    return 1 + table_max(run.q_values) / instance.alpha


def uniform_policy(instance: Instance) -> Array:
    return np.full_like(instance.behavior, 1 / instance.mdp.actions)
