"""Rows of a file -> transitions, and returns of whole episodes. Both are vectorised: two million rows take seconds."""

from __future__ import annotations

import numpy as np

from itrpo.data.memory import blocks, empty_rows
from itrpo.errors import InputError
from itrpo.types import Episodes, Transition


def to_transitions(episodes: Episodes, *, in_place: bool = False) -> Transition:
    """The transitions in `episodes`, as NumPy arrays.

    Without `next_observations` row i is followed by row i+1. Terminal rows are kept with `continues` 0: their next
    observation is the next episode's first, or, in the last row, their own, and is masked. Other rows with
    `timeouts[i]` are dropped, because row i+1 is the next episode's reset, and so is the last row.

    With `d4rl_view` the meaning is exactly that of D4RL's `qlearning_dataset` (terminate_on_end=False): a row with
    `timeouts[i]` is dropped even if it is terminal too, and the last row even if it is terminal.

    With `next_observations` (arrays of the user's own) every row is a transition, timeouts and the last row included.

    `next_action` is the logged action of row i+1 where that row continues the same episode, else zeros. It is known
    wherever `continues` is 1, except, with `next_observations`, at rows cut by the clock or by the end of the data.

    `in_place` lets the transitions take over the memory of `episodes`, whose arrays are overwritten: rows and
    transitions of a large file need not fit into memory side by side.

    Raises InputError if no row remains.
    """
    kept = transition_rows(episodes)
    if kept is not None:
        if not kept.size:
            raise InputError(
                f"{episodes.source.where}: no transition is left: no row has a successor or is"
                " terminal, since a row with 'timeouts' set and the last row have none"
            )
        continues = ~episodes.terminals[kept]
        same_episode = continues
        following = np.minimum(kept + 1, len(episodes.rewards) - 1)
        next_observation, next_action = taken(episodes.observations, following), taken(episodes.actions, following)
        observation, action, reward = (
            taken(values, kept, in_place=in_place)
            for values in (episodes.observations, episodes.actions, episodes.rewards)
        )
    else:
        assert episodes.next_observations is not None
        observation, action, reward = episodes.observations, episodes.actions, episodes.rewards
        next_observation = episodes.next_observations
        continues = ~episodes.terminals
        same_episode = continues & ~episodes.timeouts & follows(observation, next_observation)
        next_action = _rows_like(action, len(action))
        next_action[:-1] = action[1:]
        next_action[-1] = 0
    next_action[~same_episode] = 0
    return Transition(observation, action, reward, continues.astype(np.float32), next_observation, next_action)


def transition_rows(episodes: Episodes) -> np.ndarray | None:
    """Indices of the rows that become transitions, in order; None where all do."""
    if episodes.next_observations is not None:
        return None
    kept = ~episodes.timeouts
    kept[-1] = False
    return np.flatnonzero(kept if episodes.attributes.d4rl_view else kept | episodes.terminals)


def left_out(episodes: Episodes) -> np.ndarray:
    """bool [N]: the rows that are no transitions."""
    kept = transition_rows(episodes)
    dropped = np.ones(len(episodes.rewards), dtype=bool)
    dropped[slice(None) if kept is None else kept] = False
    return dropped


def left_out_rows(episodes: Episodes) -> str | None:
    """What is lost with the rows that are no transitions, in words; None where they hold no reward and no terminal."""
    dropped = left_out(episodes)
    lost: list[str] = []
    for what, held in (("rewards other than 0", episodes.rewards != 0), ("terminals", episodes.terminals)):
        if (held & dropped).any():
            lost.append(f"{(held & dropped).sum():,} of the {held.sum():,} {what}")
    if not lost:
        return None
    rule = ", as in D4RL" if episodes.attributes.d4rl_view else ""
    return (
        f"{dropped.sum():,} of {len(dropped):,} rows have no successor and are left out{rule}, with {', '.join(lost)}"
    )


def both_flags(episodes: Episodes) -> str | None:
    """How many rows are terminal and timeout at once, and what became of them, in words; None if none is."""
    both = int((episodes.terminals & episodes.timeouts).sum())
    kind = "dropped as timeouts, as in D4RL" if episodes.attributes.d4rl_view else "taken as terminals"
    return f"{both:,} rows are both terminal and timeout: {kind}" if both else None


def episode_begins(episodes: Episodes) -> np.ndarray:
    """bool [N]: the first row, and rows after an end or where the row before led to somewhere else."""
    begins = np.ones(len(episodes.rewards), dtype=bool)
    begins[1:] = (episodes.terminals | episodes.timeouts)[:-1]
    if episodes.next_observations is not None:
        begins[1:] |= ~follows(episodes.observations, episodes.next_observations)[:-1]
    return begins


def taken(values: np.ndarray, rows: np.ndarray, in_place: bool = False) -> np.ndarray:
    """values[rows], block by block. In place, the result begins where `values` does: indices only grow, so a block is
    read before any of its rows is written over."""
    in_place = in_place and values.flags.writeable
    result = values[: len(rows)] if in_place else _rows_like(values, len(rows))
    for block in blocks(len(rows)):
        result[block] = values[rows[block]]
    return result


def _rows_like(values: np.ndarray, count: int) -> np.ndarray:
    """Uninitialised: numbers as float32, choices as they are."""
    choices = values.dtype == np.int32
    return np.empty(count, np.int32) if choices else empty_rows(count, *values.shape[1:])


def follows(observations: np.ndarray, next_observations: np.ndarray) -> np.ndarray:
    """bool [N]: row i+1 starts where row i led to. False in the last row."""
    result = np.zeros(len(observations), dtype=bool)
    for block in blocks(len(observations) - 1):
        starts = observations[block.start + 1 : block.stop + 1]
        result[block] = (next_observations[block] == starts).all(axis=1)
    return result


def episode_statistics(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Returns [E] float64 (undiscounted sums of raw rewards) and lengths [E] int64 of the completed episodes.

    An episode is completed by a terminal or a timeout; rows after the last such end belong to none.
    """
    ends = np.flatnonzero(episodes.terminals | episodes.timeouts)
    starts = np.concatenate([[0], ends + 1])[:-1].astype(np.int64)
    if not ends.size:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    returns = np.add.reduceat(episodes.rewards[: ends[-1] + 1], starts, dtype=np.float64)
    return returns, ends - starts + 1
