"""PBRL's losses in NumPy, its weight's schedule as two queues would keep it, and its step, written out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import pbrl
from itrpo.algorithms.pbrl import RECORDS, Config, Rows, State
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.errors import InputError
from tests.algorithms.soft_problem import (
    GAMMA,
    NETWORKS,
    OPTIMIZERS,
    POLICY,
    POLYAK,
    assert_state,
    batch,
    critic,
    critic_params,
    critic_step,
    entropy_step,
    policy_step,
    sampled,
    start,
)

MEMBERS = 3
CONFIG = Config(
    target_weight=0.4,
    ood_weight_next=0.3,
    ood_actions=2,
    ood_floor=-0.2,
    critics=MEMBERS,
    backbone=Backbone(gamma=GAMMA, polyak_rate=POLYAK, batch_size=4),
)


def q_of(w, s, a):
    return w @ np.array([1, s, a[0], a[1], a[0] * a[1], s * a[0], a[1] ** 2])


def test_each_member_has_a_target_of_its_own_less_the_spread_in_numpy():
    it, noise = batch(), np.array([[0.5, -1.0], [2.0, 0.1], [-0.3, 0.4], [1.1, -0.6]])
    expected = []
    for i in range(4):
        s = float(it.next_observation[i, 0])
        a = np.tanh(np.array([0.2 + 0.7 * s, -0.4 - 0.3 * s]) + np.exp([-0.5, 0.1]) * noise[i])
        q = np.array([q_of(w, s, a) for w in np.asarray(critic_params(MEMBERS))])
        spread = np.sqrt(np.sum((q - q.mean()) ** 2) / (MEMBERS - 1))
        expected.append(float(it.reward[i]) + GAMMA * float(it.continues[i]) * (q - 0.4 * spread))
    found = pbrl.critic_targets(NETWORKS, CONFIG, POLICY, critic_params(MEMBERS), it, jnp.asarray(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_loss_of_a_batch_in_numpy():
    rng = np.random.default_rng(2)
    shapes = ((2, 1), (2, 3, 2), (2, 1), (2, 2, 2), (2, MEMBERS))
    rows = Rows(*(rng.normal(size=shape) for shape in shapes))
    params, weight, expected, floored = np.asarray(critic_params(MEMBERS), np.float64), 1.6, 0.0, 0
    for i in range(2):
        s, s_next = rows.observation[i, 0], rows.next_observation[i, 0]
        q_data = np.array([q_of(w, s, rows.action[i, 0]) for w in params])
        expected += np.sum((q_data - rows.target[i]) ** 2) / 2
        pairs = [(s, a, weight) for a in rows.action[i, 1:]] + [(s_next, a, 0.3) for a in rows.next_action[i]]
        for state, a, off in pairs:
            q = np.array([q_of(w, state, a) for w in params])
            lower = q - off * np.std(q, ddof=1)
            floored += np.sum(lower < -0.2)
            expected += np.sum((q - np.maximum(lower, -0.2)) ** 2) / (2 * 4)
    assert 0 < floored < 2 * 4 * MEMBERS  # the floor holds for some and not for others
    found, _ = pbrl.critic_loss(
        NETWORKS,
        CONFIG,
        jnp.asarray(weight),
        critic_params(MEMBERS),
        Rows(*(jnp.asarray(it, "float32") for it in rows)),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def begin():
    return start(State, MEMBERS, jnp.asarray(0.9), jnp.zeros(RECORDS))


def step_by_hand(config, before, it, key):
    """(actor, critics, log weight) after one step; the weight of sampled actions is 0.9."""
    policy_key, target_key, ood_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, (4, 2))
    log_weight = entropy_step(before.log_entropy_weight.params, sampled(POLICY, it.observation, noise)[1])
    action, _ = sampled(POLICY, it.next_observation, jax.random.normal(target_key, (4, 2)))
    q = jnp.stack([critic(w, it.next_observation, action) for w in before.critic.target_params])
    spread = jnp.sqrt(jnp.sum((q - jnp.mean(q, axis=0, keepdims=True)) ** 2, axis=0) / (MEMBERS - 1))
    y = [it.reward + GAMMA * it.continues * (own - config.target_weight * spread) for own in q]

    draws = jax.random.normal(ood_key, (2, 4, config.ood_actions, 2))
    sides = [(it.observation, draws[0], 0.9), (it.next_observation, draws[1], config.ood_weight_next)]
    tried = [
        (state, sampled(POLICY, state, noises[:, j])[0], weight)
        for state, noises, weight in sides
        for j in range(config.ood_actions)
    ]
    held = []
    for state, action, weight in tried:
        q = jnp.stack([critic(w, state, action) for w in before.critic.params])
        spread = jnp.sqrt(jnp.sum((q - jnp.mean(q, axis=0, keepdims=True)) ** 2, axis=0) / (MEMBERS - 1))
        held.append(jnp.maximum(config.ood_floor, q - weight * spread[None]))

    def loss(critics):
        errors = sum(jnp.mean((critic(w, it.observation, it.action) - y[k]) ** 2) for k, w in enumerate(critics))
        for (state, action, _), z in zip(tried, held, strict=True):
            each = [jnp.mean((critic(w, state, action) - z[k]) ** 2) for k, w in enumerate(critics)]
            errors += sum(each) / len(tried)
        return errors

    critics = critic_step(before.critic.params, loss)
    return policy_step(POLICY, critics, log_weight, it.observation, noise), critics, log_weight


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, ood_actions=0, target_weight=0.0)],
    ids=["pbrl", "ensemble of SACs with targets of their own"],
)
def test_one_step_is_weight_then_critics_then_actor_with_the_new_critics(config):
    before, it, key = begin(), batch(), jax.random.key(6)
    update = jax.jit(partial(pbrl.update, config, NETWORKS, OPTIMIZERS))
    after, metrics = update(before, it, key, config.ood_weight_steps)
    actor, critics, log_weight = jax.jit(partial(step_by_hand, config))(before, it, key)
    assert_state(after, actor, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(metrics["ood_weight"], 0.9, rtol=1e-6)
    assert (float(metrics["ood_loss"]) > 0) == bool(config.ood_actions)


# --- the schedule ----------------------------------------------------------------------------------------------------


def test_the_weight_falls_on_a_line_and_then_stays():
    steps = jnp.array([0, 24_999, 49_998, 49_999, 900_000])
    found = jax.vmap(lambda step: pbrl.ood_weight(Config(), jnp.asarray(0.7), step))(steps)
    np.testing.assert_allclose(found, [5 - 4 / 50_000, 3.0, 5 - 4 * 49_999 / 50_000, 0.7, 0.7], rtol=1e-5)


def in_queues(config, values):
    """Weights by step, as the source keeps them: queues of 5 and 20, looked at before the new record joins."""
    recent, all_kept, weight, weights = deque(maxlen=5), deque(maxlen=20), None, []
    start, end, length = config.ood_weight_start, config.ood_weight_end, config.ood_weight_steps
    for step, value in enumerate(values):
        count = step + 1
        now = weight if weight is not None else start + (end - start) * count / length if count < length else end
        weights.append(now)
        if step % config.ood_record_every == 0:
            earlier = list(all_kept)[:-5]
            falling = bool(earlier) and np.mean(recent) < np.mean(earlier)
            if count > length and now > config.ood_weight_low and falling:
                weight = now / config.ood_weight_decay
            recent.append(value)
            all_kept.append(value)
    return weights


@pytest.mark.parametrize("config", [Config(ood_weight_steps=120, ood_record_every=4), Config(ood_weight_steps=7)])
def test_the_weight_gives_way_as_the_sources_two_queues_would_have_it(config):
    config = replace(config, ood_weight_decay=1.3, ood_record_every=min(config.ood_record_every, 4))
    rng = np.random.default_rng(3)
    values = np.concatenate([np.linspace(5, 9, 100), np.linspace(9, -3, 150)]) + 0.5 * rng.normal(size=250)

    def one(carry, given):
        later, records = carry
        step, value = given
        weight = pbrl.ood_weight(config, later, step)
        return pbrl.record(config, later, records, weight, value, step), weight

    begun = jnp.asarray(config.ood_weight_end), jnp.zeros(RECORDS)
    _, found = jax.jit(partial(jax.lax.scan, one))(begun, (jnp.arange(250), jnp.asarray(values, jnp.float32)))
    expected = in_queues(config, values)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[-1] < 0.2 * 1.3  # down to where it stops


def test_a_decay_of_one_never_gives_way():
    config = Config(ood_weight_decay=1.0)
    falling = jnp.linspace(9.0, -9.0, RECORDS)
    later, _ = pbrl.record(config, jnp.asarray(1.0), falling, jnp.asarray(1.0), jnp.asarray(-10.0), jnp.asarray(90_000))
    assert later == 1.0
    later, _ = pbrl.record(Config(), jnp.asarray(1.0), falling, jnp.asarray(1.0), jnp.asarray(0.0), jnp.asarray(90_000))
    np.testing.assert_allclose(later, 1 / 1.01, rtol=1e-6)


def test_bad_values_are_refused():
    for field, value in (
        ("critics", 1),
        ("target_weight", -0.1),
        ("ood_weight_decay", 0.9),
        ("ood_record_every", 0),
        ("ood_actions", -1),
    ):
        with pytest.raises(InputError, match=field):
            pbrl.validate(replace(Config(), **{field: value}), None, None)
    pbrl.validate(Config(ood_floor=-math.inf), None, None)
