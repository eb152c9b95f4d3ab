"""Policies over choices judged: exact expectations over what they may choose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.ope.fqe import choice_ensemble
from itrpo.ope.log import log_of, one_hot
from itrpo.types import Dataset, DataSource, SpaceSpec, Transition


def test_a_log_has_codes_and_does_not_know_what_came_after_its_ends():
    rows = Transition(
        np.zeros((4, 1), np.float32),
        np.array([2, 0, 1, 1], np.int32),
        np.ones(4, np.float32),
        np.array([1, 1, 1, 0], np.float32),
        np.zeros((4, 1), np.float32),
        np.array([0, 0, 1, 0], np.int32),
    )
    ends, one = np.ones(1), np.ones(1, np.float32)
    source = DataSource("x", "arrays")
    dataset = Dataset(
        "x", rows, None, 0 * one, 2 * one, ends, ends, 4, 1, 0, source, starts=np.array([0, 2]), num_actions=3
    )
    log = log_of(dataset)
    assert log.choices
    np.testing.assert_array_equal(log.rows.action, np.eye(3)[[2, 0, 1, 1]])
    np.testing.assert_array_equal(log.rows.next_action, [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_a_critic_of_choices_is_linear_in_their_probabilities():
    critics = choice_ensemble(SpaceSpec(2, 3), (8,), 2, "fan_in", True)
    params, observation = critics.init(jax.random.key(0)), jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    each = critics.apply(params, observation, jnp.broadcast_to(jnp.asarray(one_hot(np.arange(3), 3)), (5, 3, 3)))
    assert np.std(each) > 0.01
    policy = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(3), 5), jnp.float32)
    exact = critics.apply(params, observation, policy[:, None])
    np.testing.assert_allclose(exact[..., 0], jnp.einsum("mba,ba->mb", each, policy), rtol=1e-4)
