"""PBRL's losses in NumPy, its weight's schedule as two queues would keep it, and its step, written out."""

from __future__ import annotations

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
from itrpo.ranges import check_ranges
from tests.algorithms.soft_problem import (
    CRITIC_RATE,
    GAMMA,
    NETWORKS,
    POLICY,
    POLYAK,
    assert_state,
    batch,
    critic_params,
    descended,
    entropy_step,
    numbers,
    policy_step,
    q_of,
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


def lower(q, weight):
    """[members, B]: less `weight` standard deviations over members, with members - 1 in the divisor."""
    return q - weight * np.sqrt(np.sum((q - q.mean(axis=0)) ** 2, axis=0) / (len(q) - 1))


def of_members(params, observation, action):
    return np.stack([q_of(w, observation, action) for w in params])


def test_loss_of_a_batch_in_numpy():
    rng = np.random.default_rng(2)
    rows = Rows(*(rng.normal(size=shape) for shape in ((2, 5, 1), (2, 5, 2), (2, MEMBERS))))
    params, floored = numbers(critic_params(MEMBERS)), 0
    expected = np.sum((of_members(params, rows.observation[:, 0], rows.action[:, 0]) - rows.target.T) ** 2) / 2
    for j, weight in ((1, 1.6), (2, 1.6), (3, 0.3), (4, 0.3)):  # two actions at s, then two at s'
        q = of_members(params, rows.observation[:, j], rows.action[:, j])
        floored += np.sum(lower(q, weight) < -0.2)
        expected += np.sum((q - np.maximum(lower(q, weight), -0.2)) ** 2) / (2 * 4)
    assert 0 < floored < 2 * 4 * MEMBERS  # the floor holds for some and not for others
    given = Rows(*(jnp.asarray(it, "float32") for it in rows))
    found, _ = pbrl.critic_loss(NETWORKS, CONFIG, jnp.asarray(1.6), critic_params(MEMBERS), given)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def step_by_hand(config, before, it, key):
    """(actor, critics, log weight) after one step; the weight of sampled actions is 0.9."""
    actor, critics, targets = numbers((POLICY, before.critic.params, before.critic.target_params))
    policy_key, target_key, ood_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, (4, 2))
    log_weight = entropy_step(-0.7, sampled(actor, it.observation, noise)[1])
    action, _ = sampled(actor, it.next_observation, jax.random.normal(target_key, (4, 2)))
    value = lower(of_members(targets, it.next_observation, action), config.target_weight)
    y = np.asarray(it.reward) + GAMMA * np.asarray(it.continues) * value

    draws = jax.random.normal(ood_key, (2, 4, config.ood_actions, 2))
    sides = [(it.observation, draws[0], 0.9), (it.next_observation, draws[1], config.ood_weight_next)]
    held = []
    for state, noises, weight in sides:
        for j in range(config.ood_actions):
            action, _ = sampled(actor, state, noises[:, j])
            z = np.maximum(config.ood_floor, lower(of_members(critics, state, action), weight))
            held.append((state, action, z))

    def loss(critics):
        errors = np.mean((of_members(critics, it.observation, it.action) - y) ** 2) * MEMBERS
        for state, action, z in held:
            errors += np.mean((of_members(critics, state, action) - z) ** 2) * MEMBERS / len(held)
        return errors

    critics = descended(critics, CRITIC_RATE, loss)
    return policy_step(actor, critics, log_weight, it.observation, noise), critics, log_weight


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, ood_actions=0, target_weight=0.0)],
    ids=["pbrl", "ensemble of SACs with targets of their own"],
)
def test_one_step_is_weight_then_critics_then_actor_with_the_new_critics(config):
    """Each member's target is its own next value less the spread of all."""
    before, it, key = start(State, MEMBERS, jnp.asarray(0.9), jnp.zeros(RECORDS)), batch(), jax.random.key(6)
    update = jax.jit(partial(pbrl.update, config, NETWORKS))
    after, metrics = update(before, it, key, config.ood_weight_steps)
    actor, critics, log_weight = step_by_hand(config, before, it, key)
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
    for bad in (Config(critics=1), Config(ood_weight_decay=0.9)):
        with pytest.raises(InputError, match="must be at least"):
            check_ranges(bad)
