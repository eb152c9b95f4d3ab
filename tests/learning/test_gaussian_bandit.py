"""The one problem whose optimum is known: one state, Gaussian pi_beta, reward -(u - c)^2 of the pre-tanh action u.

    BRAC    pi* ~ pi_beta exp(r / alpha):             precision 1/sigma_beta^2 + 2/alpha
    iTRPO   pi* ~ pi_beta exp(r / (alpha (1 - tau))): the same with alpha (1 - tau), since its Q holds the shaping too

Derived from Eq. (5) with gamma = 0. The real `update` runs, on a policy of two parameters and a critic quadratic in u.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import brac, itrpo, kl_actor_critic
from itrpo.algorithms.kl_actor_critic import Backbone, State
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import Ensemble
from itrpo.nn.trainable import Trainable, trainable
from itrpo.types import SpaceSpec, Transition

MEAN_BETA, STD_BETA, CENTER, ROWS = 0.2, 0.6, 0.9, 64


def moments(params, observation):
    return tuple(jnp.broadcast_to(each, (len(observation), 1)) for each in params)


def quadratic(params, observation, action):
    """params [N, 3]."""
    u = jnp.arctanh(jnp.clip(action, -1 + 1e-6, 1 - 1e-6))[..., 0]
    return jnp.einsum("Nk,k...->N...", params, jnp.stack([jnp.ones(u.shape), u, u**2]))


ACTOR = GaussianActor(None, moments, SpaceSpec(1, 1))
CRITICS = Ensemble(None, quadratic, None)


def behavior():
    """pi_beta with parameters (mean, log std) in the place of a network."""
    model = GAUSSIAN.make(GAUSSIAN.config(hidden=(4,)), SpaceSpec(1, 1), 10)

    def log_prob(params, observation, u):
        standardised = (u[..., 0] - params[0]) / jnp.exp(params[1])
        return -0.5 * standardised**2 - params[1] - 0.5 * np.log(2 * np.pi)

    return model._replace(moments=moments, pre_tanh_log_prob=log_prob)


def solve(config, update, steps: int = 6_000) -> tuple[float, float]:
    """(mean, std) that the policy settles at."""
    return settled(config, update, steps)[:2]


def settled(config, update, steps: int, weight: Trainable | None = None) -> tuple[float, float, State]:
    """(mean, std) of the policy, and the state; weight: an alpha that adapts."""
    networks = kl_actor_critic.gaussian_networks(config.backbone, ACTOR, CRITICS, behavior())
    falling = optax.adam(optax.exponential_decay(0.02, steps // 3, 0.2))
    networks = networks._replace(policy_optimizer=falling, critic_optimizer=falling)
    params = jnp.array([MEAN_BETA, jnp.log(STD_BETA)])
    state = State(
        trainable(falling, params),
        trainable(falling, jnp.zeros((2, 3)), target=True),
        params,
        jnp.ones(()),
        weight,
    )

    def body(step, state):
        data_key, update_key = jax.random.split(jax.random.fold_in(jax.random.key(0), step))
        u = MEAN_BETA + STD_BETA * jax.random.normal(data_key, (ROWS, 1))
        zeros = jnp.zeros((ROWS, 1))
        batch = Transition(zeros, jnp.tanh(u), -jnp.square(u[:, 0] - CENTER), zeros[:, 0], zeros, zeros)
        return update(config, networks, state, batch, update_key, step)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, steps, body, state))(state)
    return float(state.policy.params[0]), float(jnp.exp(state.policy.params[1])), state


def optimum(temperature: float) -> tuple[float, float]:
    precision = 1 / STD_BETA**2 + 2 / temperature
    return (MEAN_BETA / STD_BETA**2 + 2 * CENTER / temperature) / precision, precision**-0.5


BACKBONE = Backbone(action_edge=1e-6, critics=2)


@pytest.mark.parametrize(("alpha", "kl"), [(0.5, "closed_form"), (3.0, "sampled")])
def test_brac_reaches_the_optimum(alpha, kl):
    config = brac.Config(alpha=alpha, backbone=Backbone(action_edge=1e-6, kl=kl))
    np.testing.assert_allclose(solve(config, partial(brac.update, True)), optimum(alpha), rtol=0.03)


@pytest.mark.parametrize("tau", [None, 0.5])
def test_an_alpha_that_adapts_holds_the_kl_at_its_target(tau):
    """And the policy at that alpha's optimum: 0.2 nats belong to alpha (1 - tau) of about 0.9; no tau: BRAC."""
    start, target = 2.0, 0.2
    if tau is None:
        config, update = (
            brac.Config(alpha=start, divergence_target=target, backbone=BACKBONE),
            partial(brac.update, True),
        )
    else:
        config, update = itrpo.Config(alpha=start, tau=tau, divergence_target=target, backbone=BACKBONE), itrpo.update
    weight = kl_actor_critic.start_weight(start, target)
    mean, std, state = settled(config, update, 6_000, weight)
    kl = np.log(STD_BETA / std) + (std**2 + (mean - MEAN_BETA) ** 2) / (2 * STD_BETA**2) - 0.5
    np.testing.assert_allclose(kl, target, rtol=0.03)
    temperature = float(state.weight.params) * (1 - (tau or 0))
    np.testing.assert_allclose((mean, std), optimum(temperature), rtol=0.03)


@pytest.mark.parametrize("tau", [0.3, 0.8])
def test_itrpo_reaches_the_optimum_of_alpha_times_one_minus_tau(tau):
    alpha = 1.5
    found = solve(itrpo.Config(alpha=alpha, tau=tau, backbone=BACKBONE), itrpo.update)
    np.testing.assert_allclose(found, optimum(alpha * (1 - tau)), rtol=0.03)
    assert abs(found[1] - optimum(alpha)[1]) > 0.03 * optimum(alpha)[1]


def test_clip_of_the_log_ratio_weakens_the_shaping():
    """Clipped from below, unlikely actions are punished less, so Q's curvature shrinks: the policy stays wider."""
    free = solve(itrpo.Config(alpha=1.5, tau=0.8, backbone=BACKBONE), itrpo.update)
    clipped = solve(itrpo.Config(alpha=1.5, tau=0.8, log_ratio_low=-1.0, backbone=BACKBONE), itrpo.update)
    assert clipped[1] > 1.1 * free[1]


def test_a_large_alpha_clones_pi_beta():
    found = solve(itrpo.Config(alpha=1e4, tau=0.5, backbone=BACKBONE), itrpo.update)
    np.testing.assert_allclose(found, (MEAN_BETA, STD_BETA), rtol=0.02)
