"""Where the pessimistic critics come to rest, on problems where that can be computed: the real updates, on tables.

Actions are cut into bins of equal width. CQL(H) minimises, for the logged distribution d over bins and weight w,
E_d[(Q - y)^2] + w (log sum_b exp Q_b - E_d[Q]), so that at rest, with p = softmax(Q),

    Q_b = y_b - (w / 2) (p_b / d_b - 1),   and   E_p[Q] = E_p[y] - (w / 2) (sum_b p_b^2 / d_b - 1) <= E_p[y]

The bound is CQL's (arXiv 2006.04779, Theorems 3.2 and 3.3); the sum less 1 is a chi-squared divergence.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, optimize, stats

from itrpo.algorithms import cql, edac, pbrl, sac_n
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.nn import soft
from itrpo.nn.trainable import trainable
from itrpo.types import SpaceSpec, Transition
from tests.algorithms.soft_problem import networks

STILL = optax.sgd(0.0)


def table(params, observation, action):
    """params [states, bins], observation one-hot [B, states], action [B, 1] or [B, n, 1] -> [B] or [B, n]."""
    bins = params.shape[1]
    index = jnp.clip(jnp.floor((action[..., 0] + 1.0) / 2.0 * bins).astype(int), 0, bins - 1)
    rows = observation @ params
    return jnp.take_along_axis(rows, index.reshape(len(rows), -1), axis=1).reshape(index.shape)


def gaussian(params, observation):
    """params: mean of each state, one log standard deviation."""
    mean = observation @ params["mean"][:, None]
    return mean, jnp.broadcast_to(params["log_std"].reshape(1, 1), mean.shape)


def settle(update, state, batch, steps=2_500):
    """The state after `steps` updates on the same batch; critics at a falling rate, the actor held still."""
    step = partial(update, networks(gaussian, table, SpaceSpec(1, 1), 2, STILL, critic_optimizer(steps), STILL))

    def body(i, state):
        return step(state, batch, jax.random.fold_in(jax.random.key(0), i), i)[0]

    return jax.jit(lambda state: jax.lax.fori_loop(0, steps, body, state))(state)


def critic_optimizer(steps=2_500):
    return optax.adam(optax.exponential_decay(0.03, steps // 4, 0.3))


def begin(state, tables, mean, std, *more):
    policy = {"mean": jnp.asarray(mean, jnp.float32), "log_std": jnp.log(jnp.asarray(std, jnp.float32))}
    return state(
        trainable(STILL, policy),
        trainable(critic_optimizer(), jnp.asarray(tables, jnp.float32), target=True),
        trainable(STILL, jnp.zeros(())),
        *more,
    )


def rows(states, bins, cells):
    """A batch with the cell (state, bin, reward, next state or None) as often as it says; actions at a bin's middle."""
    parts = []
    for count, state, at, reward, following in cells:
        one_hot = np.eye(states)[[state, 0 if following is None else following]]
        action = [-1 + 2 * (at + 0.5) / bins]
        parts += [(one_hot[0], action, reward, float(following is not None), one_hot[1], [0.0])] * count
    return Transition(*(jnp.asarray(np.array(it), jnp.float32) for it in zip(*parts, strict=True)))


def cql_config(weight, gamma):
    backbone = Backbone(gamma=gamma, polyak_rate=0.1, batch_size=20)
    return cql.Config(conservative_weight=weight, conservative_actions=60, bc_steps=0, backbone=backbone)


def softmax(q):
    return np.exp(q) / np.exp(q).sum(axis=-1, keepdims=True)


def test_cql_on_a_bandit_rests_where_the_derivative_is_zero():
    d, r, weight = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 0.5, 0.2]), 0.6
    expected = optimize.root(lambda q: q - r + weight / 2 * (softmax(q) / d - 1), r).x
    cells = [(round(20 * share), 0, at, reward, None) for at, (share, reward) in enumerate(zip(d, r, strict=True))]
    state = begin(cql.State, np.zeros((2, 1, 4)), [0.4], 0.8, trainable(STILL, jnp.zeros(())))
    found = settle(partial(cql.update, cql_config(weight, 0.0)), state, rows(1, 4, cells)).critic.params
    np.testing.assert_allclose(found[0, 0], expected, atol=0.03)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    p = softmax(expected)
    below = weight / 2 * ((p**2 / d).sum() - 1)
    assert below > 0.06
    np.testing.assert_allclose(p @ r - p @ np.asarray(found[0, 0]), below, atol=0.02)


def test_cql_on_a_chain_is_a_lower_bound_of_the_policys_values():
    """Three states, left or right, a goal to the right of the last; pi is the softmax of what CQL rests at."""
    gamma, weight, std = 0.8, 0.5, 0.7
    d = np.array([0.7, 0.3])
    reward = np.array([[0.1, 0.0], [0.0, 0.0], [0.0, 1.0]])
    following = np.array([[0, 1], [0, 2], [1, -1]])  # -1: the goal, where the episode ends

    def backup(q, pi):
        value = (pi * q).sum(axis=1)
        return reward + gamma * np.where(following < 0, 0.0, value[following])

    def residual(flat):
        q = flat.reshape(3, 2)
        return (q - backup(q, softmax(q)) + weight / 2 * (softmax(q) / d - 1)).ravel()

    expected = optimize.root(residual, np.zeros(6)).x.reshape(3, 2)
    pi = softmax(expected)
    mean = std * stats.norm.ppf(pi[:, 1])  # of u: tanh keeps the sign, so right has probability P(u > 0)
    cells = [
        (round(10 * d[b]), s, b, reward[s, b], None if following[s, b] < 0 else int(following[s, b]))
        for s in range(3)
        for b in range(2)
    ]
    state = begin(cql.State, np.zeros((2, 3, 2)), mean, std, trainable(STILL, jnp.zeros(())))
    config = cql_config(weight, gamma)
    found = np.asarray(settle(partial(cql.update, config), state, rows(3, 2, cells)).critic.params)
    np.testing.assert_allclose(found[0], expected, atol=0.04)

    exact = np.zeros((3, 2))
    for _ in range(200):
        exact = backup(exact, pi)
    assert ((pi * found[0]).sum(axis=1) < (pi * exact).sum(axis=1) - 0.02).all()


@pytest.mark.parametrize("floor", [0.0, -0.5])
def test_pbrl_drives_what_the_data_has_not_to_the_floor_and_leaves_the_data_alone(floor):
    """Half of the actions are logged, with reward 1: there all members agree, so nothing is taken off."""
    backbone = Backbone(gamma=0.0, batch_size=8)
    config = pbrl.Config(ood_floor=floor, ood_weight_start=1.0, critics=4, backbone=backbone)
    tables = np.random.default_rng(0).normal(2.0, 1.0, (4, 1, 2))
    state = begin(pbrl.State, tables, [0.0], 1.0, jnp.asarray(1.0), jnp.zeros(pbrl.RECORDS))
    found = settle(partial(pbrl.update, config), state, rows(1, 2, [(8, 0, 1, 1.0, None)])).critic.params
    np.testing.assert_allclose(found[:, 0, 1], 1.0, atol=0.01)
    np.testing.assert_allclose(found[:, 0, 0], floor, atol=0.03)


def test_edac_turns_its_critics_apart_as_far_as_they_go():
    """Q_i(a) = w_i . a at a = 0 has no error to weigh against: three gradients in a plane end 120 degrees apart."""

    def linear(params, observation, action):
        return action @ params

    def still(params, observation):
        return jnp.zeros((len(observation), 2)), jnp.zeros((len(observation), 2))

    problem = networks(still, linear, SpaceSpec(1, 2), 3, STILL, optax.sgd(0.05), STILL)
    state = soft.State(
        trainable(STILL, jnp.zeros(1)),
        trainable(problem.critic_optimizer, jnp.array([[1.0, 0.1], [0.9, -0.3], [0.5, 0.4]]), target=True),
        trainable(STILL, jnp.zeros(())),
    )
    zeros = jnp.zeros((4, 1))
    batch = Transition(zeros, jnp.zeros((4, 2)), zeros[:, 0], zeros[:, 0], zeros, jnp.zeros((4, 2)))
    update = partial(edac.update, edac.Config(critics=3), problem)

    def body(i, carry):
        return update(carry[0], batch, jax.random.key(0), i)[0], carry[1]

    state, _ = jax.jit(lambda state: jax.lax.fori_loop(0, 600, body, (state, 0)))(state)
    w = np.asarray(state.critic.params)
    angles = np.sort(np.arctan2(w[:, 1], w[:, 0]))
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / 3, atol=0.01)


def test_sac_n_finds_the_best_policy_of_its_entropy():
    """Reward -(u - 0.9)^2 of u = atanh(a): among Gaussians of u whose action has -1 nats, the one with the most."""

    def quadratic(params, observation, action):
        u = jnp.arctanh(jnp.clip(action[..., 0], -1 + 1e-6, 1 - 1e-6))
        return jnp.stack([jnp.ones_like(u), u, u**2], axis=-1) @ params

    def entropy(mean, std):
        def log_det(z):
            return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * -2 * np.log(np.cosh(mean + std * z))

        return np.log(std) + 0.5 * np.log(2 * np.pi * np.e) + integrate.quad(log_det, -8, 8)[0]

    def cost(mean):
        std = optimize.brentq(lambda std: entropy(mean, std) + 1.0, 0.02, 1.0)
        return (mean - 0.9) ** 2 + std**2

    best = optimize.minimize_scalar(cost, bounds=(0.5, 1.2), method="bounded").x
    std = optimize.brentq(lambda std: entropy(best, std) + 1.0, 0.02, 1.0)

    def everywhere(params, observation):
        return tuple(
            jnp.broadcast_to(params[name].reshape(1, 1), (len(observation), 1)) for name in ("mean", "log_std")
        )

    steps = 3_000
    falling = optax.adam(optax.exponential_decay(0.02, steps // 3, 0.2))
    problem = networks(everywhere, quadratic, SpaceSpec(1, 1), 4, falling, falling, falling)
    state = soft.State(
        trainable(falling, {"mean": jnp.zeros(()), "log_std": jnp.zeros(())}),
        trainable(falling, jnp.zeros((4, 3)), target=True),
        trainable(falling, jnp.zeros(())),
    )
    config = sac_n.Config(critics=4, backbone=Backbone(gamma=0.0))

    def body(i, carry):
        data_key, key = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        u = 0.4 + 0.5 * jax.random.normal(data_key, (64, 1))
        zeros = jnp.zeros((64, 1))
        batch = Transition(zeros, jnp.tanh(u), -jnp.square(u[:, 0] - 0.9), zeros[:, 0], zeros, zeros)
        return sac_n.update(config, problem, carry, batch, key, i)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, steps, body, state))(state)
    np.testing.assert_allclose(state.policy.params["mean"], best, atol=0.02)
    np.testing.assert_allclose(np.exp(state.policy.params["log_std"]), std, rtol=0.05)
