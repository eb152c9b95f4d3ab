"""How close sets made here come to D4RL's: observations, returns, lengths. D4RL's numbers: `d4rl_sets.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Likeness(NamedTuple):
    """A made set beside D4RL's of the same task. Distances are in D4RL's standard deviations of a dimension."""

    dataset: str
    task: str
    transitions: int
    returns: tuple[float, float] | None  # mean and standard deviation over completed episodes
    d4rl_returns: tuple[float, float] | None
    length: float | None  # mean over completed episodes, steps
    d4rl_length: float | None
    mean: np.ndarray | None  # [O]; None: not recorded, or not known of D4RL's
    std: np.ndarray | None
    d4rl_mean: np.ndarray | None
    d4rl_std: np.ndarray | None

    @property
    def shift(self) -> np.ndarray | None:
        """[O]: (mean - D4RL's mean) / D4RL's std"""
        if self.mean is None or self.d4rl_mean is None or self.d4rl_std is None:
            return None
        return (self.mean - self.d4rl_mean) / self.d4rl_std

    @property
    def ratio(self) -> np.ndarray | None:
        """[O]: std / D4RL's std"""
        return None if self.std is None or self.d4rl_std is None else self.std / self.d4rl_std


@cache
def d4rl_sets() -> dict[str, dict[str, Any]]:
    """task -> what is known: "return" (mean, std, maximum), "length", "observation_mean", "observation_std"."""
    return json.loads((Path(__file__).parent / "d4rl_sets.json").read_text("utf-8"))["sets"]


def likenesses(runs: Iterable[dict[str, Any]]) -> list[Likeness]:
    """One for each made set of the runs whose task D4RL has, by name. Sets of one name are taken to be one."""
    found: dict[str, Likeness] = {}
    for run in runs:
        theirs = d4rl_sets().get(run["task"])
        about = json.loads(run["provenance"] or "{}").get("dataset", {})
        if run["kind"] != "generated" or theirs is None:
            continue
        known = found.get(run["dataset"])
        if known is None or known.mean is None:  # runs begun earlier did not record observations
            found[run["dataset"]] = likeness(run, about, theirs)
    return [found[name] for name in sorted(found)]


def likeness(run: dict[str, Any], about: dict[str, Any], theirs: dict[str, Any]) -> Likeness:
    ours = (about["return_mean"], about["return_std"]) if "return_std" in about else None
    published = (theirs["return"][0], theirs["return"][1]) if "return" in theirs else None
    arrays = [
        np.array(it[name]) if name in it else None
        for it in (about, theirs)
        for name in ("observation_mean", "observation_std")
    ]
    if arrays[0] is None or arrays[2] is None or arrays[0].shape != arrays[2].shape:
        arrays = [None] * 4
    lengths = about.get("length_mean"), theirs.get("length")
    return Likeness(run["dataset"], run["task"], about.get("transitions", 0), ours, published, *lengths, *arrays)
