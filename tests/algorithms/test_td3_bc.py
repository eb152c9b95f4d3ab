"""TD3+BC against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import td3, td3_bc
from itrpo.algorithms.td3 import Backbone
from itrpo.algorithms.td3_bc import TD3_BC, Config
from itrpo.nn.ensemble import first_member
from itrpo.types import SpaceSpec
from tests.algorithms.td3_problem import NETWORKS, P, W, assert_gradient_is_slope, batch, differs, q_of

SPEC = SpaceSpec(2, 2)
LAMBDA = 1.7
CONFIG = Config(q_weight=LAMBDA, backbone=Backbone(gamma=0.9, policy_hidden=(8,), critic_hidden=(8,), batch_size=4))


def numpy_policy_loss(p, q_scale=None):
    """-lambda mean Q_1 + MSE, with lambda = q_weight / mean |Q_1| unless it is given."""
    rows = batch()
    actions = [np.tanh(p @ s) for s in np.asarray(rows.observation)]
    q = np.array([q_of(0, s, a) for s, a in zip(np.asarray(rows.observation), actions, strict=True)])
    scale = LAMBDA / np.abs(q).mean() if q_scale is None else q_scale
    return -scale * q.mean() + np.mean((np.array(actions) - np.asarray(rows.action)) ** 2), scale


def test_policy_loss_and_its_gradient_hold_lambda_constant():
    expected, q_scale = numpy_policy_loss(P)
    value_and_gradient = jax.value_and_grad(td3_bc.policy_loss, argnums=2, has_aux=True)
    (loss, metrics), gradient = value_and_gradient(CONFIG, NETWORKS, jnp.asarray(P), jnp.asarray(W[0]), batch())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_scale"], q_scale, rtol=1e-5)
    assert_gradient_is_slope(gradient, lambda p: numpy_policy_loss(p, q_scale)[0], P)


def test_without_weight_on_q_the_policy_loss_is_behaviour_cloning():
    rows = batch()

    def cloning(params):
        return jnp.mean(jnp.square(NETWORKS.actor.apply(params, rows.observation) - rows.action))

    config = Config(q_weight=0.0)
    gradient = jax.grad(lambda p: td3_bc.policy_loss(config, NETWORKS, p, jnp.asarray(W[0]), rows)[0])(jnp.asarray(P))
    np.testing.assert_allclose(gradient, jax.grad(cloning)(jnp.asarray(P)), rtol=1e-6)


@pytest.fixture(scope="module")
def step():
    """-> (state at the start, update(state, step) of a real network with delay 2)."""
    algorithm = TD3_BC.make(CONFIG, SPEC, None)
    update = jax.jit(lambda state, step: algorithm.update(state, batch(), jax.random.key(step), step))
    return jax.jit(algorithm.init)(jax.random.key(0), None), update


def test_actor_and_targets_wait_for_every_second_step(step):
    state, update = step
    moved = []
    for index in range(5):
        after, _ = update(state, index)
        assert differs(state.critic.params, after.critic.params)
        parts = [(each.policy.params, each.policy.target_params, each.critic.target_params) for each in (state, after)]
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
    networks = td3.make_networks(CONFIG.backbone, SPEC)

    def gradient(critic_params):
        return jax.grad(lambda p: td3_bc.policy_loss(CONFIG, networks, p, critic_params, batch())[0])(
            state.policy.params
        )

    first, second = first_member(state.critic.params), jax.tree.map(lambda leaf: leaf[1], state.critic.params)
    assert differs(gradient(first), gradient(second))  # so the one that update uses can be told
    new_critic = first_member(same_key(state, 5).critic.params)
    updates, _ = networks.policy_optimizer.update(gradient(new_critic), state.policy.opt_state)
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
