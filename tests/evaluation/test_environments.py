from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from itrpo.errors import InputError
from itrpo.evaluation.environments import check_sizes, make_env, normalized_score, score_name, spaces_of, time_limit
from itrpo.types import DiscreteSpec, SpaceSpec


def check_compatible(env_id: str, observations: int, actions: int) -> None:
    check_sizes(env_id, spaces_of(env_id), SpaceSpec(observations, actions), "log.npz")


def test_reference_returns_score_0_and_100():
    for env_id, reference in (
        ("Hopper-v4", (-20.272305, 3234.3)),
        ("AntMaze_UMaze-v4", (0.0, 1.0)),
        ("AdroitHandPen-v1", (96.262799, 3076.8331)),
    ):
        np.testing.assert_allclose(normalized_score(env_id, reference), [0.0, 100.0], atol=1e-12)


@pytest.mark.parametrize(
    ("env_id", "best_return", "score"), [("HalfCheetah-v4", 5309.4, 45.0), ("Hopper-v4", 3222.4, 99.6)]
)
def test_published_scores_of_the_best_medium_trajectories(env_id, best_return, score):
    assert normalized_score(env_id, best_return) == pytest.approx(score, abs=0.05)


def test_no_score_where_d4rl_has_none():
    assert normalized_score("Swimmer-v4", 100.0) is None
    assert normalized_score("Hopper-v5", 100.0) is None  # other rewards than -v4


def test_a_score_is_called_d4rls_where_the_references_are():
    assert {score_name(it) for it in ("Hopper-v4", "itrpo/AntMaze_Large-v0", "AdroitHandPen-v1")} == {"D4RL score"}
    others = ("itrpo/Breakout-v0", "cube-single-play-singletask-v0", "Swimmer-v4", None)
    assert {score_name(it) for it in others} | {score_name("Hopper-v4", (0.0, 1.0))} == {"score"}


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Hoper-v4", r"unknown environment 'Hoper-v4' \(did you mean 'Hopper-v4'\?\)"),
        ("Hopper-v3", "can't build 'Hopper-v3' any more; its successor is --env Hopper-v4"),  # it keeps the name only
        ("Ant-v2", "its successor is --env Ant-v4"),
        ("os:Hopper-v4", "if you trust it, give --env os:Hopper-v4"),
    ],
)
def test_ids_that_gymnasium_cannot_build(env_id, message):
    with pytest.raises(InputError, match=message):
        make_env(env_id)


def test_the_pen_is_turned_for_as_long_as_in_d4rl():
    """Its reference returns are of 100 steps; gymnasium-robotics plays 200. Door and hammer have 200 in both."""
    env = make_env("AdroitHandPen-v1")
    env.reset(seed=0)
    steps = next(step for step in range(1, 300) if any(env.step(np.zeros(24, np.float32))[2:4]))
    assert steps == time_limit("AdroitHandPen-v1") == 100
    assert time_limit("AdroitHandDoor-v1") == 200


def test_a_maze_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"itrpo\[maze\]"):
        make_env("AntMaze_UMaze-v4")


def test_sizes_must_fit():
    check_compatible("Hopper-v4", 11, 3)
    with pytest.raises(InputError, match=r"log.npz: its observations have 17 numbers and those of Hopper-v4 have 11"):
        check_compatible("Hopper-v4", 17, 3)
    with pytest.raises(InputError, match=r"log.npz: its actions have 6 numbers and those of Hopper-v4 have 3"):
        check_compatible("Hopper-v4", 11, 6)


def test_spaces_of_choices():
    spaces = spaces_of("CartPole-v1")
    assert (spaces.spec, spaces.low, spaces.high) == (DiscreteSpec(4, 2), 0, 1)
    check_sizes("CartPole-v1", spaces, DiscreteSpec(4, 2), "log.npz")
    for wrong, message in ((SpaceSpec(4, 2), "vectors of 2"), (DiscreteSpec(4, 3), "3 choices")):
        with pytest.raises(InputError, match=f"its actions are {message} and those of CartPole-v1 2 choices"):
            check_sizes("CartPole-v1", spaces, wrong, "log.npz")
    with pytest.raises(InputError, match=r"FrozenLake-v1: observations are Discrete\(16\)"):
        spaces_of("FrozenLake-v1")


@pytest.mark.parametrize(
    ("env_id", "observation_dim", "action_dim"),
    [("HalfCheetah-v4", 17, 6), ("Hopper-v4", 11, 3), ("Walker2d-v4", 17, 6), ("Ant-v4", 27, 8)],
)
def test_d4rl_environments(env_id, observation_dim, action_dim):
    check_compatible(env_id, observation_dim, action_dim)
    env = make_env(env_id)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000
    env.close()


def test_mujoco_warns_nowhere(tmp_path):
    """HalfCheetah's XML and an unstable simulation both make MuJoCo warn: no log file, nothing on the screen."""
    script = """
import warnings
import numpy as np
from itrpo.evaluation.environments import make_env
env = make_env("HalfCheetah-v4")
env.reset(seed=0)
env.unwrapped.data.qvel[:] = 1e12
env.step(np.zeros(6, np.float32))
assert sum(warning.number for warning in env.unwrapped.data.warning) > 0  # MuJoCo did warn
"""
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not list(tmp_path.iterdir())
    assert (result.stdout, result.stderr) == ("", "")


def test_mazes_have_d4rls_layout():
    pytest.importorskip("gymnasium_robotics")
    env = make_env("AntMaze_UMaze-v4")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (29,)  # x and y first, then the 27 of the ant; no goal
    inner = env.unwrapped
    np.testing.assert_array_equal(observation[:2], inner.ant_env.data.qpos[:2])
    check_compatible("PointMaze_UMaze-v3", 4, 2)
    assert isinstance(env.observation_space, gymnasium.spaces.Box)
