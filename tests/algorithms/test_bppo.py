"""BPPO against its equations, worked out in NumPy, and on a bandit whose best action is known."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import bppo
from itrpo.algorithms.bppo import BPPO, Config, Networks
from itrpo.config import replace_leaves
from itrpo.errors import InputError
from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.ops import trust_region
from itrpo.types import SpaceSpec, Transition

RNG = np.random.default_rng(0)
ROWS = 6


def test_the_clipped_surrogate_by_cases():
    """A ratio counts no further than clip in the direction of the advantage, and fully against it."""
    ratio, advantage = np.array([0.5, 0.5, 1.1, 1.5, 1.5]), np.array([2.0, -2.0, 3.0, 2.0, -2.0])
    found = trust_region.clipped_surrogate(jnp.asarray(ratio), 1.0, 0.2, jnp.asarray(advantage))
    np.testing.assert_allclose(found, [1.0, -1.6, 3.3, 2.4, -3.0], rtol=1e-6)


def test_advantages_are_scaled_by_the_batch_and_weighted_by_their_sign():
    advantages = RNG.normal(2.0, 3.0, ROWS).astype(np.float32)
    scaled = (advantages - advantages.mean()) / advantages.std(ddof=1)
    expected = np.where(scaled > 0, 0.9, 0.1) * scaled
    np.testing.assert_allclose(bppo.weighted_advantages(Config(), jnp.asarray(advantages)), expected, rtol=1e-5)


@pytest.mark.parametrize(("step", "times"), [(10, 1), (11, 2), (29, 20), (30, 21), (1000, 21)])
def test_the_clip_falls_with_the_first_steps_of_the_policy(step, times):
    """As in the authors' loop: it falls before it is used, at step 0 and up to step `decay_steps`."""
    config = Config(critic_steps=10, decay_steps=20)
    np.testing.assert_allclose(bppo.clip_of(config, jnp.asarray(step)), 0.25 * 0.96**times, rtol=1e-5)


def gaussian(params, observation):
    """mean = params[0] for every observation, std = exp(params[1])."""
    return tuple(jnp.broadcast_to(it, (len(observation), 1)) for it in params)


def quadratic(params, observation, action):
    """Q = p_0 + p_1 a + p_2 a^2."""
    return params[0] + params[1] * action[..., 0] + params[2] * action[..., 0] ** 2


def networks(config: Config) -> Networks:
    return Networks(
        GaussianActor(lambda key: None, gaussian, SpaceSpec(1, 1)),
        ensemble(Network(lambda key: jnp.zeros(3), quadratic), 1),
        Network(lambda key: jnp.zeros(()), lambda params, observation: params + 0.0 * observation[:, 0]),
        optax.adam(0.01),
        optax.sgd(config.critic_learning_rate),
        optax.sgd(config.value_learning_rate),
    )


def start(config: Config):
    nets = networks(config)
    behavior = (jnp.array(0.1), jnp.array(-1.0))
    state = bppo.start(nets, jax.random.key(0), behavior)
    q = jnp.array([[0.3, 0.8, -0.5]])
    return nets, state._replace(critic=trainable(nets.critic_optimizer, q, target=True))


def batch() -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(ROWS, 1)), rng.uniform(-1, 1, (ROWS, 1)), rng.normal(size=ROWS)]
    parts += [np.arange(ROWS) % 3 > 0, rng.normal(size=(ROWS, 1)), rng.uniform(-1, 1, (ROWS, 1))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def test_critics_learn_the_value_of_the_logged_actions():
    config = Config(critic_learning_rate=0.1, value_learning_rate=0.1, gamma=0.9, polyak_rate=0.25, critic_steps=5)
    nets, state = start(config)
    rows = batch()
    after, metrics = bppo.update(config, nets, state, rows, jax.random.key(1), jnp.asarray(4))
    a, r, c, next_a = (np.asarray(it, np.float64).reshape(ROWS) for it in (*rows[1:4], rows.next_action))

    def q(action):
        return 0.3 + 0.8 * action - 0.5 * action**2

    y = r + 0.9 * c * q(next_a)
    slope = np.array([np.mean(2 * (q(a) - y) * it) for it in (np.ones(ROWS), a, a**2)])
    stepped = np.array([0.3, 0.8, -0.5]) - 0.1 * slope
    np.testing.assert_allclose(after.critic.params[0], stepped, rtol=1e-5)
    np.testing.assert_allclose(
        after.critic.target_params[0], 0.75 * np.array([0.3, 0.8, -0.5]) + 0.25 * stepped, rtol=1e-5
    )
    np.testing.assert_allclose(after.value.params, 0.1 * 2 * q(a).mean(), rtol=1e-5)  # from V = 0
    np.testing.assert_allclose(metrics["value_loss"], np.mean(q(a) ** 2), rtol=1e-5)
    assert after.policy is state.policy or jax.tree.all(jax.tree.map(jnp.array_equal, after.policy, state.policy))


def test_policy_loss_by_hand():
    config = Config(entropy_weight=0.3)
    nets, state = start(config)
    rows, u = batch(), RNG.normal(0.1, np.exp(-1.0), (ROWS, 1)).astype(np.float32)
    advantages = RNG.normal(size=ROWS).astype(np.float32)
    new = (jnp.array(0.2), jnp.array(-0.8))
    loss, metrics = bppo.policy_loss(
        config, nets, new, state.old_policy_params, rows, jnp.asarray(u), jnp.asarray(advantages), jnp.asarray(0.1)
    )

    def log_density(mean, log_std):
        return -0.5 * ((u[:, 0] - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)

    ratio = np.exp(log_density(0.2, -0.8) - log_density(0.1, -1.0))
    surrogate = np.minimum(ratio * advantages, np.clip(ratio, 0.9, 1.1) * advantages).mean()
    entropy = -0.8 + 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(loss, -surrogate - 0.3 * entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_ratio"], np.abs(ratio - 1).mean(), rtol=1e-4)


def test_it_climbs_to_the_best_action():
    """Q = 0.3 + 0.8 a - 0.5 a^2 is largest at a = 0.8, far from pi_beta's 0.1."""
    config = Config(critic_steps=0, clip_decay=1.0, omega=0.5)
    nets, state = start(config)
    rows = jax.tree.map(lambda it: jnp.concatenate([it] * 40), batch())

    def body(step, state):
        return bppo.update(config, nets, state, rows, jax.random.fold_in(jax.random.key(2), step), step)[0]

    after = jax.jit(partial(jax.lax.fori_loop, 0, 600, body))(state)
    np.testing.assert_allclose(jnp.tanh(after.old_policy_params[0]), 0.8, atol=0.03)


@pytest.mark.parametrize(("slope", "follows"), [(1.0, True), (-1.0, False)])
def test_pi_k_follows_only_where_q_says_so(slope, follows):
    """pi is at 0.2, pi_k at 0.1, and nothing moves pi: Q, or -Q, says which is better."""
    config = Config(critic_steps=0)
    nets, state = start(config)
    critics = nets.critics._replace(apply=lambda params, s, a: slope * nets.critics.apply(params, s, a))
    still = nets._replace(critics=critics, policy_optimizer=optax.set_to_zero())
    state = state._replace(policy=trainable(still.policy_optimizer, (jnp.array(0.2), jnp.array(-1.0))))
    after, metrics = bppo.update(config, still, state, batch(), jax.random.key(1), jnp.asarray(0))
    gain = slope * (0.8 * (np.tanh(0.2) - np.tanh(0.1)) - 0.5 * (np.tanh(0.2) ** 2 - np.tanh(0.1) ** 2))
    np.testing.assert_allclose(metrics["policy_gain"], gain, rtol=1e-4)
    np.testing.assert_allclose(after.old_policy_params[0], 0.2 if follows else 0.1, rtol=1e-6)


def test_pi_that_can_not_begin_as_pi_beta_is_refused():
    preset = BPPO.presets["quick"]
    BPPO.validate(preset.config, "gaussian", preset.behavior_config)
    with pytest.raises(InputError, match="copy of pi_beta"):
        BPPO.validate(preset.config, "gaussian", replace_leaves(preset.behavior_config, {"log_std_high": 0.0}))
