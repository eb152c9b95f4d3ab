"""How well the mazes are travelled: `python benchmarks/mazes.py [EPISODES [robotics]]` (100).

First the ant's low-level policy alone, in the open: goals 2 to 6 m away, reached within 200 steps (20 s)? Then every
maze dataset's controller: does an episode reach its first commanded goal before the clock, how often the task's, and
how fast are rows made by one process?

With "robotics", instead: does the same low-level policy, led by the same waypoints, get through gymnasium-robotics'
UMaze (extra `maze`), whose ant is another one?
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from mujoco import mj_step  # pyright: ignore[reportAttributeAccessIssue] (its stubs lack it)

from itrpo.collection.goal_ant import GoalAnt
from itrpo.collection.ladders import policy_path
from itrpo.collection.mazes import ANT_ACTION_NOISE, ANT_POLICY, SETS, ant_action, collect, next_cells
from itrpo.collection.rollout import load_acting_policy
from itrpo.evaluation.environments import make_env
from itrpo.evaluation.maze_maps import MAZES, Cell, ant_cell, ant_xy, at_goal
from itrpo.evaluation.mazes import ANT_FRAME_SKIP


def low_level(episodes: int, noise: float) -> tuple[int, int, float]:
    """Goals reached, ants that ended on their backs, and mean number of steps to the goals that were reached."""
    policy, env, lengths, fallen = load_acting_policy(policy_path(ANT_POLICY)), GoalAnt(), [], 0
    for episode in range(episodes):
        rng = np.random.default_rng((1, episode))
        env.reset(seed=episode)
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(2, 6)
        goal = env.data.qpos[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        for step in range(1, 201):
            env.data.ctrl[:] = ant_action(policy, np.concatenate([env.data.qpos, env.data.qvel]), goal, noise, rng)
            mj_step(env.model, env.data, nstep=ANT_FRAME_SKIP)
            if at_goal(env.data.qpos, goal):
                lengths.append(step)
                break
        fallen += on_its_back(env.data.qpos[None])[0]
    return len(lengths), fallen, float(np.mean(lengths))


def on_its_back(qpos: np.ndarray) -> np.ndarray:
    """Whether the torso's z axis points down, for states [N, 15]."""
    return np.square(qpos[:, 4:6]).sum(axis=1) > 0.5


def controller(name: str, episodes: int) -> str:
    """A row of the table: at least so many episodes of one dataset."""
    horizon, started = SETS[name].horizon, time.process_time()
    parts, lengths, reached, terminals, fallen = 0, [], [], [], 0
    while len(lengths) < episodes:
        part = collect((name, 0, parts, 2_000))
        ends = np.flatnonzero(part["terminals"] | part["timeouts"])
        for start, end in zip([0, *ends[:-1] + 1], ends, strict=True):
            commands = part["infos/goal"][start : end + 1]
            changed = np.flatnonzero((commands != commands[0]).any(axis=1))
            reached += [changed[0] if len(changed) else end - start + 1 if part["terminals"][end] else np.nan]
            lengths += [end - start + 1]
        terminals += part["terminals"][ends].tolist()
        if part["infos/qpos"].shape[1] > 2:
            fallen += int(on_its_back(part["infos/qpos"][ends]).sum())
        parts += 1
    seconds = time.process_time() - started
    return (
        f"| {name} | {len(lengths)} | {np.isfinite(reached).mean():.1%} | {np.nanmean(reached):.0f} | {horizon} | "
        f"{np.mean(terminals):.1%} | {fallen / len(lengths):.1%} | {sum(lengths) / seconds:,.0f} |"
    )


def through_umaze(robotics: bool, episodes: int) -> int:
    """Episodes that reach the goal, each from its own seed, with sampled actions and no noise on top.

    Positions are gymnasium-robotics' own there, so neither the mirrored map nor its origin plays a part.
    """
    env, reached = make_env("AntMaze_UMaze-v4" if robotics else "itrpo/AntMaze_UMaze-v0"), 0
    task: Any = env.unwrapped
    policy = load_acting_policy(policy_path(ANT_POLICY))
    for episode in range(episodes):
        rng = np.random.default_rng((2, episode))
        observation, _ = env.reset(seed=episode)
        done, following = False, None
        while not done:
            here, goal = (cell_of(task, xy, robotics) for xy in (observation[:2], task.goal))
            towards = next_cells(MAZES["UMaze"], goal)
            if following is None or (here != following and towards.get(here) != following):
                following = towards.get(here, goal)
            if following != goal and np.linalg.norm(center_of(task, following, robotics) - observation[:2]) < 1:
                following = towards[following]
            waypoint = task.goal if following == goal else center_of(task, following, robotics)
            observation, _, success, clock, _ = env.step(ant_action(policy, observation, waypoint, 0.0, rng))
            done, reached = success or clock, reached + success
    return reached


def cell_of(task: Any, xy: np.ndarray, robotics: bool) -> Cell:
    row, column = task.maze.cell_xy_to_rowcol(xy) if robotics else ant_cell(xy)
    return int(row), int(column)


def center_of(task: Any, cell: Cell, robotics: bool) -> np.ndarray:
    return task.maze.cell_rowcol_to_xy(np.array(cell)) if robotics else ant_xy(cell)


def main() -> None:
    episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if sys.argv[2:] == ["robotics"]:
        for robotics in (True, False):
            where = "gymnasium-robotics' AntMaze_UMaze-v4" if robotics else "itrpo/AntMaze_UMaze-v0"
            print(f"{where}: {through_umaze(robotics, episodes)} of {episodes} goals", flush=True)
        return
    for noise in (0.0, ANT_ACTION_NOISE):
        reached, fallen, steps = low_level(episodes, noise)
        found = f"{reached} of {episodes} goals, after {steps:.0f} steps; {fallen} ended on their backs"
        print(f"low-level policy, action noise {noise}: {found}")
    print(
        "| set | episodes | first goal reached | after steps | clock | task's goal | on its back | rows/s of CPU time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in SETS:
        print(controller(name, episodes), flush=True)


if __name__ == "__main__":
    main()
