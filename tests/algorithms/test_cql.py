"""CQL's loss in NumPy, its samples' densities, and its step, written out; at weight 0 it is SAC."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from itrpo.algorithms import cql
from itrpo.algorithms.cql import Config, Rows, State
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.errors import InputError
from itrpo.nn.trainable import trainable
from tests.algorithms.soft_problem import (
    GAMMA,
    NETWORKS,
    OPTIMIZERS,
    POLICY,
    POLYAK,
    RATES,
    assert_state,
    batch,
    critic,
    critic_params,
    critic_step,
    entropy_step,
    policy,
    policy_step,
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


def q_of(w, s, a):
    return w @ np.array([1, s, a[0], a[1], a[0] * a[1], s * a[0], a[1] ** 2])


def test_loss_of_a_batch_in_numpy():
    rng = np.random.default_rng(1)
    rows = Rows(*(rng.normal(size=shape) for shape in ((2, 1), (2, 4, 2), (2, 3), (2,))))
    expected, gaps = 0.0, []
    for s, actions, log_density, y in zip(rows.observation[:, 0], *rows[1:], strict=True):
        for w in np.asarray(critic_params(2), np.float64):
            sampled_q = np.array([q_of(w, s, a) for a in actions[1:]])
            gaps.append(np.log(np.sum(np.exp(sampled_q) / np.exp(log_density))) - q_of(w, s, actions[0]))
            expected += 0.5 * ((q_of(w, s, actions[0]) - y) ** 2 + 0.7 * gaps[-1])  # mean over two states
    loss, metrics = cql.critic_loss(NETWORKS, 0.7, critic_params(2), Rows(*(jnp.asarray(it, "float32") for it in rows)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["conservative_gap"], np.mean(gaps), rtol=1e-4)


def test_sampled_actions_come_with_the_densities_they_were_drawn_from_and_pass_no_gradient():
    it, key = batch(), jax.random.key(0)
    draw = jax.jit(partial(cql.conservative_actions, NETWORKS, 5))
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
    networks = NETWORKS._replace(critics=lambda params, observation, action: values)
    one = jax.tree.map(lambda it: it[:1], batch())
    target = cql.critic_targets(networks, 0.9, POLICY, None, one, jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(target, one.reward + 0.9 * 4.0, rtol=1e-6)


def begin(log_multiplier: float = 0.4):
    return start(State, 2, trainable(OPTIMIZERS.critic, jnp.asarray(log_multiplier)))


def step_by_hand(config, clones, before, it, key):
    """(actor, critics, log weight, log multiplier, gap) after one step."""
    policy_key, target_key, action_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, (4, 2))
    _, log_prob = sampled(POLICY, it.observation, noise)
    log_weight = entropy_step(before.log_entropy_weight.params, log_prob)

    def cloning(params):
        log_prob = sampled(params, it.observation, noise)[1]
        mean, log_std = policy(params, it.observation)
        u = jnp.arctanh(it.action)
        normal = -0.5 * ((u - mean) / jnp.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        likelihood = jnp.sum(normal - jnp.log(1 - it.action**2), axis=1)
        return jnp.mean(jnp.exp(log_weight) * log_prob - likelihood)

    if clones:
        actor = jax.tree.map(lambda x, slope: x - RATES.policy * slope, POLICY, jax.grad(cloning)(POLICY))
    else:
        actor = policy_step(POLICY, before.critic.params, log_weight, it.observation, noise)

    draws = jax.random.normal(target_key, (4, config.backup_actions, 2))
    best = []
    for w in before.critic.target_params:
        tried = [critic(w, it.next_observation, sampled(POLICY, it.next_observation, draws[:, j])[0]) for j in range(2)]
        best.append(jnp.max(jnp.stack(tried), axis=0))
    y = it.reward + GAMMA * it.continues * jnp.min(jnp.stack(best), axis=0)

    actions, densities = cql.conservative_actions(NETWORKS, 3, POLICY, it, action_key)

    def gap(w):
        q = jnp.stack([critic(w, it.observation, actions[:, j]) for j in range(actions.shape[1])], axis=1)
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(q - densities), axis=1)) - critic(w, it.observation, it.action))

    multiplier, threshold = 1.0, config.lagrange_threshold
    log_multiplier = before.log_multiplier.params
    if threshold is not None:
        multiplier = jnp.exp(log_multiplier)
        gaps = [config.conservative_weight * gap(w) - threshold for w in before.critic.params]
        log_multiplier += RATES.critic * 0.5 * multiplier * sum(gaps)

    def loss(critics):
        errors = sum(jnp.mean((critic(w, it.observation, it.action) - y) ** 2) for w in critics)
        return errors + multiplier * config.conservative_weight * sum(gap(w) for w in critics)

    return actor, critic_step(before.critic.params, loss), log_weight, log_multiplier


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, conservative_weight=0.0),  # SAC without the entropy in y
        CONFIG,
        replace(CONFIG, lagrange_threshold=1.5, bc_steps=3),
    ],
    ids=["sac", "plain", "lagrange"],
)
def test_one_step_is_the_weight_then_actor_and_critics_against_each_other_as_they_were(config):
    before, it, key = begin(), batch(), jax.random.key(6)
    after, metrics = jax.jit(partial(cql.update, config, NETWORKS, OPTIMIZERS))(before, it, key, 3)
    by_hand = jax.jit(partial(step_by_hand, config, False))
    actor, critics, log_weight, log_multiplier = by_hand(before, it, key)
    assert_state(after, actor, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(after.log_multiplier.params, log_multiplier, rtol=1e-4)
    assert (float(log_multiplier) != 0.4) == (config.lagrange_threshold is not None)
    assert (float(metrics["conservative_gap"]) != 0) == (config.conservative_weight != 0)


def test_the_actor_clones_for_the_first_steps_alone():
    config = replace(CONFIG, bc_steps=3)
    before, it, key = begin(), batch(), jax.random.key(7)
    update = jax.jit(partial(cql.update, config, NETWORKS, OPTIMIZERS))
    for step, clones in ((2, True), (3, False)):
        actor, critics, log_weight, _ = jax.jit(partial(step_by_hand, config, clones))(before, it, key)
        after, _ = update(before, it, key, step)
        assert_state(after, actor, critics, before.critic.target_params, log_weight)


def test_a_step_in_chunks_is_the_step(monkeypatch):
    before, it, key = begin(), batch(), jax.random.key(8)
    whole, _ = jax.jit(partial(cql.update, CONFIG, NETWORKS, OPTIMIZERS))(before, it, key, 0)
    monkeypatch.setattr("itrpo.nn.trainable.CACHED_ROWS", 20)  # two states of ten actions
    parts, _ = jax.jit(partial(cql.update, CONFIG, NETWORKS, OPTIMIZERS))(before, it, key, 0)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_bad_values_are_refused():
    for field, value in (
        ("conservative_weight", -1.0),
        ("lagrange_threshold", 0.0),
        ("conservative_actions", 0),
        ("backup_actions", 0),
        ("bc_steps", -1),
    ):
        with pytest.raises(InputError, match=field):
            cql.validate(replace(Config(), **{field: value}), None, None)
