"""An ant that runs towards goals: where the low-level policy of the AntMaze datasets is trained, and how it is steered.

Importing this module registers `GoalAnt-v0`: `gymnasium.make("itrpo.collection.goal_ant:GoalAnt-v0")`.

The ant is D4RL's (`itrpo.evaluation.mazes`). Physics does not care which way north is, nor which of the ant's four
equal legs is called the first. So states and actions are given in a frame in which the goal lies ahead, within 45
degrees (`to_goal_frame`, `from_goal_frame`): one quarter of the directions is learnt instead of all of them.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np

from itrpo.evaluation.maze_maps import at_goal, on_its_back
from itrpo.evaluation.mazes import ANT_FRAME_SKIP, Info, ant_model, mujoco, perturb

GOAL_DISTANCES = (2.0, 8.0)  # m; goals are drawn uniformly in distance and direction, around the ant
LOOKAHEAD = 1.0  # m; the policy sees goals that are further away in their direction, at this distance
CONTROL_COST = 0.02
UPRIGHT_BONUS = 0.2

# Ankles 2 and 3 turn the other way round than 1 and 4 (the axes in the XML file). Legs 1 to 4 stand at 45, 135, 225
# and 315 degrees. Joints are ordered hip 1, ankle 1, hip 2, ...; motors start with leg 4.
_JOINT_SIGNS = np.array([1, 1, 1, -1, 1, -1, 1, 1], np.float64)
_MOTOR_SIGNS = np.roll(_JOINT_SIGNS, 2)
# [quarter turns]: joint i of the renumbered legs is this joint of the ant, times this sign; and back, for motors
_JOINTS = [np.roll(np.arange(8), -2 * quarters) for quarters in range(4)]
_TURNED = [_JOINT_SIGNS * _JOINT_SIGNS[joints] for joints in _JOINTS]
_MOTORS = [np.roll(np.arange(8), 2 * quarters) for quarters in range(4)]
_TURNED_BACK = [_MOTOR_SIGNS * _MOTOR_SIGNS[motors] for motors in _MOTORS]


def to_goal_frame(observation: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, int]:
    """What the policy sees: the ant's 27 numbers and the goal [2] relative to the torso, with the goal ahead.

    `observation` [27] is qpos[2:15] and qvel[:14], `goal` is in metres along the world's axes. Returns float64 [29],
    and by how many quarter turns the legs were renumbered, for `from_goal_frame`.
    """
    w, x, y, z = (float(part) for part in observation[1:5])
    heading = 2 * math.atan2(z, w)  # the turn about the vertical before the tilt: renumbered legs add exactly 90
    bearing = math.atan2(float(goal[1]), float(goal[0])) - heading
    quarters = round(bearing / (math.pi / 2)) % 4
    turn = heading + quarters * (math.pi / 2)
    cos, sin = math.cos(turn), math.sin(turn)

    frame = np.empty(29)
    frame[0] = observation[0]
    # turn the world by -turn about its z axis, and the torso by the quarters about its own
    w, x, y, z = _turn_torso(*_turn_world(w, x, y, z, -turn), quarters * (math.pi / 2))
    sign = 1.0 if w >= 0 else -1.0
    frame[1:5] = sign * w, sign * x, sign * y, sign * z
    joints, signs = _JOINTS[quarters], _TURNED[quarters]
    frame[5:13] = signs * observation[5:13][joints]
    vx, vy = float(observation[13]), float(observation[14])
    frame[13:16] = cos * vx + sin * vy, cos * vy - sin * vx, observation[15]
    wx, wy = float(observation[16]), float(observation[17])  # along the torso's axes
    c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    frame[16:19] = c * wx + s * wy, c * wy - s * wx, observation[18]
    frame[19:27] = signs * observation[19:27][joints]
    gx, gy = float(goal[0]), float(goal[1])
    shrink = min(1.0, LOOKAHEAD / max(math.hypot(gx, gy), 1e-9))
    frame[27:29] = shrink * (cos * gx + sin * gy), shrink * (cos * gy - sin * gx)
    return frame, quarters


def from_goal_frame(action: np.ndarray, quarters: int) -> np.ndarray:
    """An action [8] of the policy as the ant's motors take it."""
    return _TURNED_BACK[quarters] * action[_MOTORS[quarters]]


def _turn_world(w: float, x: float, y: float, z: float, angle: float) -> tuple[float, float, float, float]:
    """The attitude after the world was turned by `angle` about its z axis."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w


def _turn_torso(w: float, x: float, y: float, z: float, angle: float) -> tuple[float, float, float, float]:
    """The attitude of axes that are turned against the torso's by `angle` about its z axis."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return c * w - s * z, c * x + s * y, c * y - s * x, c * z + s * w


class GoalAnt(gymnasium.Env[np.ndarray, np.ndarray]):
    """Goals one after the other, drawn around the ant.

    The reward is the speed towards the goal in m/s, plus 0.2, less 0.02 |action|^2. D4RL's low-level policy was trained
    with minus the distance, of which this is the difference over time. An episode terminates when the ant lies on its
    back: it can't get up again. The clock cuts it after 300 steps (30 s).
    """

    def __init__(self) -> None:
        self.model = ant_model()
        self.data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.goal = np.zeros(2)
        self._quarters = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """The ant stands at the origin and looks anywhere; positions and speeds are perturbed as in the maze."""
        super().reset(seed=seed)
        perturb(self.model, self.data, self.np_random)
        heading = self.np_random.uniform(-math.pi, math.pi)
        w, x, y, z = self.data.qpos[3:7] / np.linalg.norm(self.data.qpos[3:7])
        self.data.qpos[3:7] = _turn_world(w, x, y, z, heading)
        self._draw_goal()
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        before = math.dist(self.goal, self.data.qpos[:2])
        self.data.ctrl[:] = np.clip(from_goal_frame(action, self._quarters), -1, 1)
        mujoco.mj_step(self.model, self.data, nstep=ANT_FRAME_SKIP)
        distance = math.dist(self.goal, self.data.qpos[:2])
        reached = at_goal(self.data.qpos, self.goal)
        speed = (before - distance) / (ANT_FRAME_SKIP * self.model.opt.timestep)
        reward = speed + UPRIGHT_BONUS - CONTROL_COST * float(np.square(self.data.ctrl).sum())
        if reached:
            self._draw_goal()
        return self._observe(), reward, on_its_back(self.data.qpos), False, {"reached": reached, "distance": distance}

    def _draw_goal(self) -> None:
        angle, distance = self.np_random.uniform(-math.pi, math.pi), self.np_random.uniform(*GOAL_DISTANCES)
        self.goal = self.data.qpos[:2] + distance * np.array([math.cos(angle), math.sin(angle)])

    def _observe(self) -> np.ndarray:
        observation = np.concatenate([self.data.qpos[2:15], self.data.qvel[:14]])
        frame, self._quarters = to_goal_frame(observation, self.goal - self.data.qpos[:2])
        return frame


gymnasium.register(
    "GoalAnt-v0", entry_point="itrpo.collection.goal_ant:GoalAnt", max_episode_steps=300, disable_env_checker=True
)
