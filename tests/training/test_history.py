"""Histories as observations: closed forms, and the same ones that an exported policy keeps as it acts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import itrpo
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.evaluation import rollout
from itrpo.evaluation.environments import make_env
from itrpo.policy import load_policy, save_policy

ROWS = 7  # two episodes: rows 0 to 2 and 3 to 6
LOG = {
    "observations": np.arange(1.0, 8)[:, None],
    "actions": np.arange(1.0, 8)[:, None] / 10,
    "rewards": np.zeros(ROWS),
    "terminals": np.arange(ROWS) == 2,
    "timeouts": np.arange(ROWS) == 6,
}


def test_a_history_ends_where_its_episode_begins() -> None:
    """[o_t, o_{t-1}, o_{t-2}, a_{t-1}, a_{t-2}]"""
    dataset = load_dataset(LOG, stack=3)
    observation = [[1, 1, 1, 0, 0], [2, 1, 1, 0.1, 0], [3, 2, 1, 0.2, 0.1], [4, 4, 4, 0, 0], [5, 4, 4, 0.4, 0]]
    np.testing.assert_allclose(dataset.transitions.observation, [*observation, [6, 5, 4, 0.5, 0.4]], rtol=1e-6)
    going_on = dataset.transitions.continues == 1
    following = [[2, 1, 1, 0.1, 0], [3, 2, 1, 0.2, 0.1], [5, 4, 4, 0.4, 0], [6, 5, 4, 0.5, 0.4], [7, 6, 5, 0.6, 0.5]]
    np.testing.assert_allclose(dataset.transitions.next_observation[going_on], following, rtol=1e-6)
    assert (dataset.spec, dataset.frame, dataset.stack) == ((5, 1), (1, 1), 3)


def test_next_observations_are_followed_by_their_own_past() -> None:
    """Row 4 does not begin where row 3 led to: its history is its own."""
    following = LOG["observations"] + 1
    following[3] = 9
    dataset = load_dataset(LOG | {"next_observations": following}, stack=2)
    expected = [[1, 1, 0], [2, 1, 0.1], [3, 2, 0.2], [4, 4, 0], [5, 5, 0], [6, 5, 0.5], [7, 6, 0.6]]
    np.testing.assert_allclose(dataset.transitions.observation, expected, rtol=1e-6)
    after = [[2, 1, 0.1], [3, 2, 0.2], [4, 3, 0.3], [9, 4, 0.4], [6, 5, 0.5], [7, 6, 0.6], [8, 7, 0.7]]
    np.testing.assert_allclose(dataset.transitions.next_observation, after, rtol=1e-6)


def test_actions_in_a_history_are_in_one_range() -> None:
    dataset = load_dataset(LOG, stack=2, action_low=0.0, action_high=0.8)
    np.testing.assert_allclose(dataset.transitions.observation[1], [2, 1, -0.75], rtol=1e-6)


def test_what_does_not_fit_into_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"--stack 100000000000: 7 rows become .* take a smaller --stack"):
        load_dataset(LOG, stack=10**11)


def test_a_policy_keeps_the_history_that_it_learned_from(tmp_path: Path) -> None:
    """A log by a policy of three observations and two actions: what it saw is what the dataset makes of the log."""
    rng = np.random.default_rng(0)
    export = {"kind": "tanh_mlp", "weight_0": rng.normal(size=(2, 10)), "bias_0": rng.normal(size=2)}
    moments = rng.normal(size=10), rng.uniform(0.5, 2, 10)
    bounds = np.array([-1.0, 0.0]), np.array([1.0, 5.0])
    save_policy(tmp_path / "p.npz", export, *moments, *bounds, {"stack": 3})
    policy = load_policy(tmp_path / "p.npz")
    observations = rng.normal(size=(4, 6, 2)).astype(np.float32)  # [episode, step, O]
    alone = []
    for episode in observations:
        policy.reset()
        alone.append([policy(it) for it in episode])
    policy.reset()
    together = np.stack([policy(observations[:, step]) for step in range(6)], axis=1)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    rows = {"observations": observations.reshape(24, 2), "actions": np.reshape(alone, (24, 2))}
    flags = np.arange(24) % 6 == 5
    log = rows | {"rewards": np.zeros(24), "terminals": np.zeros(24, bool), "timeouts": flags}
    dataset = load_dataset(log, stack=3, action_low=bounds[0], action_high=bounds[1])
    seen = (dataset.transitions.observation - np.float32(moments[0])) / np.float32(moments[1])
    made = np.tanh(seen @ np.float32(export["weight_0"]).T + np.float32(export["bias_0"]))
    np.testing.assert_allclose(made, dataset.transitions.action, atol=1e-5)


def test_another_number_of_episodes_needs_a_reset(tmp_path: Path) -> None:
    export = {"kind": "tanh_mlp", "weight_0": np.ones((1, 3)), "bias_0": np.zeros(1)}
    save_policy(tmp_path / "p.npz", export, np.zeros(3), np.ones(3), [-1.0], [1.0], {"stack": 2})
    policy = load_policy(tmp_path / "p.npz")
    policy([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"observations \[1\] after \[2, 1\].*call reset\(\)"):
        policy([1.0])
    policy.reset()
    assert policy([0.5]).tolist() == [pytest.approx(np.tanh(1.0))]  # 0.5 twice, and no action
    for damaged in ({"stack": 5}, {"stack": 0}, {"stack": "2"}, {"stack": 4}):
        with pytest.raises(ValueError, match="damaged"):
            save_policy(tmp_path / "q.npz", export, np.zeros(3), np.ones(3), [-1.0], [1.0], damaged)


def test_a_run_plays_what_ships(pendulum: Path, tmp_path: Path):
    """Evaluations begin every episode without a past: their returns are those of the file, played by hand."""
    length = itrpo.RunOptions("smoke", steps=4, seeds=1, eval_every=4, eval_episodes=2)
    options = replace(length, stack=3, action_low=-2.0, action_high=2.0, out=tmp_path / "run")
    run = itrpo.train(pendulum, "bc", options, console=Console(quiet=True))
    assert json.loads((run.folder / "config.json").read_text())["config"]["data"]["stack"] == 3
    policy = run.policy_of_seed(0)
    assert (policy.frame, policy.stack, len(policy.observation_mean)) == (3, 3, 11)
    env, expected = make_env("Pendulum-v1"), []
    for slot in range(2):
        seed = np.random.SeedSequence([0, 0, slot, 4]).generate_state(1)[0]
        observation, _ = env.reset(seed=int(seed))
        total, ended = 0.0, False
        policy.reset()
        while not ended:
            observation, reward, terminal, timeout, _ = env.step(policy.act(observation))
            total, ended = total + float(reward), terminal or timeout
        expected.append(total)
    assert run.returns is not None
    np.testing.assert_allclose(run.returns, [np.mean(expected)], rtol=1e-4)
    again = itrpo.evaluate(run.folder, episodes=1)
    pool = rollout.make_pool("Pendulum-v1", 1, 1, processes=1)
    used = rollout.acting([policy])  # which has a past
    np.testing.assert_array_equal(rollout.evaluate(pool, used, 0, 2**31).returns, again.returns)
    pool.close()
