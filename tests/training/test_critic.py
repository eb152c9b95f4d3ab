"""`itrpo.load_critic`: Q of a run, in the dataset's units."""

from __future__ import annotations

import numpy as np
import pytest

import itrpo
from itrpo.console import silent_console

ROWS = 2_000
RNG = np.random.default_rng(0)
LEVEL = RNG.uniform(100, 300, (ROWS, 1))  # far from the units of networks, as the valve is
VALVE = RNG.uniform(0, 10, (ROWS, 1))
PUSHED = RNG.integers(1, 4, ROWS)


def reward(level, valve):
    """Best with the valve at a twentieth of the level less 5: 0 to 10."""
    return 3 - ((valve - (level / 20 - 5)) / 5)[..., 0] ** 2


def bandit(actions, rewards):
    """Every step is an episode, so that Q(s,a) = r(s,a) whatever the policy and gamma are."""
    end = np.ones(ROWS, bool)
    return {"observations": LEVEL, "actions": actions, "rewards": rewards, "terminals": end, "timeouts": ~end}


def train(folder, data, algorithm, fields, **options):
    given = {"steps": 500, "eval_every": 500, "env": "none", "normalize_observations": True, "out": folder}
    made = itrpo.RunOptions(**given | options)
    return itrpo.train(data, algorithm, made, fields=fields, console=silent_console())


NETWORK = {"critic_hidden": (64,), "critic_learning_rate": 1e-2, "batch_size": 128}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = itrpo.load_dataset(bandit(VALVE, reward(LEVEL, VALVE)), action_low=0, action_high=10)
    options = {"preset": "quick", "seeds": 2, "reward_scale": 10.0, "reward_shift": -20.0}
    return train(tmp_path_factory.mktemp("critic") / "run", data, "td3_bc", NETWORK, **options)


def test_q_is_the_reward_where_every_step_is_an_episode(run):
    level, valve = np.meshgrid(np.linspace(120, 280, 9), np.linspace(1, 9, 9))
    level, valve = level[..., None], valve[..., None]
    critics = [itrpo.load_critic(run, seed) for seed in (0, 1)]
    for critic in critics:
        assert (critic.step, critic.reward_scale, critic.reward_shift) == (500, 10.0, -20.0)
        found = critic(level, valve)
        assert found.shape == (2, 9, 9)
        np.testing.assert_allclose(found, np.stack([10 * reward(level, valve) - 20] * 2), atol=4)  # of -20 to 10
    assert not np.array_equal(critics[0](level, valve), critics[1](level, valve))


def test_the_best_of_many_candidates_is_found_by_broadcasting(run):
    critic, level = itrpo.load_critic(run.folder), np.array([[150.0], [200.0], [250.0]])
    candidates = np.linspace(0, 10, 101)[:, None]
    q = critic(level[:, None], candidates).min(axis=0)
    assert q.shape == (3, 101)
    np.testing.assert_allclose(candidates[q.argmax(axis=1), 0], [2.5, 5.0, 7.5], atol=1.5)
    np.testing.assert_allclose(q[1, 40], critic(level[1], candidates[40]).min(axis=0), rtol=1e-5)
    assert critic(np.zeros((0, 1)), np.zeros((0, 1))).shape == (2, 0)


def test_of_choices_it_takes_their_numbers(tmp_path):
    worth = np.array([1.0, -1.0, 2.0])
    run = train(tmp_path / "run", bandit(PUSHED, worth[PUSHED - 1]), "dqn", NETWORK, seeds=1)
    critic = itrpo.load_critic(run)
    found = critic(LEVEL[:5, None], np.arange(1, 4))
    np.testing.assert_allclose(found, np.broadcast_to(worth, (1, 5, 3)), atol=0.1)
    with pytest.raises(ValueError, match="whole numbers from 1 to 3"):
        critic(LEVEL[0], 0)


def test_what_it_can_not_take(run, tmp_path):
    critic = itrpo.load_critic(run)
    with pytest.raises(ValueError, match=r"observations must be \[\.\.\., 1\], not \[2\]"):
        critic([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"actions must be \[\.\.\., 1\], not \[\]"):
        critic([1.0], 1.0)
    with pytest.raises(itrpo.InputError, match=r"no policy of seed 2"):
        itrpo.load_critic(run, 2)
    with pytest.raises(itrpo.InputError, match=r"is no run"):
        itrpo.load_critic(tmp_path)
    cloned = train(tmp_path / "bc", bandit(VALVE / 10, VALVE[:, 0]), "bc", {"hidden": (8,)}, seeds=1, steps=10)
    with pytest.raises(itrpo.InputError, match="bc has no critic of actions"):
        itrpo.load_critic(cloned)
