"""A sound log, and how it is checked with some of its arrays replaced."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrpo.data.health import Health, check_dataset
from itrpo.data.health.rows import Finding

ROWS, CLOCK = 12_000, 100


def sound_log() -> dict[str, np.ndarray]:
    """Episodes of a noisy linear system that starts near 1, and ends where |x| > 1.9 or after 100 steps."""
    rng = np.random.default_rng(0)
    observations, actions = np.zeros((ROWS, 3)), np.zeros((ROWS, 2))
    terminals, timeouts = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    state, age = np.zeros(3), CLOCK
    for row in range(ROWS):
        if age == CLOCK:
            state, age = 1 + 0.02 * rng.normal(size=3), 0
        action = np.tanh(0.4 * state[:2] + 0.5 * rng.normal(size=2))
        observations[row], actions[row] = state, action
        state = 0.98 * state - [*(0.05 * action), 0.03 * action[0]] + 0.15 * rng.normal(size=3)
        age += 1
        if np.abs(state).max() > 1.9:
            terminals[row], age = True, CLOCK
        elif age == CLOCK:
            timeouts[row] = True
    timeouts[-1] |= not terminals[-1]
    rewards = 1 - (observations**2).sum(axis=1)
    return {
        "observations": observations.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


SOUND = sound_log()


def check(**options: Any) -> Health:
    """Of the sound log with some arrays replaced."""
    arguments = {name: options.pop(name) for name in ("action_low", "action_high", "horizon", "env") if name in options}
    return check_dataset(SOUND | options, **arguments)


def names(health: Health) -> list[str]:
    return sorted(finding.name for finding in health.findings)


def only(health: Health) -> Finding:
    assert len(health.findings) == 1, health.findings
    return health.findings[0]


def changed(key: str, rows: Any, value: Any) -> np.ndarray:
    values = SOUND[key].copy()
    values[rows] = value
    return values
