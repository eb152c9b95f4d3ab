"""Sets over choices: rows that follow one another, and choices of the policy that acted, each with its probability."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from itrpo.collection import recipes
from itrpo.collection.choices import ENVIRONMENTS
from itrpo.collection.ladders import expert, ladder, medium, policy_path
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.evaluation.environments import check_known, make_env, reference_score
from itrpo.policy import load_policy


def test_a_set_is_what_its_policy_does(tmp_path: Path) -> None:
    path = recipes.make_dataset("cartpole-medium", tmp_path / "set.hdf5", steps=400, workers=1)
    dataset = load_dataset(path)
    rows = dataset.transitions
    assert (dataset.num_actions, dataset.env_id, dataset.bounds) == (2, "CartPole-v1", "declared")
    going_on = np.flatnonzero(rows.continues[:-1] == 1)
    np.testing.assert_array_equal(rows.next_observation[going_on], rows.observation[going_on + 1])
    position, velocity = rows.observation[going_on, 0], rows.observation[going_on, 1]
    np.testing.assert_allclose(rows.next_observation[going_on, 0], position + 0.02 * velocity, atol=1e-5)  # its physics
    greedy = load_policy(policy_path(medium("CartPole-v1").policy)).act(rows.observation) == rows.action
    assert 0.9 < greedy.mean() < 1
    expected = np.log(np.where(greedy, 0.95, 0.05))
    np.testing.assert_allclose(dataset.behavior_log_probs, expected, rtol=1e-5)


def test_rows_of_a_grid_follow_its_rules(tmp_path: Path) -> None:
    path = recipes.make_dataset("breakout-medium", tmp_path / "set.hdf5", steps=600, workers=1)
    with h5py.File(path) as file:
        assert file["observations"].dtype == file["next_observations"].dtype == np.int8
    dataset = load_dataset(path)
    rows = dataset.transitions
    assert (dataset.num_actions, dataset.env_id, dataset.bounds) == (3, "itrpo/Breakout-v0", "declared")
    before, after = (it.reshape(-1, 10, 10, 4) for it in (rows.observation, rows.next_observation))
    assert set(np.unique(before)) == {0, 1}
    going_on = rows.continues == 1
    np.testing.assert_array_equal(after[going_on, ..., 2], before[going_on, ..., 1])  # the trail is where the ball was
    gone = (before - after)[..., 3].sum(axis=(1, 2))
    np.testing.assert_array_equal(gone[going_on], rows.reward[going_on])
    paddle, then = (np.argmax(it[:, 9, :, 0], axis=1) for it in (before, after))
    moved = np.clip(paddle + np.array([0, -1, 1])[rows.action], 0, 9)
    np.testing.assert_array_equal(then[going_on], moved[going_on])
    greedy = load_policy(policy_path(medium("itrpo/Breakout-v0").policy)).act(rows.observation) == rows.action
    expected = np.log(np.where(greedy, 1 - 0.02 + 0.02 / 3, 0.02 / 3))
    np.testing.assert_allclose(dataset.behavior_log_probs, expected, rtol=1e-5)


def test_a_lander_moves_as_its_velocity_says(tmp_path: Path) -> None:
    pytest.importorskip("Box2D", reason="the extra box2d is not installed")
    path = recipes.make_dataset("lunarlander-medium", tmp_path / "set.hdf5", steps=400, workers=1)
    dataset = load_dataset(path)
    assert (dataset.num_actions, dataset.env_id, dataset.bounds) == (4, "LunarLander-v3", "declared")
    rows = dataset.transitions
    on = rows.continues == 1
    moved, velocity = (rows.next_observation - rows.observation)[on, 0], rows.next_observation[on, 2]
    np.testing.assert_allclose(moved, velocity / 100, atol=1e-3)  # 50 steps a second, and units of half a width and 1/5
    assert np.abs(velocity / 100).max() > 5e-3
    assert set(np.unique(rows.observation[:, 6:])) <= {0, 1}  # whether a leg touches the ground
    greedy = load_policy(policy_path(medium("LunarLander-v3").policy)).act(rows.observation) == rows.action
    np.testing.assert_allclose(dataset.behavior_log_probs, np.log(np.where(greedy, 0.925, 0.025)), rtol=1e-5)


def test_what_an_environment_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"LunarLander-v3 needs Box2D and pygame: pip install 'itrpo\[box2d\]'"):
        check_known("LunarLander-v3")


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_ladders_of_choices(env_id: str) -> None:
    assert medium(env_id).environment_steps < expert(env_id).environment_steps
    assert medium(env_id).sampled[0] < expert(env_id).sampled[0]
    for rung in ladder(env_id):
        policy = load_policy(policy_path(rung.policy))
        assert (policy.num_actions, policy.metadata["env_id"]) == (ENVIRONMENTS[env_id].number, env_id)
    name = next(name for name, it in recipes.CHOICE_ENV_IDS.items() if it == env_id)
    assert recipes.plan(f"{name}-random").said["num_actions"] == ENVIRONMENTS[env_id].number


def test_scores_of_breakout_are_between_chance_and_the_expert() -> None:
    env_id = "itrpo/Breakout-v0"
    reference = reference_score(env_id)
    assert reference is not None
    assert reference[1] == expert(env_id).mode[0]
    env, rng, returns = make_env(env_id), np.random.default_rng(0), []
    for episode in range(1_000):
        ended, total = False, 0.0
        env.reset(seed=episode)
        while not ended:
            _, reward, terminal, truncated, _ = env.step(rng.integers(ENVIRONMENTS[env_id].number))
            total, ended = total + float(reward), terminal or truncated
        returns.append(total)
    assert abs(np.mean(returns) - reference[0]) < 4 * np.std(returns) / np.sqrt(1_000)
