"""The conditional VAE: its loss by hand, its optimum where it is known, what it samples, and its export."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from itrpo.behavior import cvae
from itrpo.policy import load_policy, save_policy
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC = SpaceSpec(3, 2)


def model(spec: SpaceSpec = SPEC, hidden=(6, 5), **fields):
    return compiled(cvae.make(cvae.Config(hidden=hidden, **fields), spec, 100))


def forward(layers, inputs):
    """A ReLU network in NumPy, float64."""
    for i, layer in enumerate(layers):
        inputs = np.asarray(layer.weight, np.float64) @ inputs + np.asarray(layer.bias, np.float64)
        if i < len(layers) - 1:
            inputs = np.maximum(inputs, 0)
    return inputs


def loss_by_hand(params, observation, action, noise, weight):
    m, log_d = np.split(forward(params.encoder.layers, np.concatenate([observation, action])), 2)
    log_d = np.clip(log_d, -4, 15)
    reconstruction = np.tanh(forward(params.decoder.layers, np.concatenate([observation, m + np.exp(log_d) * noise])))
    error = ((reconstruction - action) ** 2).mean()
    kl = -0.5 * (1 + np.log(np.exp(log_d) ** 2) - m**2 - np.exp(log_d) ** 2).mean()
    return error + weight * kl, error, kl


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_loss_is_a_mean_over_actions_plus_a_mean_over_latents(weight):
    it, rng = model(kl_weight=weight), np.random.default_rng(0)
    params = jax.tree.map(lambda x: 3 * x, it.params(it.init(jax.random.key(0))))
    assert it.latent_dim == 4  # two per action dimension
    observation, action, noise = rng.normal(size=3), rng.uniform(-1, 1, 2), rng.normal(size=4)
    expected, _, _ = loss_by_hand(params, observation, action, noise, weight)
    found = it.negative_elbo(params, *(jnp.asarray(x, jnp.float32)[None] for x in (observation, action, noise)))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_a_step_descends_the_mean_loss_of_the_batch():
    it, rng = model(fit_learning_rate=1e-3), np.random.default_rng(1)
    state = it.init(jax.random.key(0))
    zeros = np.zeros(8)
    observation, action = rng.normal(size=(8, 3)), rng.uniform(-1, 1, (8, 2))
    batch = Transition(*(jnp.asarray(x, jnp.float32) for x in (observation, action, zeros, zeros, observation, action)))
    after, metrics = it.fit_step(state, batch, jax.random.key(5))
    noise = np.asarray(jax.random.normal(jax.random.key(5), (8, 4)))  # the draw that the step makes
    by_hand = np.mean(
        [loss_by_hand(it.params(state), observation[i], action[i], noise[i], 0.5) for i in range(8)], axis=0
    )
    names = ("behavior_loss", "behavior_reconstruction", "behavior_latent_kl")
    np.testing.assert_allclose([float(metrics[name]) for name in names], by_hand, rtol=1e-5)

    def mean_loss(params):
        return jnp.mean(it.negative_elbo(params, batch.observation, batch.action, jnp.asarray(noise)))

    slopes = jax.jit(jax.grad(mean_loss))(it.params(state))
    for old, new, slope in zip(
        *(jax.tree.leaves(x) for x in (it.params(state), it.params(after), slopes)), strict=True
    ):
        moved = np.abs(slope) > 1e-6  # Adam's first step is the learning rate against the sign of the gradient
        np.testing.assert_allclose((new - old)[moved], -1e-3 * np.sign(slope)[moved], rtol=0.02)


def test_latent_kl_is_the_integral():
    for mean, std in ((0.0, 1.0), (0.7, 0.4), (-1.2, 2.0)):
        p, q = stats.norm(mean, std), stats.norm(0, 1)
        integral, _ = integrate.quad(lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -20, 20, limit=200)
        np.testing.assert_allclose(cvae.latent_kl(jnp.array([mean]), jnp.log(jnp.array([std])))[0], integral, atol=1e-6)


def fitted(it, observation, action, steps=800):
    zeros = jnp.zeros(len(action))
    data = Transition(observation, action, zeros, zeros, observation, action)

    def body(step, state):
        row_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
        rows = jax.random.randint(row_key, (128,), 0, len(action))
        return it.fit_step(state, jax.tree.map(lambda x: x[rows], data), fit_key)[0]

    return it.params(jax.jit(lambda x: jax.lax.fori_loop(0, steps, body, x))(it.init(jax.random.key(0))))


def test_narrow_data_leave_the_latent_unused_and_the_mode_is_the_conditional_mean():
    """The decoder's implied variance is kl_weight / 4 = 0.125. Data of smaller variance are cheaper without z: then the
    posterior is the prior, the reconstruction the mean, and the loss the variance of the data.
    """
    it, rng = model(SpaceSpec(1, 1), (16, 16), fit_learning_rate=5e-3), np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (4_096, 1)).astype(np.float32)
    action = (0.6 * observation + 0.1 * rng.normal(size=observation.shape)).astype(np.float32)
    params = fitted(it, jnp.asarray(observation), jnp.asarray(action))
    grid = jnp.linspace(-0.9, 0.9, 7)[:, None]
    modes = jnp.tanh(it.mode(params, grid))
    np.testing.assert_allclose(modes, 0.6 * grid, atol=0.06)
    noise = rng.normal(size=(4_096, 2)).astype(np.float32)
    losses = it.negative_elbo(params, *(jnp.asarray(x) for x in (observation, action, noise)))
    np.testing.assert_allclose(losses.mean(), 0.01, atol=0.003)


def test_two_modes_are_both_decoded_and_neither_is_mistaken_for_the_middle():
    """Variance 0.64, far above 0.125: now z pays. Its sign says which of the two, so samples fall on both sides."""
    it, rng = model(SpaceSpec(1, 1), (16, 16), fit_learning_rate=5e-3), np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (4_096, 1)).astype(np.float32)
    action = (rng.choice([-0.8, 0.8], size=(4_096, 1)) + 0.02 * rng.normal(size=(4_096, 1))).astype(np.float32)
    params = fitted(it, jnp.asarray(observation), jnp.asarray(action))
    samples = np.tanh(np.asarray(it.sample(params, jnp.full((2_000, 1), 0.2), jax.random.key(2)))).ravel()
    assert 0.3 < (samples > 0).mean() < 0.7
    assert (np.abs(samples) > 0.5).mean() > 0.7
    assert np.abs(samples).max() < 0.95


def test_samples_decode_clipped_latents():
    it = model(latent_clip=0.3)
    params, observation = it.params(it.init(jax.random.key(0))), jnp.array([0.1, -0.4, 2.0])
    found = it.sample(params, jnp.broadcast_to(observation, (20, 3)), jax.random.key(3))
    latents = np.clip(np.asarray(jax.random.normal(jax.random.key(3), (20, 4))), -0.3, 0.3)
    assert (np.abs(latents) == np.float32(0.3)).mean() > 0.5
    expected = [forward(params.decoder.layers, np.concatenate([observation, latent])) for latent in latents]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    of_many = it.decode(params, observation[None], jnp.asarray(latents)[None])  # all of one state
    np.testing.assert_allclose(of_many[0], expected, rtol=1e-4, atol=1e-6)


def test_the_export_acts_like_the_mode(tmp_path):
    it = model()
    params = jax.tree.map(lambda x: 3 * x, it.params(it.init(jax.random.key(0))))
    save_policy(tmp_path / "p.npz", it.export(params), np.zeros(3), np.ones(3), [-1, -1], [1, 1], {})
    observations = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    modes = jnp.tanh(it.mode(params, jnp.asarray(observations)))
    assert float(jnp.abs(modes).max()) > 0.1
    np.testing.assert_allclose(load_policy(tmp_path / "p.npz")(observations), modes, atol=1e-6)
