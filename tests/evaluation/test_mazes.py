"""D4RL's mazes. Expected numbers come from D4RL's sources (maze_env.py, ant.xml, maze_model.py), not from our code."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.evaluation.environments import check_sizes, is_antmaze, make_env, normalized_score, spaces_of, time_limit
from itrpo.evaluation.maze_maps import ANT_CELL, MAZES, ant_cell, ant_xy, at_goal, point_cell, point_xy
from itrpo.evaluation.mazes import AntMaze, PointMaze
from itrpo.evaluation.rollout import evaluate, make_pool
from itrpo.types import SpaceSpec

NAMES = tuple(MAZES)
NO_ACTION = np.zeros(8, np.float32)


def boxes(model: mujoco.MjModel) -> np.ndarray:
    """x low, x high, y low, y high of every wall."""
    walls = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    center, half = model.geom_pos[walls, :2], model.geom_size[walls, :2]
    return np.stack(
        [center[:, 0] - half[:, 0], center[:, 0] + half[:, 0], center[:, 1] - half[:, 1], center[:, 1] + half[:, 1]], 1
    )


def inside_a_wall(model: mujoco.MjModel, xy: np.ndarray) -> bool:
    low_x, high_x, low_y, high_y = boxes(model).T
    return bool(((low_x < xy[0]) & (xy[0] < high_x) & (low_y < xy[1]) & (xy[1] < high_y)).any())


@pytest.mark.parametrize("name", NAMES)
def test_walls_stand_where_the_map_says(name: str):
    maze, rng = MAZES[name], np.random.default_rng(0)
    for model, xy, cell_of, width in (
        (AntMaze(name).model, ant_xy, ant_cell, ANT_CELL),
        (PointMaze(name).model, point_xy, point_cell, 1.0),
    ):
        for cell in maze.free_cells() + maze.wall_cells():
            for _ in range(3):
                somewhere = xy(cell) + width * rng.uniform(-0.5, 0.5, 2)
                assert cell_of(somewhere) == cell
                assert inside_a_wall(model, somewhere) == (cell in maze.wall_cells())


def test_the_maps_are_gymnasium_robotics_too():
    maps = pytest.importorskip("gymnasium_robotics.envs.maze.maps")
    for name, rows in (("UMaze", maps.U_MAZE), ("Medium", maps.MEDIUM_MAZE), ("Large", maps.LARGE_MAZE)):
        assert MAZES[name].rows == tuple("".join("#" if cell == 1 else "." for cell in row) for row in rows)


def test_the_ant_is_d4rls():
    model = AntMaze("UMaze").model
    torques = model.actuator_gear[:, 0] * model.actuator_ctrlrange[:, 1]
    np.testing.assert_array_equal(torques, [30] * 8)
    assert (model.opt.timestep, model.opt.integrator) == (0.02, mujoco.mjtIntegrator.mjINT_RK4)
    np.testing.assert_allclose(model.geom_solimp[:, :3], [[0.8, 0.8, 0.01]] * model.ngeom)
    np.testing.assert_allclose(model.dof_armature[6:], 1)
    assert model.body_mass.sum() == pytest.approx(0.3272 + 8 * 0.03916 + 4 * 0.06759, abs=1e-3)
    walls = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    np.testing.assert_array_equal(model.geom_size[walls], [[2, 2, 1]] * walls.sum())
    np.testing.assert_array_equal(model.geom_pos[walls, 2], 1)
    env = AntMaze("UMaze")
    env.reset(seed=0)
    env.step(NO_ACTION)
    assert env.data.time == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "corner"), [("UMaze", (0.0, 8.0)), ("Medium", (20.0, 20.0)), ("Large", (32.0, 24.0))])
def test_the_ant_starts_at_the_origin_and_goals_vary_around_one_cell(name: str, corner: tuple[float, float]):
    """D4RL: the goal is up to 1 m + 0.5 m beyond its cell's centre, drawn at every reset."""
    env = AntMaze(name)
    starts, goals = [], []
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        starts.append(observation[:2])
        goals.append(env.goal - corner)
    assert np.abs(starts).max() <= 0.1
    assert np.std(starts) == pytest.approx(0.2 / np.sqrt(12), rel=0.1)
    assert np.min(goals) >= 0
    assert 1.3 < np.max(goals) <= 1.5
    assert np.mean(goals) == pytest.approx(0.75, abs=0.06)


def test_observations_are_position_then_the_ant():
    env = make_env("itrpo/AntMaze_UMaze-v0")
    observation, _ = env.reset(seed=0)
    state = env.unwrapped.data
    np.testing.assert_array_equal(observation, np.concatenate([state.qpos, state.qvel]))
    assert observation.shape == (29,)
    check_sizes("itrpo/AntMaze_Large-v0", spaces_of("itrpo/AntMaze_Large-v0"), SpaceSpec(29, 8), "")
    check_sizes("itrpo/PointMaze_Large-v0", spaces_of("itrpo/PointMaze_Large-v0"), SpaceSpec(4, 2), "")


def test_half_a_metre_is_exact():
    goal = np.array([3.0, -2.0])
    assert at_goal(np.array([3.5, -2.0]), goal)
    assert at_goal(np.array([2.7, -2.4]), goal)
    assert not at_goal(np.array([3.0, -1.5 + 1e-15]), goal)


@pytest.mark.parametrize("distance", [0.0, 0.3, 0.45, 0.55, 0.7, 2.0])
def test_the_ants_reward_is_1_within_half_a_metre_and_ends_the_episode(distance: float):
    env = AntMaze("UMaze")
    env.reset(seed=1, options={"start": np.array([4.0, 0.0])})
    env.step(NO_ACTION)
    angle = 7 * distance
    env.data.qvel[:] = 0
    env.goal = env.data.qpos[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
    observation, reward, terminated, truncated, info = env.step(NO_ACTION)
    near = np.linalg.norm(observation[:2] - env.goal) <= 0.5
    assert near == (distance < 0.5)  # the ant hardly moved
    assert (reward, terminated, truncated, info["success"]) == (float(near), near, False, near)


def test_the_points_reward_is_1_within_half_a_metre_and_nothing_ends_the_episode():
    env = PointMaze("UMaze")
    env.reset(seed=0, options={"start": np.array([1.0, 1.75])})
    rewards, distances = [], []
    for _ in range(60):
        observation, reward, terminated, truncated, _ = env.step(np.array([0, -0.3], np.float32))
        rewards.append(reward)
        distances.append(np.linalg.norm(observation[:2] - [1, 1]))
        assert not terminated
        assert not truncated
    assert 0 < sum(rewards) < 60
    np.testing.assert_array_equal(rewards, np.array(distances) <= 0.5)


def test_walls_stop_the_point():
    """The wall beside cell (1, 1) ends at 0.3, and the ball has a radius of 0.1. D4RL's margin of 2 mm aside."""
    env = PointMaze("UMaze")
    env.reset(seed=0, options={"start": np.array([1.0, 1.0])})
    env.data.qvel[:] = 0
    for _ in range(150):
        observation = env.step(np.array([-1, 0], np.float32))[0]
    assert observation[0] == pytest.approx(0.4, abs=0.01)
    env.reset(seed=0, options={"start": np.array([1.0, 1.0])})
    env.data.qvel[:] = [0, 50]
    assert env.step(np.zeros(2, np.float32))[0][3] <= 5.0  # the speed limit


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [
        ("itrpo/AntMaze_UMaze-v0", 700),
        ("itrpo/AntMaze_Medium-v0", 1000),
        ("itrpo/AntMaze_Large-v0", 1000),
        ("itrpo/PointMaze_UMaze-v0", 300),
        ("itrpo/PointMaze_Medium-v0", 600),
        ("itrpo/PointMaze_Large-v0", 800),
    ],
)
def test_clocks_are_d4rls(env_id: str, steps: int):
    assert time_limit(env_id) == steps
    assert is_antmaze(env_id) == ("Ant" in env_id)


@pytest.mark.parametrize("made", [lambda: AntMaze("UMaze"), lambda: PointMaze("Medium")])
@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")  # unbounded, as every MuJoCo environment
def test_they_keep_gymnasiums_contract(made):
    check_env(made(), skip_render_check=True)


def test_scores():
    """AntMaze: successes in percent. Maze2D: D4RL's references; gymnasium-robotics' goals differ, so it has none."""
    np.testing.assert_allclose(normalized_score("itrpo/AntMaze_Large-v0", [0, 0.25, 1]), [0, 25, 100])
    np.testing.assert_allclose(normalized_score("AntMaze_Large-v4", [0, 1]), [0, 100])
    np.testing.assert_allclose(normalized_score("itrpo/PointMaze_UMaze-v0", [23.85, 161.86]), [0, 100])
    np.testing.assert_allclose(normalized_score("itrpo/PointMaze_Medium-v0", [13.13, 277.39]), [0, 100])
    np.testing.assert_allclose(normalized_score("itrpo/PointMaze_Large-v0", [6.7, 273.99]), [0, 100])
    assert normalized_score("PointMaze_UMaze-v3", 1.0) is None


def test_an_evaluation_is_shared_out_over_processes_with_the_same_returns():
    """A point that is pushed to the far corner: its returns depend on where it starts."""

    def act(observations: np.ndarray) -> np.ndarray:
        return np.clip(np.array([1.0, 1.0]) - observations[..., :2], -1, 1)

    results = []
    for processes in (1, 2):
        pool = make_pool("itrpo/PointMaze_UMaze-v0", num_seeds=1, episodes=6, processes=processes)
        results.append(evaluate(pool, act, seed=0, step=0))
        pool.close()
    assert len(np.unique(results[0].returns)) > 1
    np.testing.assert_array_equal(results[0].returns, results[1].returns)
    np.testing.assert_array_equal(results[0].lengths, 300)


def test_d4rls_antmaze_files_are_evaluated_here():
    ids = {name: file.env_id for name, file in D4RL_FILES.items() if name.startswith("antmaze")}
    assert len(ids) == 6
    for name, env_id in ids.items():
        assert name.split("-")[1] in env_id.lower()
        spaces_of(env_id)
