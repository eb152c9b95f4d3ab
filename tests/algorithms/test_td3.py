"""What TD3+BC, ReBRAC and SPOT share, against TD3's equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.algorithms import td3
from itrpo.algorithms.td3 import Backbone, State
from itrpo.nn.trainable import trainable
from tests.algorithms.td3_problem import GAMMA, NETWORKS, NOISE, P, W, batch, q_of, smoothed


def test_target_is_the_least_q_at_the_smoothed_target_action():
    rows, expected = batch(), []
    for s, r, c, e in zip(*map(np.asarray, (rows.next_observation, rows.reward, rows.continues)), NOISE, strict=True):
        a = smoothed(s, e)
        expected.append(r + GAMMA * c * min(q_of(0, s, a), q_of(1, s, a)))
    action = NETWORKS.actor.apply(jnp.asarray(P), rows.next_observation)
    found = td3.critic_targets(Backbone(gamma=GAMMA), NETWORKS, jnp.asarray(W), rows, action, jnp.asarray(NOISE))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_cloning_error_is_the_mean_square_of_what_the_actor_adds_to_the_logged_actions():
    rows, added = batch(), np.array([[0.5, -0.25]])
    own = NETWORKS.actor.apply(jnp.asarray(P), rows.observation)
    actor, critics = (trainable(NETWORKS.policy_optimizer, jnp.asarray(params)) for params in (P, W))
    found = td3.probes(NETWORKS, State(actor, critics, None, {}), rows._replace(action=own - added), jax.random.key(0))
    np.testing.assert_allclose(found["probe_cloning_error"], (0.5**2 + 0.25**2) / 2, rtol=1e-5)
