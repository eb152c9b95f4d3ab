"""The update that trains the networks, run on a table with a categorical policy, is the paper's exact iteration.

The state is one-hot, the critic a table, the policy a table of probabilities; the algorithms' own `update` runs
unchanged. Two optimisers make one step exact: plain gradient descent at the rate
that sets Q to its target, and mirror descent at the rate that solves the regularised maximisation. Everything in
float64.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import brac, itrpo
from itrpo.algorithms.kl_actor_critic import Actions, Backbone, Networks, State
from itrpo.nn.ensemble import Ensemble
from itrpo.nn.trainable import trainable
from itrpo.theory import schemes
from itrpo.theory.mdp import make_mdp
from itrpo.types import Transition

STATES, ACTIONS, GAMMA, ALPHA, STEPS = 5, 3, 0.9, 0.7, 40


def instance(seed: int = 0):
    """A deterministic MDP, so that every (s, a) is one transition, and a behaviour policy without zeros."""
    rng = np.random.default_rng(seed)
    successors = rng.integers(STATES, size=(STATES, ACTIONS))
    reward = rng.normal(size=(STATES, ACTIONS))
    behavior = rng.dirichlet(np.ones(ACTIONS), size=STATES)
    mdp = make_mdp(np.eye(STATES)[successors], reward, np.full(STATES, 1 / STATES), GAMMA)
    state, action = np.divmod(np.arange(STATES * ACTIONS), ACTIONS)
    batch = Transition(
        observation=jnp.asarray(np.eye(STATES)[state]),
        action=jnp.asarray(np.eye(ACTIONS)[action]),
        reward=jnp.asarray(reward.ravel()),
        continues=jnp.ones(STATES * ACTIONS),
        next_observation=jnp.asarray(np.eye(STATES)[successors.ravel()]),
        next_action=jnp.zeros((STATES * ACTIONS, ACTIONS)),
    )
    return mdp, behavior, batch


def tables() -> Networks:
    """policy and behaviour params: probabilities [S, A]; critic params: [critics, S, A]."""

    def policy_actions(policy, behavior, observation, noise):
        p, b = observation @ policy, observation @ behavior
        every = jnp.broadcast_to(jnp.eye(ACTIONS), (len(observation), ACTIONS, ACTIONS))
        return Actions(every, p, jnp.sum(p * (jnp.log(p) - jnp.log(b)), axis=1))

    def log_ratio(policy, behavior, observation, action):
        p, b = (jnp.sum((observation @ table) * action, axis=1) for table in (policy, behavior))
        return jnp.log(p) - jnp.log(b)

    def q_values(critic, observation, action):
        return jnp.einsum("esa,bs,b...a->eb...", critic, observation, action)

    # the losses are means over rows; each state stands in ACTIONS of them
    optimizers = mirror_descent(rate=STATES / ALPHA), optax.sgd(STATES * ACTIONS / 2)
    return Networks(policy_actions, log_ratio, Ensemble(None, q_values, None), 1, *optimizers)


def mirror_descent(rate: float) -> optax.GradientTransformation:
    """p <- p exp(-rate * gradient) / normaliser, per state."""

    def step(gradients, state, params):
        moved = jax.nn.softmax(jnp.log(params) - rate * gradients, axis=-1)
        return moved - params, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), step)


def iterate(config, update) -> tuple[np.ndarray, np.ndarray]:
    """(policies [STEPS, S, A], Q tables [STEPS + 1, S, A]) of STEPS calls of `update`."""
    _, behavior, batch = instance()
    networks = tables()
    state = State(
        trainable(networks.policy_optimizer, jnp.asarray(behavior)),
        trainable(networks.critic_optimizer, jnp.zeros((2, STATES, ACTIONS)), target=True),
        jnp.asarray(behavior),
        jnp.ones(()),
    )
    policies, q_tables = [], [np.asarray(state.critic.params[0])]
    step = jax.jit(partial(update, config, networks))
    for number in range(STEPS):
        policies.append(np.asarray(state.policy.params))  # the policy that this step's target uses
        state, _ = step(state, batch, jax.random.key(number), jnp.asarray(number))
        q_tables.append(np.asarray(state.critic.params[0]))
    return np.stack(policies), np.stack(q_tables)


EXACT = Backbone(gamma=GAMMA, polyak_rate=1.0)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.9, 1.0])
def test_itrpo_update_is_equation_5(tau):
    mdp, behavior, _ = instance()
    exact = schemes.itrpo_vi(mdp, behavior, ALPHA, tau, STEPS)
    with jax.enable_x64(True):
        policies, q_tables = iterate(itrpo.Config(alpha=ALPHA, tau=tau, backbone=EXACT), itrpo.update)
    np.testing.assert_allclose(policies, exact.policies, atol=1e-10)
    np.testing.assert_allclose(q_tables, exact.q_values, atol=1e-10)


def test_brac_v_update_is_equation_4():
    mdp, behavior, _ = instance()
    exact = schemes.brac_vi(mdp, behavior, ALPHA, STEPS)
    with jax.enable_x64(True):
        policies, q_tables = iterate(brac.Config(alpha=ALPHA, backbone=EXACT), partial(brac.update, True))
    np.testing.assert_allclose(policies, exact.policies, atol=1e-10)
    np.testing.assert_allclose(q_tables, exact.q_values, atol=1e-10)


def test_brac_p_evaluates_its_policy_without_the_penalty():
    """At its fixed point Q is the plain value of the policy (Eq. 1), the policy softmax(log pi_beta + Q/alpha)."""
    mdp, behavior, _ = instance()
    with jax.enable_x64(True):
        backbone = Backbone(gamma=0.5, polyak_rate=1.0)
        policies, q_tables = iterate(brac.Config(alpha=ALPHA, backbone=backbone), partial(brac.update, False))
    policy, q = policies[-1], q_tables[-1]
    values = (policy * q).sum(-1)
    backed_up = mdp.reward + 0.5 * mdp.transition @ values
    np.testing.assert_allclose(q, backed_up, atol=1e-6)
    logits = np.log(behavior) + q / ALPHA
    np.testing.assert_allclose(policy, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), atol=1e-6)


def test_itrpo_differs_from_brac_at_the_same_alpha_and_agrees_at_alpha_times_one_minus_tau():
    """The fixed points of iTRPO(alpha, tau) and BRAC(alpha (1 - tau)) are one: what an ablation of tau must know."""
    mdp, behavior, _ = instance()
    tau = 0.5
    shaped = schemes.itrpo_vi(mdp, behavior, ALPHA, tau, 400).policies[-1]
    np.testing.assert_allclose(shaped, schemes.brac_vi(mdp, behavior, ALPHA * (1 - tau), 400).policies[-1], atol=1e-8)
    assert np.abs(shaped - schemes.brac_vi(mdp, behavior, ALPHA, 400).policies[-1]).max() > 0.05
