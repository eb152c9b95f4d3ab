"""What the checks of a dataset share: the rows, with what is measured on them once, and what a finding is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from itrpo.data.actions import Choices, choices, extremes, numbered
from itrpo.data.episodes import episode_statistics
from itrpo.data.health.measures import action_noise, equal_columns, spectrum
from itrpo.data.memory import blocks
from itrpo.data.wording import column_word
from itrpo.types import Episodes

MAX_ROWS = 5  # listed

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    name: str  # of the check, stable: "not-finite", "terminals-go-on", ...
    what: str
    advice: str
    rows: tuple[int, ...] = ()  # the first few
    count: int = 0  # of rows


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset, and what several checks need to know of them."""

    episodes: Episodes  # actions scaled to [-1, 1]
    scaled: bool  # by bounds that were given or declared
    logged: tuple[np.ndarray, np.ndarray]  # smallest and largest action [A] before that
    discrete: str | None  # what the actions are if they number choices, and are taken for quantities
    horizon: int | None  # steps after which the clock ends an episode, if it is known and there is one
    sound: np.ndarray  # [N] bool: no NaN or infinity in the row
    ends: np.ndarray  # [N] bool
    returns: np.ndarray
    lengths: np.ndarray
    std: np.ndarray  # [O] of the observations
    equal: Sequence[tuple[int, int]]  # pairs of observation columns that are the same in all rows
    moved: np.ndarray  # [N - 1]: distance from an observation to the next row's, in std, averaged over dimensions
    noise: np.ndarray | None  # standard deviation of the actions in one state, for some states
    spectrum: np.ndarray  # variances of the observations that vary, in directions without correlation
    counts: np.ndarray | None = None  # [n] how often each choice was made; None: actions are quantities
    first: int = 0  # the raw action that is choice 0

    def name(self, key: str, index: int) -> str:
        """'observation 3', or 'observation 3 (speed)'."""
        kind = key[:-1]
        return column_word(kind, index, getattr(self.episodes.attributes, f"{kind}_names"))


def finding(severity: Severity, name: str, what: str, advice: str, rows: Sequence[int] | np.ndarray = ()) -> Finding:
    """`rows`: all in which it was found, sorted."""
    return Finding(severity, name, what, advice, tuple(int(row) for row in rows[:MAX_ROWS]), len(rows))


def prepare(
    episodes: Episodes,
    raw_actions: np.ndarray,
    scaled: bool,
    horizon: int | None,
    continuous: bool = False,
    found: Choices | None = None,
) -> Rows:
    """Measures the rows; `scaled`: whether bounds have made their actions of `raw_actions`; `continuous`: whether these
    are known to be quantities; `found`: they are choices.
    """
    sound = np.ones(len(episodes.rewards), dtype=bool)
    for values in (episodes.observations, episodes.actions, episodes.rewards, episodes.next_observations):
        if values is not None:
            for block in blocks(len(values)):
                sound[block] &= np.isfinite(values[block].reshape(len(values[block]), -1)).all(axis=1)
    returns, lengths = episode_statistics(episodes)
    observations = episodes.observations if sound.all() else episodes.observations[sound]
    std = observations.std(axis=0, dtype=np.float64) if len(observations) else np.zeros(observations.shape[1])
    varying = np.flatnonzero(std > 0).tolist()
    moved = np.zeros(len(sound) - 1, np.float32)
    for block in blocks(len(moved)) if varying else ():
        steps = episodes.observations[block.start + 1 : block.stop + 1] - episodes.observations[block]
        moved[block] = np.sqrt(((steps[:, varying] / std[varying]) ** 2).mean(axis=1))
    return Rows(
        episodes=episodes,
        scaled=scaled,
        logged=extremes(raw_actions),
        discrete=None if continuous or found else choices(raw_actions),
        horizon=horizon,
        sound=sound,
        ends=episodes.terminals | episodes.timeouts,
        returns=returns,
        lengths=lengths,
        std=std,
        equal=equal_columns(observations, varying),
        moved=moved,
        noise=None if found else action_noise(episodes, scaled, sound, std),
        spectrum=spectrum(episodes, sound, std),
        counts=None if found is None else np.bincount(numbered(raw_actions, found), minlength=found.number),
        first=0 if found is None else found.first,
    )
