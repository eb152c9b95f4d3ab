"""A log as the estimators see it: rows, and where episodes begin. Axes: N rows, E episodes, T steps of the longest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.types import Dataset, Transition


class Log(NamedTuple):
    """Whole episodes, one after another. A row with `continues` 0 is the last of its episode; an episode whose last row
    continues was cut (by the clock, or by the end of the data): what would have come is unknown, not nothing.
    """

    rows: Transition  # NumPy arrays [N, ...]; rewards in the user's units; choices as one-hot codes [N, n]
    starts: np.ndarray  # [E] int: the first row of each episode; grows, begins with 0
    choices: bool = False  # actions are

    @property
    def lengths(self) -> np.ndarray:
        """[E]: rows of each episode."""
        return np.diff(self.starts, append=len(self.rows.reward))

    @property
    def ends(self) -> np.ndarray:
        """[E]: the last row of each episode."""
        return self.starts + self.lengths - 1

    @property
    def cut(self) -> np.ndarray:
        """bool [E]: episodes that did not end by themselves."""
        return np.asarray(self.rows.continues)[self.ends] != 0

    @property
    def episode(self) -> np.ndarray:
        """[N]: the index of the episode that a row belongs to."""
        return np.repeat(np.arange(len(self.starts)), self.lengths)


def make_log(rows: Transition, starts: np.ndarray) -> Log:
    """A checked log. Raises InputError for starts that are none, and for an episode that goes on after a terminal."""
    starts = np.asarray(starts, np.int64)
    log = Log(Transition(*map(np.asarray, rows)), starts)
    if not len(starts) or starts[0] != 0 or (log.lengths < 1).any():
        raise InputError("a log's starts must be the first rows of its episodes: 0, and then growing")
    terminal = np.flatnonzero(log.rows.continues == 0)
    if not np.isin(terminal, log.ends).all():
        raise InputError("a log's rows with continues 0 must be the last of their episodes")
    return log


def log_of(dataset: Dataset) -> Log:
    """The rows of a dataset, such as the `held` of one that `itrpo.load_dataset` read with `holdout`."""
    starts = np.zeros(1, int) if dataset.starts is None else dataset.starts
    if dataset.num_actions is None:
        return make_log(dataset.transitions, starts)
    rows, number = dataset.transitions, dataset.num_actions
    following = one_hot(rows.next_action, number)
    following[make_log(rows, starts).ends] = 0  # not known, or not there
    rows = rows._replace(action=one_hot(rows.action, number), next_action=following)
    return make_log(rows, starts)._replace(choices=True)


def begins_as(log: Log, other: Log, rows: int = 8) -> np.ndarray:
    """bool [E]: whether an episode begins with the observations, actions and rewards of one of `other`.

    At most `rows` of them; an episode's last row is left out, as it may be missing in another format.
    """

    def beginnings(of: Log) -> list[bytes]:
        ends = of.starts + np.clip(of.lengths - 1, 1, rows)
        return [
            b"".join((np.asarray(it[start:end], np.float32) + 0.0).tobytes() for it in of.rows[:3])  # -0 is 0
            for start, end in zip(of.starts, ends, strict=True)
        ]

    known = set(beginnings(other))
    return np.array([it in known for it in beginnings(log)])


def one_hot(choices: np.ndarray, number: int) -> np.ndarray:
    """float32 [N, number] of numbers [N]. A row of probabilities in its place stands for their mixture: estimators of Q
    are linear in it, so expectations over choices are exact.
    """
    return np.eye(number, dtype=np.float32)[choices]


def by_episode(log: Log, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Values of rows [N] as [E, T], `fill` after the end of an episode."""
    table = np.full((len(log.starts), int(log.lengths.max())), fill, np.float64)
    table[log.episode, np.arange(len(values)) - log.starts[log.episode]] = values
    return table


def discounted_returns(log: Log, gamma: float, tail: np.ndarray | None = None) -> np.ndarray:
    """[E]: sum_t gamma^t r_t of each episode. `tail` [E] is the value of the state where it was cut; None: nothing."""
    rewards = by_episode(log, log.rows.reward)
    values = rewards @ gamma ** np.arange(rewards.shape[1])
    return values if tail is None else values + np.where(log.cut, gamma**log.lengths * tail, 0.0)


def returns_to_go(log: Log, gamma: float) -> np.ndarray:
    """[N]: sum of the rewards from each row on to the end of its episode, discounted from that row."""
    rewards = by_episode(log, log.rows.reward)
    for step in reversed(range(rewards.shape[1] - 1)):
        rewards[:, step] += gamma * rewards[:, step + 1]
    return rewards[log.episode, np.arange(len(log.rows.reward)) - log.starts[log.episode]]
