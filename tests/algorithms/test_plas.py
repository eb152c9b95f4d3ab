"""PLAS against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import plas
from itrpo.algorithms.plas import PLAS, Actor, Config, Networks
from itrpo.behavior import cvae
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.network import Network
from itrpo.nn.trainable import Trainable
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(2, 2)
CONFIG = Config(max_latent=1.5, perturbation=True, phi=0.3, min_weight=0.6, gamma=0.9)
MODEL = cvae.make(cvae.Config(hidden=(5,)), SPEC, 0)

# f(s) = F s;  G(s, z) = D (s, z);  xi(s, a) = X (s, a);  Q(s, a) = w . (s, a) + (sum of a)^2


def linear(params, *inputs):
    return jnp.concatenate(inputs, axis=1) @ params.T


def critic(params, observation, action):
    return linear(params, observation, action) + jnp.sum(action, axis=1) ** 2


NETWORKS = Networks(
    MODEL._replace(decode=linear),
    Network(lambda key: None, linear),
    Network(lambda key: None, linear),
    ensemble(Network(lambda key: None, critic), 2),
    *[optax.set_to_zero()] * 2,
)
RNG = np.random.default_rng(0)
F, D, X = RNG.normal(size=(4, 2)), RNG.normal(size=(2, 6)), RNG.normal(size=(2, 4))
W = np.array([[0.2, -0.4, 1.0, -0.7], [-0.3, 0.1, -0.6, 0.9]])  # of Q_1 and Q_2
ACTOR = Actor(jnp.asarray(F, jnp.float32), jnp.asarray(X, jnp.float32))


def batch(rows: int = 4) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(part, jnp.float32) for part in parts))


def action_of(f, x, s, perturbed=True):
    z = CONFIG.max_latent * np.tanh(f @ s)
    decoded = np.tanh(D @ np.concatenate([s, z]))
    return np.clip(decoded + 0.3 * np.tanh(x @ np.concatenate([s, decoded])), -1, 1) if perturbed else decoded


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


@pytest.mark.parametrize("perturbed", [True, False])
def test_target_mixes_the_critics_at_the_target_actors_action(perturbed):
    networks = NETWORKS if perturbed else NETWORKS._replace(perturbation=None)
    rows, expected = batch(), []
    for s, r, c in zip(*map(np.asarray, (rows.next_observation, rows.reward, rows.continues)), strict=True):
        q = [q_of(i, s, action_of(F, X, s, perturbed)) for i in (0, 1)]
        expected.append(r + 0.9 * c * (0.6 * min(q) + 0.4 * max(q)))
    state = plas.State(Trainable(None, None, ACTOR), Trainable(None, None, jnp.asarray(W)), jnp.asarray(D))
    found = plas.critic_targets(CONFIG, networks, state, rows)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_policy_loss_and_its_gradient_run_through_decoder_and_perturbation():
    def by_hand(f, x):
        return -np.mean([q_of(0, s, action_of(f, x, s)) for s in np.asarray(batch().observation)])

    def loss(actor):
        return plas.policy_loss(CONFIG, NETWORKS, actor, jnp.asarray(W[0]), jnp.asarray(D), batch().observation)[0]

    value, gradient = jax.value_and_grad(loss)(ACTOR)
    np.testing.assert_allclose(value, by_hand(F, X), rtol=1e-5)
    for index in np.ndindex(2, 2):
        latent_step, step = np.zeros((4, 2)), np.zeros((2, 4))
        latent_step[index] = step[index] = 1e-5
        slope = (by_hand(F + latent_step, X) - by_hand(F - latent_step, X)) / 2e-5
        np.testing.assert_allclose(gradient.latent[index], slope, rtol=1e-3, atol=1e-5)
        slope = (by_hand(F, X + step) - by_hand(F, X - step)) / 2e-5
        np.testing.assert_allclose(gradient.perturbation[index], slope, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def stepped():
    """(config, networks, state before, state after, metrics) of one real update."""
    rates = {"policy_learning_rate": 0.03, "critic_learning_rate": 0.03, "polyak_rate": 0.25}
    sizes = {"policy_hidden": (6,), "critic_hidden": (6,), "batch_size": 8}
    config = Config(max_latent=1.5, perturbation=True, phi=0.3, gamma=0.9, **rates, **sizes)
    algorithm = PLAS.make(config, SPEC, MODEL)
    before = jax.jit(algorithm.init)(jax.random.key(0), MODEL.params(MODEL.init(jax.random.key(1))))
    after, metrics = jax.jit(algorithm.update)(before, batch(8), jax.random.key(5), jnp.asarray(0))
    return config, plas.make_networks(config, SPEC, MODEL), before, after, metrics


def test_the_decoder_is_frozen_and_everything_else_moves(stepped):
    _, _, before, after, _ = stepped
    for old, new in zip(jax.tree.leaves(before.behavior_params), jax.tree.leaves(after.behavior_params), strict=True):
        np.testing.assert_array_equal(old, new)
    for part in ("actor", "critic"):
        old, new = getattr(before, part), getattr(after, part)
        leaves = zip(*(jax.tree.leaves(tree) for tree in (old.params, new.params, new.target_params)), strict=True)
        for x, y, z in leaves:  # targets start as copies of x
            assert not np.array_equal(x, y)
            np.testing.assert_allclose(z, 0.75 * x + 0.25 * y, rtol=1e-5, atol=1e-7)


def test_the_actor_sees_the_new_critics(stepped):
    config, networks, before, after, metrics = stepped
    losses = [
        plas.policy_loss(
            config,
            networks,
            before.actor.params,
            first_member(state.critic.params),
            before.behavior_params,
            batch(8).observation,
        )[0]
        for state in (after, before)
    ]
    np.testing.assert_allclose(metrics["policy_loss"], losses[0], rtol=1e-5)
    assert abs(float(losses[0] - losses[1])) > 1e-4


def test_latents_reach_beyond_the_models_clip_up_to_max_latent():
    """z is bounded by max_latent alone: an actor that saturates decodes +-2, though samples are clipped to +-0.5."""
    seen = []
    networks = NETWORKS._replace(
        model=MODEL._replace(decode=lambda params, observation, latent: seen.append(latent) or jnp.zeros((1, 2)))
    )
    saturating = Actor(jnp.full((4, 2), 1e3), None)
    plas.decoded_action(Config(), networks, saturating, None, jnp.ones((1, 2)))
    np.testing.assert_allclose(seen[0], 2.0)


def test_presets():
    from itrpo.training.configure import make_setup

    source = make_setup("plas", preset="source", task="hopper-random")
    assert source.algorithm_config == Config()
    assert (source.behavior, source.behavior_config.fit_learning_rate, source.behavior_config.fit_batch_size) == (
        "cvae",
        1e-4,
        100,
    )
    for task, phi in (("hopper-random", 0.5), ("walker2d-medium-replay", 0.01), ("hopper-expert", 0.05)):
        found = make_setup("plas", preset="perturbed", task=task).algorithm_config
        assert (found.perturbation, found.phi) == (True, phi)
