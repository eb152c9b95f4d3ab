"""What is said of actions that can't be taken as they are: bounds that fit them, and choices that are no quantities."""

from __future__ import annotations

import numpy as np

from itrpo.data.wording import listed

CHOICES = 20  # more whole numbers than that are a quantity in steps: Atari's games have 18 actions
SAMPLE = 10_000  # rows that are looked at first
DISCRETE = "discrete actions, it seems, but itrpo learns continuous ones: a policy's actions will lie in between"
INSIST = (
    "if they are positions of something continuous, such as a valve, say so: --continuous-actions"
    " (continuous_actions=True in Python)"
)
BOUNDS = "give the bounds that the environment or the actuators have, which become -1 and +1"


def extremes(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest finite action, both [A], of the rows [N, A]."""
    low, high = actions.min(axis=0), actions.max(axis=0)
    if np.isfinite(low).all() and np.isfinite(high).all():
        return low, high
    finite = np.isfinite(actions)
    return actions.min(axis=0, where=finite, initial=np.inf), actions.max(axis=0, where=finite, initial=-np.inf)


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
        if not 2 <= len(values) <= CHOICES or values[-1] - values[0] >= 2 * len(values):
            return None
    size = actions.shape[1]
    if values.tolist() == [0, 1] and size > 1 and (actions.sum(axis=1) == 1).all():
        return f"one-hot codes of {size} choices"
    return f"the whole numbers {listed([str(int(value)) for value in values])} only"
