"""Whether actions are quantities or choices, and what is said of those that can't be taken as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from itrpo.data.attributes import action_bounds
from itrpo.data.wording import first_rows, listed
from itrpo.errors import InputError
from itrpo.evaluation.environments import choices_of
from itrpo.types import Attributes, BoundsFrom

CHOICES = 20  # more whole numbers than that are a quantity in steps: Atari's games have 18 actions
SAMPLE = 10_000  # rows that are looked at first
DISCRETE = "discrete actions, it seems, taken for quantities: a policy's actions will lie in between"
INSIST = (
    "if they are choices, say how many there are: --num-actions N (num_actions in Python); if they are positions of"
    " something continuous, such as a valve: --continuous-actions (continuous_actions=True)"
)
BOUNDS = "give the bounds that the environment or the actuators have, which become -1 and +1"
UNKNOWN = "nothing is known of what follows them: pi_beta and Q are extrapolations there; log data with exploration"
CLIPPED, INSIDE = 0.05, 0.05  # from this share of numbers on a bound on, densities are asked so far inside


def extremes(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest finite action, both [A], of the rows [N, A]."""
    low, high = actions.min(axis=0), actions.max(axis=0)
    if np.isfinite(low).all() and np.isfinite(high).all():
        return low, high
    finite = np.isfinite(actions)
    return actions.min(axis=0, where=finite, initial=np.inf), actions.max(axis=0, where=finite, initial=-np.inf)


def on_a_bound(actions: np.ndarray) -> float:
    """Share of the numbers in actions [N, A] in [-1, 1] that lie exactly on a bound, but for a column's largest and
    smallest, which may be the bounds themselves. 0 for choices [N].
    """
    if actions.ndim == 1:
        return 0.0
    return max(0, int((np.abs(actions) == 1).sum()) - 2 * actions.shape[1]) / actions.size


def bounds_advice(low: np.ndarray, high: np.ndarray) -> str:
    """Flags with the data's own extremes [A], each number as it was logged (as float32)."""
    constant = np.flatnonzero(low >= high)
    texts: list[str] = []
    for flag, values, unknown in (("--action-low", low, "LOW"), ("--action-high", high, "HIGH")):
        words = [unknown if at in constant else _exact(value) for at, value in enumerate(values)]
        texts.append(" ".join([flag, *(words[:1] if len(set(words)) == 1 else words)]))
    told = f" (LOW and HIGH: actions {listed(constant.astype(str).tolist())} never vary)" if constant.size else ""
    return f"the data's own extremes are {' '.join(texts)}{told}"


def _exact(value: np.ndarray) -> str:
    return str(np.float32(value)).removesuffix(".0")  # the shortest text that reads back as the same float32


def choices(actions: np.ndarray) -> str | None:
    """What the actions [N, A] are if they number choices, in words; None if they may well be quantities."""
    for rows in (actions[:: max(1, len(actions) // SAMPLE)], actions):
        if not (np.isfinite(rows).all() and (rows == np.round(rows)).all()):
            return None
        values = np.unique(rows)
        if len(values) > CHOICES:
            return None
    if len(values) < 2 or values[-1] - values[0] >= 2 * len(values):
        return None
    size = actions.shape[1]
    if values.tolist() == [0, 1] and size > 1 and (actions.sum(axis=1) == 1).all():
        return f"one-hot codes of {size} choices"
    return f"the whole numbers {listed([str(int(value)) for value in values])} only"


class Choices(NamedTuple):
    """What actions are that number choices."""

    number: int
    first: int  # the raw action that is choice 0
    said_by: BoundsFrom  # who said how many there are
    note: str | None = None


def said_quantities(continuous: bool, number: int | None, low: Any, high: Any) -> bool | None:
    """Whether actions are quantities by the user's word; None: no word was said."""
    if continuous or number is not None:
        return continuous
    return None if low is None and high is None else True


def choices_in(
    actions: np.ndarray,
    said: Attributes,
    env_id: str | None,
    low: Any = None,
    high: Any = None,
    number: int | None = None,
    continuous: bool = False,
    where: str = "",
) -> Choices | None:
    """What the raw actions [N, A] are, if they are choices; None: quantities, or nobody knows.

    The user's word counts first (`number`, `continuous`, bounds), then the file's, then the environment's. Where nobody
    says anything, whole numbers in one column, or one-hot codes, are choices: from 0 on, or from 1 where that is least.
    Raises InputError where the actions are not those choices.
    """
    if continuous:
        if number is not None:
            raise InputError("--num-actions and --continuous-actions say opposite things; give one of them")
        return None
    looks = choices(actions)
    one_hot = looks is not None and looks.startswith("one-hot")
    # only choices have a first one: bounds of quantities may be infinite
    first = 0 if said.action_low is None or said.num_actions is None else int(said.action_low[0])
    if number is not None:
        first = (
            int(np.min(low))
            if low is not None
            else first
            if said.num_actions is not None
            else min(0, int(actions.min()))
        )
        found = Choices(number, 0 if one_hot else first, "given")
    elif low is not None or high is not None:
        return None
    elif said.num_actions is not None:
        found = Choices(said.num_actions, first, "declared")
    else:
        if looks is None or action_bounds(said)[0] is not None:
            return None
        of_env = None if env_id is None else choices_of(env_id)
        if of_env is not None and of_env.number is not None:
            found = Choices(of_env.number, 0 if one_hot else of_env.first, "declared")
        elif of_env is not None or not (one_hot or (actions.shape[1] == 1 and actions.min() >= 0)):
            return None
        else:
            first = 1 if not one_hot and actions.min() == 1 else 0
            count = actions.shape[1] if one_hot else int(actions.max()) + 1 - first
            begin = " from 1 on (--num-actions and --action-low say" if first else " (--num-actions says"
            note = f"actions are {looks}, taken for {count} choices{begin} otherwise); {INSIST}"
            found = Choices(count, first, "assumed", note)
    _check_choices(actions, found, one_hot, where)
    return found


def _check_choices(actions: np.ndarray, found: Choices, one_hot: bool, where: str) -> None:
    if found.number < 2:
        raise InputError(f"{where}: --num-actions must be at least 2, not {found.number}")
    if one_hot and actions.shape[1] == found.number:
        return
    if actions.shape[1] != 1:
        raise InputError(
            f"{where}: 'actions' have {actions.shape[1]} columns; one of {found.number} choices is one column of whole"
            f" numbers, or {found.number} columns of one-hot codes; several choices at once can't be learned: number"
            " their combinations"
        )
    last = found.first + found.number - 1
    column = actions[:, 0]
    wrong = np.flatnonzero((column != np.round(column)) | (column < found.first) | (column > last))
    if wrong.size:
        raise InputError(
            f"{where}: {len(wrong):,} of {len(column):,} rows have 'actions' other than the whole numbers {found.first}"
            f" to {last} (first: {first_rows(wrong)}: {column[wrong[0]]:.6g}); give --num-actions, and --action-low if"
            " the first choice is not 0"
        )


def never_made(counts: np.ndarray, first: int) -> tuple[str, str]:
    """Which choices, made `counts` [n] times and numbered from `first` on, were never made, and what to do; else ''."""
    made = np.flatnonzero(counts)
    if len(made) in (0, len(counts)):
        return "", ""
    what = f"choices that were never made: {listed([str(first + it) for it in np.flatnonzero(counts == 0)])}"
    advice = UNKNOWN
    if made[0] > 0:
        advice += f"; if the first choice is {first + made[0]}: --action-low {first + made[0]}"
        advice += f" --num-actions {len(counts) - made[0]} (action_low, num_actions in Python)"
    if made[-1] < len(counts) - 1:
        advice += f"; if {first + made[-1]} is the last one, lower --num-actions"
    return what, advice


def numbered(actions: np.ndarray, found: Choices) -> np.ndarray:
    """int32 [N] from 0 on, of raw actions [N, 1], or of one-hot codes [N, n]."""
    if actions.shape[1] > 1:
        return actions.argmax(axis=1).astype(np.int32)
    return actions[:, 0].astype(np.int32) - np.int32(found.first)
