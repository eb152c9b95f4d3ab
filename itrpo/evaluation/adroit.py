"""What D4RL's Adroit tasks pay, and when they end, around gymnasium-robotics' ports of them.

The ports' models, observations and starts are D4RL's. From version 1.2.1 on their `-v1` rewards are not: Door, Hammer
and Relocate pay for a hand that is far away, +0.1 times its distance where DAPG's and D4RL's code has -0.1
(Gymnasium-Robotics, pull request 220). And D4RL's pen ends an episode where it falls. So rewards are computed here anew
from the simulator's state, by D4RL's `hand_manipulation_suite` (facts from its sources; no code), whatever the version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

FALLEN = 0.075  # m: a pen below has fallen
LIFTED = 0.04  # m: a ball or hammer above has been lifted
Data = Any  # mujoco.MjData


class D4RL(gymnasium.Wrapper):
    """Rewards and ends of D4RL's `kind`, one of Door, Hammer, Pen and Relocate."""

    def __init__(self, env: gymnasium.Env, kind: str) -> None:
        super().__init__(env)
        self.kind = kind

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        data: Data = getattr(self.env.unwrapped, "data")  # noqa: B009 (gymnasium's type has none)
        if self.kind == "Pen":
            return observation, float(reward), bool(data.body("Object").xpos[2] < FALLEN), truncated, info
        return observation, REWARDS[self.kind](data), terminated, truncated, info


def door(data: Data) -> float:
    angle = float(data.joint("door_hinge").qpos[0])
    hand = _apart(data.site("S_grasp").xpos, data.site("S_handle").xpos)
    opened = 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)
    return float(-0.1 * hand - 0.1 * (angle - 1.57) ** 2 - 1e-5 * (data.qvel**2).sum() + opened)


def hammer(data: Data) -> float:
    handle, head, nail = data.body("Object").xpos, data.site("tool").xpos, data.site("S_target").xpos
    out = _apart(nail, data.site("nail_goal").xpos)
    costs = 0.1 * _apart(data.site("S_grasp").xpos, handle) + _apart(head, nail) + 10 * out
    driven = 25.0 * (out < 0.02) + 75.0 * (out < 0.01)
    return float(2.0 * (min(handle[2], head[2]) > LIFTED) + driven - costs - 1e-2 * np.linalg.norm(data.qvel))


def relocate(data: Data) -> float:
    ball, hand, target = data.body("Object").xpos, data.site("S_grasp").xpos, data.site("target").xpos
    away = _apart(ball, target)
    carried = 1.0 - 0.5 * _apart(hand, target) - 0.5 * away if ball[2] > LIFTED else 0.0
    return float(-0.1 * _apart(hand, ball) + carried + 10.0 * (away < 0.1) + 20.0 * (away < 0.05))


REWARDS: Mapping[str, Callable[[Data], float]] = {"Door": door, "Hammer": hammer, "Relocate": relocate}


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other))
