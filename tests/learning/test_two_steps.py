"""TD3+BC, ReBRAC and IQL on decisions whose fixed points are known.

Two decisions in a row, each an action a in [-1, 1] drawn evenly for the data:

    s0: reward 1 - (a - 0.5)^2, then s1          s1: reward 2 - (a + 0.4)^2, then the end

The real `update` runs, with a policy of one number and critics quadratic in a for each state, so that fixed points are
exact but for the noise of batches. They are found here by NumPy from the papers' equations.
"""

from __future__ import annotations

from math import erf, exp, pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import iql, rebrac, td3, td3_bc
from itrpo.algorithms.td3 import Backbone
from itrpo.nn.actors import DeterministicActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.types import Transition

CENTERS, OFFSETS, GAMMA = (0.5, -0.4), (1.0, 2.0), 0.9
STEPS = 3000
ACTIONS = np.repeat(np.linspace(-1, 1, 32), 2)
NEXT_ACTIONS = np.tile([0.6, -0.6], 32)  # at s1, after each action at s0


def rows() -> Transition:
    """Every action at both states, twice."""
    states = np.repeat(np.eye(2), 64, axis=0)
    actions = np.tile(ACTIONS, 2)
    rewards = np.repeat(OFFSETS, 64) - (actions - np.repeat(CENTERS, 64)) ** 2
    continues = np.repeat([1.0, 0.0], 64)
    next_actions = continues * np.tile(NEXT_ACTIONS, 2)
    parts = states, actions[:, None], rewards, continues, np.repeat([[0.0, 1.0]], 128, axis=0), next_actions[:, None]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def powers(action):
    """(1, a, a^2) of each row: [B, 3]."""
    return jnp.concatenate([jnp.ones_like(action), action, action**2], axis=1)


def quadratic(params, observation, action):
    return jnp.sum((observation @ params) * powers(action), axis=1)


NETWORKS = td3.Networks(
    DeterministicActor(lambda key: None, lambda params, observation: jnp.tanh(observation @ params[:, None])),
    ensemble(Network(lambda key: None, quadratic), 2),
    *[optax.adam(optax.exponential_decay(0.03, STEPS // 3, 0.1))] * 2,
)


def settle(module, config):
    """(pi(s0), pi(s1), coefficients of Q_1 [2, 3]) after training on all rows at once."""
    metrics = {name: jnp.zeros(()) for name in ("policy_loss", "cloning_error", "q_scale")}
    state = td3.State(
        trainable(NETWORKS.policy_optimizer, jnp.zeros(2), target=True),
        trainable(NETWORKS.critic_optimizer, jnp.full((2, 2, 3), 0.1), target=True),
        None,
        metrics,
    )

    def body(step, state):
        return module.update(config, NETWORKS, state, rows(), jax.random.key(step), step)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, STEPS, body, state))(state)
    return np.tanh(state.policy.params), np.asarray(state.critic.params[0])


def noise_variance(scale=0.2, limit=0.5):
    """Of N(0, scale^2) clipped to +-limit."""
    z = limit / scale
    inside = scale**2 * (erf(z / sqrt(2)) - 2 * z * exp(-(z**2) / 2) / sqrt(2 * pi))
    return inside + limit**2 * (1 - erf(z / sqrt(2)))


def fixed_point(q_weight, bc_weight, critic_bc_weight):
    """Actions x and offset of Q(s0, .) where q_weight Q'(x) / mean |Q| = 2 bc_weight x at both states (logged mean: 0).

    Q(s1, a) = 2 - (a + 0.4)^2;  Q(s0, a) = 1 - (a - 0.5)^2 + gamma (E[Q(s1, a~)] - critic_bc_weight E[(a~ - a')^2]).
    """
    x = np.zeros(2)
    for _ in range(500):
        next_q = OFFSETS[1] - (x[1] - CENTERS[1]) ** 2 - noise_variance()
        penalty = critic_bc_weight * (x[1] ** 2 + noise_variance() + np.mean(NEXT_ACTIONS**2))
        offset = OFFSETS[0] + GAMMA * (next_q - penalty)
        q = np.array([offset, OFFSETS[1]]) - (x - CENTERS) ** 2
        scale = q_weight / np.abs(q).mean()
        x = 0.5 * x + 0.5 * scale * np.array(CENTERS) / (scale + bc_weight)  # scale (c - x) = bc_weight x
    return x, offset


# The loss is a mean over both states, so each state's part counts half; TD3+BC's and ReBRAC's alike.
@pytest.mark.parametrize("q_weight", [0.0, 2.5, 50.0])
def test_td3_bc_balances_q_against_cloning(q_weight):
    config = td3_bc.Config(q_weight=q_weight, backbone=Backbone(gamma=GAMMA, polyak_rate=0.1))
    actions, critic = settle(td3_bc, config)
    expected, offset = fixed_point(q_weight, 1.0, 0.0)
    np.testing.assert_allclose(actions, expected, atol=0.01)
    np.testing.assert_allclose(critic[1], [OFFSETS[1] - CENTERS[1] ** 2, 2 * CENTERS[1], -1], atol=0.02)
    np.testing.assert_allclose(critic[0], [offset - CENTERS[0] ** 2, 2 * CENTERS[0], -1], atol=0.03)
    if q_weight == 0:
        np.testing.assert_allclose(actions, 0, atol=0.01)  # the logged mean: cloning
    if q_weight == 50:
        np.testing.assert_allclose(actions, CENTERS, atol=0.03)  # the best actions: TD3


@pytest.mark.parametrize("critic_bc_weight", [0.0, 0.5])
def test_rebrac_penalises_actor_and_critic_each_by_its_weight(critic_bc_weight):
    config = rebrac.Config(0.3, critic_bc_weight, backbone=Backbone(gamma=GAMMA, polyak_rate=0.1))
    actions, critic = settle(rebrac, config)
    expected, offset = fixed_point(1.0, 0.3, critic_bc_weight)
    np.testing.assert_allclose(actions, expected, atol=0.01)
    np.testing.assert_allclose(critic[0], [offset - CENTERS[0] ** 2, 2 * CENTERS[0], -1], atol=0.03)
    np.testing.assert_allclose(
        critic[1, 0], OFFSETS[1] - CENTERS[1] ** 2, atol=0.02
    )  # no penalty where nothing follows


# --- IQL -----------------------------------------------------------------------------------------------------------


def expectile(values, weights, at):
    """Root of at * E[(x - e)+] = (1 - at) * E[(e - x)+], by bisection."""
    low, high = values.min(), values.max()
    for _ in range(40):
        e = (low + high) / 2
        above = at * weights @ np.maximum(values - e, 0) > (1 - at) * weights @ np.maximum(e - values, 0)
        low, high = (e, high) if above else (low, e)
    return e


# A chain of three states and actions 0, 1, 2: (s, a, r, s', continues, times in the data). At s0, action 2 is not
# logged: it would be best, were it valued at its initial 0.
CHAIN = [
    (0, 0, -1.0, 1, 1, 3),
    (0, 1, -2.0, 2, 1, 1),
    (1, 0, -1.0, 2, 1, 2),
    (1, 1, 0.5, 0, 1, 1),
    (1, 2, -3.0, 1, 0, 3),
    (2, 0, -1.0, 0, 1, 1),
    (2, 2, -0.5, 2, 0, 4),
]


def chain_rows() -> Transition:
    repeated = np.array([row[:5] for row in CHAIN for _ in range(row[5])])
    s, a, r, following, continues = repeated.T
    eye = np.eye(3)
    parts = eye[s.astype(int)], a[:, None] - 1, r, continues, eye[following.astype(int)], 0 * a[:, None]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def chain_values(at):
    """IQL's fixed point on the chain: V(s) = expectile over logged actions of r + gamma V(s')."""
    v = np.zeros(3)
    for _ in range(200):
        q = np.array([r + GAMMA * c * v[following] for _, _, r, following, c, _ in CHAIN])
        times = np.array([row[5] for row in CHAIN], float)
        logged = [np.array([row[0] == s for row in CHAIN]) for s in range(3)]
        v = np.array([expectile(q[here], times[here], at) for here in logged])
    return v


def table_entry(table, observation, action):
    """table [3, 3]: state, action + 1."""
    entries = jax.nn.one_hot(jnp.round(action[:, 0]).astype(int) + 1, 3)
    return jnp.sum((observation @ table) * entries, axis=1)


def iql_networks(policy, critic, value, optimizer):
    """From functions (params, rows) -> output."""
    policy, critic, value = (Network(lambda key: None, apply) for apply in (policy, critic, value))
    return iql.Networks(policy, ensemble(critic, 2), value, optimizer, optimizer, optimizer)


TABLES = iql_networks(
    lambda params, observation: (
        jnp.tanh(observation @ params[:3, None]),
        jnp.full((len(observation), 1), params[3]),
    ),
    table_entry,
    lambda params, observation: observation @ params,
    optax.adam(optax.exponential_decay(0.05, 1000, 0.1)),
)


@pytest.fixture(scope="module")
def learned_values():
    """expectile -> V after the real update on tables; one program for all."""

    def learn(at):
        config = iql.Config(expectile=at, gamma=GAMMA, polyak_rate=0.2)
        state = iql.State(
            trainable(TABLES.policy_optimizer, jnp.zeros(4)),
            trainable(TABLES.critic_optimizer, jnp.zeros((2, 3, 3)), target=True),
            trainable(TABLES.value_optimizer, jnp.zeros(3)),
        )

        def body(step, state):
            return iql.update(config, TABLES, state, chain_rows(), jax.random.key(0), step)[0]

        return jax.lax.fori_loop(0, 4000, body, state).value.params

    return jax.jit(learn)


@pytest.mark.parametrize("at", [0.3, 0.5, 0.7, 0.9])
def test_iql_reaches_the_expectiles_of_its_own_backups(at, learned_values):
    np.testing.assert_allclose(learned_values(at), chain_values(at), atol=0.01)


def test_at_one_half_iql_evaluates_the_policy_of_the_data(learned_values):
    """The mean regression of SARSA: V solves (I - gamma P) V = r under the logged frequencies."""
    transitions, rewards, total = np.zeros((3, 3)), np.zeros(3), np.zeros(3)
    for s, _, r, following, continues, times in CHAIN:
        total[s] += times
        rewards[s] += times * r
        transitions[s, following] += times * continues
    v = np.linalg.solve(np.eye(3) - GAMMA * transitions / total[:, None], rewards / total)
    np.testing.assert_allclose(learned_values(0.5), v, atol=0.01)


def test_towards_one_iql_finds_the_best_of_the_logged_actions(learned_values):
    v = np.zeros(3)
    for _ in range(500):  # value iteration over logged actions
        q = [(s, r + GAMMA * c * v[following]) for s, _, r, following, c, _ in CHAIN]
        v = np.array([max(value for s, value in q if s == state) for state in range(3)])
    found = learned_values(0.999)
    np.testing.assert_allclose(found, v, atol=0.03)
    assert (np.asarray(found) < 0.6).all()  # nothing of the actions without data, whose values stayed at 0 or above
    assert np.abs(learned_values(0.5) - v).max() > 0.5


@pytest.mark.parametrize("limit", [100.0, 1.5])
def test_iql_s_actor_is_the_weighted_fit_of_logged_actions(limit):
    """One state: Q = 2 - (a - 0.3)^2 to be learned, V its expectile, pi the Gaussian with the weighted moments."""
    actions = 0.4 * np.random.default_rng(1).normal(size=256) - 0.1
    rewards = 2 - (actions - 0.3) ** 2
    weights = np.minimum(np.exp(3 * (rewards - expectile(rewards, np.full(256, 1 / 256), 0.7))), limit)
    mean = weights @ actions / weights.sum()
    std = sqrt(weights @ (actions - mean) ** 2 / weights.sum())

    ones = jnp.ones((256, 1))
    batch = Transition(ones, jnp.asarray(actions[:, None]), jnp.asarray(rewards), 0 * ones[:, 0], ones, 0 * ones)
    networks = iql_networks(
        lambda params, observation: tuple(
            jnp.full((len(observation), 1), each) for each in (jnp.tanh(params[0]), params[1])
        ),
        lambda params, observation, action: powers(action) @ params,
        lambda params, observation: jnp.full(len(observation), params[0]),
        optax.adam(optax.exponential_decay(0.03, 1000, 0.1)),
    )
    config = iql.Config(polyak_rate=0.2, weight_limit=limit)
    state = iql.State(
        trainable(networks.policy_optimizer, jnp.zeros(2)),
        trainable(networks.critic_optimizer, jnp.zeros((2, 3)), target=True),
        trainable(networks.value_optimizer, jnp.zeros(1)),
    )

    def body(step, state):
        return iql.update(config, networks, state, batch, jax.random.key(0), step)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 3000, body, state))(state)
    found = np.tanh(state.policy.params[0]), np.exp(state.policy.params[1])
    np.testing.assert_allclose(found, (mean, std), rtol=0.01)
    assert (weights == limit).any() == (limit == 1.5)
    assert mean > actions.mean() + 0.02
