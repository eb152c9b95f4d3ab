"""A TD3 small enough to write its losses out: pi(s) = tanh(P s), Q_i(s,a) = w_i . (s, a) + (sum of a)^2."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from itrpo.algorithms.td3 import Networks
from itrpo.nn.actors import DeterministicActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.types import Transition

ROWS, GAMMA = 4, 0.9


def critic(params, observation, action):
    return jnp.concatenate([observation, action], axis=-1) @ params + jnp.sum(action, axis=-1) ** 2


NETWORKS = Networks(
    DeterministicActor(lambda key: None, lambda params, observation: jnp.tanh(observation @ params.T)),
    ensemble(Network(lambda key: None, critic), 2),
    optax.sgd(1.0),
    optax.sgd(1.0),
)
P = np.array([[0.5, -1.0], [1.5, 0.3]])
W = np.array([[0.2, -0.4, 1.0, -0.7], [-0.3, 0.1, 0.6, 0.9]])  # of Q_1 and Q_2
NOISE = np.array([[1.0, -0.5], [0.3, 4.0], [-9.0, 0.1], [2.0, 2.0]])


def batch(rows: int = ROWS) -> Transition:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows), np.arange(rows) != 1]
    parts += [2 * rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2))]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


def smoothed(s, noise):
    """The target actor's action at s, with noise of standard deviation 0.2 that is cut at 0.5."""
    return np.clip(np.tanh(P @ s) + np.clip(0.2 * noise, -0.5, 0.5), -1, 1)


def assert_gradient_is_slope(gradient, loss, point) -> None:
    """loss: of NumPy parameters like `point`."""
    for index in np.ndindex(point.shape):
        step = np.zeros(point.shape)
        step[index] = 1e-5
        slope = (loss(point + step) - loss(point - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-5)


def differs(one: Any, other: Any) -> bool:
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
