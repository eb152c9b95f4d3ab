"""EMaQ against its equations, worked out in NumPy, and on a bandit where the best of n draws is known."""

from __future__ import annotations

from functools import partial
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import emaq
from itrpo.algorithms.emaq import Config, Networks
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.types import Transition

ROWS = 5
W = np.array([[0.2, -0.4, 1.0], [-0.3, 0.1, 1.4], [0.5, 0.3, -0.7]])  # Q_i = w . (s, a, a^2)


def q_of(params, observation, action):
    s = jnp.broadcast_to(observation[..., None, :] if action.ndim > observation.ndim else observation, action.shape)
    return jnp.concatenate([s, action, action**2], axis=-1) @ params


def given(params, observation, noise):
    """u = 0.3 s + noise / 2: what a model of pi_beta makes of its noise."""
    return 0.3 * observation[:, None] + 0.5 * noise


NETWORKS = Networks(given, ensemble(Network(lambda key: jnp.zeros(3), q_of), 3), optax.set_to_zero())


def batch() -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(ROWS, 1)), rng.uniform(-1, 1, (ROWS, 1)), rng.normal(size=ROWS)]
    parts += [np.arange(ROWS) % 3 > 0, rng.normal(size=(ROWS, 1)), np.zeros((ROWS, 1))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def test_target_mixes_the_critics_first_and_takes_the_best_draw_then():
    rows, noise = batch(), np.random.default_rng(2).normal(size=(ROWS, 7, 1)).astype(np.float32)
    config = Config(gamma=0.9, min_weight=0.6)
    expected, other_order = [], []
    columns = map(np.asarray, (rows.next_observation, rows.reward, rows.continues))
    for (s,), r, c, own in zip(*columns, noise[..., 0], strict=True):
        actions = np.tanh(0.3 * s + 0.5 * own)
        qs = W @ np.stack([np.full(7, s), actions, actions**2])  # [critics, draws]
        expected.append(r + 0.9 * c * max(0.6 * q.min() + 0.4 * q.max() for q in qs.T))
        other_order.append(r + 0.9 * c * (0.6 * qs.max(axis=1).min() + 0.4 * qs.max(axis=1).max()))
    state = emaq.State(trainable(NETWORKS.critic_optimizer, jnp.zeros((3, 3)), target=True), None)
    state = state._replace(critic=state.critic._replace(target_params=jnp.asarray(W, jnp.float32)))
    actions = emaq.proposed_actions(NETWORKS, None, rows.next_observation, jnp.asarray(noise))
    found = emaq.critic_targets(config, NETWORKS, state, rows, actions)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(np.array(other_order) - expected).max() > 1e-2


@pytest.mark.parametrize("draws", [1, 4, 16])
def test_the_value_is_that_of_the_best_of_n_draws(draws):
    """One state for ever, r = a: V = E[max_j a_j] gamma / (1 - gamma) over what the data's own rewards give.

    With a = tanh(z / 2), z ~ N(0, 1), E[max] is an integral over order statistics. n = 1 is the value of pi_beta.
    """
    config = Config(gamma=0.5, target_actions=draws, polyak_rate=1.0)
    critics = ensemble(Network(lambda key: jnp.zeros(2), lambda params, s, a: params[0] + params[1] * a[..., 0]), 1)
    networks = Networks(lambda params, s, noise: 0.5 * noise, critics, optax.adam(0.02))
    grid = np.linspace(-0.95, 0.95, 256)[:, None]
    ones = np.ones((256, 1))
    parts = [0 * ones, grid, grid[:, 0], ones[:, 0], 0 * ones, 0 * ones]
    rows = Transition(*(jnp.asarray(it, jnp.float32) for it in parts))
    state = emaq.start(networks, jax.random.key(0), None)

    def body(step, state):
        return emaq.update(config, networks, state, rows, jax.random.fold_in(jax.random.key(1), step), step)[0]

    params = jax.jit(partial(jax.lax.fori_loop, 0, 2000, body))(state).critic.params[0]
    levels = (np.arange(4000) + 0.5) / 4000  # of the largest of n: its distribution function is F^n
    best = np.mean([np.tanh(0.5 * NormalDist().inv_cdf(it ** (1 / draws))) for it in levels])
    np.testing.assert_allclose(params[1], 1.0, atol=0.02)
    np.testing.assert_allclose(params[0], 0.5 * best / (1 - 0.5), atol=0.03)
