"""EDAC's step, written out; without diversity it is SAC-N to the bit."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from itrpo.algorithms import edac, sac_n
from itrpo.algorithms.edac import Config
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.errors import InputError
from itrpo.nn.soft import State
from itrpo.ranges import check_ranges
from tests.algorithms.soft_problem import (
    CRITIC_RATE,
    GAMMA,
    NETWORKS,
    POLICY,
    POLYAK,
    assert_state,
    batch,
    descended,
    entropy_step,
    numbers,
    policy_step,
    q_of,
    sampled,
    start,
)

MEMBERS, ETA = 3, 1.7
BACKBONE = Backbone(gamma=GAMMA, polyak_rate=POLYAK)


def slopes(params, observation, action):
    """grad_a Q_i(s,a) of the problem's critics, by hand: [members, B, 2]."""
    w, s, a = np.asarray(params), np.asarray(observation), np.asarray(action)
    first = w[:, None, 2] + w[:, None, 4] * a[:, 1] + w[:, None, 5] * s[:, 0]
    second = w[:, None, 3] + w[:, None, 4] * a[:, 0] + 2 * w[:, None, 6] * a[:, 1]
    return np.stack([first, second], axis=-1)


def diversity(params, it):
    g = slopes(params, it.observation, it.action)
    g /= np.linalg.norm(g, axis=-1, keepdims=True)
    pairs = [np.sum(g[i] * g[j], axis=-1) for i in range(MEMBERS) for j in range(MEMBERS) if i != j]
    return np.mean(sum(pairs)) / (MEMBERS - 1)


def step_by_hand(before, it, key):
    """(actor, critics, log weight) after one step."""
    policy, critics, targets = numbers((POLICY, before.critic.params, before.critic.target_params))
    noises = jax.random.normal(key, (3, 4, 2))
    log_weight = entropy_step(-0.7, sampled(policy, it.observation, noises[0])[1])
    policy = policy_step(policy, critics, log_weight, it.observation, noises[1])
    action, log_prob = sampled(policy, it.next_observation, noises[2])
    smallest = np.min([q_of(w, it.next_observation, action) for w in targets], axis=0)
    y = np.asarray(it.reward) + GAMMA * np.asarray(it.continues) * (smallest - np.exp(log_weight) * log_prob)

    def loss(critics):
        errors = sum(np.mean((q_of(w, it.observation, it.action) - y) ** 2) for w in critics)
        return errors + ETA * diversity(critics, it)

    return policy, descended(critics, CRITIC_RATE, loss), log_weight


def config(eta):
    return Config(eta, MEMBERS, BACKBONE)


def test_one_step_descends_the_errors_and_the_diversity_together():
    before, it, key = start(State, MEMBERS), batch(), jax.random.key(4)
    after, metrics = jax.jit(partial(edac.update, config(ETA), NETWORKS))(before, it, key, 0)
    policy, critics, log_weight = step_by_hand(before, it, key)
    assert_state(after, policy, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(metrics["diversity_loss"], diversity(numbers(before.critic.params), it), rtol=1e-4)


def test_without_diversity_it_is_sac_n_to_the_bit():
    before, it, key = start(State, MEMBERS), batch(), jax.random.key(5)
    ours, _ = jax.jit(partial(edac.update, config(0.0), NETWORKS))(before, it, key, 0)
    of_sac_n = sac_n.Config(MEMBERS, BACKBONE)
    theirs, _ = jax.jit(partial(sac_n.update, of_sac_n, NETWORKS))(before, it, key, 0)
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_single_critic_is_refused():
    with pytest.raises(InputError, match="critics must be at least 2"):
        check_ranges(Config(critics=1))
