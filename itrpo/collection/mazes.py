"""The maze datasets: an ant or a ball is driven through D4RL's mazes by waypoints, and logged by D4RL's protocol.

`antmaze-*-itrpo1`: an ant that was trained to run towards goals nearby (`itrpo.collection.goal_ant`) is sent along the
shortest path over the maze's cells. `pointmaze-*-itrpo1`: a proportional-derivative controller pushes a ball likewise.
When a commanded goal is reached, the next one is drawn. An episode ends at the task's goal (AntMaze only), by the
clock, or some steps after the ant fell on its back. Rewards refer to the task's goal, which is the evaluation's; the
commanded ones mostly lie elsewhere.

Sources: D4RL's scripts/generation/generate_ant_maze_datasets.py, relabel_antmaze_rewards.py and
generate_maze2d_datasets.py, d4rl/pointmaze/waypoint_controller.py. Differences are listed in docs/made_datasets.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.collection.ladders import policy_path, policy_sha256
from itrpo.collection.making import Part, Plan, make, versions
from itrpo.collection.rollout import PROGRESS_EVERY, ActingPolicy, act, load_acting_policy
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.evaluation.maze_maps import (
    MAZES,
    Cell,
    Maze,
    ant_cell,
    ant_xy,
    at_goal,
    draw_ant_goal,
    draw_ant_start,
    on_its_back,
)
from itrpo.registry import nearest

if TYPE_CHECKING:
    from rich.console import Console

STEPS = 1_000_000  # rows of a dataset, as of D4RL's
STEPS_PER_TASK = 10_000

ANT_POLICY = "goal_ant_sac_200k"
ANT_ACTION_NOISE = 0.2  # standard deviation, on top of the policy's own (D4RL)
ANT_GOALS_PER_CELL = 3  # drawn and visited in a cell before another cell is commanded
ANT_STEPS_ON_ITS_BACK = 50  # until the episode is cut
ANT_PASS_DISTANCE = 1.0  # m; this close to where its waypoint is drawn on average, the ant is sent on

POINT_ACTION_NOISE = 0.5  # standard deviation (D4RL's noisy mode)
POINT_GAIN, POINT_DAMPING = 10.0, 1.0  # of the controller (D4RL)
POINT_ARRIVED = 0.1  # m from a waypoint, and m of movement since the last step (D4RL)


class MazeSet(NamedTuple):
    """How one dataset is collected."""

    agent: str  # "AntMaze" or "PointMaze"
    maze: str
    starts: str  # cells: "corner", "free", or "free, not picked"
    goals: str  # cells of the commanded goals: "picked", or "free"

    @property
    def env_id(self) -> str:
        return f"itrpo/{self.agent}_{self.maze}-v0"

    @property
    def horizon(self) -> int:
        maze = MAZES[self.maze]
        return maze.ant_horizon if self.agent == "AntMaze" else maze.point_horizon

    def start_cells(self) -> list[Cell]:
        maze = MAZES[self.maze]
        if self.starts == "corner":
            return [maze.start]
        return [cell for cell in maze.free_cells() if self.starts == "free" or cell not in maze.picked]

    def goal_cells(self) -> list[Cell]:
        maze = MAZES[self.maze]
        return list(maze.picked) if self.goals == "picked" else maze.free_cells()


SETS: dict[str, MazeSet] = {
    "antmaze-umaze": MazeSet("AntMaze", "UMaze", "corner", "picked"),
    "antmaze-umaze-diverse": MazeSet("AntMaze", "UMaze", "free", "free"),
    "antmaze-medium-play": MazeSet("AntMaze", "Medium", "free, not picked", "picked"),
    "antmaze-medium-diverse": MazeSet("AntMaze", "Medium", "free", "free"),
    "antmaze-large-play": MazeSet("AntMaze", "Large", "free, not picked", "picked"),
    "antmaze-large-diverse": MazeSet("AntMaze", "Large", "free", "free"),
    "pointmaze-umaze": MazeSet("PointMaze", "UMaze", "free", "free"),
    "pointmaze-medium": MazeSet("PointMaze", "Medium", "free", "free"),
    "pointmaze-large": MazeSet("PointMaze", "Large", "free", "free"),
}
SUFFIX = "-itrpo1"  # ours, first recipe: D4RL's own files end in -v2
MAZE_DATASETS = tuple(name + SUFFIX for name in SETS)


# --- making a dataset ----------------------------------------------------------------------------------------------


def make_maze(
    name: str,
    path: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    workers: int = 0,
    console: Console | None = None,
) -> None:
    """Collects the dataset `name` ("antmaze-umaze-itrpo1"; the ending may be left out) and writes it to `path`.

    `steps` rows (1,000,000 by default; the last episode is cut there, as D4RL's is), from `workers` processes (0: one
    per core). Goes on where it was interrupted; neither that nor the number of processes changes a byte. Raises
    InputError for an unknown name, StorageError if the file can't be written.
    """
    make(plan(name, STEPS if steps is None else steps, seed), path, workers, console)
    if console is not None:
        commanded, rewarded, episodes = goals_reached(path)
        say(
            console,
            f"{path.stem}: of {episodes:,} complete episodes {commanded:,} reached a commanded goal or the task's, and "
            f"{rewarded:,} have a reward: they reached the task's.",
        )


def plan(name: str, steps: int, seed: int, steps_per_task: int = STEPS_PER_TASK) -> Plan:
    """What makes the dataset `name`. Raises InputError for an unknown name or no steps."""
    short = name.removesuffix(SUFFIX)
    if short not in SETS:
        known = ", ".join(MAZE_DATASETS)
        raise InputError(f"unknown maze dataset {name!r}{nearest(name, MAZE_DATASETS)}; known: {known}")
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    spec = SETS[short]
    recipe: dict[str, Any] = {
        "name": short + SUFFIX,
        "env_id": spec.env_id,
        "seed": seed,
        "steps": steps,
        "steps_per_task": steps_per_task,
        "starts": spec.starts,
        "commanded_goals": spec.goals,
        "task_goal": task_goal(spec, seed).tolist(),
        "episodes_end": "at the task's goal (terminal; AntMaze only), by the clock or on its back (timeout)",
        "horizon": spec.horizon,
        "action_noise": ANT_ACTION_NOISE if spec.agent == "AntMaze" else POINT_ACTION_NOISE,
    }
    if spec.agent == "AntMaze":
        recipe["policy"] = {"name": ANT_POLICY, "sha256": policy_sha256(ANT_POLICY), "actions": "sampled"}
    firsts = range(0, steps, steps_per_task)
    tasks = tuple((short, seed, index, min(steps_per_task, steps - first)) for index, first in enumerate(firsts))
    recipe["versions"] = versions()
    return Plan(spec.env_id, "itrpo.collection.mazes:collect", (Part(tasks, end=steps),), steps, recipe, extra={})


def task_goal(spec: MazeSet, seed: int) -> np.ndarray:
    """The goal [2] that a dataset's rewards refer to: one draw of the evaluation's goals for all rows, as in D4RL."""
    maze = MAZES[spec.maze]
    if spec.agent == "PointMaze":
        return np.array(maze.point_goal, np.float64)
    return draw_ant_goal(maze.goal, np.random.default_rng((seed, 0)))


def goals_reached(path: Path) -> tuple[int, int, int]:
    """Of a dataset's complete episodes: in how many the first commanded goal, or the task's, was reached before the
    clock ended them; in how many there was a reward; and how many there are.
    """
    import h5py

    with h5py.File(path, "r") as file:
        columns: Any = file
        terminals, timeouts, goals = columns["terminals"][:], columns["timeouts"][:], columns["infos/goal"][:]
        rewarded = np.flatnonzero(columns["rewards"][:] > 0)
    ends = np.flatnonzero(terminals | timeouts)
    starts = np.concatenate([[0], ends[:-1] + 1])
    reached = terminals[ends] | (goals[ends] != goals[starts]).any(axis=1)
    episodes = np.unique(np.searchsorted(ends, rewarded))  # of each reward; len(ends) is the one that the file cuts
    return int(reached.sum()), int((episodes < len(ends)).sum()), len(ends)


# --- one task ------------------------------------------------------------------------------------------------------


def collect(
    task: tuple[str, int, int, int], on_progress: Callable[[int], None] = lambda steps: None
) -> dict[str, np.ndarray]:
    """Episodes of (dataset without its suffix, seed, index of the task) until at least so many steps are done.

    -> D4RL's keys: `observations` [N, O] and `actions` [N, A] float32, `rewards` [N] float32, `terminals` and
    `timeouts` [N] bool; `infos/goal` [N, 2] float32, the commanded goal; `infos/qpos` and `infos/qvel` float64, the
    simulator's state before the step. There are no next observations in D4RL's maze files: the next row has them.
    """
    from itrpo.evaluation.mazes import AntMaze, PointMaze

    name, seed, index, steps = task
    spec, rng = SETS[name], np.random.default_rng((seed, 1, index))
    goal = task_goal(spec, seed)
    if spec.agent == "AntMaze":
        env, policy = AntMaze(spec.maze), load_acting_policy(policy_path(ANT_POLICY))
    else:
        env, policy = PointMaze(spec.maze), None
    rows: list[tuple[Any, ...]] = []
    reported = 0
    env.reset(seed=int(rng.integers(2**31)))  # later resets continue its stream
    while len(rows) < steps:
        options, start = draw_start(spec, rng)
        observation, _ = env.reset(options={"goal": goal} | options)
        guide = draw_guide(spec, policy, start, rng)
        for time in range(1, spec.horizon + 1):
            action = guide.act(observation, rng)
            following, reward, terminal, _, _ = env.step(action)
            timeout = not terminal and (time == spec.horizon or guide.lost(following))
            rows.append((observation, action, reward, terminal, timeout, guide.goal))
            observation = following
            if terminal or timeout:
                break
            if guide.arrived(observation):
                guide = draw_guide(spec, policy, guide.goal_cell, rng)
        if len(rows) - reported >= PROGRESS_EVERY:
            on_progress(len(rows) - reported)
            reported = len(rows)
    on_progress(len(rows) - reported)
    columns = (np.array(column) for column in zip(*rows, strict=True))
    observations, actions, rewards, terminals, timeouts, goals = columns
    positions = env.model.nq
    return {
        "observations": observations.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/goal": goals.astype(np.float32),
        "infos/qpos": observations[:, :positions],
        "infos/qvel": observations[:, positions:],
    }


def draw_start(spec: MazeSet, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], Cell]:
    """Options of the reset that an episode begins with, and the cell that they mean."""
    cell = pick(spec.start_cells(), rng)
    if spec.agent == "PointMaze":
        return {"start": np.array(cell) + rng.uniform(-0.1, 0.1, 2)}, cell
    return {} if spec.starts == "corner" else {"start": draw_ant_start(cell, rng)}, cell


def draw_guide(
    spec: MazeSet, policy: ActingPolicy | None, here: Cell, rng: np.random.Generator
) -> AntGuide | PointGuide:
    """Who steers an agent from its cell to a new goal: in another cell, unless there is no other."""
    maze, cells = MAZES[spec.maze], spec.goal_cells()
    goal = pick([cell for cell in cells if cell != here] or cells, rng)
    return PointGuide(maze, here, goal, rng) if policy is None else AntGuide(maze, goal, policy, rng)


def pick(cells: list[Cell], rng: np.random.Generator) -> Cell:
    return cells[int(rng.integers(len(cells)))]


# --- steering ------------------------------------------------------------------------------------------------------


def next_cells(maze: Maze, goal: Cell) -> Mapping[Cell, Cell]:
    """Where to go from every cell that the goal can be reached from, along a shortest path: breadth first from it."""
    free = set(maze.free_cells())
    towards, queue = {goal: goal}, deque([goal])
    while queue:
        i, j = cell = queue.popleft()
        for neighbour in ((i, j - 1), (i, j + 1), (i + 1, j), (i - 1, j)):
            if neighbour in free and neighbour not in towards:
                towards[neighbour] = cell
                queue.append(neighbour)
    return towards


def path_between(maze: Maze, start: Cell, goal: Cell) -> list[Cell]:
    """A shortest path from start to goal, both included."""
    towards, path = next_cells(maze, goal), [start]
    while path[-1] != goal:
        path.append(towards[path[-1]])
    return path


class AntGuide:
    """Sends the low-level policy from cell to cell, with D4RL's noise.

    The ant is sent to the next cell of the path, to a point that is drawn anew at every step, up to 1 m beyond the
    cell's centre along both axes; and to the goal itself once that lies in the next cell. Three goals of the cell are
    visited one after the other. Actions are sampled from the policy, and get Gaussian noise.
    """

    def __init__(self, maze: Maze, goal_cell: Cell, policy: ActingPolicy, rng: np.random.Generator) -> None:
        self.goals = [draw_ant_goal(goal_cell, rng) for _ in range(ANT_GOALS_PER_CELL)]
        self.goal_cell, self._policy = goal_cell, policy
        self._towards = next_cells(maze, goal_cell)
        self._next: Cell | None = None
        self._steps_on_its_back = 0

    @property
    def goal(self) -> np.ndarray:
        """The goal [2] that is commanded now."""
        return self.goals[0]

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An action [8] float32 in [-1, 1] for an observation [29] of `AntMaze`."""
        return ant_action(self._policy, observation, self.waypoint(observation[:2], rng), ANT_ACTION_NOISE, rng)

    def arrived(self, observation: np.ndarray) -> bool:
        """Whether the last goal is reached; another one gives way to the next."""
        reached, last = at_goal(observation, self.goal), len(self.goals) == 1
        if reached and not last:
            del self.goals[0]
        return reached and last

    def lost(self, observation: np.ndarray) -> bool:
        """Whether the ant has been on its back for 50 steps. It can't get up again."""
        self._steps_on_its_back = self._steps_on_its_back + 1 if on_its_back(observation) else 0
        return self._steps_on_its_back >= ANT_STEPS_ON_ITS_BACK

    def waypoint(self, xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Where the ant at `xy` is sent now."""
        here = ant_cell(xy)
        if self._next is None or (here != self._next and self._towards.get(here) != self._next):
            self._next = self._towards.get(here, self._next or self.goal_cell)  # pushed off the path: a new one
        if self._next != self.goal_cell and math.dist(ant_xy(self._next) + 0.5, xy) < ANT_PASS_DISTANCE:
            self._next = self._towards[self._next]
        return self.goal if self._next == self.goal_cell else ant_xy(self._next) + rng.uniform(0, 1, 2)


def ant_action(
    policy: ActingPolicy, observation: np.ndarray, waypoint: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """A sampled action [8] float32 towards a waypoint [2], for an observation [29] of `AntMaze`."""
    from itrpo.collection.goal_ant import from_goal_frame, to_goal_frame

    frame, quarters = to_goal_frame(observation[2:], waypoint - observation[:2])
    draws = rng.standard_normal((2, 8), dtype=np.float32)
    actions, _ = act(policy, frame[None].astype(np.float32), draws[:1])
    noisy = from_goal_frame(actions[0], quarters) + noise * draws[1]
    return np.minimum(np.maximum(noisy, -1), 1).astype(np.float32)


class PointGuide:
    """D4RL's waypoint controller: a = clip(10 (waypoint - position) - velocity), and Gaussian noise.

    Waypoints are the path's cells, less up to 0.2 m along both axes; the last one is the goal's cell itself, which
    differs from the goal that is logged by up to 0.1 m (D4RL's).
    """

    def __init__(self, maze: Maze, start: Cell, goal_cell: Cell, rng: np.random.Generator) -> None:
        self.goal, self.goal_cell = np.array(goal_cell) + rng.uniform(-0.1, 0.1, 2), goal_cell
        self.waypoints = [np.array(cell) - rng.uniform(0, 0.2, 2) for cell in path_between(maze, start, goal_cell)[1:]]
        self.waypoints[-1] = np.array(goal_cell, np.float64)
        self._previous = np.array(start, np.float64)

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An action [2] float32 in [-1, 1] for an observation [4] of `PointMaze`."""
        position, velocity = observation[:2], observation[2:]
        control = POINT_GAIN * (self.waypoints[0] - position) - POINT_DAMPING * velocity
        if len(self.waypoints) > 1 and self._stands_at(self.waypoints[0], position):
            del self.waypoints[0]
        self._previous = position
        return np.clip(np.clip(control, -1, 1) + POINT_ACTION_NOISE * rng.standard_normal(2), -1, 1).astype(np.float32)

    def arrived(self, observation: np.ndarray) -> bool:
        return len(self.waypoints) == 1 and self._stands_at(self.waypoints[0], observation[:2])

    def lost(self, observation: np.ndarray) -> bool:
        return False

    def _stands_at(self, waypoint: np.ndarray, position: np.ndarray) -> bool:
        moved = math.dist(position, self._previous)
        return math.dist(position, waypoint) < POINT_ARRIVED and moved < POINT_ARRIVED
