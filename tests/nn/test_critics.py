"""Losses and probes of critics that regress onto the same targets, in NumPy loops."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from itrpo.nn import critics
from itrpo.nn.ensemble import Ensemble
from tests.algorithms.td3_problem import NETWORKS, W, batch, q_of


def test_critic_loss_is_the_sum_of_both_mean_squares():
    rows, targets = batch(), np.array([1.0, -2.0, 0.5, 3.0])
    expected = sum(
        np.mean([(q_of(i, s, a) - y) ** 2 for s, a, y in zip(*map(np.asarray, rows[:2]), targets, strict=True)])
        for i in (0, 1)
    )
    loss, metrics = critics.critic_loss(NETWORKS.critics, jnp.asarray(W), rows, jnp.asarray(targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_target"], targets.mean(), rtol=1e-6)


def test_the_gradient_penalty_adds_its_weight_times_the_squared_slopes_of_all_critics():
    slopes, rows = np.array([[1.0, 2.0], [0.5, -3.0]], np.float32), batch()
    linear = Ensemble(None, lambda params, observation, action: params @ action.T, None)
    q = slopes @ np.asarray(rows.action).T
    expected = ((q - 2.0) ** 2).sum(0).mean()
    given = linear, 0.25, jnp.asarray(slopes), rows, jnp.full(len(rows.reward), 2.0)
    np.testing.assert_allclose(critics.penalised_critic_loss(*given, None)[0], expected, rtol=1e-5)
    loss, _ = critics.penalised_critic_loss(*given, jnp.zeros_like(rows.action))
    np.testing.assert_allclose(loss, expected + 0.25 * (slopes**2).sum(), rtol=1e-5)


def test_probes_are_means_of_the_least_q():
    rows = batch()
    found = critics.probes(NETWORKS.critics, jnp.asarray(W), rows, -rows.action)
    for name, sign in (("probe_q_data", 1), ("probe_q_policy", -1)):
        pairs = list(zip(*map(np.asarray, rows[:2]), strict=True))
        least = [min(q_of(i, s, sign * a) for i in (0, 1)) for s, a in pairs]
        np.testing.assert_allclose(found[name], np.mean(least), rtol=1e-5)
