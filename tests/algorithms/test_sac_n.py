"""SAC-N's step, written out; with two critics it is the clipped soft actor-critic."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import sac_n, soft_actor_critic
from itrpo.algorithms.sac_n import Config
from itrpo.algorithms.soft_actor_critic import Backbone, State
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

BACKBONE = Backbone(gamma=GAMMA, polyak_rate=POLYAK)


def test_targets_and_loss_of_two_critics_in_numpy():
    it, noise = batch(), np.array([[0.5, -1.0], [2.0, 0.1], [-0.3, 0.4], [1.1, -0.6]])
    weight, targets = 0.6, 0.5 * np.asarray(critic_params(2)) + 0.3
    expected, loss = [], []
    for i in range(4):
        s, s_next = float(it.observation[i, 0]), float(it.next_observation[i, 0])
        mean = np.array([0.2 + 0.7 * s_next, -0.4 - 0.3 * s_next])
        std = np.exp([-0.5, 0.1])
        a = np.tanh(mean + std * noise[i])
        log_prob = sum(-0.5 * noise[i] ** 2 - np.log(std * np.sqrt(2 * np.pi)) - np.log(1 - a**2))
        features = np.array([1, s_next, a[0], a[1], a[0] * a[1], s_next * a[0], a[1] ** 2])
        value = min(targets[0] @ features, targets[1] @ features) - weight * log_prob
        expected.append(float(it.reward[i]) + GAMMA * float(it.continues[i]) * value)
        a = np.asarray(it.action[i])
        features = np.array([1, s, a[0], a[1], a[0] * a[1], s * a[0], a[1] ** 2])
        loss.append(sum((w @ features - expected[-1]) ** 2 for w in np.asarray(critic_params(2))))
    found = soft_actor_critic.soft_targets(
        NETWORKS, GAMMA, jnp.asarray(weight), POLICY, jnp.asarray(targets), it, jnp.asarray(noise)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(
        sac_n.critic_loss(NETWORKS, critic_params(2), it, jnp.asarray(expected))[0], np.mean(loss), rtol=1e-4
    )


def step_by_hand(before, it, key):
    """(actor, critics, log weight, targets) after one step."""
    noises = jax.random.normal(key, (3, 4, 2))
    log_weight = entropy_step(before.log_entropy_weight.params, sampled(POLICY, it.observation, noises[0])[1])
    policy = policy_step(POLICY, before.critic.params, log_weight, it.observation, noises[1])
    action, log_prob = sampled(policy, it.next_observation, noises[2])
    q = jnp.stack([critic(w, it.next_observation, action) for w in before.critic.target_params])
    y = it.reward + GAMMA * it.continues * (jnp.min(q, axis=0) - jnp.exp(log_weight) * log_prob)

    def loss(critics):
        return sum(jnp.mean((critic(w, it.observation, it.action) - y) ** 2) for w in critics)

    return policy, critic_step(before.critic.params, loss), log_weight, y


@pytest.mark.parametrize("members", [2, 3])
def test_one_step_is_weight_then_actor_then_critics_then_targets(members):
    """Each with what was just stepped, and with samples of its own: CORL's order."""
    before, it, key = start(State, members), batch(), jax.random.key(3)
    update = jax.jit(partial(sac_n.update, Config(members, BACKBONE), NETWORKS, OPTIMIZERS))
    after, metrics = update(before, it, key, 0)
    policy, critics, log_weight, y = jax.jit(step_by_hand)(before, it, key)
    assert_state(after, policy, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(metrics["q_target"], jnp.mean(y), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy_weight"], jnp.exp(log_weight), rtol=1e-5)


def test_bad_values_are_refused():
    with pytest.raises(InputError, match="critics"):
        sac_n.validate(Config(critics=0), None, None)
    with pytest.raises(InputError, match="gamma"):
        sac_n.validate(Config(backbone=Backbone(gamma=1.0)), None, None)
