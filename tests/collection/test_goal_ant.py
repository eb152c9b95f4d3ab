from __future__ import annotations

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

from itrpo.collection.goal_ant import GOAL_DISTANCES, GoalAnt, from_goal_frame, to_goal_frame
from itrpo.collection.ladders import policy_path
from itrpo.collection.mazes import ANT_POLICY, ant_action
from itrpo.collection.rollout import load_acting_policy

ENV_ID = "itrpo.collection.goal_ant:GoalAnt-v0"


@pytest.fixture(scope="module")
def ant() -> GoalAnt:
    return GoalAnt()


def random_state(rng: np.random.Generator) -> np.ndarray:
    """An ant's 27 numbers, tilted by up to half a radian and looking anywhere."""
    attitude = Rotation.from_euler("zxy", [rng.uniform(-np.pi, np.pi), *rng.uniform(-0.5, 0.5, 2)])
    joints = rng.uniform(-0.3, 0.3, 8) + np.array([0, 1, 0, -1, 0, -1, 0, 1])
    return np.concatenate([[0.6], attitude.as_quat(scalar_first=True), joints, rng.normal(size=14)])


def stepped(ant: GoalAnt, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 27 numbers after one step of MuJoCo with these motors, and how far the ant moved [2]."""
    mujoco.mj_resetData(ant.model, ant.data)
    ant.data.qpos[2:], ant.data.qvel[:] = state[:13], state[13:]
    ant.data.ctrl[:] = action
    mujoco.mj_step(ant.model, ant.data)
    return np.concatenate([ant.data.qpos[2:], ant.data.qvel]), ant.data.qpos[:2].copy()


@pytest.mark.parametrize("seed", range(12))
def test_physics_is_the_same_in_the_goal_frame(ant: GoalAnt, seed: int):
    """The ant as it is, and an ant that really stands as the frame says, go the same way under the same action."""
    rng = np.random.default_rng(seed)
    state, goal, action = random_state(rng), rng.uniform(-0.6, 0.6, 2), rng.uniform(-1, 1, 8)
    frame, quarters = to_goal_frame(state, goal)
    in_frame, moved_in_frame = stepped(ant, frame[:27], action)
    as_it_is, moved = stepped(ant, state, from_goal_frame(action, quarters))
    assert np.hypot(*(goal - moved)) == pytest.approx(np.hypot(*(frame[27:] - moved_in_frame)), abs=1e-7)
    # both seen in the frame that belongs to them now: the same again
    np.testing.assert_allclose(
        to_goal_frame(as_it_is, goal - moved)[0],
        to_goal_frame(in_frame, frame[27:] - moved_in_frame)[0],
        atol=1e-8,
    )


def test_the_goal_lies_ahead_and_all_quarters_occur():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        goal = rng.normal(size=2) * 3
        frame, quarters = to_goal_frame(random_state(rng), goal)
        seen.add(quarters)
        assert abs(frame[28]) <= frame[27] + 1e-12  # within 45 degrees
        assert np.hypot(*frame[27:]) == pytest.approx(min(1.0, np.hypot(*goal)))
        assert frame[4] == pytest.approx(0, abs=1e-12)  # a tilt alone: no turn about the vertical
        assert frame[1] > 0
    assert seen == {0, 1, 2, 3}


def test_four_quarter_turns_of_the_legs_are_none():
    action = np.arange(1.0, 9.0)
    turned = action
    for _ in range(4):
        turned = from_goal_frame(turned, 1)
    np.testing.assert_array_equal(turned, action)
    assert not np.array_equal(np.abs(from_goal_frame(action, 1)), action)


def test_the_reward_is_the_speed_towards_the_goal():
    env = GoalAnt()
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        goal, before = env.goal.copy(), env.data.qpos[:2].copy()
        action = rng.uniform(-1, 1, 8)
        _, reward, _, _, info = env.step(action)
        closer = np.linalg.norm(goal - before) - np.linalg.norm(goal - env.data.qpos[:2])
        assert reward == pytest.approx(closer / 0.1 + 0.2 - 0.02 * np.sum(action**2), abs=1e-9)
        assert info["reached"] == (np.linalg.norm(goal - env.data.qpos[:2]) <= 0.5)


def test_a_goal_that_is_reached_is_followed_by_another_one_around_the_ant():
    env = GoalAnt()
    env.reset(seed=0)
    env.goal = env.data.qpos[:2] + np.array([0.4, 0])
    _, _, _, _, info = env.step(np.zeros(8, np.float32))
    assert info["reached"]
    assert GOAL_DISTANCES[0] <= np.linalg.norm(env.goal - env.data.qpos[:2]) <= GOAL_DISTANCES[1]
    kept = env.goal
    assert not env.step(np.zeros(8, np.float32))[4]["reached"]
    np.testing.assert_array_equal(env.goal, kept)


@pytest.mark.parametrize(("tilt", "over"), [(0.0, False), (80.0, False), (100.0, True), (180.0, True)])
def test_an_ant_on_its_back_ends_the_episode(tilt: float, over: bool):
    env = GoalAnt()
    env.reset(seed=0)
    env.data.qpos[2] = 2  # in the air, where one step turns it little
    env.data.qvel[:] = 0
    env.data.qpos[3:7] = Rotation.from_euler("x", tilt, degrees=True).as_quat(scalar_first=True)
    assert env.step(np.zeros(8, np.float32))[2] is over


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")  # unbounded, as every MuJoCo environment
def test_it_is_registered_and_keeps_gymnasiums_contract():
    env = gymnasium.make(ENV_ID)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 300
    check_env(env.unwrapped, skip_render_check=True)


def test_the_seed_determines_the_episode():
    def play(seed: int) -> np.ndarray:
        env = GoalAnt()
        env.reset(seed=99)  # forgotten by the next reset
        rows = [env.reset(seed=seed)[0]]
        rng = np.random.default_rng(0)
        for _ in range(20):
            env.goal = env.goal if len(rows) != 10 else env.data.qpos[:2].copy()  # draws a goal within the episode
            rows.append(env.step(rng.uniform(-1, 1, 8))[0])
        return np.stack(rows)

    np.testing.assert_array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))


def test_the_shipped_policy_reaches_goals():
    """Goals 2 to 6 m away within 200 steps, sampled actions with the datasets' noise."""
    policy, rng = load_acting_policy(policy_path(ANT_POLICY)), np.random.default_rng(0)
    env, reached = GoalAnt(), 0
    for episode in range(10):
        env.reset(seed=episode)
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(2, 6)
        goal = env.goal = env.data.qpos[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        for _ in range(200):
            observation = np.concatenate([env.data.qpos, env.data.qvel])
            action = ant_action(policy, observation, goal, 0.2, rng)
            env.data.ctrl[:] = action
            mujoco.mj_step(env.model, env.data, nstep=5)
            if np.linalg.norm(goal - env.data.qpos[:2]) <= 0.5:
                reached += 1
                break
    assert reached >= 9
