"""TD3+BC against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import td3_bc
from itrpo.algorithms.td3_bc import TD3_BC, Config, Networks
from itrpo.errors import InputError
from itrpo.nn.ensemble import batched, ensemble, first_member
from itrpo.nn.network import Network
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(2, 2)
GAMMA, LAMBDA = 0.9, 1.7
CONFIG = Config(q_weight=LAMBDA, gamma=GAMMA, policy_hidden=(8,), critic_hidden=(8,), batch_size=4)

# pi(s) = tanh(P s);  Q(s,a) = w . (s, a) + (sum of a)^2
POLICY = batched(Network(lambda key: None, lambda params, observation: jnp.tanh(params @ observation)))
CRITIC = batched(Network(lambda key: None, lambda w, s, a: w @ jnp.concatenate([s, a]) + jnp.sum(a) ** 2))
CRITICS = ensemble(CRITIC, 2)
NETWORKS = Networks(POLICY, CRITIC, CRITICS)
P = np.array([[0.5, -1.0], [1.5, 0.3]])
W = np.array([[0.2, -0.4, 1.0, -0.7], [-0.3, 0.1, 0.6, 0.9]])  # of Q_1 and Q_2


def batch() -> Transition:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(4, 2)), rng.uniform(-1, 1, (4, 2)), rng.normal(size=4), np.array([1.0, 0.0, 1.0, 1.0])]
    parts += [2 * rng.normal(size=(4, 2)), rng.uniform(-1, 1, (4, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


def test_target_is_the_least_q_at_the_smoothed_target_action():
    it, noise = batch(), np.array([[1.0, -0.5], [0.3, 4.0], [-9.0, 0.1], [2.0, 2.0]])
    expected = []
    for s, r, c, e in zip(*map(np.asarray, (it.next_observation, it.reward, it.continues)), noise, strict=True):
        a = np.clip(np.tanh(P @ s) + np.clip(0.2 * e, -0.5, 0.5), -1, 1)
        expected.append(r + GAMMA * c * min(q_of(0, s, a), q_of(1, s, a)))
    found = td3_bc.critic_targets(NETWORKS, CONFIG, jnp.asarray(P), jnp.asarray(W), it, jnp.asarray(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_critic_loss_is_the_sum_of_both_mean_squares():
    it, targets = batch(), np.array([1.0, -2.0, 0.5, 3.0])
    rows = list(zip(np.asarray(it.observation), np.asarray(it.action), targets, strict=True))
    expected = sum(np.mean([(q_of(i, s, a) - y) ** 2 for s, a, y in rows]) for i in (0, 1))
    loss, metrics = td3_bc.critic_loss(NETWORKS, jnp.asarray(W), it, jnp.asarray(targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_target"], targets.mean(), rtol=1e-6)


def numpy_policy_loss(p, q_scale=None):
    """-lambda mean Q_1 + MSE, with lambda = q_weight / mean |Q_1| unless it is given."""
    it = batch()
    actions = [np.tanh(p @ s) for s in np.asarray(it.observation)]
    q = np.array([q_of(0, s, a) for s, a in zip(np.asarray(it.observation), actions, strict=True)])
    scale = LAMBDA / np.abs(q).mean() if q_scale is None else q_scale
    return -scale * q.mean() + np.mean((np.array(actions) - np.asarray(it.action)) ** 2), scale


def test_policy_loss_and_its_gradient_hold_lambda_constant():
    expected, q_scale = numpy_policy_loss(P)
    value_and_gradient = jax.value_and_grad(td3_bc.policy_loss, argnums=2, has_aux=True)
    (loss, metrics), gradient = value_and_gradient(NETWORKS, CONFIG, jnp.asarray(P), jnp.asarray(W[0]), batch())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_scale"], q_scale, rtol=1e-5)
    for index in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[index] = 1e-5
        slope = (numpy_policy_loss(P + step, q_scale)[0] - numpy_policy_loss(P - step, q_scale)[0]) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-5)


def test_without_weight_on_q_the_policy_loss_is_behaviour_cloning():
    it = batch()

    def cloning(params):
        return jnp.mean(jnp.square(POLICY.apply(params, it.observation) - it.action))

    config = Config(q_weight=0.0)
    gradient = jax.grad(lambda p: td3_bc.policy_loss(NETWORKS, config, p, jnp.asarray(W[0]), it)[0])(jnp.asarray(P))
    np.testing.assert_allclose(gradient, jax.grad(cloning)(jnp.asarray(P)), rtol=1e-6)


@pytest.fixture(scope="module")
def step():
    """-> (state at the start, update(state, step) of a real network with delay 2)."""
    algorithm = TD3_BC.make(CONFIG, SPEC, None)
    update = jax.jit(lambda state, step: algorithm.update(state, batch(), jax.random.key(step), step))
    return algorithm.init(jax.random.key(0), None), update


def differs(one, other):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_actor_and_targets_wait_for_every_second_step(step):
    state, update = step
    moved = []
    for index in range(5):
        after, _ = update(state, index)
        assert differs(state.critic.params, after.critic.params)
        parts = [(it.policy.params, it.policy.target_params, it.critic.target_params) for it in (state, after)]
        moved.append([differs(old, new) for old, new in zip(*parts, strict=True)])
        state = after
    assert moved == [[index % 2 == 1] * 3 for index in range(5)]


def test_each_loss_moves_its_own_parameters(step):
    """The critics' step is the same whether the actor's follows it or not; Q_2 has no say in the actor's."""
    state, update = step
    alone, together = (update(state, index)[0] for index in (4, 5))
    assert differs(alone.policy, together.policy)
    same_key = jax.jit(lambda s, i: TD3_BC.make(CONFIG, SPEC, None).update(s, batch(), jax.random.key(0), i)[0])
    assert not differs(same_key(state, 4).critic.params, same_key(state, 5).critic.params)
    networks = td3_bc.make_networks(CONFIG, SPEC)
    second = jax.tree.map(lambda it: it[1], state.critic.params)
    gradients = [
        jax.grad(lambda p, q=q: td3_bc.policy_loss(networks, CONFIG, p, q, batch())[0])(state.policy.params)
        for q in (first_member(state.critic.params), second)
    ]
    assert differs(*gradients)  # so the one that update uses can be told
    optimizer = td3_bc.optax.adam(CONFIG.policy_learning_rate)
    critic = same_key(state, 5).critic.params
    gradient = jax.grad(lambda p: td3_bc.policy_loss(networks, CONFIG, p, first_member(critic), batch())[0])
    updates, _ = optimizer.update(gradient(state.policy.params), state.policy.opt_state)
    expected = jax.tree.map(lambda p, u: p + u, state.policy.params, updates)
    for left, right in zip(jax.tree.leaves(same_key(state, 5).policy.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-7)


def test_metrics_of_the_actor_are_those_of_its_last_step(step):
    state, update = step
    state, first = update(state, 0)
    assert first["policy_loss"] == 0
    state, second = update(state, 1)
    state, third = update(state, 2)
    assert second["policy_loss"] != 0
    assert third["policy_loss"] == second["policy_loss"]


@pytest.mark.parametrize("fields", [{"q_weight": -1.0}, {"policy_delay": 0}, {"gamma": 1.0}, {"polyak_rate": 0.0}])
def test_values_out_of_range_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        TD3_BC.validate(Config(**fields), None, None)
