"""The author's in-sample variant: its losses against NumPy, what its gradients reach, and a problem solved by hand."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import itrpo_insample
from itrpo.algorithms.itrpo_insample import Config, Networks, State
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.nn.actors import GaussianActor
from itrpo.nn.critics import penalised_critic_loss
from itrpo.nn.ensemble import Ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(1, 1)
ALPHA, TAU, EXPECTILE, GAMMA = 0.7, 0.4, 0.8, 0.9
MEAN, LOG_STD, MEAN_BETA, LOG_STD_BETA = 0.3, -0.4, -0.2, 0.1


def moments(params, observation):
    return tuple(jnp.broadcast_to(each, (len(observation), 1)) for each in params)


# a policy of two numbers, a value v0 + v1 s, critics q_i + a
ACTOR = GaussianActor(None, moments, SPEC)
VALUE = Network(None, lambda params, observation: params[0] + params[1] * observation[:, 0])
CRITICS = Ensemble(None, lambda params, observation, action: params[:, None] + action[:, 0][None], None)


def networks():
    model = GAUSSIAN.make(GAUSSIAN.config(hidden=(4,)), SPEC, 10)

    def log_prob(params, observation, u):
        return -0.5 * ((u[:, 0] - params[0]) / jnp.exp(params[1])) ** 2 - params[1] - 0.5 * np.log(2 * np.pi)

    return Networks(ACTOR, CRITICS, VALUE, model._replace(pre_tanh_log_prob=log_prob), *[optax.sgd(0.1)] * 3)


def batch(action=0.35, reward=1.5, continues=1.0):
    """One row."""
    one, numbers = jnp.array([[0.4]]), (jnp.array([reward]), jnp.array([continues]))
    return Transition(one, jnp.array([[action]]), *numbers, jnp.array([[-0.6]]), one)


def gaussian(u, mean, log_std):
    return -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)


def ratio_by_hand(action=0.35):
    u = np.arctanh(action)
    return gaussian(u, MEAN, LOG_STD) - gaussian(u, MEAN_BETA, LOG_STD_BETA)


POLICY_PARAMS, BEHAVIOR = jnp.array([MEAN, LOG_STD]), jnp.array([MEAN_BETA, LOG_STD_BETA])
VALUE_PARAMS, CRITIC_PARAMS = jnp.array([0.5, 2.0]), jnp.array([1.0, -0.5])


@pytest.mark.parametrize("continues", [0.0, 1.0])
@pytest.mark.parametrize("low", [-np.inf, 0.8])
def test_critic_target_is_eq_5_with_the_value_of_the_next_state(continues, low):
    config = Config(alpha=ALPHA, tau=TAU, gamma=GAMMA, log_ratio_low=float(low))
    ratio = itrpo_insample.log_ratio(networks(), 1e-6, POLICY_PARAMS, BEHAVIOR, batch())
    np.testing.assert_allclose(ratio, [ratio_by_hand()], rtol=1e-5)
    assert 0 < ratio_by_hand() < 0.8
    target = itrpo_insample.critic_targets(networks(), config, VALUE_PARAMS, batch(continues=continues), ratio)
    next_value = 0.5 + 2.0 * -0.6
    np.testing.assert_allclose(
        target, [1.5 + TAU * ALPHA * max(ratio_by_hand(), low) + GAMMA * continues * next_value], rtol=1e-5
    )


@pytest.mark.parametrize("q", [5.0, -5.0])  # above and below V(s): both sides of the expectile
def test_value_loss_regresses_onto_q_less_the_log_ratio(q):
    config = Config(alpha=ALPHA, expectile=EXPECTILE)
    given = jnp.array([q]), jnp.array([ratio_by_hand()])
    loss, _ = itrpo_insample.value_loss(networks(), config, VALUE_PARAMS, batch(), *given)
    error = q - ALPHA * ratio_by_hand() - (0.5 + 2.0 * 0.4)
    np.testing.assert_allclose(loss, (EXPECTILE if error > 0 else 1 - EXPECTILE) * error**2, rtol=1e-5)


def test_policy_loss_weighs_log_likelihood_by_the_exponential_advantage():
    config = Config(alpha=ALPHA, action_edge=1e-6, weight_limit=3.0)
    u = np.arctanh(0.35)
    log_prob = gaussian(u, MEAN, LOG_STD) - np.log(1 - 0.35**2)
    for advantage, weight in ((0.2, np.exp(0.2 / ALPHA)), (9.0, 3.0)):
        loss, metrics = itrpo_insample.policy_loss(networks(), config, POLICY_PARAMS, batch(), jnp.array([advantage]))
        np.testing.assert_allclose((loss, metrics["policy_weight"]), (-weight * log_prob, weight), rtol=1e-5)


def test_critic_loss_adds_the_gradient_penalty():
    given = CRITIC_PARAMS, batch(), jnp.array([2.0]), jnp.array([[-0.2]])
    loss, _ = jax.jit(partial(penalised_critic_loss, networks().critics, 0.1))(*given)
    errors = np.array([1.0, -0.5]) + 0.35 - 2.0
    np.testing.assert_allclose(loss, (errors**2).sum() + 0.1 * 2 * 1.0**2, rtol=1e-5)  # dQ/da = 1 in both


def one_update(config):
    state = State(
        trainable(networks().policy_optimizer, POLICY_PARAMS),
        trainable(networks().critic_optimizer, CRITIC_PARAMS, target=True),
        trainable(networks().value_optimizer, VALUE_PARAMS),
        BEHAVIOR,
    )
    arguments = (batch(), jax.random.key(0), jnp.asarray(0))
    return state, jax.jit(partial(itrpo_insample.update, config, networks()))(state, *arguments)[0]


def test_every_loss_is_taken_before_any_step():
    """One plain gradient step of each from the same parameters, worked out by hand."""
    config = Config(ALPHA, TAU, EXPECTILE, gamma=GAMMA, action_edge=1e-6, gradient_penalty=0.0, polyak_rate=0.25)
    _, after = one_update(config)
    ratio, value, next_value = ratio_by_hand(), 0.5 + 2.0 * 0.4, 0.5 + 2.0 * -0.6
    q = np.array([1.0, -0.5]) + 0.35
    target = 1.5 + TAU * ALPHA * ratio + GAMMA * next_value
    critic = np.array([1.0, -0.5]) - 0.1 * 2 * (q - target)
    np.testing.assert_allclose(after.critic.params, critic, rtol=1e-5)
    np.testing.assert_allclose(after.critic.target_params, 0.75 * np.array([1.0, -0.5]) + 0.25 * critic, rtol=1e-5)
    error = q.min() - ALPHA * ratio - value
    slope = -2 * (EXPECTILE if error > 0 else 1 - EXPECTILE) * error
    np.testing.assert_allclose(after.value.params, [0.5 - 0.1 * slope, 2.0 - 0.1 * slope * 0.4], rtol=1e-5)
    u, weight = np.arctanh(0.35), min(np.exp((q.min() - value) / ALPHA), 100.0)
    std = np.exp(LOG_STD)
    gradient = -weight * np.array([(u - MEAN) / std**2, ((u - MEAN) / std) ** 2 - 1])
    np.testing.assert_allclose(after.policy.params, np.array([MEAN, LOG_STD]) - 0.1 * gradient, rtol=1e-5)
    np.testing.assert_array_equal(after.behavior_params, BEHAVIOR)


def test_at_pi_beta_and_expectile_a_half_it_is_the_value_of_pi_beta():
    """With l = 0, V is the mean of Q over the data: evaluation of pi_beta (SARSA), and tau changes nothing."""
    config = Config(ALPHA, TAU, expectile=0.5, gamma=GAMMA)
    ratio = itrpo_insample.log_ratio(networks(), 1e-6, BEHAVIOR, BEHAVIOR, batch())
    target = itrpo_insample.critic_targets(networks(), config, VALUE_PARAMS, batch(), ratio)
    np.testing.assert_allclose(target, [1.5 + GAMMA * (0.5 + 2.0 * -0.6)], rtol=1e-6)
    rows = jax.tree.map(lambda column: jnp.repeat(column, 3, axis=0), batch())

    def loss(v):
        q = jnp.array([0.0, 1.0, 5.0])
        return itrpo_insample.value_loss(networks(), config, jnp.array([v, 0.0]), rows, q, jnp.zeros(3))[0]

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0), 0.0, atol=1e-5)  # at the mean
