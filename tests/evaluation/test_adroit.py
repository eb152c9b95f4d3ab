from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from itrpo.evaluation.adroit import FALLEN, REWARDS
from itrpo.evaluation.environments import check_sizes, make_env, reference_score, spaces_of
from itrpo.types import SpaceSpec

pytest.importorskip("gymnasium_robotics")
SIZES = {"Door": (39, 28), "Hammer": (46, 26), "Pen": (45, 24), "Relocate": (39, 30)}


def play(env: gymnasium.Env, seed: int) -> list[float]:
    """The rewards of uniform actions."""
    env.reset(seed=seed)
    rng, rewards, ended = np.random.default_rng(seed), list[float](), False
    while not ended:
        action = rng.uniform(-1, 1, env.action_space.shape or ()).astype(np.float32)
        _, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        ended = terminated or truncated
    return rewards


@pytest.mark.parametrize("kind", SIZES)
def test_sizes_are_those_of_d4rls_files(kind: str) -> None:
    check_sizes(f"AdroitHand{kind}-v1", spaces_of(f"AdroitHand{kind}-v1"), SpaceSpec(*SIZES[kind]), "a.hdf5")


@pytest.mark.parametrize(("kind", "within"), [("Door", 2.0), ("Relocate", 8.0)])
def test_uniform_actions_return_d4rls_reference(kind: str, within: float) -> None:
    """D4RL's random policy: -56.5 and -6.4. The ports' own rewards give -46 and 11 (100 episodes each)."""
    reference = reference_score(f"AdroitHand{kind}-v1")
    assert reference is not None
    returns = [sum(play(make_env(f"AdroitHand{kind}-v1"), seed)) for seed in range(3)]
    assert np.mean(returns) == pytest.approx(reference[0], abs=within)


def at(kind: str, change: Any) -> tuple[np.ndarray, Any, float]:
    """Observation, simulator's state and reward once `change` has edited the state."""
    env: Any = make_env(f"AdroitHand{kind}-v1").unwrapped
    env.reset(seed=0)
    change(env.data)
    mujoco.mj_forward(env.model, env.data)
    return env._get_obs(), env.data, REWARDS[kind](env.data)


@pytest.mark.parametrize(("angle", "bonus"), [(0.1, 0), (0.3, 2), (1.2, 10), (1.4, 20)])
def test_door(angle: float, bonus: float) -> None:
    def opened(data: Any) -> None:
        data.joint("door_hinge").qpos[0] = angle
        data.qvel[:] = 0.5

    observation, data, reward = at("Door", opened)
    assert observation[28] == angle
    speed = 1e-5 * 0.25 * len(data.qvel)
    expected = -0.1 * np.linalg.norm(observation[35:38]) - 0.1 * (angle - 1.57) ** 2 - speed + bonus
    assert reward == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("away", "bonus"), [(None, 0), (0.2, 0), (0.08, 10), (0.02, 30)])
def test_relocate(away: float | None, bonus: float) -> None:
    """Its observation ends with hand - ball, hand - target and ball - target. None: the ball lies on the table."""

    def carried(data: Any) -> None:
        if away is not None:
            data.qpos[30:33] += data.site("target").xpos + np.array([away, 0, 0]) - data.body("Object").xpos

    observation, _, reward = at("Relocate", carried)
    to_ball, to_target, between = (np.linalg.norm(observation[start : start + 3]) for start in (30, 33, 36))
    expected = -0.1 * to_ball
    if away is not None:
        assert between == pytest.approx(away, abs=1e-12)
        expected += 1 - 0.5 * to_target - 0.5 * between + bonus
    assert reward == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("out", "bonus"), [(0.05, 0), (0.015, 25), (0.005, 100)])
@pytest.mark.parametrize("lifted", [False, True])
def test_hammer(out: float, bonus: float, lifted: bool) -> None:
    """Its observation ends with hand, handle, the handle's angles and the nail, and the blow."""

    def driven(data: Any) -> None:
        data.joint("nail_dir").qpos[0] = 0
        data.qvel[:] = 0.1
        data.joint("OBJTy").qpos[0] += 0.1 * lifted  # the world's z
        mujoco.mj_forward(data.model, data)
        left = np.linalg.norm(data.site("S_target").xpos - data.site("nail_goal").xpos)
        data.joint("nail_dir").qpos[0] = left - out

    observation, data, reward = at("Hammer", driven)
    hand, handle, nail = observation[33:36], observation[36:39], observation[42:45]
    head, goal = data.site("tool").xpos, data.site("nail_goal").xpos
    assert np.linalg.norm(nail - goal) == pytest.approx(out, abs=1e-9)
    high = handle[2] > 0.04 and head[2] > 0.04
    assert high == lifted
    costs = 0.1 * np.linalg.norm(hand - handle) + np.linalg.norm(head - nail) + 10 * out
    expected = 2 * high + bonus - costs - 1e-2 * 0.1 * np.sqrt(len(data.qvel))
    assert reward == pytest.approx(expected, abs=1e-8)


def test_an_episode_ends_where_the_pen_falls() -> None:
    env: Any = make_env("AdroitHandPen-v1")
    env.reset(seed=1)
    rng, heights, terminated, truncated = np.random.default_rng(0), list[float](), False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 24).astype(np.float32))
        heights.append(float(env.unwrapped.data.body("Object").xpos[2]))
    assert terminated
    assert len(heights) < 100
    assert heights[-1] < FALLEN <= min(heights[:-1])
    assert reward < -3  # 5 for the fall
