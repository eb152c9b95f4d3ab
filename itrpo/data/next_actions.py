"""Rows after which the log does not say what was done: who reads the next action can't learn from them."""

from __future__ import annotations

import numpy as np

from itrpo.data.holdout import of_rows
from itrpo.errors import InputError
from itrpo.types import Dataset, Transition

LEAST = 0.1  # share of the rows that continue whose next action has to be known: rows in no order have one by chance


def unknown_next(rows: Transition) -> np.ndarray:
    """[M] int: rows that continue, with no next action, and not where the next row begins (`data.episodes`)."""
    nothing = ~np.asarray(rows.next_action).reshape(len(rows.reward), -1).any(axis=1)  # or choice 0
    found = np.flatnonzero((np.asarray(rows.continues) != 0) & nothing)
    last = len(rows.reward) - 1
    after = rows.observation[np.minimum(found + 1, last)]
    return found[(found == last) | (rows.next_observation[found] != after).any(axis=1)]


def rows_with_next(dataset: Dataset, algorithm: str) -> np.ndarray:
    """[M] int: the other rows. Raises InputError if hardly any remains."""
    kept, continuing = np.ones(len(dataset), bool), int((dataset.transitions.continues != 0).sum())
    kept[unknown_next(dataset.transitions)] = False
    known = continuing - int((~kept).sum())
    if known < LEAST * continuing:
        raise InputError(
            f"{dataset.source.where}: {algorithm} reads what was done after each row, and only {known:,}"
            f" of {continuing:,} rows are followed by one that begins where they led to; put the rows of an episode one"
            " after another, or take an algorithm that doesn't read it, such as td3_bc or itrpo"
        )
    return np.flatnonzero(kept)


def with_next_actions(dataset: Dataset, algorithm: str) -> tuple[Dataset, str]:
    """The dataset of the rows whose next action is known, and what a user should know of it. Raises InputError."""
    rows, total = rows_with_next(dataset, algorithm), len(dataset)
    if len(rows) == total:
        return dataset, ""
    return of_rows(dataset, rows), (
        f"{algorithm} reads what was done after each row, and {total - len(rows):,} of {total:,} rows don't say (they"
        " are cut by the clock, or what follows is of another episode): it learns from the others"
    )
