"""Rows of a file -> transitions, and returns of whole episodes. Both are vectorised: two million rows take seconds."""

from __future__ import annotations

import numpy as np

from itrpo.data.memory import blocks, empty_rows
from itrpo.errors import InputError
from itrpo.types import Episodes, Transition


def to_transitions(episodes: Episodes, *, in_place: bool = False) -> Transition:
    """The transitions in `episodes`, as NumPy arrays.

    Without `next_observations` the meaning is exactly that of D4RL's `qlearning_dataset` (terminate_on_end=False):
    row i, for i = 0 .. N-2, is followed by row i+1; a row with `timeouts[i]` is dropped, even if it is terminal too,
    because row i+1 is the next episode's reset; terminal rows are kept with `continues` 0 (their next observation is
    the next episode's first, and is masked); the last row of the file is never a transition.

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
                f"{episodes.source.path or episodes.source.name}: no transition is left: every row but the last has"
                " 'timeouts' set, and a row cut by a timeout has no successor"
            )
        continues = ~episodes.terminals[kept]
        same_episode = continues
        next_observation, next_action = _taken(episodes.observations, kept, 1), _taken(episodes.actions, kept, 1)
        observation, action, reward = (
            _taken(values, kept, in_place=in_place)
            for values in (episodes.observations, episodes.actions, episodes.rewards)
        )
    else:
        assert episodes.next_observations is not None
        observation, action, reward = episodes.observations, episodes.actions, episodes.rewards
        next_observation = episodes.next_observations
        continues = ~episodes.terminals
        same_episode = continues & ~episodes.timeouts & follows(observation, next_observation)
        next_action = empty_rows(*action.shape)
        next_action[:-1] = action[1:]
        next_action[-1] = 0.0
    next_action[~same_episode] = 0.0
    return Transition(observation, action, reward, continues.astype(np.float32), next_observation, next_action)


def transition_rows(episodes: Episodes) -> np.ndarray | None:
    """Indices of the rows that become transitions, in order; None where all do."""
    return np.flatnonzero(~episodes.timeouts[:-1]) if episodes.next_observations is None else None


def _taken(values: np.ndarray, rows: np.ndarray, offset: int = 0, in_place: bool = False) -> np.ndarray:
    """values[rows + offset], block by block. In place, the result begins where `values` does: indices only grow, so a
    block is read before any of its rows is written over."""
    in_place = in_place and values.flags.writeable
    result = values[: len(rows)] if in_place else empty_rows(len(rows), *values.shape[1:])
    for block in blocks(len(rows)):
        result[block] = values[rows[block] + offset]
    return result


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
