"""Fisher-BRC: its losses against NumPy, what its gradients reach, and the limits in which its policy is known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import fisher_brc
from itrpo.algorithms.fisher_brc import Config, Networks, State
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.trainable import Trainable, trainable
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC, GAMMA, WEIGHT, EDGE = SpaceSpec(1, 1), 0.9, 0.6, 1e-6
MEAN, LOG_STD, MEAN_BETA, LOG_STD_BETA = 0.3, -0.4, -0.2, -0.3


def moments(params, observation):
    return tuple(jnp.broadcast_to(each, (len(observation), 1)) for each in params)


def offsets(params, observation, action):
    """Two of them, constant + slope * atanh(a): params [N, 2]."""
    return params[:, :1] + params[:, 1:] * jnp.arctanh(jnp.clip(action[:, 0], -1 + EDGE, 1 - EDGE))[None]


ACTOR = GaussianActor(None, moments, SPEC)
OFFSETS = Ensemble(None, offsets, None)
POLICY_PARAMS, BEHAVIOR = jnp.array([MEAN, LOG_STD]), jnp.array([MEAN_BETA, LOG_STD_BETA])
OFFSET_PARAMS = jnp.array([[1.0, 0.5], [0.2, 2.0]])


def networks(*optimizers):
    model = GAUSSIAN.make(GAUSSIAN.config(hidden=(4,)), SPEC, 10)

    def log_prob(params, observation, u):
        return -0.5 * ((u[:, 0] - params[0]) / jnp.exp(params[1])) ** 2 - params[1] - 0.5 * np.log(2 * np.pi)

    optimizers = optimizers or [optax.set_to_zero()] * 3
    return Networks(ACTOR, OFFSETS, model._replace(pre_tanh_log_prob=log_prob), *optimizers)


def log_density(u, mean, log_std):
    """Of a = tanh(u), in action space."""
    normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return normal - np.log(1 - np.tanh(u) ** 2)


def q_by_hand(u, params=OFFSET_PARAMS):
    return np.asarray(params)[:, 0] + np.asarray(params)[:, 1] * u + log_density(u, MEAN_BETA, LOG_STD_BETA)


def batch(action=0.35, continues=1.0):
    """One row."""
    one = jnp.array([[0.4]])
    return Transition(one, jnp.array([[action]]), jnp.array([1.5]), jnp.array([continues]), one, one)


NOISE = 0.7
DRAWN = MEAN + np.exp(LOG_STD) * NOISE  # the pre-tanh action of that noise


@pytest.mark.parametrize("continues", [0.0, 1.0])
def test_critic_target_bootstraps_from_offset_plus_log_pi_beta_without_entropy(continues):
    policy, offsets = Trainable(POLICY_PARAMS, None, None), Trainable(None, None, OFFSET_PARAMS)
    state = State(policy, offsets, None, BEHAVIOR)
    target = fisher_brc.critic_targets(networks(), GAMMA, state, batch(continues=continues), jnp.array([[NOISE]]))
    np.testing.assert_allclose(target, [1.5 + GAMMA * continues * q_by_hand(DRAWN).min()], rtol=1e-5)


def test_critic_loss_is_squared_error_of_q_and_gradient_norm_of_the_offset_alone():
    action = np.array([-0.2])
    loss, _ = fisher_brc.critic_loss(
        Config(gradient_penalty=0.1, action_edge=EDGE),
        networks(),
        OFFSET_PARAMS,
        BEHAVIOR,
        batch(),
        jnp.array([2.0]),
        jnp.asarray(action, jnp.float32)[None],
    )
    errors = q_by_hand(np.arctanh(0.35)) - 2.0
    slopes = np.array([0.5, 2.0]) / (1 - action[0] ** 2)  # d atanh(a) / da
    np.testing.assert_allclose(loss, (errors**2).sum() + 0.1 * (slopes**2).sum(), rtol=1e-5)


def test_policy_loss_and_its_gradient_through_log_pi_beta():
    def by_hand(mean, log_std):
        u = mean + np.exp(log_std) * NOISE
        return WEIGHT * log_density(u, mean, log_std) - q_by_hand(u).min()

    def loss(params):
        noise, observation = jnp.array([[NOISE]]), jnp.array([[0.4]])
        weight = jnp.asarray(WEIGHT)
        return fisher_brc.policy_loss(networks(), weight, params, BEHAVIOR, OFFSET_PARAMS, observation, noise)[0]

    np.testing.assert_allclose(loss(POLICY_PARAMS), by_hand(MEAN, LOG_STD), rtol=1e-5)
    step = 1e-5
    numeric = [
        (by_hand(MEAN + step, LOG_STD) - by_hand(MEAN - step, LOG_STD)) / (2 * step),
        (by_hand(MEAN, LOG_STD + step) - by_hand(MEAN, LOG_STD - step)) / (2 * step),
    ]
    np.testing.assert_allclose(jax.grad(loss)(POLICY_PARAMS), numeric, rtol=1e-3)


def run(config, offsets, steps, critic_rate=0.0):
    """(mean, std, entropy weight) after updates with these offsets, learning or not."""
    learning = networks(
        optax.adam(optax.exponential_decay(0.02, steps // 3, 0.2)),
        optax.adam(optax.exponential_decay(critic_rate, steps // 3, 0.1)),
        optax.adam(config.entropy_learning_rate),
    )
    state = State(
        trainable(learning.policy_optimizer, POLICY_PARAMS),
        trainable(learning.critic_optimizer, offsets, target=True),
        trainable(learning.entropy_optimizer, jnp.log(jnp.float32(config.initial_entropy_weight))),
        BEHAVIOR,
    )
    rows = jax.tree.map(lambda column: jnp.repeat(column, 256, axis=0), batch())
    update = partial(fisher_brc.update, config, learning)

    def body(step, state):
        return update(state, rows, jax.random.fold_in(jax.random.key(0), step), step)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, steps, body, state))(state)
    mean, log_std = state.policy.params
    return float(mean), float(jnp.exp(log_std)), float(jnp.exp(state.log_entropy_weight.params)), state


def test_a_flat_offset_and_unit_entropy_weight_give_pi_beta_and_a_slope_tilts_it():
    """pi ~ exp(Q) = pi_beta exp(O): a slope k in u moves the mean of a Gaussian pi_beta by k sigma_beta^2."""
    config = Config(entropy_learning_rate=1e-12, initial_entropy_weight=1.0)
    flat = run(config, jnp.array([[0.3, 0.0], [0.3, 0.0]]), 1_500)
    np.testing.assert_allclose(flat[:2], (MEAN_BETA, np.exp(LOG_STD_BETA)), atol=0.02)
    tilted = run(config, jnp.array([[0.3, 0.8], [0.3, 0.8]]), 1_500)
    np.testing.assert_allclose(tilted[0], MEAN_BETA + 0.8 * np.exp(2 * LOG_STD_BETA), atol=0.03)
    np.testing.assert_array_equal(tilted[3].behavior_params, BEHAVIOR)


def test_entropy_weight_rises_below_the_target_entropy_and_falls_above_it():
    for target, rises in ((3.0, True), (-5.0, False)):  # the policy's own entropy lies between
        config = Config(target_entropy=target, entropy_learning_rate=1e-2)
        assert (run(config, jnp.zeros((2, 2)), 50)[2] > 1.0) == rises


def test_without_penalty_q_alone_is_fitted_and_the_penalty_flattens_the_offset():
    """One dataset action: Q fits its target there with any slope; only the penalty decides the slope."""
    slopes = {}
    for penalty in (0.0, 5.0):
        config = Config(gradient_penalty=penalty, gamma=0.0, entropy_learning_rate=1e-12)
        offsets = run(config, OFFSET_PARAMS, 1_500, critic_rate=0.05)[3].critic.params
        q = np.asarray(offsets)[:, 0] + np.asarray(offsets)[:, 1] * np.arctanh(0.35)
        np.testing.assert_allclose(q + log_density(np.arctanh(0.35), MEAN_BETA, LOG_STD_BETA), 1.5, atol=0.02)
        slopes[penalty] = np.abs(np.asarray(offsets)[:, 1])
    assert (slopes[0.0] > 0.1).any()
    assert (slopes[5.0] < 1e-3).all()


WIDE = SpaceSpec(3, 2)  # networks of real layers, two action dimensions
SMALL = Config(policy_hidden=(8,), critic_hidden=(8,), log_std_low=-5.0)


def made(config: Config):
    """(algorithm with a Gaussian pi_beta, its state with pi = pi_beta, 16 rows)."""
    model = compiled(GAUSSIAN.make(GAUSSIAN.config(hidden=(8,)), WIDE, 10))
    algorithm = compiled(fisher_brc.FISHER_BRC.make(config, WIDE, model))
    params = model.params(model.init(jax.random.key(1)))
    state = algorithm.init(jax.random.key(0), params)
    rng = np.random.default_rng(0)
    shapes = ((16, 3), (16, 2), (16,), (16,), (16, 3), (16, 2))
    rows = Transition(*(jnp.asarray(rng.uniform(-0.9, 0.9, shape), jnp.float32) for shape in shapes))
    return algorithm, state._replace(policy=state.policy._replace(params=params)), rows


@pytest.mark.parametrize("share", [0.8, 1.2])
def test_the_entropy_target_is_per_action_dimension_and_the_step_of_its_weight_has_the_size_of_the_shortfall(share):
    """The policy's entropy H is measured first; then a target of share * H in all. Adam's first step is the sign."""
    algorithm, state, rows = made(SMALL)
    entropy = float(algorithm.update(state, rows, jax.random.key(2), jnp.asarray(0))[1]["entropy"])
    _, log_prob = jax.jit(gaussian_actor(WIDE, (8,), (-5.0, 2.0)).sample)(
        state.policy.params, rows.observation, jax.random.normal(jax.random.key(2), (3, 16, 2))[1]
    )
    np.testing.assert_allclose(entropy, -log_prob.mean(), rtol=1e-5)
    algorithm, state, rows = made(replace(SMALL, target_entropy=share * entropy / 2))
    after, _ = algorithm.update(state, rows, jax.random.key(2), jnp.asarray(0))
    shortfall = share * entropy - entropy
    assert np.sign(after.log_entropy_weight.params) == np.sign(shortfall)
    np.testing.assert_allclose(after.log_entropy_weight.opt_state[0].mu, -0.1 * shortfall, rtol=1e-4)  # of w = 1


def test_probes_where_pi_is_pi_beta():
    algorithm, state, rows = made(SMALL)
    found = algorithm.probes(state, rows, jax.random.key(3))
    np.testing.assert_allclose(found["probe_kl"], 0.0, atol=1e-5)
    mean, log_std = jax.jit(gaussian_actor(WIDE, (8,), (-5.0, 2.0)).moments)(state.policy.params, rows.observation)
    action = jnp.tanh(mean + jnp.exp(log_std) * jax.random.normal(jax.random.key(3), (16, 2)))
    critics = critic_ensemble(WIDE, (8,), 2, "fan_in")
    jacobian = jax.jit(jax.jacrev(critics.apply, argnums=2))(
        state.critic.params, rows.observation, action
    )  # [N, B, B, A]
    expected = np.sqrt(np.square(jacobian).sum((0, 2, 3)) / 2).mean()
    np.testing.assert_allclose(found["probe_action_gradient_norm"], expected, rtol=1e-4)
