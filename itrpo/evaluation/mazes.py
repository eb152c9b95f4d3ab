"""D4RL's AntMaze and Maze2D as gymnasium environments, on MuJoCo alone.

gymnasium-robotics' mazes of the same names are other tasks: another ant (five times the torque, half the time per
step), mirrored maps, another origin, other starts and goals, a smaller goal radius. A policy that was trained on D4RL's
files can't be scored there; in these it can. What was taken from where: docs/decisions/0005-mazes.md.

Importing this module registers `itrpo/AntMaze_UMaze-v0`, `_Medium`, `_Large`, and `itrpo/PointMaze_UMaze-v0`, ...
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco as _mujoco
import numpy as np

from itrpo.evaluation.maze_maps import (
    ANT_CELL,
    GOAL_RADIUS,
    MAZES,
    Cell,
    Maze,
    ant_xy,
    at_goal,
    draw_ant_goal,
    point_xy,
)

mujoco: Any = _mujoco  # its type stubs lack most of it
Model = Any  # mujoco.MjModel
Data = Any  # mujoco.MjData
Info = dict[str, Any]

ANT_FRAME_SKIP = 5  # a step of the environment is 5 x 0.02 s
POINT_MAX_SPEED = 5.0  # m/s along each axis
DRAWN: Info = {"render_modes": ["rgb_array"], "render_fps": 10}  # steps per second; the point has its own


class AntMaze(gymnasium.Env[np.ndarray, np.ndarray]):
    """An ant on its way to a goal that it does not see: D4RL's AntMaze v2 as it is evaluated.

    The ant starts in one corner; the goal is drawn anew around the same cell at every reset. The reward is 1 within
    0.5 m of the goal and else 0, and the goal ends the episode, so a return is a success. Observations: qpos [15], of
    which x and y come first, and qvel [14]. Actions: torques of the eight joints over 30 N m.

    `reset(options={"start": xy, "goal": xy})` places either where a dataset's protocol wants it.
    """

    metadata = DRAWN

    def __init__(self, maze: str, render_mode: str | None = None) -> None:
        self.maze, self.render_mode, self.viewer = MAZES[maze], render_mode, None
        walls = [(*ant_xy(cell), ANT_CELL / 4, ANT_CELL / 2, ANT_CELL / 4) for cell in self.maze.wall_cells()]
        self.model = ant_model(walls)
        self.data: Data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.goal = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        options = options or {}
        self.goal = options.get("goal", draw_ant_goal(self.maze.goal, self.np_random))
        perturb(self.model, self.data, self.np_random)
        self.data.qpos[:2] = options.get("start", self.data.qpos[:2])
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        self.data.ctrl[:] = np.minimum(np.maximum(action, -1), 1)
        mujoco.mj_step(self.model, self.data, nstep=ANT_FRAME_SKIP)
        success = at_goal(self.data.qpos, self.goal)
        return self._observe(), float(success), success, False, {"success": success}

    def render(self) -> Any:
        self.viewer = self.viewer or seen_from_above(self.model, self.data, self.maze, ant_xy, ANT_CELL)
        return picture(self.viewer, self.goal)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])


class PointMaze(gymnasium.Env[np.ndarray, np.ndarray]):
    """A ball pushed around a maze: D4RL's Maze2D v1 (sparse rewards) as it is evaluated.

    It starts near the centre of any free cell. The reward is 1 at every step within 0.5 m of the goal, which is always
    the same and is not seen; nothing but the clock ends an episode. Observations: x, y and their speeds. Actions:
    forces along both axes over 100 N.

    `reset(options={"start": xy})` places the ball where a dataset's protocol wants it.
    """

    metadata = DRAWN | {"render_fps": 100}

    def __init__(self, maze: str, render_mode: str | None = None) -> None:
        self.maze, self.render_mode, self.viewer = MAZES[maze], render_mode, None
        self.model = point_model(self.maze.wall_cells())
        self.data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.goal = np.array(self.maze.point_goal, np.float64)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        cells = self.maze.free_cells()
        cell = np.array(cells[self.np_random.integers(len(cells))])
        perturb(self.model, self.data, self.np_random)
        self.data.qpos[:] = (options or {}).get("start", cell + self.data.qpos)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        self.data.ctrl[:] = np.minimum(np.maximum(action, -1), 1)
        np.clip(self.data.qvel, -POINT_MAX_SPEED, POINT_MAX_SPEED, out=self.data.qvel)
        mujoco.mj_step(self.model, self.data)
        success = at_goal(self.data.qpos, self.goal)
        return self._observe(), float(success), False, False, {"success": success}

    def render(self) -> Any:
        self.viewer = self.viewer or seen_from_above(self.model, self.data, self.maze, point_xy, 1.0)
        return picture(self.viewer, self.goal)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])


def seen_from_above(model: Model, data: Data, maze: Maze, centre: Callable[[Cell], np.ndarray], width: float) -> Any:
    """What draws a whole maze, off screen; `centre` and `width` are those of its cells, in metres."""
    from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer

    viewer: Any = OffScreenViewer(model, data, 480, 480)
    corners = centre((0, 0)), centre((len(maze.rows) - 1, len(maze.rows[0]) - 1))
    viewer.cam.lookat[:2] = (corners[0] + corners[1]) / 2
    viewer.cam.distance = 1.3 * (np.abs(corners[1] - corners[0]).max() + width)  # MuJoCo's camera sees 45 degrees
    viewer.cam.elevation, viewer.cam.azimuth = -90, 90
    return viewer


def picture(viewer: Any, goal: np.ndarray) -> np.ndarray:
    """[480, 480, 3] uint8, with the goal as a red disc of the radius that the reward knows."""
    size, red = [GOAL_RADIUS, GOAL_RADIUS, 0.01], [1.0, 0.1, 0.1, 0.6]
    viewer.add_marker(pos=[*goal, 0.0], size=size, rgba=red, type=mujoco.mjtGeom.mjGEOM_CYLINDER, label="")
    return viewer.render("rgb_array")


def perturb(model: Model, data: Data, rng: np.random.Generator) -> None:
    """The start that D4RL's agents share: positions within 0.1 of the model's, speeds with standard deviation 0.1."""
    mujoco.mj_resetData(model, data)
    data.qpos += rng.uniform(-0.1, 0.1, model.nq)
    data.qvel += 0.1 * rng.standard_normal(model.nv)


def ant_model(walls: Iterable[tuple[float, ...]] = ()) -> Model:
    """D4RL's ant (d4rl/locomotion/assets/ant.xml): the body of gymnasium's ant with other constants.

    `walls`: (x, y, z of the centre, half width, half height) each. Actions in [-1, 1] are torques of up to 30 N m.
    """
    root = ET.parse(Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml").getroot()
    _only(root, "option").set("timestep", "0.02")
    geom = _only(root, "default/geom")
    geom.set("solref", ".02 1")
    geom.set("solimp", ".8 .8 .01")
    for motor in root.iterfind("actuator/motor"):
        motor.set("gear", "30")
    world = _only(root, "worldbody")
    for x, y, z, width, height in walls:
        size = f"{width} {width} {height}"
        ET.SubElement(world, "geom", type="box", pos=f"{x} {y} {z}", size=size, contype="1", conaffinity="1")
    return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def point_model(walls: Iterable[Cell]) -> Model:
    """D4RL's ball (d4rl/pointmaze/maze_model.py) among walls of 1 m: constants as there, bodies and geoms our own."""
    boxes = "".join(
        f'<geom type="box" pos="{x} {y} 0" size=".5 .5 .2" contype="2" conaffinity="1"/>'
        for x, y in (point_xy(cell) for cell in walls)
    )
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco model="point">
          <option timestep=".01" gravity="0 0 0" iterations="20" integrator="Euler"/>
          <default>
            <joint type="slide" damping="1"/>
            <geom friction=".5 .1 .1" density="1000" margin=".002" condim="1"/>
          </default>
          <worldbody>
            {boxes}
            <body name="ball">
              <joint name="x" axis="1 0 0"/>
              <joint name="y" axis="0 1 0"/>
              <geom type="sphere" size=".1" contype="1" conaffinity="1"/>
            </body>
          </worldbody>
          <actuator>
            <motor joint="x" gear="100" ctrlrange="-1 1"/>
            <motor joint="y" gear="100" ctrlrange="-1 1"/>
          </actuator>
        </mujoco>""")


def _only(root: ET.Element, path: str) -> ET.Element:
    found = root.findall(path)
    assert len(found) == 1, path
    return found[0]


for _name, _maze in MAZES.items():
    for _kind, _horizon in (("AntMaze", _maze.ant_horizon), ("PointMaze", _maze.point_horizon)):
        gymnasium.register(
            f"itrpo/{_kind}_{_name}-v0",
            entry_point=f"itrpo.evaluation.mazes:{_kind}",
            kwargs={"maze": _name},
            max_episode_steps=_horizon,
            disable_env_checker=True,
        )
