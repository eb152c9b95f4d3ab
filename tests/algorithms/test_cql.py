"""CQL's loss in NumPy, its samples' densities, and its step, written out; at weight 0 it is SAC."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from itrpo.algorithms import cql, soft_actor_critic
from itrpo.algorithms.cql import Config, Rows, State
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.errors import InputError
from itrpo.nn.trainable import trainable
from itrpo.ranges import check_ranges
from tests.algorithms.soft_problem import (
    CRITIC_RATE,
    GAMMA,
    NETWORKS,
    POLICY,
    POLICY_RATE,
    POLYAK,
    assert_state,
    batch,
    critic_params,
    descended,
    entropy_step,
    numbers,
    policy,
    policy_step,
    q_of,
    sampled,
    start,
)

CONFIG = Config(
    conservative_weight=0.8,
    conservative_actions=3,
    backup_actions=2,
    bc_steps=0,
    backbone=Backbone(gamma=GAMMA, polyak_rate=POLYAK, batch_size=4),
)


def test_loss_of_a_batch_in_numpy():
    rng = np.random.default_rng(1)
    rows = Rows(*(rng.normal(size=shape) for shape in ((2, 1), (2, 4, 2), (2, 3), (2,))))
    expected, gaps = 0.0, []
    for w in numbers(critic_params(2)):
        q = np.stack([q_of(w, rows.observation, rows.action[:, j]) for j in range(4)], axis=1)
        gaps.append(np.log(np.sum(np.exp(q[:, 1:]) / np.exp(rows.log_density), axis=1)) - q[:, 0])
        expected += np.mean((q[:, 0] - rows.target) ** 2 + 0.7 * gaps[-1])
    loss, metrics = cql.critic_loss(NETWORKS, 0.7, critic_params(2), Rows(*(jnp.asarray(it, "float32") for it in rows)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["conservative_gap"], np.mean(gaps), rtol=1e-4)


def test_sampled_actions_come_with_the_densities_they_were_drawn_from_and_pass_no_gradient():
    it, key = batch(), jax.random.key(0)
    draw = jax.jit(partial(soft_actor_critic.conservative_actions, NETWORKS, 5))
    actions, densities = (np.asarray(found, np.float64) for found in draw(POLICY, it, key))
    assert actions.shape == (4, 15, 2)
    np.testing.assert_allclose(densities[:, :5], np.log(0.25), rtol=1e-6)  # uniform on a square of area 4
    for block, observation in ((slice(5, 10), it.observation), (slice(10, 15), it.next_observation)):
        mean, log_std = (np.asarray(moment, np.float64)[:, None] for moment in policy(POLICY, observation))
        a = actions[:, block]
        log_normal = stats.norm(mean, np.exp(log_std)).logpdf(np.arctanh(a))
        np.testing.assert_allclose(densities[:, block], (log_normal - np.log(1 - a**2)).sum(-1), rtol=2e-3, atol=2e-3)
    assert (np.abs(actions[:, :5]).max(axis=(0, 1)) > 0.8).all()
    total = jax.jit(jax.grad(lambda params: sum(jnp.sum(found) for found in draw(params, it, key))))(POLICY)
    assert all((np.asarray(slope) == 0).all() for slope in jax.tree.leaves(total))


def test_max_backup_is_the_smaller_of_the_critics_own_maxima():
    """Not the maximum of the smaller values, which here is 2."""
    values = jnp.array([[1.0, 5.0], [4.0, 2.0]])[:, None]  # [critics, B, n]
    networks = NETWORKS._replace(critics=NETWORKS.critics._replace(apply=lambda params, observation, action: values))
    one = jax.tree.map(lambda it: it[:1], batch())
    target = cql.critic_targets(networks, 0.9, begin(), one, jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(target, one.reward + 0.9 * 4.0, rtol=1e-6)


def begin():
    return start(State, 2, trainable(NETWORKS.critic_optimizer, jnp.asarray(0.4)))


def step_by_hand(config, clones, before, it, key):
    """(actor, critics, log weight, log multiplier) after one step."""
    actor, critics, targets = numbers((POLICY, before.critic.params, before.critic.target_params))
    policy_key, target_key, action_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, (4, 2))
    log_weight = entropy_step(-0.7, sampled(actor, it.observation, noise)[1])

    def cloning(params):
        log_prob = sampled(params, it.observation, noise)[1]
        logged = np.asarray(it.action, np.float64)
        mean = params["bias"] + np.asarray(it.observation, np.float64) @ params["slope"]
        normal = stats.norm(mean, np.exp(params["log_std"])).logpdf(np.arctanh(logged))
        return np.mean(np.exp(log_weight) * log_prob - np.sum(normal - np.log(1 - logged**2), axis=1))

    improved = policy_step(actor, critics, log_weight, it.observation, noise)
    stepped = descended(actor, POLICY_RATE, cloning) if clones else improved

    draws, best = jax.random.normal(target_key, (4, config.backup_actions, 2)), []
    for w in targets:
        tried = [sampled(actor, it.next_observation, draws[:, j])[0] for j in range(config.backup_actions)]
        best.append(np.max([q_of(w, it.next_observation, action) for action in tried], axis=0))
    y = np.asarray(it.reward) + GAMMA * np.asarray(it.continues) * np.min(best, axis=0)

    actions, densities = numbers(soft_actor_critic.conservative_actions(NETWORKS, 3, POLICY, it, action_key))

    def gap(w):
        q = np.stack([q_of(w, it.observation, actions[:, j]) for j in range(actions.shape[1])], axis=1)
        return np.mean(np.log(np.sum(np.exp(q - densities), axis=1)) - q_of(w, it.observation, it.action))

    multiplier, log_multiplier, threshold = 1.0, 0.4, config.lagrange_threshold
    if threshold is not None:
        multiplier = np.exp(log_multiplier)
        gaps = [config.conservative_weight * gap(w) - threshold for w in critics]
        log_multiplier += CRITIC_RATE * 0.5 * multiplier * sum(gaps)

    def loss(critics):
        errors = sum(np.mean((q_of(w, it.observation, it.action) - y) ** 2) for w in critics)
        return errors + multiplier * config.conservative_weight * sum(gap(w) for w in critics)

    return stepped, descended(critics, CRITIC_RATE, loss), log_weight, log_multiplier


@pytest.mark.parametrize(
    ("config", "cached_rows"),
    [
        (replace(CONFIG, conservative_weight=0.0), 512),  # SAC without the entropy in y
        (CONFIG, 20),  # in two chunks of two states with ten actions each
        (replace(CONFIG, lagrange_threshold=1.5, bc_steps=3), 512),
    ],
    ids=["sac", "plain", "lagrange"],
)
def test_one_step_is_the_weight_then_actor_and_critics_against_each_other_as_they_were(
    config, cached_rows, monkeypatch
):
    monkeypatch.setattr("itrpo.nn.trainable.CACHED_ROWS", cached_rows)
    before, it, key = begin(), batch(), jax.random.key(6)
    after, metrics = jax.jit(partial(cql.update, config, NETWORKS))(before, it, key, 3)
    actor, critics, log_weight, log_multiplier = step_by_hand(config, False, before, it, key)
    assert_state(after, actor, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(after.log_multiplier.params, log_multiplier, rtol=1e-4)
    assert (log_multiplier != 0.4) == (config.lagrange_threshold is not None)
    assert (float(metrics["conservative_gap"]) != 0) == (config.conservative_weight != 0)


def test_the_actor_clones_before_step_bc_steps():
    """And not at it: the Lagrange case above."""
    config = replace(CONFIG, conservative_weight=0.0, bc_steps=3)
    before, it, key = begin(), batch(), jax.random.key(7)
    after, _ = jax.jit(partial(cql.update, config, NETWORKS))(before, it, key, 2)
    actor, critics, log_weight, _ = step_by_hand(config, True, before, it, key)
    assert_state(after, actor, critics, before.critic.target_params, log_weight)


def test_a_threshold_of_nothing_is_refused():
    with pytest.raises(InputError, match="lagrange_threshold must be positive"):
        check_ranges(Config(lagrange_threshold=0.0))
