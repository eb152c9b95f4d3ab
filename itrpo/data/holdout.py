"""Episodes that training never sees, so that policies can be judged on them (`itrpo judge`).

Which they are follows from the number of episodes and the share alone: no seed of a run changes it, and those of a
smaller share are among those of a larger one. A row is in one part or the other, with what it was before; what follows
from observations alone is known of whole episodes only, so nothing of one part is in the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from itrpo.data.episodes import episode_begins, taken, transition_rows
from itrpo.errors import InputError
from itrpo.types import Dataset, Episodes, Transition

LEAST = 2  # episodes on either side; for intervals worth reading it takes tens


def transition_episodes(episodes: Episodes) -> np.ndarray:
    """[B] int: which episode of the file each transition is of."""
    number, kept = np.cumsum(episode_begins(episodes)) - 1, transition_rows(episodes)
    return number if kept is None else number[kept]


def starts_of(number: np.ndarray) -> np.ndarray:
    """[E]: the row that each episode begins with, of numbers of episodes [B]."""
    return np.flatnonzero(np.diff(number, prepend=-1))


def of_rows(dataset: Dataset, rows: np.ndarray, in_place: bool = False) -> Dataset:
    """The dataset with these rows alone, which grow; returns and lengths of episodes stay those of the whole.

    `in_place` lets the result take over the memory of `dataset`.
    """
    begins, log_probs = dataset.starts, dataset.behavior_log_probs
    return replace(
        dataset,
        transitions=Transition(*(taken(it, rows, in_place) for it in dataset.transitions)),
        starts=None if begins is None else starts_of(np.searchsorted(begins, rows, side="right") - 1),
        behavior_log_probs=None if log_probs is None else log_probs[rows],
    )


def held_out(episodes: int, share: float, where: str) -> np.ndarray:
    """bool [E]: which are. Raises InputError where too few would be, or too few would be left."""
    count = round(share * episodes)
    if not LEAST <= count <= episodes - LEAST:
        raise InputError(
            f"{where}: --holdout {share:g} of its {'1 episode' if episodes == 1 else f'{episodes:,} episodes'} would"
            f" hold out {count:,}, and at least {LEAST} are needed on either side; give another share, or mark more"
            " ends: a row with 'timeouts' set is the last of its episode"
        )
    chosen = np.zeros(episodes, bool)
    chosen[np.random.default_rng(0).permutation(episodes)[:count]] = True
    return chosen


def split(
    dataset: Dataset, share: float, episodes: Episodes, number: np.ndarray, where: str, in_place: bool
) -> Dataset:
    """`dataset`, without a share of its episodes, which become its `held`; statistics of each are its own.

    `number`: `transition_episodes`; `in_place` lets the result take over the memory of `dataset`. Raises InputError.
    """
    first = starts_of(number)
    chosen = held_out(len(first), share, where)
    known = np.zeros(int(number[-1]) + 2, bool)  # one more, for an end behind the last transition
    known[number[first]] = chosen
    of_row = known[np.minimum(np.cumsum(episode_begins(episodes)) - 1, len(known) - 1)]
    completed = of_row[np.flatnonzero(episodes.terminals | episodes.timeouts)]

    def part(held: bool) -> Dataset:
        whole = replace(dataset, starts=first)
        return replace(
            of_rows(whole, np.flatnonzero(known[number] == held), in_place and not held),
            episode_returns=dataset.episode_returns[completed == held],
            episode_lengths=dataset.episode_lengths[completed == held],
        )

    held = part(True)  # first: the other part may be written over it
    return replace(part(False), holdout=share, held=held)
