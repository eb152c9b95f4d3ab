"""OGBench's single tasks (Park et al. 2025, arXiv:2410.20092), by its package: environments and what its data earn.

An episode's return is 1 if the task is solved within it, else 0, so that the score of `reference_score` is the success
rate in percent that OGBench reports. The environments' own rewards (-1 a step, or minus the number of parts that are
not in place) are those of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np


class Success(gymnasium.Wrapper):
    """Reward 1 in the step that solves the task, which ends the episode; else 0."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(info["success"]), terminated, truncated, info


def rewards_of(env: gymnasium.Env, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What rows of a simulator's states earn in a single task: rewards [N] float32, and whether it is solved [N] bool.

    columns: "qpos" [N, ...], and "button_states" [N, ...] where the task has buttons, as OGBench's files have them.
    """
    from ogbench.relabel_utils import relabel_dataset  # pyright: ignore[reportMissingImports] (an extra)

    assert env.spec is not None
    rows = dict(columns)
    relabel_dataset(env.spec.id, env, rows)
    return rows["rewards"], rows["masks"] == 0
