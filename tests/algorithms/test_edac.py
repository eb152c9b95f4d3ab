"""EDAC's step, written out; without diversity it is SAC-N to the bit."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import edac, sac_n
from itrpo.algorithms.edac import EDAC, Config
from itrpo.algorithms.sac_n import SAC_N
from itrpo.algorithms.soft_actor_critic import Backbone, State
from itrpo.errors import InputError
from itrpo.training import loop
from itrpo.types import SpaceSpec, Transition
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
    policy_step,
    sampled,
    start,
)

MEMBERS, ETA = 3, 1.7


def slopes(params, observation, action):
    """grad_a Q_i(s,a) of the problem's critics, by hand: [members, B, 2]."""
    w, s, a = np.asarray(params), np.asarray(observation), np.asarray(action)
    first = w[:, None, 2] + w[:, None, 4] * a[:, 1] + w[:, None, 5] * s[:, 0]
    second = w[:, None, 3] + w[:, None, 4] * a[:, 0] + 2 * w[:, None, 6] * a[:, 1]
    return np.stack([first, second], axis=-1)


def test_diversity_is_the_mean_cosine_of_ordered_pairs_in_numpy():
    it, params = batch(), critic_params(MEMBERS)
    g = slopes(params, it.observation, it.action)
    g /= np.linalg.norm(g, axis=-1, keepdims=True)
    pairs = [np.sum(g[i] * g[j], axis=-1) for i in range(MEMBERS) for j in range(MEMBERS) if i != j]
    expected = np.mean(sum(pairs)) / (MEMBERS - 1)
    np.testing.assert_allclose(edac.diversity_loss(NETWORKS, params, it), expected, rtol=1e-4)
    targets = jnp.zeros(4)
    without = sac_n.critic_loss(NETWORKS, params, it, targets)[0]
    whole, metrics = edac.critic_loss(NETWORKS, ETA, params, it, targets)
    np.testing.assert_allclose(whole, without + ETA * expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["diversity_loss"], expected, rtol=1e-4)


def step_by_hand(before, it, key):
    """(actor, critics without the diversity, log weight) after one step."""
    noises = jax.random.normal(key, (3, 4, 2))
    log_weight = entropy_step(before.log_entropy_weight.params, sampled(POLICY, it.observation, noises[0])[1])
    policy = policy_step(POLICY, before.critic.params, log_weight, it.observation, noises[1])
    action, log_prob = sampled(policy, it.next_observation, noises[2])
    q = jnp.stack([critic(w, it.next_observation, action) for w in before.critic.target_params])
    y = it.reward + GAMMA * it.continues * (jnp.min(q, axis=0) - jnp.exp(log_weight) * log_prob)

    def loss(critics):
        return sum(jnp.mean((critic(w, it.observation, it.action) - y) ** 2) for w in critics)

    return policy, critic_step(before.critic.params, loss), log_weight


def test_one_step_descends_the_errors_and_the_diversity_together():
    before, it, key = start(State, MEMBERS), batch(), jax.random.key(4)
    config = Config(ETA, MEMBERS, Backbone(gamma=GAMMA, polyak_rate=POLYAK))
    after, _ = jax.jit(partial(edac.update, config, NETWORKS, OPTIMIZERS))(before, it, key, 0)
    policy, critics, log_weight = jax.jit(step_by_hand)(before, it, key)

    def numpy_diversity(params):
        g = slopes(params, it.observation, it.action)
        g /= np.linalg.norm(g, axis=-1, keepdims=True)
        return np.mean(np.sum(np.sum(g, axis=0) ** 2, axis=-1) - MEMBERS) / (MEMBERS - 1)

    # its gradient, which goes through the norms as well, by differences
    params, slope = np.asarray(before.critic.params, np.float64), np.zeros((MEMBERS, 7))
    for index in np.ndindex(slope.shape):
        nudge = np.zeros_like(params)
        nudge[index] = 1e-5
        slope[index] = (numpy_diversity(params + nudge) - numpy_diversity(params - nudge)) / 2e-5
    assert np.abs(slope).max() > 0.1
    critics -= RATES.critic * ETA * slope
    assert_state(after, policy, critics, before.critic.target_params, log_weight)


def trained(entry, config):
    """State after 30 updates of two seeds of real networks."""
    rng = np.random.default_rng(0)
    shapes = ((64, 3), (64, 2), (64,), (64,), (64, 3), (64, 2))
    data = Transition(*(jnp.asarray(rng.uniform(-1, 1, shape), "float32") for shape in shapes))
    algorithm = entry.make(config, SpaceSpec(3, 2), None)
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.jit(jax.vmap(lambda key: algorithm.init(key, None)))(keys)
    names = loop.metric_names(algorithm.update, state, data, algorithm.batch_size)
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    return block(loop.start(state, names), data, keys, dict.fromkeys(names, 1e30), 0, 30).state


def test_without_diversity_it_is_sac_n_to_the_bit():
    backbone = Backbone(batch_size=16, policy_hidden=(8,), critic_hidden=(8,))
    ours = trained(EDAC, Config(0.0, 4, backbone))
    for left, right in zip(
        jax.tree.leaves(ours), jax.tree.leaves(trained(SAC_N, SAC_N.config(4, backbone))), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    diverse = trained(EDAC, Config(1.0, 4, backbone))
    assert not np.array_equal(ours.critic.params.mlp.layers[0].weight, diverse.critic.params.mlp.layers[0].weight)


def test_bad_values_are_refused():
    for config, word in ((Config(critics=1), "critics"), (Config(diversity_weight=-1.0), "diversity_weight")):
        with pytest.raises(InputError, match=word):
            edac.validate(config, None, None)
