"""Histories as observations: the newest K observations of an episode, and the K - 1 actions between them.

A row of the result is o_t, o_{t-1}, ..., o_{t-K+1}, a_{t-1}, ..., a_{t-K+1}. Before the first row of an episode stand
its first observation and actions of 0, the middle of their range. `itrpo.policy` keeps the same history as it acts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from itrpo.data.episodes import episode_begins
from itrpo.data.layout import check_memory
from itrpo.data.memory import empty_rows
from itrpo.types import Episodes


def with_history(episodes: Episodes, stack: int, where: str) -> Episodes:
    """`episodes`, whose actions are in [-1, 1], with histories of `stack` observations as observations.

    An episode begins after an end, and where the row before led to somewhere else. Raises InputError if the result
    does not fit into this machine's memory.
    """
    if stack == 1:
        return episodes
    observations, actions, following = episodes.observations, episodes.actions, episodes.next_observations
    rows, size = len(observations), stack * observations.shape[1] + (stack - 1) * actions.shape[1]
    check_memory(rows, size, actions.shape[1], f"{where} with --stack {stack}", "take a smaller --stack")
    # [N]: the row that its episode begins with
    first = np.maximum.accumulate(np.where(episode_begins(episodes), np.arange(rows), 0))
    now = empty_rows(rows, size)
    _fill(now, observations, observations, actions, first, 0)
    if following is None:
        return replace(episodes, observations=now)
    after = empty_rows(rows, size)
    _fill(after, following, observations, actions, first, 1)
    return replace(episodes, observations=now, next_observations=after)


def _fill(
    result: np.ndarray, newest: np.ndarray, observations: np.ndarray, actions: np.ndarray, first: np.ndarray, ahead: int
) -> None:
    """Histories that end with `newest`, which is `ahead` rows ahead of `observations`."""
    size, action_size = newest.shape[1], actions.shape[1]
    stack = (result.shape[1] + action_size) // (size + action_size)
    result[:, :size] = newest
    for back in range(1, stack):
        row = np.arange(len(newest)) - back + ahead
        start = stack * size + (back - 1) * action_size
        result[:, back * size : (back + 1) * size] = observations[np.maximum(row, first)]
        result[:, start : start + action_size] = np.where((row < first)[:, None], 0, actions[np.maximum(row, first)])
