"""Initial parameters follow the laws of their sources; ensembles differ only in them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.nn.ensemble import critic_ensemble, ensemble, first_member
from itrpo.nn.heads import MLP, DeterministicPolicy, QValue, StateValue
from itrpo.nn.network import network, orthogonal
from itrpo.types import SpaceSpec
from tests.compiled import compiled

SIZES, HEAD = (30, 50, 4), 1e-3  # in, hidden, out


def layers(initializer):
    made = network(lambda draw: MLP(draw, SIZES, initializer, head_scale=HEAD)).init(jax.random.key(0))
    return [(np.asarray(it.weight), np.asarray(it.bias)) for it in made.layers]


def assert_uniform(values, limit):
    """From U(-limit, limit): the largest is near the limit, and the variance is limit^2 / 3."""
    assert np.abs(values).max() <= limit
    assert np.abs(values).max() > 0.85 * limit
    np.testing.assert_allclose(values.var(), limit**2 / 3, rtol=0.3)


@pytest.mark.parametrize(
    ("initializer", "hidden", "hidden_bias", "head", "head_bias"),
    [
        ("fan_in", 30**-0.5, 30**-0.5, 50**-0.5, 50**-0.5),
        ("fan_in_small_head", 30**-0.5, 30**-0.5, HEAD, HEAD),
        ("rlkit", 50**-0.5, 0.0, HEAD, HEAD),
        ("rlkit_biased", 50**-0.5, 0.1, HEAD, HEAD),
        ("glorot", (6 / 80) ** 0.5, 0.0, (6 / 54) ** 0.5, 0.0),
        ("edac", 30**-0.5, 0.1, HEAD, HEAD),
    ],
)
def test_uniform_laws(initializer, hidden, hidden_bias, head, head_bias):
    (first, first_bias), (last, last_bias) = layers(initializer)
    assert_uniform(first, hidden)
    assert_uniform(last, head)
    if initializer.startswith("fan_in"):
        assert_uniform(first_bias, hidden_bias)
    else:
        np.testing.assert_allclose(first_bias, hidden_bias)
    assert np.abs(last_bias).max() <= head_bias
    assert (np.abs(last_bias).max() > 0) == (head_bias > 0)


@pytest.mark.parametrize(("initializer", "head_gain"), [("orthogonal", 2**0.5), ("orthogonal_small_head", 0.01)])
def test_orthogonal_laws(initializer, head_gain):
    (first, first_bias), (last, last_bias) = layers(initializer)
    np.testing.assert_allclose(first.T @ first, 2 * np.eye(30), atol=1e-5)  # 50 x 30: orthonormal columns times sqrt(2)
    np.testing.assert_allclose(last @ last.T, head_gain**2 * np.eye(4), atol=1e-5)  # 4 x 50: rows
    assert not first_bias.any()
    assert not last_bias.any()


def test_orthogonal_matrices_point_everywhere():
    """Each entry of a 3 x 3 matrix has mean 0 and mean square 1/3."""
    draws = jax.vmap(orthogonal)(jax.random.uniform(jax.random.key(1), (4000, 3, 3), minval=-1.0, maxval=1.0))
    assert np.abs(np.mean(draws, axis=0)).max() < 5 * 3**-0.5 / 4000**0.5
    np.testing.assert_allclose(np.mean(np.square(draws), axis=0), 1 / 3, atol=0.03)


def test_heads_are_their_layers_and_members_of_an_ensemble_differ():
    spec, observation = SpaceSpec(3, 2), jnp.array([0.5, -1.0, 2.0])
    policy = compiled(network(lambda draw: DeterministicPolicy(draw, spec, (4,))))
    value = compiled(ensemble(network(lambda draw: StateValue(draw, spec, (4,))), 3))
    params, members = policy.init(jax.random.key(2)), value.init(jax.random.key(3))

    def by_hand(mlp, index=...):
        (w0, b0), (w1, b1) = ((np.asarray(it.weight)[index], np.asarray(it.bias)[index]) for it in mlp.layers)
        return w1 @ np.maximum(w0 @ np.asarray(observation) + b0, 0) + b1

    np.testing.assert_allclose(policy.apply(params, observation), by_hand(params.mlp), rtol=1e-5)
    values = value.apply(members, observation)
    np.testing.assert_allclose(values, [by_hand(members.mlp, i)[0] for i in range(3)], rtol=1e-5)
    assert len(np.unique(values)) == 3


@pytest.mark.parametrize("layer_norm", [False, True])
def test_q_values_of_many_actions_are_those_of_each(layer_norm):
    """The observation's part of the first layer is shared, in values and in gradients."""
    critic = compiled(network(lambda draw: QValue(draw, SpaceSpec(4, 2), (8, 8), layer_norm=layer_norm)))
    params = critic.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    observation, actions, weights = (
        jnp.asarray(rng.normal(size=size), "float32") for size in ((3, 4), (3, 5, 2), (3, 5))
    )

    def one_by_one(params):
        q = [critic.apply(params, observation, actions[:, i]) for i in range(5)]
        return jnp.sum(jnp.stack(q, axis=1) * weights)

    def together(params):
        return jnp.sum(critic.apply(params, observation, actions) * weights)

    assert critic.apply(params, observation, actions).shape == (3, 5)
    for one, other in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(one_by_one))(params)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(together))(params)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_ensemble_is_each_member_at_each_row(layer_norm):
    critics = compiled(critic_ensemble(SpaceSpec(3, 2), (8, 8), 4, "fan_in", layer_norm))
    params = critics.init(jax.random.key(1))
    observations, actions = jnp.ones((5, 3)) * jnp.arange(5.0)[:, None], jnp.full((5, 2), 0.3)
    q = critics.apply(params, observations, actions)
    assert q.shape == (4, 5)
    for i in range(4):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        alone = critics.apply_one(member, observations[3:4], actions[3:4])
        np.testing.assert_allclose(q[i, 3], alone[0], rtol=1e-5)
    np.testing.assert_allclose(critics.apply_one(first_member(params), observations, actions), q[0], rtol=1e-6)
