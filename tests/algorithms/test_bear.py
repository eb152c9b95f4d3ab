"""BEAR against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import bear, mmd_actor_critic
from itrpo.algorithms.bear import BEAR, Config
from itrpo.algorithms.mmd_actor_critic import Backbone, Draws, Networks, State
from itrpo.behavior import cvae
from itrpo.nn.actors import GaussianActor
from itrpo.nn.critics import critic_loss
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import Trainable
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC = SpaceSpec(2, 2)
EPSILON, SIGMA = 0.2, 3.0
CONFIG = Config(EPSILON, Backbone(bandwidth=SIGMA, kernel="laplacian", min_weight=0.6, gamma=0.9))


def joined(observation, other):
    """[B, O] and [B, A] or [B, n, A], side by side."""
    between = observation if other.ndim == 2 else observation[:, None]
    return jnp.concatenate([jnp.broadcast_to(between, (*other.shape[:-1], 2)), other], axis=-1)


# pi(s): mean M s, log std S s;  G(s, z) = D (s, z);  Q(s, a) = w . (s, a) + (sum of a)^2
CRITIC = Network(
    lambda key: None, lambda w, observation, action: joined(observation, action) @ w + jnp.sum(action, axis=-1) ** 2
)
NETWORKS = Networks(
    cvae.make(cvae.Config(hidden=(4,)), SPEC, 0)._replace(
        decode=lambda params, observation, latent: joined(observation, latent) @ params.T
    ),
    GaussianActor(
        lambda key: None, lambda params, observation: (observation @ params[0].T, observation @ params[1].T), SPEC
    ),
    ensemble(CRITIC, 2),
    *[optax.set_to_zero()] * 3,
)
RNG = np.random.default_rng(0)
POLICY, D = 0.5 * RNG.normal(size=(2, 2, 2)), RNG.normal(size=(2, 6))  # M and S; D
W = np.array([[0.2, -0.4, 2.0, -1.7], [-0.3, 0.1, -1.6, 1.9]])  # of Q_1 and Q_2
NOISE, LATENTS = RNG.normal(size=(4, 3, 2)), RNG.normal(size=(4, 3, 4))


def batch(rows: int = 4) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


def samples_of(policy, s, noise):
    """Before the tanh."""
    return [policy[0] @ s + np.exp(policy[1] @ s) * e for e in noise]


def mmd_of(x, y):
    def mean_kernel(one, other):
        return np.mean([np.exp(-np.abs(a - b).sum() / (2 * SIGMA)) for a in one for b in other])

    return np.sqrt(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y) + 1e-6)


def test_target_mixes_the_critics_first_and_takes_the_best_of_the_policys_actions_then():
    it, noise = batch(), np.random.default_rng(3).normal(size=(4, 8, 2))
    expected, other_order = [], []
    for s, r, c, es in zip(*map(np.asarray, (it.next_observation, it.reward, it.continues)), noise, strict=True):
        qs = np.array([[q_of(i, s, np.tanh(u)) for i in (0, 1)] for u in samples_of(POLICY, s, es)])
        expected.append(r + 0.9 * c * max(0.6 * q.min() + 0.4 * q.max() for q in qs))
        other_order.append(r + 0.9 * c * (0.6 * qs.max(axis=0).min() + 0.4 * qs.max(axis=0).max()))
    state = State(None, Trainable(jnp.asarray(POLICY), None, None), Trainable(None, None, jnp.asarray(W)), None)
    found = jax.jit(partial(bear.critic_targets, NETWORKS, CONFIG))(state, it, jnp.asarray(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(np.array(expected) - other_order).max() > 0.01


def test_critic_loss_is_the_sum_of_both_mean_squares():
    it, targets = batch(), np.array([1.0, -2.0, 0.5, 3.0])
    rows = list(zip(np.asarray(it.observation), np.asarray(it.action), targets, strict=True))
    expected = sum(np.mean([(q_of(i, s, a) - y) ** 2 for s, a, y in rows]) for i in (0, 1))
    loss, _ = critic_loss(NETWORKS.critics, jnp.asarray(W), it, jnp.asarray(targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def by_hand(policy, q_weight, log_multiplier):
    """(loss, mean MMD): the first sample alone meets the critics, all meet the model's, before the tanh."""
    losses, mmds = [], []
    for s, e, z in zip(np.asarray(batch().observation), NOISE, LATENTS, strict=True):
        own = samples_of(policy, s, e)
        mmds.append(mmd_of([D @ np.concatenate([s, it]) for it in z], own))
        q = min(q_of(i, s, np.tanh(own[0])) for i in (0, 1))
        losses.append(-q_weight * q + np.exp(log_multiplier) * (mmds[-1] - EPSILON))
    return np.mean(losses), np.mean(mmds)


@pytest.mark.parametrize("q_weight", [0.0, 1.0])
def test_policy_loss_and_its_gradient(q_weight):
    def loss(policy):
        fixed = (jnp.asarray(W), jnp.asarray(D), jnp.asarray(0.4), batch().observation)
        draws = Draws(jnp.asarray(NOISE, jnp.float32), jnp.asarray(LATENTS, jnp.float32))
        return bear.policy_loss(NETWORKS, CONFIG, q_weight, policy, *fixed, draws)

    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(POLICY, jnp.float32))
    expected, mmd = by_hand(POLICY, q_weight, 0.4)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["mmd"], mmd, rtol=1e-5)
    for index in np.ndindex(2, 2, 2):
        step = np.zeros((2, 2, 2))
        step[index] = 1e-5
        slope = (by_hand(POLICY + step, q_weight, 0.4)[0] - by_hand(POLICY - step, q_weight, 0.4)[0]) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def steps():
    """(config, networks, [(state, metrics) after each of two real updates], the first at the end of the warm-up)."""
    rates = dict.fromkeys(("policy_learning_rate", "critic_learning_rate", "cvae_learning_rate"), 0.03)
    sizes = {"policy_hidden": (6,), "critic_hidden": (6,), "cvae_hidden": (6,), "batch_size": 8, "target_actions": 3}
    backbone = Backbone(**rates, **sizes, polyak_rate=0.25, warm_up_steps=5, log_multiplier_low=-0.0015)
    config = Config(mmd_limit=5.0, backbone=backbone)
    algorithm = BEAR.make(config, SPEC, None)
    update, state = jax.jit(algorithm.update), jax.jit(algorithm.init)(jax.random.key(0), None)
    results = [(state, None)]
    for step in (4, 5):
        results.append(update(results[-1][0], batch(8), jax.random.key(5 + step), jnp.asarray(step)))
    return config, mmd_actor_critic.make_networks(config.backbone, SPEC), results


def test_the_model_moves_by_its_own_loss_alone_and_targets_by_polyak(steps):
    _, networks, ((before, _), (after, _), _) = steps
    alone, _ = jax.jit(networks.model.fit_step)(before.cvae, batch(8), jax.random.split(jax.random.key(9), 4)[0])
    for left, right in zip(jax.tree.leaves(alone), jax.tree.leaves(after.cvae), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)
    leaves = (before.critic.target_params, after.critic.params, after.critic.target_params)
    for x, y, z in zip(*(jax.tree.leaves(it) for it in leaves), strict=True):
        np.testing.assert_allclose(z, 0.75 * x + 0.25 * y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("index", [0, 1])
def test_losses_see_the_new_model_and_the_old_critics_and_the_warm_up_ends_on_time(steps, index):
    config, networks, results = steps
    (before, _), (after, metrics), step = results[index], results[index + 1], 4 + index
    keys = jax.random.split(jax.random.key(5 + step), 4)
    noise = jax.random.normal(keys[2], (8, 4, 2))
    latents = jnp.clip(jax.random.normal(keys[3], (8, 4, 4)), -0.5, 0.5)
    decoder, log_multiplier = networks.model.params(after.cvae), before.log_multiplier.params
    draws = Draws(noise, latents)
    fixed = (before.policy.params, before.critic.params, decoder, log_multiplier, batch(8).observation, draws)
    policy_loss = jax.jit(partial(bear.policy_loss, networks, config))
    loss, parts = policy_loss(float(step >= 5), *fixed)
    np.testing.assert_allclose(metrics["policy_loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["mmd"], parts["mmd"], rtol=1e-4)
    other, _ = policy_loss(float(step < 5), *fixed)
    assert abs(float(loss - other)) > 1e-4
    # no MMD is above the square root of 2, so l falls by Adam's 1e-3, down to its lower clip; it climbs where the
    # constraint is violated in tests/learning/test_supports.py
    np.testing.assert_allclose(after.log_multiplier.params, [-0.001, -0.0015][index], rtol=1e-3)


def test_the_greedy_action_is_the_best_of_many_under_q1(steps):
    config, networks, results = steps
    state, observation = results[-1][0], jnp.array([[0.4, -0.3], [-1.2, 0.7], [2.0, 1.0]])
    found = compiled(BEAR.make(config, SPEC, None)).acting.act(state, observation, jax.random.key(7), True)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (100, 2)))  # the same in every state
    mean, log_std = map(np.asarray, jax.jit(networks.actor.moments)(state.policy.params, observation))
    apply = jax.jit(networks.critics.apply)
    for row in range(3):
        actions = np.tanh(mean[row] + np.exp(log_std[row]) * noise)
        q = apply(state.critic.params, jnp.tile(observation[row], (100, 1)), jnp.asarray(actions))
        np.testing.assert_allclose(found[row], actions[int(np.argmax(q[0]))], rtol=1e-5)


def test_constants_by_task_and_of_short_runs():
    from itrpo.training.configure import make_setup
    from itrpo.training.scaling import scaled_config

    for task, kernel in (
        ("hopper-medium", "laplacian"),
        ("walker2d-expert", "laplacian"),
        ("halfcheetah-random", "gaussian"),
    ):
        assert make_setup("bear", task=task).algorithm_config.backbone.kernel == kernel
    source = make_setup("bear", preset="source")
    assert scaled_config(source, 1_000_000).backbone.warm_up_steps == 40_000
    assert scaled_config(source, 300).backbone.warm_up_steps == 12
    given = make_setup("bear", preset="source", fields={"warm_up_steps": 7})
    assert scaled_config(given, 300).backbone.warm_up_steps == 7
