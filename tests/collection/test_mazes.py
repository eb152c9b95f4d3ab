from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.transform import Rotation

from itrpo import registry
from itrpo.collection import mazes
from itrpo.collection.making import make
from itrpo.data.formats import hdf5
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.evaluation.maze_maps import MAZES, Maze, ant_cell, ant_xy, draw_ant_goal, point_cell
from itrpo.evaluation.mazes import AntMaze, PointMaze

KEYS = ["observations", "actions", "rewards", "terminals", "timeouts", "infos/goal", "infos/qpos", "infos/qvel"]


@pytest.fixture(
    scope="module", params=["antmaze-umaze", "antmaze-medium-play", "antmaze-umaze-diverse", "pointmaze-umaze"]
)
def collected(request: pytest.FixtureRequest) -> tuple[mazes.MazeSet, dict[str, np.ndarray]]:
    """A small set: episodes until 1,000 steps are done, 3,000 of the point's."""
    steps = 3000 if "point" in request.param else 1000
    return mazes.SETS[request.param], mazes.collect((request.param, 0, 0, steps))


def episodes(rows: dict[str, np.ndarray]) -> list[slice]:
    ends = np.flatnonzero(rows["terminals"] | rows["timeouts"]) + 1
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


# --- paths ---------------------------------------------------------------------------------------------------------


def distances(maze: Maze) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Steps between all free cells, by Floyd and Warshall (SciPy)."""
    cells = maze.free_cells()
    apart = np.abs(np.array(cells)[:, None] - np.array(cells)[None]).sum(-1)
    return cells, shortest_path(apart == 1, method="FW", unweighted=True)


@pytest.mark.parametrize("name", MAZES)
def test_paths_are_shortest_and_go_from_free_cell_to_free_cell(name: str):
    maze = MAZES[name]
    cells, steps = distances(maze)
    assert np.isfinite(steps).all()
    for i, start in enumerate(cells):
        for j, goal in enumerate(cells):
            path = mazes.path_between(maze, start, goal)
            assert (path[0], path[-1]) == (start, goal)
            assert len(path) - 1 == steps[i, j]
            assert set(path) <= set(cells)
            assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in pairwise(path))


def ant_guide(maze: str, goal: tuple[int, int]) -> mazes.AntGuide:
    policy = mazes.load_acting_policy(mazes.policy_path(mazes.ANT_POLICY))
    return mazes.AntGuide(MAZES[maze], goal, policy, np.random.default_rng(0))


def test_the_ant_is_sent_along_the_path_and_in_the_end_to_the_goal():
    """A traveller who walks 0.2 m towards the waypoint at every step visits the cells of the path, and no others."""
    guide, rng = ant_guide("Medium", (6, 6)), np.random.default_rng(1)
    guide.goals = guide.goals[:1]
    at, seen = np.zeros(2), [(1, 1)]
    for _ in range(600):
        waypoint = guide.waypoint(at, rng)
        at = at + 0.2 * (waypoint - at) / np.linalg.norm(waypoint - at)
        seen += [ant_cell(at)] if ant_cell(at) != seen[-1] else []
        if np.linalg.norm(at - guide.goal) <= 0.5:
            break
    assert np.linalg.norm(at - guide.goal) <= 0.5
    cells, steps = distances(MAZES["Medium"])
    assert len(seen) - 1 == steps[cells.index((1, 1)), cells.index((6, 6))]


def test_an_ant_that_was_pushed_off_its_path_gets_a_new_one():
    guide, rng = ant_guide("UMaze", (3, 1)), np.random.default_rng(0)
    assert ant_cell(guide.waypoint(ant_xy((1, 1)), rng)) == (1, 2)
    assert ant_cell(guide.waypoint(ant_xy((3, 3)), rng)) == (3, 2)
    np.testing.assert_array_equal(guide.waypoint(ant_xy((3, 2)) + 0.5, rng), guide.goal)


def test_waypoints_are_drawn_up_to_a_metre_beyond_the_cells_centre():
    guide, rng = ant_guide("UMaze", (3, 1)), np.random.default_rng(0)
    drawn = np.array([guide.waypoint(np.zeros(2), rng) for _ in range(300)]) - ant_xy((1, 2))
    assert 0 <= drawn.min() < 0.02
    assert 0.98 < drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)


def test_the_points_controller_is_d4rls():
    """clip(10 (waypoint - position) - velocity), then noise of standard deviation 0.5, then clip."""
    maze = MAZES["UMaze"]
    guide = mazes.PointGuide(maze, (1, 1), (3, 1), np.random.default_rng(0))
    assert len(guide.waypoints) == 6
    np.testing.assert_array_equal(guide.waypoints[-1], [3, 1])
    for waypoint, cell in zip(guide.waypoints[:-1], mazes.path_between(maze, (1, 1), (3, 1))[1:], strict=False):
        assert ((cell - waypoint >= 0) & (cell - waypoint <= 0.2)).all()
    observation = np.array([1.02, 1.5, 0.4, -0.3])
    control = np.clip(10 * (guide.waypoints[0] - observation[:2]) + [-0.4, 0.3], -1, 1)
    noise = 0.5 * np.random.default_rng(5).standard_normal(2)
    np.testing.assert_allclose(
        guide.act(observation, np.random.default_rng(5)), np.clip(control + noise, -1, 1), rtol=1e-6
    )


# --- what is logged ------------------------------------------------------------------------------------------------


def test_columns_are_d4rls(collected):
    spec, rows = collected
    assert list(rows) == KEYS
    size = 29 if spec.agent == "AntMaze" else 4
    assert rows["observations"].shape == (len(rows["rewards"]), size)
    assert rows["actions"].shape[1] == (8 if spec.agent == "AntMaze" else 2)
    assert np.abs(rows["actions"]).max() <= 1
    state = np.concatenate([rows["infos/qpos"], rows["infos/qvel"]], axis=1)
    np.testing.assert_array_equal(rows["observations"], state.astype(np.float32))
    assert {name: rows[name].dtype for name in KEYS[:5]} == {
        "observations": np.float32,
        "actions": np.float32,
        "rewards": np.float32,
        "terminals": bool,
        "timeouts": bool,
    }


def test_a_row_leads_to_the_next_one_within_an_episode_and_not_across(collected):
    """Every tenth row is stepped again, from its state alone. (The solver's warm start is not logged: 1e-5.)"""
    spec, rows = collected
    env = AntMaze(spec.maze) if spec.agent == "AntMaze" else PointMaze(spec.maze)
    env.reset(seed=0)
    ends = rows["terminals"] | rows["timeouts"]
    crossed = []
    for i in [*range(0, len(ends) - 1, 10), *np.flatnonzero(ends)[:-1]]:
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:], env.data.qvel[:] = rows["infos/qpos"][i], rows["infos/qvel"][i]
        following, *_ = env.step(rows["actions"][i])
        position = rows["infos/qpos"][i + 1][:2]
        if ends[i]:
            crossed.append(np.linalg.norm(following[:2] - position))
        else:
            np.testing.assert_allclose(following[:2], position, atol=1e-5)
    assert min(crossed) > 0.01


def test_rewards_are_1_exactly_where_the_next_position_is_within_half_a_metre_of_the_tasks_goal(collected):
    spec, rows = collected
    goal = mazes.task_goal(spec, 0)
    ends = rows["terminals"] | rows["timeouts"]
    near = np.linalg.norm(rows["infos/qpos"][1:, :2] - goal, axis=1) <= 0.5
    np.testing.assert_array_equal(rows["rewards"][:-1][~ends[:-1]], near[~ends[:-1]])
    if spec.agent == "AntMaze":
        np.testing.assert_array_equal(rows["terminals"], rows["rewards"] == 1)
    else:
        assert not rows["terminals"].any()
        assert rows["rewards"].any()
    assert not (rows["terminals"] & rows["timeouts"]).any()


def test_goals_follow_one_another_where_one_is_reached(collected):
    spec, rows = collected
    changes = 0
    for episode in episodes(rows):
        goals, positions = rows["infos/goal"][episode], rows["infos/qpos"][episode, :2]
        changed = np.flatnonzero((goals[1:] != goals[:-1]).any(axis=1))
        away = np.linalg.norm(positions[1:] - goals[:-1], axis=1)  # of the next position, from the goal until then
        assert (away[changed] <= (0.5 if spec.agent == "AntMaze" else 0.1 + 0.1 * np.sqrt(2))).all()
        if spec.agent == "AntMaze":
            np.testing.assert_array_equal(np.flatnonzero(away <= 0.5), changed)
        changes += len(changed)
    assert changes


def test_episodes_end_at_the_tasks_goal_by_the_clock_or_on_the_ants_back(collected):
    spec, rows = collected
    for episode in episodes(rows):
        length, last = episode.stop - episode.start, episode.stop - 1
        assert length <= spec.horizon
        if length < spec.horizon and not rows["terminals"][last]:
            assert upside_down(rows["infos/qpos"][last - 48 : last + 1]).all()
            assert not upside_down(rows["infos/qpos"][last - 49 : last - 48]).all()
    assert rows["terminals"][-1] or rows["timeouts"][-1]


def upside_down(qpos: np.ndarray) -> np.ndarray:
    return Rotation.from_quat(qpos[:, 3:7], scalar_first=True).as_matrix()[:, 2, 2] < 0


def test_an_ant_on_its_back_is_given_up_after_50_steps():
    guide = ant_guide("UMaze", (3, 1))
    up, over = np.zeros(29), np.zeros(29)
    up[3], over[4] = 1, 1
    assert [guide.lost(over) for _ in range(49)] == [False] * 49
    assert not guide.lost(up)
    assert [guide.lost(over) for _ in range(51)] == [False] * 49 + [True, True]


def test_three_goals_of_a_cell_are_visited():
    guide, seen = ant_guide("UMaze", (3, 1)), []
    for expected in (False, False, True):
        seen.append(guide.goal)
        assert not guide.arrived(np.array([100.0, 100.0]))
        assert guide.arrived(guide.goal) is expected
    assert len(np.unique(seen, axis=0)) == 3
    assert {ant_cell(goal) for goal in seen} == {(3, 1)}


def test_starts_and_goals_lie_in_the_right_cells(collected):
    spec, rows = collected
    maze = MAZES[spec.maze]
    starts = rows["infos/qpos"][[episode.start for episode in episodes(rows)], :2]
    goals = rows["infos/goal"][[episode.start for episode in episodes(rows)]]
    if spec.agent == "PointMaze":
        assert {point_cell(xy) for xy in starts} <= set(maze.free_cells())
        assert {point_cell(xy) for xy in goals} <= set(maze.free_cells())
    elif spec.starts == "corner":
        assert np.abs(starts).max() <= 0.1
        assert {ant_cell(xy) for xy in goals} == {(3, 1)}
    else:
        assert all(((xy - ant_xy(ant_cell(xy)) >= 0) & (xy - ant_xy(ant_cell(xy)) <= 1)).all() for xy in starts)
        assert {ant_cell(xy) for xy in starts} <= set(spec.start_cells())
        assert {ant_cell(xy) for xy in goals} <= set(spec.goal_cells())


def test_start_and_goal_rules_are_d4rls():
    """maze_env.py: R is the start, G the hand-picked goals; goals are no starts where goals are hand-picked."""
    cells = {name: (set(spec.start_cells()), set(spec.goal_cells())) for name, spec in mazes.SETS.items()}
    assert cells["antmaze-umaze"] == ({(1, 1)}, {(3, 1)})
    medium, large = set(MAZES["Medium"].free_cells()), set(MAZES["Large"].free_cells())
    assert (len(medium), len(large)) == (26, 46)
    picked = {(2, 6), (5, 1), (6, 5)}
    assert cells["antmaze-medium-play"] == (medium - picked, picked)
    assert cells["antmaze-medium-diverse"] == (medium, medium)
    picked = {(1, 6), (3, 5), (3, 10), (5, 2), (7, 4), (7, 6), (7, 9)}
    assert cells["antmaze-large-play"] == (large - picked, picked)
    assert cells["antmaze-large-diverse"] == (large, large)
    assert cells["pointmaze-large"] == (large, large)


def test_drawn_starts_and_goals_cover_all_cells_and_a_goal_lies_in_another_cell():
    rng, policy = np.random.default_rng(0), mazes.load_acting_policy(mazes.policy_path(mazes.ANT_POLICY))
    spec = mazes.SETS["antmaze-medium-play"]
    drawn = [mazes.draw_start(spec, rng) for _ in range(400)]
    assert {cell for _, cell in drawn} == set(spec.start_cells())
    assert all(ant_cell(options["start"]) == cell for options, cell in drawn)
    goals = [mazes.draw_guide(spec, policy, (2, 6), rng).goal for _ in range(100)]
    assert {ant_cell(goal) for goal in goals} == {(5, 1), (6, 5)}
    spec = mazes.SETS["antmaze-umaze-diverse"]
    goals = [mazes.draw_guide(spec, policy, (1, 1), rng).goal for _ in range(200)]
    assert {ant_cell(goal) for goal in goals} == set(MAZES["UMaze"].free_cells()) - {(1, 1)}
    spec = mazes.SETS["antmaze-umaze"]  # has one goal cell: it is commanded again
    assert ant_cell(mazes.draw_guide(spec, policy, (3, 1), rng).goal) == (3, 1)


def test_the_tasks_goal_is_one_of_the_evaluations():
    spec = mazes.SETS["antmaze-large-play"]
    beyond = np.array([mazes.task_goal(spec, seed) for seed in range(50)]) - ant_xy((7, 9))
    assert 0 <= beyond.min() < 0.3
    assert 1.2 < beyond.max() <= 1.5
    assert len(np.unique(beyond, axis=0)) == 50
    np.testing.assert_array_equal(mazes.task_goal(mazes.SETS["pointmaze-medium"], 3), [6, 6])
    assert (draw_ant_goal((1, 1), np.random.default_rng(0)) >= 0).all()


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mazes") / "small.hdf5"
    make(mazes.plan("pointmaze-umaze", 2000, seed=0, steps_per_task=700), path, workers=1)
    return path


def test_the_file_is_read_as_d4rls(small: Path):
    with h5py.File(small) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    assert sorted(names) == sorted(KEYS)
    read = hdf5.read(small)
    assert (read.env_id, len(read.rewards)) == ("itrpo/PointMaze_UMaze-v0", 2000)
    assert read.source.recipe["name"] == "pointmaze-umaze-itrpo1"
    assert read.source.recipe["task_goal"] == [1, 1]
    dataset = load_dataset(small)
    timeouts = int(read.timeouts[:-1].sum())
    assert len(dataset) == 2000 - 1 - timeouts
    assert timeouts == 6  # of 300 steps each, and 200 rows more


def test_neither_processes_nor_an_interruption_change_the_bytes(small: Path, tmp_path: Path):
    path = tmp_path / "small.hdf5"
    script = f"""
from pathlib import Path
from itrpo import registry
from itrpo.collection import mazes
from itrpo.collection.making import make
make(mazes.plan("pointmaze-umaze", 2000, seed=0, steps_per_task=700), Path({str(path)!r}), workers=1)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}
    ) as process:
        while not list(tmp_path.glob("*/00000.npz")) and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    assert not path.exists()
    kept = next(tmp_path.glob("*/00000.npz")).stat().st_mtime_ns
    assert kept
    make(mazes.plan("pointmaze-umaze", 2000, seed=0, steps_per_task=700), path, workers=2)
    assert path.read_bytes() == small.read_bytes()
    assert os.listdir(tmp_path) == ["small.hdf5"]


def test_another_seed_is_another_dataset(small: Path, tmp_path: Path):
    path = tmp_path / "other.hdf5"
    make(mazes.plan("pointmaze-umaze", 2000, seed=1, steps_per_task=700), path, workers=1)
    assert not np.array_equal(hdf5.read(path).observations, hdf5.read(small).observations)


def test_reached_goals_are_counted(small: Path, tmp_path: Path):
    reached, rewarded, complete = mazes.goals_reached(small)
    assert complete == int(hdf5.read(small).timeouts.sum()) == 6
    assert reached == 6  # the ball always gets there
    assert rewarded == sum(part.any() for part in np.split(hdf5.read(small).rewards, 300 * np.arange(1, 7))[:6])
    with h5py.File(tmp_path / "by-hand.hdf5", "w") as file:  # two episodes on the way, one that arrives, one unfinished
        file["terminals"] = np.zeros(8, bool)
        file["timeouts"] = np.array([0, 1, 0, 1, 0, 1, 0, 0], bool)
        file["infos/goal"] = np.array([[1, 1], [1, 1], [2, 2], [2, 2], [3, 3], [4, 4], [5, 5], [6, 6]], np.float32)
        file["rewards"] = np.array([1, 1, 0, 0, 0, 1, 0, 1], np.float32)
    assert mazes.goals_reached(tmp_path / "by-hand.hdf5") == (1, 2, 3)


def test_a_made_file_says_how_often_the_goal_was_reached(tmp_path: Path):
    import io

    from rich.console import Console

    shown = io.StringIO()
    mazes.make_maze("pointmaze-medium-itrpo1", tmp_path / "a.hdf5", steps=800, workers=1, console=Console(file=shown))
    said = " ".join(shown.getvalue().split())
    commanded, rewarded, episodes = mazes.goals_reached(tmp_path / "a.hdf5")
    assert f"of {episodes} complete episodes {commanded} reached a commanded goal or the task's, and " in said
    assert f"{rewarded} have a reward" in said


def test_names_and_sizes_are_checked_before_the_work(tmp_path: Path):
    with pytest.raises(InputError, match=r"did you mean 'antmaze-umaze-itrpo1'"):
        mazes.make_maze("antmaze-umaz-itrpo1", tmp_path / "a.hdf5")
    with pytest.raises(InputError, match="steps must be at least 1"):
        mazes.make_maze("antmaze-umaze-itrpo1", tmp_path / "a.hdf5", steps=0)
    with pytest.raises(InputError, match="seed must not be negative"):
        mazes.make_maze("antmaze-umaze-itrpo1", tmp_path / "a.hdf5", seed=-1)
    assert not list(tmp_path.iterdir())


def test_plans_name_seeds_policy_and_versions():
    plan = mazes.plan("antmaze-large-play-itrpo1", 1_000_000, seed=3)
    assert sum(task[3] for part in plan.parts for task in part.tasks) == 1_000_000
    assert plan.parts[0].end == 1_000_000
    assert plan.recipe["policy"]["name"] == mazes.ANT_POLICY
    assert len(plan.recipe["policy"]["sha256"]) == 64
    assert set(plan.recipe["versions"]) == {"itrpo", "gymnasium", "mujoco", "numpy"}
    assert len(mazes.MAZE_DATASETS) == 9


def test_all_sets_go_by_name():
    maze_names = {name for name in registry.GENERATED_DATASETS if "maze" in name}
    assert maze_names == set(mazes.MAZE_DATASETS)
