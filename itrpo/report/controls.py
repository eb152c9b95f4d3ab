"""Which runs are iTRPO's without the shaping, at what weight of the KL: what its ablation is held against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

ALPHA, LAMBDA = "α", "α(1 − τ)"  # what weight of the KL a control has
OF_SHAPING = {"alpha", "tau", "log_ratio_low", "log_ratio_high", "shaping_policy"}  # alike or not in a control


def opened(run: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `Results.runs`, its config no longer text."""
    return {**run, "config": json.loads(run["config"] or "{}")}


def is_control(run: dict[str, Any], ours: dict[str, Any], name: str) -> bool:
    """Whether a run is iTRPO's run `ours` without the shaping, at its alpha (`ALPHA`) or alpha (1 - tau) (`LAMBDA`).

    All other constants that both have are the same. In other units no alpha is the same. One that adapts to hold the
    same D_KL should come to the same weight: `LAMBDA`.
    """
    if not without_shaping(run) or None in (run["alpha"], ours["alpha"]) or not ours["tau"]:
        return False
    theirs, own = flattened(run), flattened(ours)
    both = (theirs.keys() & own.keys() - OF_SHAPING) | {"alpha_scale", "divergence_target"}  # older runs lack these
    if any(theirs.get(it) != own.get(it) for it in both):
        return False
    if own.get("divergence_target") is not None:
        return name == LAMBDA
    return bool(np.isclose(run["alpha"], ours["alpha"] * (1 - ours["tau"] if name == LAMBDA else 1)))


def percent_change(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What `theirs` has more than `ours`, in percent of ours: of scores below 1, in percent of 1."""
    return 100 * (theirs - ours) / np.maximum(np.abs(ours), 1.0)


def without_shaping(run: dict[str, Any]) -> bool:
    return run["algorithm"] == "brac_v" or (run["algorithm"] == "itrpo" and run["tau"] == 0)


def flattened(run: dict[str, Any]) -> dict[str, Any]:
    """The algorithm's own fields, groups opened."""

    def leaves(value: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        for name, it in value.items():
            if isinstance(it, dict):
                yield from leaves(it)
            else:
                yield name, it

    config = run["config"].get("config", run["config"])
    return dict(leaves(config.get("algorithm_config") or {}))
