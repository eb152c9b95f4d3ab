"""Whether a dataset and an environment fit each other: sizes, and the scale of actions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.errors import InputError
from itrpo.evaluation.environments import Spaces, allow, check_known, check_sizes, numbers, spaces_of
from itrpo.registry import GENERATED_DATASETS
from itrpo.types import BoundsFrom, Dataset, DiscreteSpec, SpaceSpec

REACHED = 0.95  # of [-1, 1]: what actions that were scaled to it come close to


class Misfit(NamedTuple):
    severity: Literal["error", "warning"]
    what: str
    advice: str
    of_sizes: bool = False  # then its returns are not this environment's

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}"


def users_env(env: str | None) -> str | None:
    """The environment that the user names himself, by a flag or an argument, its module imported; None for "none".

    Raises InputError if there is none of that name.
    """
    if env is None or env.lower() == "none":
        return None
    refuse_dataset(env)
    allow(env)
    check_known(env)
    return env


def refuse_dataset(env: str) -> None:
    """Raises InputError if it is a dataset's name."""
    if env in D4RL_FILES or env in GENERATED_DATASETS:
        own = f", whose environment is {D4RL_FILES[env].env_id}" if env in D4RL_FILES else ""
        raise InputError(
            f"--env {env} is a dataset's name{own}; give an environment's id, or leave --env away where the dataset is "
            "given by that name"
        )


def misfit(
    env_id: str,
    where: str,
    sizes: SpaceSpec | DiscreteSpec,
    low: np.ndarray,
    high: np.ndarray,
    bounds: BoundsFrom,
    actions: np.ndarray,
) -> Misfit | None:
    """What is wrong with playing policies of this dataset in `env_id`. `actions` [N, A] are those between -1 and 1.

    Bounds that the user gave himself are a warning: he may know better. Raises InputError if the environment can't be
    built or fails at once.
    """
    spaces = spaces_of(env_id)
    try:
        check_sizes(env_id, spaces, sizes, where)
    except InputError as error:
        what, _, advice = str(error).partition("; ")
        return Misfit("error", what, advice, of_sizes=True)
    if isinstance(sizes, DiscreteSpec):
        if same_bounds(spaces, low, high):
            return None
        what = f"{where}: the first choice is {numbers(low)} and that of {env_id} is {numbers(spaces.low)}"
        return Misfit(
            "error", what, f"give --action-low {numbers(spaces.low)} if the log has the environment's numbers"
        )
    theirs = f"{env_id} takes actions from {numbers(spaces.low)} to {numbers(spaces.high)}"
    flags = f"--action-low {numbers(spaces.low)} --action-high {numbers(spaces.high)}"
    ours = f"from {numbers(low)} to {numbers(high)}"
    if not same_bounds(spaces, low, high):
        if bounds == "given":
            what = f"{where}: {theirs}, but the bounds given are {ours}"
            return Misfit("warning", what, f"unless you mean that, give {flags}")
        taken = "the file declares them" if bounds == "declared" else "no bounds were given, so they are taken to be"
        return Misfit(
            "error",
            f"{where}: {theirs}, but {taken} {ours}",
            f"where the log has the environment's own numbers, give {flags} (action_low, action_high in Python); where"
            f" its actions were scaled, scale them back in the log first, or name the environment that scales them with"
            f" --env; to keep policies within these bounds, say so: --action-low {numbers(low)} --action-high"
            f" {numbers(high)}",
        )
    reached = np.array([low + (edge + 1) / 2 * (high - low) for edge in (actions.min(axis=0), actions.max(axis=0))])
    largest = np.abs(reached).max(axis=0)
    if (low < -1).all() and (high > 1).all() and (largest <= 1).all() and (largest >= REACHED).all():
        return Misfit(
            "warning",
            f"{where}: {theirs}, but all logged actions are within [-1, 1], and reach {numbers(largest)}",
            "if they were scaled to [-1, 1], scale them back in the log: policies would act too weakly",
        )
    return None


def same_bounds(spaces: Spaces, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether actions between `low` and `high` are on the environment's scale, but for rounding."""
    return np.allclose(low, spaces.low, 1e-4, 1e-6) and np.allclose(high, spaces.high, 1e-4, 1e-6)


def misfit_of(dataset: Dataset, env_id: str) -> Misfit | None:
    """As `misfit`."""
    where = dataset.source.where
    low, high = dataset.action_low, dataset.action_high
    return misfit(env_id, where, dataset.frame, low, high, dataset.bounds, dataset.transitions.action)


def check_fit(dataset: Dataset, env_id: str) -> Misfit | None:
    """A misfit that only warns, if there is one. Raises InputError for one that is an error."""
    found = None if env_id == "none" else misfit_of(dataset, env_id)
    if found is not None and found.severity == "error":
        raise InputError(str(found))
    return found
