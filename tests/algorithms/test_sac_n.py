"""SAC-N's step, written out; with two critics it is the clipped soft actor-critic."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from itrpo.algorithms import sac_n, soft_actor_critic
from itrpo.algorithms.sac_n import Config
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.nn.soft import State
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

BACKBONE = Backbone(gamma=GAMMA, polyak_rate=POLYAK)


def step_by_hand(before, it, key):
    """(actor, critics, log weight, targets) after one step."""
    policy, critics, targets = numbers((POLICY, before.critic.params, before.critic.target_params))
    noises = jax.random.normal(key, (3, 4, 2))
    log_weight = entropy_step(-0.7, sampled(policy, it.observation, noises[0])[1])
    policy = policy_step(policy, critics, log_weight, it.observation, noises[1])
    action, log_prob = sampled(policy, it.next_observation, noises[2])
    smallest = np.min([q_of(w, it.next_observation, action) for w in targets], axis=0)
    y = np.asarray(it.reward) + GAMMA * np.asarray(it.continues) * (smallest - np.exp(log_weight) * log_prob)

    def loss(critics):
        return sum(np.mean((q_of(w, it.observation, it.action) - y) ** 2) for w in critics)

    return policy, descended(critics, CRITIC_RATE, loss), log_weight, y


def test_one_step_is_weight_then_actor_then_critics_then_targets():
    """Each with what was just stepped, and with samples of its own: CORL's order. Two critics: clipped SAC."""
    before, it, key = start(State, 2), batch(), jax.random.key(3)
    update = jax.jit(partial(sac_n.update, Config(2, BACKBONE), NETWORKS))
    after, metrics = update(before, it, key, 0)
    policy, critics, log_weight, y = step_by_hand(before, it, key)
    assert_state(after, policy, critics, before.critic.target_params, log_weight)
    np.testing.assert_allclose(metrics["q_target"], np.mean(y), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy_weight"], np.exp(log_weight), rtol=1e-5)
    own = sampled(numbers(POLICY), it.observation, jax.random.normal(key, (3, 4, 2))[1])[1]  # of the actor as it was
    np.testing.assert_allclose(metrics["entropy"], -np.mean(own), rtol=1e-4)


def test_probes_are_those_of_the_actors_own_actions():
    state, it, key = start(State, 2), batch(), jax.random.key(8)
    action, log_prob = sampled(numbers(POLICY), it.observation, jax.random.normal(key, (4, 2)))
    critics = numbers(state.critic.params)
    q_data, q_policy = (np.stack([q_of(w, it.observation, a) for w in critics]) for a in (it.action, action))
    expected = {
        "probe_q_data": np.mean(q_data.min(axis=0)),
        "probe_q_policy": np.mean(q_policy.min(axis=0)),
        "probe_q_std_data": np.mean(q_data.std(axis=0)),
        "probe_q_std_policy": np.mean(q_policy.std(axis=0)),
        "probe_entropy": -np.mean(log_prob),
        "probe_policy_std": np.mean(np.exp(numbers(POLICY)["log_std"])),
    }
    found = soft_actor_critic.probes(NETWORKS, state, it, key)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
