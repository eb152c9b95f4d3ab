"""IQL against its equations, in NumPy loops from the paper."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import iql
from itrpo.algorithms.iql import IQL, Config, Networks
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC = SpaceSpec(2, 2)
CONFIG = Config(
    expectile=0.8,
    inverse_temperature=2.0,
    weight_limit=3.0,
    gamma=0.9,
    polyak_rate=0.25,
    policy_hidden=(8,),
    critic_hidden=(8,),
    value_hidden=(8,),
    policy_learning_rate=0.01,
    critic_learning_rate=0.02,
    value_learning_rate=0.03,
    schedule_steps=10,
)


def policy(params, observation):
    mean = jnp.tanh(observation @ params[:2].T)
    return mean, jnp.broadcast_to(params[2], mean.shape)


def critic(params, observation, action):
    return jnp.concatenate([observation, action], axis=1) @ params


NETWORKS = Networks(
    Network(lambda key: None, policy),
    ensemble(Network(lambda key: None, critic), 2),
    Network(lambda key: None, lambda params, observation: observation @ params),
    *iql.make_networks(CONFIG, SPEC)[3:],  # the optimisers
)
P = np.array([[0.5, -1.0], [1.5, 0.3], [-0.2, 0.4]])  # the last row: log standard deviations
W = np.array([[0.2, -0.4, 1.0, -0.7], [-0.3, 0.1, 0.6, 0.9]])
V = np.array([-0.9, -0.8])


def batch() -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(4, 2)), rng.uniform(-1, 1, (4, 2)), rng.normal(size=4), np.array([1.0, 0.0, 1.0, 1.0])]
    parts += [rng.normal(size=(4, 2)), np.zeros((4, 2))]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def numpy_q(rows):
    """min_i Q_i(s,a) of each row."""
    pairs = zip(np.asarray(rows.observation), np.asarray(rows.action), strict=True)
    return np.array([min(w @ np.concatenate([s, a]) for w in W) for s, a in pairs])


def test_value_loss_is_the_expectile_regression_of_equation_5():
    rows = batch()
    u = numpy_q(rows) - np.asarray(rows.observation) @ V
    assert (u > 0).any()
    assert (u < 0).any()
    expected = np.mean([abs(0.8 - (1 if one < 0 else 0)) * one**2 for one in u])
    loss, _ = iql.value_loss(CONFIG, NETWORKS, jnp.asarray(V), rows, jnp.asarray(numpy_q(rows)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_policy_loss_weighs_the_density_of_logged_actions_by_their_advantage():
    """Equation 7, with weights cut at the limit; the density is of the action itself, without a tanh."""
    rows, advantages = batch(), np.array([-1.0, 0.2, 3.0, 0.4])
    weights = np.minimum(np.exp(2.0 * advantages), 3.0)
    log_probs = []
    for s, a in zip(np.asarray(rows.observation), np.asarray(rows.action), strict=True):
        mean, std = np.tanh(P[:2] @ s), np.exp(P[2])
        log_probs.append(np.log(np.exp(-0.5 * ((a - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))).sum())
    loss, metrics = iql.policy_loss(CONFIG, NETWORKS, jnp.asarray(P), rows, jnp.asarray(advantages))
    np.testing.assert_allclose(loss, -np.mean(weights * log_probs), rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_weight"], weights.mean(), rtol=1e-5)


def test_one_step_takes_value_actor_and_critics_in_the_source_s_order():
    """A step by hand, Adam's first step being -rate * sign(gradient) (up to its epsilon)."""
    rows = batch()
    params = (jnp.asarray(P, jnp.float32), jnp.asarray(W, jnp.float32), jnp.asarray(V, jnp.float32))
    state = iql.State(
        iql.trainable(NETWORKS.policy_optimizer, params[0]),
        iql.trainable(NETWORKS.critic_optimizer, params[1], target=True),
        iql.trainable(NETWORKS.value_optimizer, params[2]),
    )
    after, metrics = jax.jit(partial(iql.update, CONFIG, NETWORKS))(state, rows, jax.random.key(0), jnp.asarray(0))

    s, a, s_next = (np.asarray(x) for x in (rows.observation, rows.action, rows.next_observation))
    q = numpy_q(rows)
    u = q - s @ V
    gradient = np.mean(-2 * np.where(u > 0, 0.8, 0.2)[:, None] * u[:, None] * s, axis=0)
    new_v = V - 0.03 * np.sign(gradient)
    np.testing.assert_allclose(after.value.params, new_v, rtol=1e-4)

    advantages = q - s @ new_v  # with the new V
    np.testing.assert_allclose(metrics["advantage"], advantages.mean(), rtol=1e-4)
    weights = np.minimum(np.exp(2.0 * advantages), 3.0)
    slope = np.mean(weights[:, None] * (1 - ((a - np.tanh(s @ P[:2].T)) / np.exp(P[2])) ** 2), axis=0)  # of log std
    np.testing.assert_allclose(after.policy.params[2], P[2] - 0.01 * np.sign(slope), rtol=1e-4)

    y = np.asarray(rows.reward) + 0.9 * np.asarray(rows.continues) * (s_next @ new_v)
    np.testing.assert_allclose(metrics["q_target"], y.mean(), rtol=1e-4)
    both = np.concatenate([s, a], axis=1)
    new_w = W - 0.02 * np.sign((both @ W.T - y[:, None]).T @ both)
    np.testing.assert_allclose(after.critic.params, new_w, rtol=1e-4)
    np.testing.assert_allclose(after.critic.target_params, 0.75 * W + 0.25 * new_w, rtol=1e-4)


def test_the_actor_s_learning_rate_falls_along_a_cosine_and_the_others_stay():
    """Adam's step under a constant gradient is the learning rate."""
    for optimizer, expected in (
        (NETWORKS.policy_optimizer, [0.005 * (1 + np.cos(np.pi * min(k / 10, 1))) for k in range(13)]),
        (NETWORKS.critic_optimizer, [0.02] * 13),
        (NETWORKS.value_optimizer, [0.03] * 13),
    ):
        state, steps = optimizer.init(jnp.zeros(())), []
        for _ in range(13):
            update, state = optimizer.update(jnp.ones(()), state)
            steps.append(-update)
        np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-8)


def test_no_action_outside_the_data_is_ever_valued():
    """Q is asked for logged pairs alone: with the others' values infinite, nothing changes."""
    known = batch().action

    def guarded(params, observation, action):
        logged = jnp.any(jnp.all(jnp.abs(action[:, None] - known[None]) < 1e-6, axis=2), axis=1)
        return jnp.where(logged, critic(params, observation, action), jnp.inf)

    state = iql.State(
        iql.trainable(NETWORKS.policy_optimizer, jnp.asarray(P)),
        iql.trainable(NETWORKS.critic_optimizer, jnp.asarray(W), target=True),
        iql.trainable(NETWORKS.value_optimizer, jnp.asarray(V)),
    )
    both = (NETWORKS, NETWORKS._replace(critics=ensemble(Network(lambda key: None, guarded), 2)))
    given = (state, batch(), jax.random.key(0), jnp.asarray(0))
    states = [jax.jit(partial(iql.update, CONFIG, networks))(*given)[0] for networks in both]
    for left, right in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_act_is_the_bounded_mean_and_samples_are_clipped():
    algorithm = compiled(IQL.make(CONFIG, SPEC, None))
    state, observation = algorithm.init(jax.random.key(3), None), jnp.tile(jnp.array([0.4, -0.7]), (500, 1))
    samples = algorithm.acting.act(state, observation, jax.random.key(0), False)
    assert np.abs(samples).max() == 1.0  # standard deviation 1 at the start
    mean = algorithm.acting.act(state, observation, jax.random.key(0), True)
    np.testing.assert_allclose(np.median(samples, axis=0), mean[0], atol=0.2)


@pytest.mark.parametrize(("task", "expected"), [("antmaze-umaze", (0.9, 10.0)), ("hopper-medium", (0.7, 3.0))])
def test_constants_by_task(task, expected):
    from itrpo.training.configure import make_setup

    found = make_setup("iql", task=task).algorithm_config
    assert (found.expectile, found.inverse_temperature) == expected
