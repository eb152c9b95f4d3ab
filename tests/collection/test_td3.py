"""TD3 in an environment: an update against one written out in NumPy, and how it acts."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.collection import rollout, td3
from itrpo.collection.rollout import acting_policy
from itrpo.collection.td3 import Config, Networks, State
from itrpo.errors import InputError
from itrpo.nn.actors import DeterministicActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.types import SpaceSpec, Transition

CONFIG = Config(gamma=0.9, polyak_rate=0.25, noise_scale=0.8, noise_limit=0.3, policy_delay=3)
POLICY_RATE, CRITIC_RATE, ROWS = 0.3, 0.1, 6  # of plain descent, which shows gradients as they are


def q_of(w, observation, action):
    """w . (1, s, a, a^2)."""
    return jnp.concatenate([jnp.ones_like(action), observation, action, action**2], axis=1) @ w


NETWORKS = Networks(
    DeterministicActor(lambda key: None, lambda params, s: jnp.tanh(params[None, :1] + params[None, 1:] * s)),
    ensemble(Network(lambda key: None, q_of), 2),
    optax.sgd(POLICY_RATE),
    optax.sgd(CRITIC_RATE),
)
POLICY, OLD_POLICY = np.array([0.3, -0.8]), np.array([-0.2, 1.1])
CRITICS = np.array([[0.2, -0.4, 1.0, -0.5], [-0.3, 0.1, 1.4, 0.2]])
OLD_CRITICS = CRITICS[::-1] + 0.2


def by_hand(batch, noise, number):
    """(policy, its target, critics, their targets) after the update."""
    s, a, r, continues, following = (np.asarray(it, np.float64) for it in batch[:5])

    def features(s, a):
        return np.concatenate([np.ones_like(a), s, a, a**2], axis=1)

    smooth = np.tanh(OLD_POLICY[0] + OLD_POLICY[1] * following) + np.clip(0.8 * noise, -0.3, 0.3)
    smooth = np.clip(smooth, -1, 1)
    y = r + 0.9 * continues * np.min(features(following, smooth) @ OLD_CRITICS.T, axis=1)
    errors = features(s, a) @ CRITICS.T - y[:, None]
    critics = CRITICS - CRITIC_RATE * 2 * errors.T @ features(s, a) / ROWS
    if (number + 1) % 3:
        return POLICY, OLD_POLICY, critics, OLD_CRITICS
    action = np.tanh(POLICY[0] + POLICY[1] * s)
    slope = (critics[0, 2] + 2 * critics[0, 3] * action) * (1 - action**2)  # dQ_1 / d pre-tanh
    policy = POLICY + POLICY_RATE * np.array([slope.mean(), (slope * s).mean()])
    return policy, 0.75 * OLD_POLICY + 0.25 * policy, critics, 0.75 * OLD_CRITICS + 0.25 * critics


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_an_update_in_numpy(number):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(ROWS, 1)), rng.uniform(-1, 1, (ROWS, 1)), rng.normal(size=ROWS)]
    parts += [np.arange(ROWS) % 3 > 0, 2 * rng.normal(size=(ROWS, 1)), np.zeros((ROWS, 1))]
    batch = Transition(*(jnp.asarray(it, jnp.float32) for it in parts))
    policy = trainable(NETWORKS.policy_optimizer, jnp.float32(POLICY))
    critic = trainable(NETWORKS.critic_optimizer, jnp.float32(CRITICS))
    state = State(
        policy._replace(target_params=jnp.float32(OLD_POLICY)),
        critic._replace(target_params=jnp.float32(OLD_CRITICS)),
        {"policy_loss": jnp.zeros(())},
    )
    key = jax.random.key(1)
    noise = np.asarray(jax.random.normal(key, (ROWS, 1)), np.float64)
    assert (np.abs(0.8 * noise) > 0.3).any()
    after, _ = UPDATE(state, batch, key, number)
    found = (after.policy.params, after.policy.target_params, after.critic.params, after.critic.target_params)
    for one, expected in zip(found, by_hand(batch, noise, number), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)


UPDATE = jax.jit(partial(td3.update, CONFIG, NETWORKS))


def test_it_acts_with_noise_on_its_action_that_is_cut_and_its_file_has_its_mode():
    config = Config(policy_hidden=(6, 5), critic_hidden=(4,), exploration_noise=0.5)
    state = jax.jit(td3.make(config, SpaceSpec(3, 2)).init)(jax.random.key(0))
    policy = acting_policy(td3.acting_arrays(state, config))
    rng = np.random.default_rng(0)
    observations, noise = rng.normal(size=(400, 3)).astype(np.float32), rng.normal(size=(400, 2)).astype(np.float32)
    actor = td3.deterministic_actor(SpaceSpec(3, 2), (6, 5), "fan_in")
    mode = np.asarray(actor.apply(state.policy.params, jnp.asarray(observations)))
    np.testing.assert_allclose(td3.act(policy, observations, 0 * noise)[0], mode, atol=1e-6)
    np.testing.assert_allclose(rollout.act(policy, observations, 0 * noise)[0], mode, atol=1e-6)
    actions, log_probs = td3.act(policy, observations, noise)
    np.testing.assert_allclose(actions, np.clip(mode + 0.5 * noise, -1, 1), atol=1e-6)
    assert (np.abs(actions) == 1).any()
    assert np.isnan(log_probs).all()


def test_a_policy_that_no_file_holds_is_refused():
    with pytest.raises(InputError, match="policy_hidden must have 2 widths"):
        td3.validate(Config(policy_hidden=(64,)))
    with pytest.raises(InputError, match="exploration_noise must be positive"):
        td3.validate(Config(exploration_noise=0.0))
