"""COMBO's rollouts, loss and step, written out in NumPy; where Q is free, what it comes to in closed form."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import combo, soft_actor_critic
from itrpo.algorithms.combo import Config, Rows, State
from itrpo.algorithms.soft_actor_critic import Backbone
from itrpo.dynamics import DynamicsModel
from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import trainable
from itrpo.types import SpaceSpec, Transition
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

CONFIG = Config(
    conservative_weight=0.8,
    data_share=0.5,
    rollout_length=2,
    conservative_actions=3,
    dynamics_steps=3,
    backbone=Backbone(gamma=GAMMA, polyak_rate=POLYAK, batch_size=4),
)


def known_step(fitted, observation, action, key):
    """s' = s + a_1 / 2 - a_2, r = s a_1; it ends where s' > 0.5."""
    following = observation + 0.5 * action[:, :1] - action[:, 1:]
    continues = (following[:, 0] <= 0.5).astype(jnp.float32)
    reward = observation[:, 0] * action[:, 0]
    return Transition(observation, action, reward, continues, following, jnp.zeros_like(action))


KNOWN = DynamicsModel(
    init=lambda key: jnp.zeros(()),
    fit_step=lambda state, rows: (state + 1.0, {"dynamics_nll": state}),
    fitted=lambda state: None,
    sample=known_step,
)


def begin() -> State:
    return State(jnp.zeros(()), *start(lambda *parts: parts, 2), {name: jnp.zeros(()) for name in METRICS})


METRICS = (
    *("critic_loss", "q_data", "q_target", "conservative_gap", "policy_loss", "entropy", "entropy_weight"),
    *("model_reward", "dynamics_nll"),
)


def rollouts_by_hand(starts, length, key):
    """Rows of each rollout in turn: (s, a, r, continues, s')."""
    of_each = [[] for _ in starts]
    states = starts.copy()
    for step_key in jax.random.split(key, length):
        noise = jax.random.normal(jax.random.split(step_key)[0], (len(starts), 2))
        actions, _ = sampled(numbers(POLICY), states, noise)
        for i, a in enumerate(actions):
            following = states[i] + 0.5 * a[0] - a[1]
            goes_on = following[0] <= 0.5
            of_each[i].append((states[i].copy(), a, states[i][0] * a[0], float(goes_on), following))
            states[i] = following if goes_on else starts[i]
    return [row for one in of_each for row in one]


def test_rollouts_follow_the_policy_and_begin_again_where_they_end():
    starts, key = np.array([[-1.0], [0.4], [0.1], [-0.2]]), jax.random.key(3)
    rows = jax.jit(partial(combo.rollouts, NETWORKS, KNOWN, None, POLICY, length=6))(jnp.float32(starts), key=key)
    expected = rollouts_by_hand(starts, 6, key)
    for found, columns in zip(rows[:5], zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(found, np.array(columns), rtol=1e-4, atol=1e-5)
    ends = np.asarray(rows.continues) == 0
    assert 2 < ends.sum() < 22
    again = np.asarray(rows.observation)[1:][ends[:-1] & (np.arange(23) % 6 < 5)]
    assert np.isin(again, starts.astype(np.float32)).all()


def test_a_share_of_the_rows_is_the_datas():
    it = batch()

    @jax.jit
    def mixed_at(share):
        return combo.mixed_rows(replace(CONFIG, data_share=share), NETWORKS, KNOWN, begin(), it, jax.random.key(1))

    for share, of_data in ((0.5, 2), (0.75, 3), (0.01, 1), (1.0, 4)):
        mixed, weight = mixed_at(share)
        for own, found in zip(it[:5], mixed[:5], strict=True):
            assert np.asarray(own == found)[:of_data].all()
        np.testing.assert_allclose(weight, [4 / of_data] * of_data + [0.0] * (4 - of_data))
        np.testing.assert_allclose(mixed.reward[of_data:], (mixed.observation * mixed.action)[of_data:, 0], rtol=1e-6)


def test_loss_of_a_batch_in_numpy():
    rng = np.random.default_rng(1)
    rows = Rows(*(rng.normal(size=shape) for shape in ((3, 1), (3, 4, 2), (3, 3), (3,))), np.array([1.5, 1.5, 0.0]))
    expected = 0.0
    for w in numbers(critic_params(2)):
        q = np.stack([q_of(w, rows.observation, rows.action[:, j]) for j in range(4)], axis=1)
        soft_maxima = np.log(np.sum(np.exp(q[:, 1:]) / np.exp(rows.log_density), axis=1))
        expected += np.mean((q[:, 0] - rows.target) ** 2) + 0.7 * (soft_maxima.mean() - q[:2, 0].mean())
    found, _ = combo.critic_loss(NETWORKS, 0.7, critic_params(2), Rows(*(jnp.float32(it) for it in rows)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def step_by_hand(before, it, key):
    """(actor, critics, log weight) after one step past the fit."""
    actor, critics, targets = numbers((POLICY, before.critic.params, before.critic.target_params))
    rollout_key, policy_key, target_key, action_key = jax.random.split(key, 4)
    made = rollouts_by_hand(np.asarray(it.observation, np.float64)[2:], 2, rollout_key)
    own = list(zip(*(np.asarray(column, np.float64) for column in it[:5]), strict=True))[:2]
    s, a, r, goes_on, following = (np.array(column) for column in zip(*own, *made[2:], strict=True))

    noise, next_noise = (jax.random.normal(each, (4, 2)) for each in (policy_key, target_key))
    improved = policy_step(actor, critics, -0.7, s, noise)
    log_weight = entropy_step(-0.7, sampled(actor, s, noise)[1])

    next_action = sampled(improved, following, next_noise)[0]
    y = r + GAMMA * goes_on * np.min([q_of(w, following, next_action) for w in targets], axis=0)
    rows = Transition(*(jnp.float32(each) for each in (s, a, r, goes_on, following)), None)
    stepped = jax.tree.map(jnp.float32, improved)
    actions, densities = numbers(soft_actor_critic.conservative_actions(NETWORKS, 3, stepped, rows, action_key))

    def loss(critics):
        total = 0.0
        for w in critics:
            q = np.stack([q_of(w, s, actions[:, j]) for j in range(9)], axis=1)
            gap = np.mean(np.log(np.sum(np.exp(q - densities), axis=1))) - np.mean(q_of(w, s[:2], a[:2]))
            total += np.mean((q_of(w, s, a) - y) ** 2) + 0.8 * gap
        return total

    return improved, descended(critics, CRITIC_RATE, loss), log_weight


def test_one_step_in_numpy(monkeypatch):
    """Rollouts from the last two states; of their four rows the last two stand beside the data's first two. Before
    `dynamics_steps` the model steps alone.
    """
    monkeypatch.setattr("itrpo.nn.trainable.CACHED_ROWS", 20)  # in chunks of two rows with ten actions each
    before, it, key = begin(), batch(), jax.random.key(6)
    step = jax.jit(partial(combo.update, CONFIG, NETWORKS, KNOWN))
    after, metrics = step(before, it, key, 3)
    actor, critics, log_weight = step_by_hand(before, it, key)
    assert_state(after, actor, critics, before.critic.target_params, log_weight)
    assert after.dynamics == 0
    assert metrics["model_reward"] != 0

    after, _ = step(before, it, key, 2)
    assert after.dynamics == 1
    for name in ("policy", "critic", "log_entropy_weight"):
        for old, new in zip(*(jax.tree.leaves(getattr(it, name)) for it in (before, after)), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("share", "conservative_weight"), [(0.5, 0.6), (0.75, 0.0)])
def test_where_q_is_free_it_settles_at_equation_3(share, conservative_weight):
    """Two states. The data stays in the first, with reward 1. The model goes to the second, with reward 3 on the way,
    and stays there, with reward -1. Q is a number for each state:

        Q(first)  = y - conservative_weight (rho - d) / (2 d_f)        rho, d, d_f: shares of rows, and of the data's
        Q(second) = y - conservative_weight / 2
    """
    gamma, size = 0.5, 16

    def to_second(fitted, observation, action, key):
        following = jnp.zeros_like(observation).at[:, 1].set(1.0)
        reward = jnp.where(observation[:, 0] > 0, 3.0, -1.0)
        return Transition(observation, action, reward, jnp.ones(len(action)), following, action)

    model = KNOWN._replace(sample=to_second)
    still = GaussianActor(lambda key: jnp.zeros(1), lambda params, s: (s[:, :1] * 0, s[:, :1] * 0), SpaceSpec(2, 1))

    def q_of_state(w, s, a):
        return jnp.broadcast_to((s @ w).reshape(-1, *[1] * (a.ndim - 2)), a.shape[:-1])

    nothing = optax.set_to_zero()
    networks = Networks(
        still, ensemble(Network(lambda key: jnp.zeros(2), q_of_state), 2), nothing, optax.adam(0.05), nothing
    )
    config = Config(
        conservative_weight=conservative_weight,
        data_share=share,
        rollout_length=2,
        conservative_actions=1,
        dynamics_steps=1,
        backbone=Backbone(gamma=gamma, polyak_rate=1.0),
    )
    first = jnp.zeros((size, 2)).at[:, 0].set(1.0)
    zeros, ones = jnp.zeros((size, 1)), jnp.ones(size)
    rows = Transition(first, zeros, ones, ones, first, zeros)
    state = State(
        jnp.zeros(()),
        trainable(nothing, jnp.zeros(1)),
        trainable(networks.critic_optimizer, jnp.zeros((2, 2)), target=True),
        trainable(nothing, jnp.zeros(())),
        {name: jnp.zeros(()) for name in METRICS},
    )

    def body(step, state):
        return combo.update(config, networks, model, state, rows, jax.random.key(0), step)[0]

    found = jax.jit(lambda it: jax.lax.fori_loop(1, 1500, body, it))(state).critic.params
    on_the_way = (1 - share) / 2  # model's rows at the first state, and as many at the second
    at_first = share + on_the_way
    # with y linear in both values: Q(first) (at_first - share gamma) - Q(second) on_the_way gamma = ...
    left = np.array([[at_first - share * gamma, -on_the_way * gamma], [0.0, 1 - gamma]])
    pressed = 0.5 * conservative_weight
    right = np.array([share * 1.0 + on_the_way * 3.0 - pressed * (at_first - 1.0), -1.0 - pressed])
    np.testing.assert_allclose(found, np.linalg.solve(left, right)[None].repeat(2, axis=0), atol=0.01)
