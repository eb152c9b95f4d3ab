"""Environments as users write them: a module that registers ids, which itrpo must be told of. Some are faulty."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np

FAULT = "ITRPO_TESTS_LATE_FAULT"  # a variable of the environment: the third step of an episode fails where it is set


class Mine(gymnasium.Env[np.ndarray, np.ndarray]):
    """Five steps along a line; a step pays its action. It draws how far it is, as red as that."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        self.fault, self.state, self.render_mode = fault, np.zeros(2, np.float32), render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state = np.array([self.np_random.normal(), 0], np.float32)
        if self.fault == "reset":
            raise RuntimeError("the simulator has no licence")
        return self.state if self.fault == "old reset" else (self.state, {})

    def step(self, action: np.ndarray) -> Any:
        self.state = self.state + np.array([0.1 * action[0], 1], np.float32)
        reward: Any = float(action[0])
        if self.fault == "step":
            raise KeyError("valve")
        if self.fault == "old step":
            return self.state, reward, False, {}
        if FAULT in os.environ and self.state[1] == 3:
            raise ConnectionError("lost the simulator")
        reward = [reward] if self.fault == "reward" else reward
        state = self.state[:1] if self.fault == "observation" else self.state
        return state, reward, False, bool(self.state[1] >= 5), {}

    def render(self) -> Any:
        red = np.array([50 * self.state[1], 0, 0], np.float32 if self.fault == "picture" else np.uint8)
        return np.broadcast_to(red, (32, 32, 3)).copy()


gymnasium.register("Mine-v0", Mine)
gymnasium.register("Other-v0", Mine)
for fault in ("reset", "old reset", "step", "old step", "reward", "observation", "picture"):
    gymnasium.register(f"Faulty-{fault.replace(' ', '-')}-v0", Mine, kwargs={"fault": fault}, max_episode_steps=5)
