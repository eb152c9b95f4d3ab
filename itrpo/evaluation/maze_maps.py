"""D4RL's three mazes as maps: walls, starts and goals (`mazes.toml`). Needs no simulator.

Maps and constants: D4RL (Fu et al. 2020, arXiv:2004.07219), d4rl/locomotion/maze_env.py and __init__.py for the ant,
d4rl/pointmaze/maze_model.py and __init__.py for the point. Both have the same walls.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOAL_RADIUS = 0.5  # m: at this distance or closer, the reward is 1
ANT_CELL = 4.0  # m: width of a cell of the ant's mazes; a point's is 1 m wide
POINT_OFFSET = 0.2  # m: D4RL's point starts at 1.2 and its walls at 1, so cell (i, j) is centred at (i, j) - 0.2

Cell = tuple[int, int]  # row, column


class Maze(NamedTuple):
    """One maze. Cell (row, column) of the ant lies at x = 4 (column - 1), y = 4 (row - 1): the start is the origin.
    Cell (row, column) of the point lies at x = row - 0.2, y = column - 0.2.
    """

    rows: tuple[str, ...]  # "#" is a wall
    start: Cell  # of the ant in the evaluation, and while "umaze" is collected
    goal: Cell  # of the ant in the evaluation
    picked: tuple[Cell, ...]  # goals commanded while "umaze" and the play sets are collected
    ant_horizon: int  # steps until the clock ends an episode
    point_goal: Cell
    point_horizon: int

    def free_cells(self) -> list[Cell]:
        """In reading order."""
        return [(i, j) for i, row in enumerate(self.rows) for j, cell in enumerate(row) if cell != "#"]

    def wall_cells(self) -> list[Cell]:
        return [(i, j) for i, row in enumerate(self.rows) for j, cell in enumerate(row) if cell == "#"]


def _read_mazes() -> dict[str, Maze]:
    mazes = tomllib.loads((Path(__file__).parent / "mazes.toml").read_text("utf-8"))
    for maze in mazes.values():
        maze["rows"] = tuple(maze["rows"].split())
        maze["picked"] = tuple(map(tuple, maze["picked"]))
        maze |= {name: tuple(maze[name]) for name in ("start", "goal", "point_goal")}
    return {name: Maze(**maze) for name, maze in mazes.items()}


MAZES = _read_mazes()


def ant_xy(cell: Cell) -> np.ndarray:
    """Centre [2] of a cell in the ant's mazes, in metres."""
    return np.array([ANT_CELL * (cell[1] - 1), ANT_CELL * (cell[0] - 1)])


def ant_cell(xy: np.ndarray) -> Cell:
    """The cell that a position of the ant lies in."""
    return round(float(xy[1]) / ANT_CELL) + 1, round(float(xy[0]) / ANT_CELL) + 1


def point_xy(cell: Cell) -> np.ndarray:
    """Centre [2] of a cell in the point's mazes, in metres."""
    return np.array(cell) - POINT_OFFSET


def point_cell(xy: np.ndarray) -> Cell:
    """The cell that a position of the point lies in."""
    return round(float(xy[0]) + POINT_OFFSET), round(float(xy[1]) + POINT_OFFSET)


def draw_ant_start(cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """A start in a cell: up to 1 m beyond its centre along both axes (D4RL's `_get_reset_location`)."""
    return np.maximum(ant_xy(cell) + rng.uniform(0, 1, 2), 0)


def draw_ant_goal(cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """A goal in a cell: up to 1.5 m beyond its centre, the sum of two uniform draws (D4RL's `goal_sampler`)."""
    return np.maximum(ant_xy(cell) + rng.uniform(0, 1, 2) + rng.uniform(0, 0.5, 2), 0)


def at_goal(position: np.ndarray, goal: np.ndarray) -> bool:
    """Whether a position, of which x and y come first, is within 0.5 m of the goal [2]: what the reward says."""
    return math.hypot(float(position[0]) - float(goal[0]), float(position[1]) - float(goal[1])) <= GOAL_RADIUS


def on_its_back(qpos: np.ndarray) -> bool:
    """Whether the ant's z axis points down, for its positions, of which x, y, z and the quaternion come first."""
    return bool(qpos[4] ** 2 + qpos[5] ** 2 > 0.5)
