"""A soft actor-critic small enough to write its steps out: linear mean, constant spread, critics linear in features.

The algorithms' own updates run on it; what they should come to is worked out here in NumPy.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import trainable
from itrpo.types import SpaceSpec, Transition

ROWS, GAMMA, POLYAK = 4, 0.9, 0.25
POLICY_RATE, CRITIC_RATE, ENTROPY_RATE = 0.1, 0.2, 0.3  # plain descent, so that a step shows its gradient


def policy(params, observation):
    mean = params["bias"][None] + observation @ params["slope"]
    return mean, jnp.broadcast_to(params["log_std"][None], mean.shape)


def critic(params, observation, action):
    """w . (1, s, a_1, a_2, a_1 a_2, s a_1, a_2^2) for observation [B, 1] and action [B, 2] or [B, n, 2]."""
    state = observation if action.ndim == 2 else observation[:, None]
    state = jnp.broadcast_to(state, (*action.shape[:-1], 1))
    first, second = action[..., :1], action[..., 1:]
    ones = jnp.ones_like(first)
    features = jnp.concatenate([ones, state, first, second, first * second, state * first, second**2], axis=-1)
    return features @ params


def networks(policy: Any, critic: Any, spec: SpaceSpec, members: int, *optimizers: Any) -> Networks:
    """policy(params, observation) -> mean, log_std; critic(params of one, observation, action) -> Q. No `init`."""
    actor = GaussianActor(lambda key: None, policy, spec)
    return Networks(actor, ensemble(Network(lambda key: None, critic), members), *optimizers)


DESCENTS = [optax.sgd(rate) for rate in (POLICY_RATE, CRITIC_RATE, ENTROPY_RATE)]
NETWORKS = networks(policy, critic, SpaceSpec(1, 2), 2, *DESCENTS)
POLICY = {"bias": jnp.array([0.2, -0.4]), "slope": jnp.array([[0.7, -0.3]]), "log_std": jnp.array([-0.5, 0.1])}


def critic_params(members: int) -> Any:
    return jnp.asarray(np.random.default_rng(5).normal(size=(members, 7)), jnp.float32)


def start(state: type, members: int, *more: Any) -> Any:
    """A state whose target critics are not its critics, and whose entropy weight is not 1."""
    critics = trainable(NETWORKS.critic_optimizer, critic_params(members))
    critics = critics._replace(target_params=0.5 * critics.params + 0.3)
    weight = trainable(NETWORKS.entropy_optimizer, jnp.asarray(-0.7))
    return state(trainable(NETWORKS.policy_optimizer, POLICY), critics, weight, *more)


def batch() -> Transition:
    rng = np.random.default_rng(0)
    parts = (
        rng.normal(size=(ROWS, 1)),
        rng.uniform(-0.9, 0.9, (ROWS, 2)),
        rng.normal(size=ROWS),
        np.array([1.0, 0.0, 1.0, 1.0]),
        rng.normal(size=(ROWS, 1)),
        np.zeros((ROWS, 2)),
    )
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


# --- the pieces of every step, written out in NumPy, gradients by differences -----------------------------------------


def numbers(tree: Any) -> Any:
    return jax.tree.map(lambda it: np.asarray(it, np.float64), tree)


def sampled(params, observation, noise):
    """Actions and log densities for noise [B, 2], by the change of variables as it is in books."""
    observation, noise = numbers((observation, noise))
    action = np.tanh(params["bias"] + observation @ params["slope"] + np.exp(params["log_std"]) * noise)
    normal = -0.5 * noise**2 - params["log_std"] - 0.5 * np.log(2 * np.pi)
    return action, np.sum(normal - np.log(1 - action**2), axis=1)


def q_of(w, observation, action):
    """[B] of `critic`'s features, for actions [B, 2]."""
    s, (a, b) = np.asarray(observation, np.float64)[:, 0], np.asarray(action, np.float64).T
    return np.stack([np.ones_like(s), s, a, b, a * b, s * a, b**2], axis=1) @ w


def descended(params, rate, loss):
    """params - rate * gradient of loss(params), by central differences. params: an array, or a dict of them."""
    if not isinstance(params, dict):
        return descended({"": params}, rate, lambda it: loss(it[""]))[""]
    stepped = {name: value.copy() for name, value in params.items()}
    for name, value in params.items():
        for index in np.ndindex(value.shape):
            ends = []
            for nudge in (1e-5, -1e-5):
                moved = {key: it.copy() for key, it in params.items()}
                moved[name][index] += nudge
                ends.append(loss(moved))
            stepped[name][index] -= rate * (ends[0] - ends[1]) / 2e-5
    return stepped


def entropy_step(log_weight, log_prob):
    """Descent on -log_weight * mean(log pi - 2): two dimensions, a target of -2 nats."""
    return log_weight + ENTROPY_RATE * (np.mean(log_prob) - 2.0)


def policy_step(params, critics, log_weight, observation, noise):
    def loss(params):
        action, log_prob = sampled(params, observation, noise)
        smallest = np.min([q_of(w, observation, action) for w in critics], axis=0)
        return np.mean(np.exp(log_weight) * log_prob - smallest)

    return descended(params, POLICY_RATE, loss)


def assert_state(state, policy_params, critics, old_targets, log_weight):
    for name, value in policy_params.items():
        np.testing.assert_allclose(state.policy.params[name], value, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(state.critic.params, critics, rtol=2e-4, atol=1e-5)
    targets = (1 - POLYAK) * np.asarray(old_targets) + POLYAK * critics
    np.testing.assert_allclose(state.critic.target_params, targets, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(state.log_entropy_weight.params, log_weight, rtol=1e-5)
