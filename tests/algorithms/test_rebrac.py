"""ReBRAC against its equations, in NumPy loops; and what is left of it without its critic's penalty: TD3+BC."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import rebrac, td3, td3_bc
from itrpo.algorithms.rebrac import REBRAC, Config
from itrpo.algorithms.td3 import Backbone
from itrpo.nn.trainable import Trainable
from itrpo.types import SpaceSpec
from tests.algorithms.td3_problem import (
    GAMMA,
    NETWORKS,
    NOISE,
    P,
    W,
    assert_gradient_is_slope,
    batch,
    q_of,
    smoothed,
)

SPEC = SpaceSpec(2, 2)
BACKBONE = Backbone(
    gamma=GAMMA,
    policy_hidden=(8,),
    critic_hidden=(8,),
    polyak_rate=0.25,
    policy_learning_rate=0.1,
    critic_learning_rate=0.1,
    initializer="edac",
)
CONFIG = Config(policy_bc_weight=0.3, critic_bc_weight=0.6, backbone=BACKBONE)


def targets(config):
    policy, critic = (Trainable(None, None, jnp.asarray(it)) for it in (P, W))
    state = td3.State(policy, critic, None, {})
    return rebrac.critic_targets(config, NETWORKS, state, batch(), jnp.asarray(NOISE))


def test_target_pays_for_the_distance_of_the_smoothed_action_to_the_logged_one():
    rows, expected = batch(), []
    columns = map(np.asarray, (rows.next_observation, rows.reward, rows.continues, rows.next_action))
    for s, r, c, logged, e in zip(*columns, NOISE, strict=True):
        a = smoothed(s, e)
        expected.append(r + GAMMA * c * (min(q_of(0, s, a), q_of(1, s, a)) - 0.6 * ((a - logged) ** 2).sum()))
    np.testing.assert_allclose(targets(CONFIG), expected, rtol=1e-5)


def numpy_policy_loss(p, q_scale=None):
    states, logged = np.asarray(batch().observation), np.asarray(batch().action)
    actions = np.array([np.tanh(p @ s) for s in states])
    q = np.array([min(q_of(0, s, a), q_of(1, s, a)) for s, a in zip(states, actions, strict=True)])
    scale = 1 / np.abs(q).mean() if q_scale is None else q_scale
    return np.mean(0.3 * ((actions - logged) ** 2).sum(axis=1) - scale * q), scale


def test_policy_loss_and_its_gradient_hold_the_scale_of_q_constant():
    expected, q_scale = numpy_policy_loss(P)
    value_and_gradient = jax.value_and_grad(rebrac.policy_loss, argnums=2, has_aux=True)
    (loss, metrics), gradient = value_and_gradient(CONFIG, NETWORKS, jnp.asarray(P), jnp.asarray(W), batch())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_scale"], q_scale, rtol=1e-5)
    assert_gradient_is_slope(gradient, lambda p: numpy_policy_loss(p, q_scale)[0], P)


def test_without_the_critics_penalty_it_is_td3_bc_with_a_sum_for_a_mean():
    """What remains different: min of both critics in the actor, not Q_1; when the actor steps; its target's lag."""
    theirs = td3_bc.Config(q_weight=2.5, backbone=BACKBONE)
    ours = Config(critic_bc_weight=0.0, policy_bc_weight=1 / (2.5 * SPEC.action_dim), backbone=BACKBONE)
    action = NETWORKS.actor.apply(jnp.asarray(P), batch().next_observation)
    plain = td3.critic_targets(BACKBONE, NETWORKS, jnp.asarray(W), batch(), action, jnp.asarray(NOISE))
    np.testing.assert_allclose(targets(ours), plain, rtol=1e-6)
    assert np.abs(targets(CONFIG) - targets(ours)).max() > 0.1

    twins = jnp.asarray(W[[0, 0]])  # where min_i Q_i is Q_1
    gradient = jax.grad(lambda p: rebrac.policy_loss(ours, NETWORKS, p, twins, batch())[0])(jnp.asarray(P))
    expected = jax.grad(lambda p: td3_bc.policy_loss(theirs, NETWORKS, p, twins[0], batch())[0])(jnp.asarray(P))
    np.testing.assert_allclose(2.5 * gradient, expected, rtol=1e-5)


def test_the_actor_steps_first_and_its_target_lags_by_one_of_its_steps():
    """As in CORL: even steps, and the average takes the actor from before the step; the critics', the new ones."""
    algorithm = REBRAC.make(CONFIG, SPEC, None)
    update = jax.jit(lambda state, step: algorithm.update(state, batch(), jax.random.key(step), step)[0])
    state = jax.jit(algorithm.init)(jax.random.key(0), None)
    for step in range(4):
        after = update(state, step)
        (old, new), (q_old, q_new) = ((getattr(state, part), getattr(after, part)) for part in ("policy", "critic"))
        weights = [
            params.mlp.layers[0].weight for params in (old.params, new.params, old.target_params, new.target_params)
        ]
        q_weights = [params.mlp.layers[0].weight for params in (q_new.params, q_old.target_params, q_new.target_params)]
        assert np.array_equal(weights[0], weights[1]) == (step % 2 == 1)
        if step % 2 == 0:
            np.testing.assert_allclose(weights[3], 0.75 * weights[2] + 0.25 * weights[0], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(q_weights[2], 0.75 * q_weights[1] + 0.25 * q_weights[0], rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(weights[2], weights[3])
            np.testing.assert_array_equal(q_weights[1], q_weights[2])
        state = after


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("hopper-medium-replay", (0.05, 0.5, 1024, 1e-3, 0.99)),
        ("walker2d-random", (0.01, 0.0, 1024, 1e-3, 0.99)),
        ("antmaze-medium-play", (0.001, 0.0005, 256, 5e-5, 0.999)),
        (None, (0.01, 0.01, 1024, 1e-3, 0.99)),
    ],
)
def test_constants_by_task(task, expected):
    from itrpo.training.configure import make_setup

    found = make_setup("rebrac", preset="source", task=task).algorithm_config
    assert expected == (
        found.policy_bc_weight,
        found.critic_bc_weight,
        found.backbone.batch_size,
        found.backbone.critic_learning_rate,
        found.backbone.gamma,
    )
