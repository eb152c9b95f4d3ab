"""BCQ against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import bcq
from itrpo.algorithms.bcq import BCQ, Config, Networks
from itrpo.behavior import cvae
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.heads import with_observation
from itrpo.nn.network import Network
from itrpo.nn.trainable import Trainable
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC = SpaceSpec(2, 2)
CONFIG = Config(phi=0.3, min_weight=0.6, gamma=0.9, polyak_rate=0.25, batch_size=4, target_actions=3, acting_actions=5)
TINY = {"policy_hidden": (6,), "critic_hidden": (6,), "cvae_hidden": (6,)}

# G(s, z) = D (s, z);  xi(s, a) = X (s, a);  Q(s, a) = w . (s, a) + (sum of a)^2; for one z or a at each state, or n


def linear(params, observation, value):
    return with_observation(observation, value) @ params.T


def critic(params, observation, action):
    return linear(params, observation, action) + jnp.sum(action, axis=-1) ** 2


NETWORKS = Networks(
    cvae.make(cvae.Config(hidden=(4,)), SPEC, 0)._replace(decode=linear),
    Network(lambda key: None, linear),
    ensemble(Network(lambda key: None, critic), 2),
    *[optax.set_to_zero()] * 2,
)
RNG = np.random.default_rng(0)
D, X = RNG.normal(size=(2, 6)), RNG.normal(size=(2, 4))
W = np.array([[0.2, -0.4, 2.0, -1.7], [-0.3, 0.1, -1.6, 1.9]])  # of Q_1 and Q_2


def batch(rows: int = 4) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def action_of(x, s, z):
    decoded = np.tanh(D @ np.concatenate([s, z]))
    return np.clip(decoded + CONFIG.phi * np.tanh(x @ np.concatenate([s, decoded])), -1, 1)


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


def test_actions_are_decoded_and_moved_by_at_most_phi():
    rng = np.random.default_rng(2)
    s, z = rng.normal(size=(20, 2)), rng.normal(size=(20, 3, 4))
    found = bcq.proposed_action(CONFIG, NETWORKS, *map(jnp.asarray, (D, X, s, z)))
    for row, n in np.ndindex(20, 3):
        np.testing.assert_allclose(found[row, n], action_of(X, s[row], z[row, n]), rtol=1e-5)
        assert np.abs(found[row, n] - np.tanh(D @ np.concatenate([s[row], z[row, n]]))).max() <= 0.3 + 1e-6
    assert (np.abs(found) == 1).any(axis=2).sum() > 9


def test_target_mixes_the_critics_first_and_takes_the_best_action_then():
    rows, latents = batch(), np.random.default_rng(3).normal(size=(4, 8, 4))
    expected, other_order = [], []
    columns = map(np.asarray, (rows.next_observation, rows.reward, rows.continues))
    for s, r, c, zs in zip(*columns, latents, strict=True):
        qs = np.array([[q_of(i, s, action_of(X, s, z)) for i in (0, 1)] for z in zs])
        expected.append(r + 0.9 * c * max(0.6 * q.min() + 0.4 * q.max() for q in qs))
        other_order.append(r + 0.9 * c * (0.6 * qs.max(axis=0).min() + 0.4 * qs.max(axis=0).max()))
    state = bcq.State(None, *(Trainable(None, None, jnp.asarray(it)) for it in (X, W)))
    given = (jnp.asarray(D), state, rows, jnp.asarray(latents))
    np.testing.assert_allclose(bcq.critic_targets(CONFIG, NETWORKS, *given), expected, rtol=1e-4)
    assert np.abs(np.array(expected) - other_order).max() > 0.01


def test_policy_loss_and_its_gradient_are_those_of_minus_q1():
    latents = 0.3 * np.random.default_rng(4).normal(size=(4, 4))

    def by_hand(x):
        rows = zip(np.asarray(batch().observation), latents, strict=True)
        return -np.mean([q_of(0, s, action_of(x, s, z)) for s, z in rows])

    def loss(x, d):
        return bcq.policy_loss(CONFIG, NETWORKS, x, d, jnp.asarray(W[0]), batch().observation, jnp.asarray(latents))[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(X, jnp.float32), jnp.asarray(D, jnp.float32))
    np.testing.assert_allclose(value, by_hand(X), rtol=1e-5)
    for index in np.ndindex(2, 4):
        step = np.zeros((2, 4))
        step[index] = 1e-5
        np.testing.assert_allclose(
            gradient[index], (by_hand(X + step) - by_hand(X - step)) / 2e-5, rtol=1e-3, atol=1e-5
        )


@pytest.fixture(scope="module")
def stepped():
    """(algorithm, networks, state before, state after, metrics) of one real update."""
    rates = dict.fromkeys(("policy_learning_rate", "critic_learning_rate", "cvae_learning_rate"), 0.03)
    sizes = {"batch_size": 8, "target_actions": 3, "acting_actions": 5}
    config = Config(**TINY, **rates, **sizes, phi=0.3, gamma=0.9, polyak_rate=0.25)
    algorithm, networks = BCQ.make(config, SPEC, None), bcq.make_networks(config, SPEC)
    before = jax.jit(algorithm.init)(jax.random.key(0), None)
    after, metrics = jax.jit(algorithm.update)(before, batch(8), jax.random.key(5), jnp.asarray(0))
    return config, algorithm, networks, before, after, metrics


def test_the_model_moves_by_its_own_loss_alone(stepped):
    """Neither the critics' targets nor the perturbation's loss reach encoder or decoder."""
    _, _, networks, before, after, _ = stepped
    key = jax.random.split(jax.random.key(5), 3)[0]
    alone, _ = jax.jit(networks.model.fit_step)(before.cvae, batch(8), key)
    for left, right in zip(jax.tree.leaves(alone), jax.tree.leaves(after.cvae), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


def test_targets_see_the_new_decoder_and_the_perturbation_sees_the_new_critics(stepped):
    config, _, networks, before, after, metrics = stepped
    keys = jax.random.split(jax.random.key(5), 3)
    latents = jnp.clip(jax.random.normal(keys[1], (8, 3, 4)), -0.5, 0.5)
    decoders = [networks.model.params(state.cvae) for state in (after, before)]
    new, old = (
        float(jnp.mean(bcq.critic_targets(config, networks, decoder, before, batch(8), latents)))
        for decoder in decoders
    )
    np.testing.assert_allclose(metrics["q_target"], new, rtol=1e-5)
    assert abs(new - old) > 1e-5

    latent = jnp.clip(jax.random.normal(keys[2], (8, 4)), -0.5, 0.5)
    losses = [
        bcq.policy_loss(
            config,
            networks,
            before.perturbation.params,
            decoders[0],
            first_member(state.critic.params),
            batch(8).observation,
            latent,
        )[0]
        for state in (after, before)
    ]
    np.testing.assert_allclose(metrics["policy_loss"], losses[0], rtol=1e-5)
    assert abs(float(losses[0] - losses[1])) > 1e-5


def test_both_targets_are_averaged_at_every_step(stepped):
    _, _, _, before, after, _ = stepped
    for part in ("critic", "perturbation"):
        old, new = getattr(before, part), getattr(after, part)
        for x, y, z in zip(
            *(jax.tree.leaves(tree) for tree in (old.target_params, new.params, new.target_params)), strict=True
        ):
            np.testing.assert_allclose(z, 0.75 * x + 0.25 * y, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(
        before.perturbation.params.mlp.layers[0].weight, after.perturbation.params.mlp.layers[0].weight
    )


def test_without_perturbation_the_policy_is_the_best_decoded_action(stepped):
    config, _, networks, _, state, _ = stepped
    config = Config(**{name: getattr(config, name) for name in TINY}, phi=0.0, acting_actions=5)
    observation = jnp.array([[0.4, -0.3], [1.0, 0.2]])
    found = compiled(BCQ.make(config, SPEC, None)).acting.act(state, observation, jax.random.key(9), True)
    latents = jnp.clip(jax.random.normal(jax.random.key(0), (5, 4)), -0.5, 0.5)  # the same in every state
    params, first = networks.model.params(state.cvae), first_member(state.critic.params)
    for row in (0, 1):
        states = jnp.tile(observation[row], (5, 1))
        actions = np.tanh(networks.model.decode(params, states, latents))
        q = networks.critics.apply_one(first, states, jnp.asarray(actions))
        np.testing.assert_allclose(found[row], actions[np.argmax(q)], rtol=1e-5)
        assert np.ptp(actions, axis=0).max() > 1e-3
