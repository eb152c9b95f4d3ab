"""A small real problem: Pendulum, logged by random torques in [-2, 2]."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NPZ file of 5 episodes of 200 steps, with `env_id`, and names and bounds of its observations."""
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    rows: dict[str, list] = {"observations": [], "actions": [], "rewards": [], "terminals": [], "timeouts": []}
    for episode in range(5):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            following, reward, terminal, timeout, _ = env.step(action)
            for key, value in zip(rows, (observation, action, reward, terminal, timeout), strict=True):
                rows[key].append(value)
            observation, ended = following, terminal or timeout
    path = tmp_path_factory.mktemp("data") / "pendulum.npz"
    said = {"observation_names": ["x", "y", "w"], "observation_low": [-np.inf, -1, -8], "observation_high": [1, 1, 8]}
    np.savez(path, env_id="Pendulum-v1", **{key: np.asarray(value) for key, value in (rows | said).items()})
    return path
