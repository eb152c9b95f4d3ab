"""Sets over choices: rows that follow one another, and choices of the policy that acted, each with its probability."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from itrpo.collection import recipes
from itrpo.collection.choices import EPSILON
from itrpo.collection.ladders import expert, medium, policy_path
from itrpo.data.load import load_dataset
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
    expected = np.log(np.where(greedy, 1 - EPSILON / 2, EPSILON / 2))
    np.testing.assert_allclose(dataset.behavior_log_probs, expected, rtol=1e-5)


def test_ladders_of_choices() -> None:
    for env_id in ("CartPole-v1", "Acrobot-v1"):
        assert medium(env_id).environment_steps < expert(env_id).environment_steps
        assert medium(env_id).sampled[0] < expert(env_id).sampled[0]
    names = {f"{environment}-random-itrpo1" for environment in recipes.CHOICE_ENV_IDS}
    assert all(recipes.plan(name).said["num_actions"] in (2, 3) for name in names)
