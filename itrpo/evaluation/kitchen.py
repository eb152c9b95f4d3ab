"""D4RL's kitchen (Gupta et al. 2019, arXiv:1910.11956; Fu et al. 2020, arXiv:2004.07219) on MuJoCo alone.

Its model is the one that gymnasium-robotics ships (extra `maze`), D4RL's with other names of joints; none of that
package's code runs. Its own `FrankaKitchen-v1` is another task: 59 numbers in a Dict, with speeds and without goals,
and a tenth to a two-hundredth of the sensors' noise. The rules here are D4RL's (`d4rl/kitchen`, facts from its sources;
no code):

- A step is 40 x 0.002 s. An action in [-1, 1] is half the speed (rad/s, m/s) at which a joint is to go from where the
  last observation saw it; the place where that leads within the step, cut at the joint's bounds, is the actuator's.
- An observation is the 9 positions of the robot's joints and the 21 of the kitchen's, each with uniform noise, and the
  30 that they are to have: the goals of the task's elements, 0 for all others.
- An element is in its place where its observed positions are within 0.3 of the goal. The reward is the number of
  elements that come to be in their places for the first time; the fourth ends the episode, as 280 steps do.

So a return is the number of subtasks that were completed, of four. D4RL's files have other rewards: how many elements
are in their places in each row.

Importing this module registers `itrpo/Kitchen_MicrowaveKettleLightSlider-v0` (kitchen-complete and -partial) and
`itrpo/Kitchen_MicrowaveKettleBottomBurnerLight-v0` (kitchen-mixed).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import mujoco as _mujoco
import numpy as np

mujoco: Any = _mujoco  # its type stubs lack most of it
Info = dict[str, Any]

ROBOT, POSITIONS = 9, 30  # joints of the robot; with those of the kitchen, whose kettle has seven numbers
FRAME_SKIP = 40
SPEED = 2.0  # of a joint at action 1
NEAR = 0.3  # distance from its goal below which an element is in its place
DRAWN: Info = {"render_modes": ["rgb_array"], "render_fps": 12}  # steps per second
HORIZON = 280


class Element(NamedTuple):
    """What is to be moved: which of the positions are its own, and where they are to be."""

    places: tuple[int, ...]
    goal: tuple[float, ...]


ELEMENTS = {
    "bottom burner": Element((11, 12), (-0.88, -0.01)),
    "light switch": Element((17, 18), (-0.69, -0.05)),
    "slide cabinet": Element((19,), (0.37,)),
    "microwave": Element((22,), (-0.75,)),
    "kettle": Element((23, 24, 25, 26, 27, 28, 29), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
TASKS = {
    "MicrowaveKettleLightSlider": ("microwave", "kettle", "light switch", "slide cabinet"),
    "MicrowaveKettleBottomBurnerLight": ("microwave", "kettle", "bottom burner", "light switch"),
}

# Bounds of the robot's joints, and the amplitude of the noise on each position: D4RL's `franka_config.xml`, of whose
# noise a tenth is applied.
LOW = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
HIGH = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])
NOISE = 0.1 * np.repeat([0.1, 0.005, 0.0005, 0.005, 0.1, 0.005, 0.1, 0.005], [9, 2, 6, 3, 3, 3, 3, 1])
START = np.array(
    [
        *(0.148388023, -1.76848573, 1.84390296, -2.4768576, 0.260252026, 0.712533105, 1.59515394),  # arm
        *(0.0479267505, 0.0371350919),  # fingers
        *(-2.6627985e-4, -5.18043486e-5, 3.1287722e-5, -4.51199853e-5),  # knobs and burners
        *(-3.90842156e-6, -4.22629655e-5, 6.28065475e-5, 4.04984708e-5),
        *(4.62730939e-4, -2.26906415e-4),  # light
        *(-4.65501369e-4, -6.44129196e-3, -1.77048263e-3, 1.08009684e-3),  # cabinets, microwave
        *(-0.26939744, 0.350383255, 1.61944683, 1.00618764, 0.0040639512, -0.00662095997, -2.68278933e-4),  # kettle
    ]
)


class Kitchen(gymnasium.Env[np.ndarray, np.ndarray]):
    """A robot's arm that is to move four things in a kitchen: see the module. `task` is one of TASKS.

    Observations [60], actions [9]. `info["completed"]` names the elements that the step completed.
    """

    metadata = DRAWN

    def __init__(self, task: str, render_mode: str | None = None) -> None:
        self.task, self.left, self.render_mode, self.viewer = TASKS[task], list[str](), render_mode, None
        self.model: Any = mujoco.MjModel.from_xml_path(str(model_file()))
        self.data: Any = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2 * POSITIONS,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ROBOT,), np.float32)
        self.goal, self.seen = goal_of(self.task), START

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = START
        mujoco.mj_forward(self.model, self.data)
        self.left = list(self.task)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        speed = SPEED * np.clip(np.asarray(action, np.float64), -1, 1)
        seconds = FRAME_SKIP * self.model.opt.timestep
        self.data.ctrl[:] = np.clip(self.seen[:ROBOT] + speed * seconds, LOW, HIGH)
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        observation = self._observe()
        completed = [element for element in self.left if in_place(element, observation)]
        self.left = [element for element in self.left if element not in completed]
        return observation, float(len(completed)), not self.left, False, {"completed": completed}

    def render(self) -> Any:
        from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer

        if self.viewer is None:
            viewer: Any = OffScreenViewer(self.model, self.data, 480, 480)
            viewer.cam.lookat[:] = -0.2, 0.5, 2.0
            viewer.cam.distance, viewer.cam.azimuth, viewer.cam.elevation = 2.2, 70, -35
            self.viewer = viewer
        return self.viewer.render("rgb_array")

    def _observe(self) -> np.ndarray:
        self.seen = self.data.qpos + NOISE * self.np_random.uniform(-1, 1, POSITIONS)
        return np.concatenate([self.seen, self.goal])


def goal_of(task: Sequence[str]) -> np.ndarray:
    """Where the positions [30] are to be; 0 for elements that the task does not ask for."""
    goal = np.zeros(POSITIONS)
    for element in task:
        goal[list(ELEMENTS[element].places)] = ELEMENTS[element].goal
    return goal


def in_place(element: str, observation: np.ndarray) -> bool:
    """Of an observation [60]."""
    places, goal = ELEMENTS[element]
    return bool(np.linalg.norm(observation[list(places)] - goal) < NEAR)


def model_file() -> Path:
    """gymnasium-robotics' model, whose package need not be imported for it. The package must be there."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"


for _task in TASKS:
    gymnasium.register(
        f"itrpo/Kitchen_{_task}-v0",
        entry_point="itrpo.evaluation.kitchen:Kitchen",
        kwargs={"task": _task},
        max_episode_steps=HORIZON,
        disable_env_checker=True,
    )
