"""The models of pi_beta against data whose density is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo import registry
from itrpo.behavior import categorical
from itrpo.config import replace_leaves
from itrpo.nn.heads import Autoregressive
from itrpo.ops import distributions
from itrpo.policy import load_policy, save_policy
from itrpo.types import DensityModel, SpaceSpec, Transition
from tests.compiled import compiled

STEPS, ROWS = 1_500, 4_096


def build(name: str, action_dim: int = 1, **fields):
    entry = registry.lookup(name, registry.BEHAVIOR_MODELS, "behaviour model")
    defaults = {"hidden": (32, 32), "fit_learning_rate": 3e-3, "dual_learning_rate": 5e-3}
    return compiled(entry.make(replace_leaves(entry.config(), defaults | fields), SpaceSpec(1, action_dim), STEPS))


CONTINUOUS = [
    name for name, it in sorted(registry.BEHAVIOR_MODELS.items()) if registry.resolve(it).actions != "discrete"
]


# The mixture of dimensions is the joint one's code with one more axis: its tests are slow ones.
def each(names):
    return [pytest.param(it, marks=[pytest.mark.slow] if it == "factored_mixture" else []) for it in names]


WITH_DENSITY = [name for name in CONTINUOUS if isinstance(build(name), DensityModel)]


def fitted(model, observation, action):
    """Parameters after STEPS minibatches of the rows, and the multiplier of the entropy floor."""
    zeros = jnp.zeros(len(action))
    data = Transition(observation, action, zeros, zeros, observation, action)

    def body(step, state):
        row_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
        rows = jax.random.randint(row_key, (256,), 0, len(action))
        return model.fit_step(state, jax.tree.map(lambda it: it[rows], data), fit_key)[0]

    state = jax.jit(lambda it: jax.lax.fori_loop(0, STEPS, body, it))(model.init(jax.random.key(0)))
    return model.params(state), float(state.multiplier.params) if hasattr(state, "multiplier") else 0.0


@pytest.mark.parametrize("name", each(WITH_DENSITY))
def test_density_integrates_to_one_and_is_that_of_the_samples(name):
    model = build(name)
    params, observation = model.params(model.init(jax.random.key(3))), jnp.array([[0.4]])
    u = jnp.linspace(-25.0, 25.0, 50_001)
    density = np.exp(model.pre_tanh_log_prob(params, observation, u[None, :, None])[0])
    np.testing.assert_allclose(np.trapezoid(density, u), 1.0, rtol=1e-4)
    samples = np.asarray(model.sample(params, jnp.broadcast_to(observation, (50_000, 1)), jax.random.key(0)))
    mean = np.trapezoid(density * np.asarray(u), u)
    std = np.sqrt(np.trapezoid(density * (np.asarray(u) - mean) ** 2, u))
    assert abs(samples.mean() - mean) < 5 * std / np.sqrt(len(samples))
    np.testing.assert_allclose(samples.std(), std, rtol=0.03)


def test_each_dimension_of_a_flow_sees_those_before_it_alone():
    def draw(shape, limit):
        return jax.random.normal(jax.random.key(len(shape)), shape)

    made = Autoregressive(draw, SpaceSpec(2, 4), (48, 48), 3)
    head = jax.jit(lambda observation, action: made(observation, action))
    observation, action = jnp.array([[0.3, -0.2]]), jnp.array([[0.1, -0.5, 0.7, 0.2]])
    slopes = jax.jit(jax.jacobian(lambda it: head(observation, it[None])[0]))(action[0])  # [dimension, output, seen]
    sees = np.abs(np.asarray(slopes)).max(axis=1) > 0
    np.testing.assert_array_equal(sees, np.tri(4, k=-1, dtype=bool))
    several = head(observation, jnp.stack([action, -action], axis=1))
    alone = np.asarray(head(observation, action)[0])
    rounding = 1e-6 * np.abs(alone).max()  # of what is added up: a sum that nearly cancels has the same
    np.testing.assert_allclose(several[0, 0], alone, rtol=1e-5, atol=rounding)


# matching a velocity learns from a noisier loss than the likelihood: a larger network and rate, and it is less close
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "gap"),
    [("flow", {}, 0.15), ("flow_matching", {"hidden": (64, 64), "fit_learning_rate": 1e-2}, 0.4)],
)
def test_a_flow_holds_modes_that_two_dimensions_have_together(tmp_path, name, fields, gap):
    """a_1 is near 0.6 or -0.6, and a_2 near a_1 or -a_1, as the state says: what one dimension has says nothing."""
    rng = np.random.default_rng(0)
    observation = jnp.asarray(rng.uniform(-1, 1, (ROWS, 1)), jnp.float32)
    first = rng.choice([-0.6, 0.6], size=ROWS) + 0.05 * rng.normal(size=ROWS)
    second = np.where(observation[:, 0] > 0, first, -first) + 0.05 * rng.normal(size=ROWS)
    action = np.stack([first, second], axis=1).astype(np.float32)
    model = build(name, action_dim=2, **fields)
    params, _ = fitted(model, observation, jnp.asarray(action))
    states = jnp.array([[0.5], [-0.5]])
    # entropy of the truth: log 2 for the coin and two Gaussians of 0.05
    truth = -(np.log(2) + 2 * (0.5 + 0.5 * np.log(2 * np.pi) + np.log(0.05)))
    assert truth - gap < float(model.pre_tanh_log_prob(params, observation, jnp.arctanh(action)).mean()) - float(
        distributions.tanh_log_det(jnp.arctanh(action)).mean()
    )
    samples = np.tanh(model.sample(params, jnp.repeat(states, 2_000, axis=0), jax.random.key(1))).reshape(2, 2_000, 2)
    np.testing.assert_allclose((samples[..., 0] > 0).mean(axis=1), 0.5, atol=0.06)
    np.testing.assert_allclose((samples.prod(axis=2) > 0).mean(axis=1), [1.0, 0.0], atol=0.03)
    mode = np.tanh(model.mode(params, states))
    if name == "flow":  # its mode is one of the four; that of the other is where it takes z = 0
        np.testing.assert_allclose(np.abs(mode), 0.6, atol=0.05)
        assert (np.sign(mode.prod(axis=1)) == [1, -1]).all()
    # and the same with NumPy alone
    save_policy(tmp_path / "policy.npz", model.export(params), [0.0], [1.0], [-1, -1], [1, 1], {})
    np.testing.assert_allclose(load_policy(tmp_path / "policy.npz")(np.asarray(states)), mode, atol=1e-4)


@pytest.mark.parametrize("name", each(WITH_DENSITY))
def test_the_fit_finds_the_conditional_gaussian_that_made_the_data(name):
    rng = np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (ROWS, 1)).astype(np.float32)
    mean, std = 0.8 * observation, 0.3 + 0.1 * observation
    action = np.tanh(mean + std * rng.normal(size=(ROWS, 1))).astype(np.float32)
    model = build(name)
    params, multiplier = fitted(model, jnp.asarray(observation), jnp.asarray(action))
    grid = jnp.linspace(-0.9, 0.9, 7)[:, None]
    modes = model.mode(params, grid)
    np.testing.assert_allclose(modes, 0.8 * grid, atol=0.12)
    # its entropy, 0.5 log(2 pi e std^2) or so, lies above the floor: no pull from it, plain maximum likelihood
    assert multiplier < 0.05
    u = np.arctanh(action)
    log_probs = model.pre_tanh_log_prob(params, jnp.asarray(observation), jnp.asarray(u))
    truth = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    assert float(log_probs.mean()) > truth.mean() - 0.05


def test_the_entropy_floor_keeps_a_narrow_policy_wide():
    """H0 = -1 per dimension: a narrow Gaussian of action entropy -1 has the deviation exp(-1) / sqrt(2 pi e) = 0.089.

    The data has s = 0.05, and (1 - k) = (s / 0.089)^2 at the constrained optimum, so k = 0.68 there.
    """
    rng = np.random.default_rng(0)
    observation = jnp.linspace(-1, 1, ROWS)[:, None]
    action = jnp.asarray(0.05 * rng.normal(size=(ROWS, 1)), jnp.float32)
    stds, multipliers = {}, {}
    for name, floor in (("floor", -1.0), ("none", -20.0)):
        model = build("gaussian", entropy_floor=floor, dual_learning_rate=0.01)
        params, multipliers[name] = fitted(model, observation, action)
        stds[name] = float(np.exp(model.moments(params, observation)[1]).mean())
    np.testing.assert_allclose(stds["floor"], np.exp(-1) / np.sqrt(2 * np.pi * np.e), rtol=0.1)
    np.testing.assert_allclose(multipliers["floor"], 0.68, atol=0.1)
    np.testing.assert_allclose(stds["none"], 0.05, rtol=0.1)
    assert multipliers["none"] == 0.0


def test_a_mixture_holds_two_modes_where_a_gaussian_sits_between():
    rng = np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (ROWS, 1)).astype(np.float32)
    side = rng.choice([-0.7, 0.7], size=(ROWS, 1))
    action = (side + 0.05 * rng.normal(size=(ROWS, 1))).astype(np.float32)
    modes, scores = {}, {}
    for name in ("gaussian", "mixture"):
        model = build(name, entropy_floor=-4.0)
        params, _ = fitted(model, jnp.asarray(observation), jnp.asarray(action))
        modes[name] = float(jnp.tanh(model.mode(params, jnp.array([[0.1]]))[0, 0]))
        u = jnp.arctanh(jnp.asarray(action))
        scores[name] = float(model.pre_tanh_log_prob(params, jnp.asarray(observation), u).mean())
    assert abs(modes["gaussian"]) < 0.2
    assert abs(abs(modes["mixture"]) - 0.7) < 0.1
    assert scores["mixture"] > scores["gaussian"] + 1.0


def test_the_loss_of_the_model_of_choices_is_its_likelihood_and_the_penalty():
    logits, choice = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 2, 1, 1, 0, 2])
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nll, entropy = -log_probs[np.arange(6), choice].mean(), -(np.exp(log_probs) * log_probs).sum(1).mean()
    loss, metrics = categorical.likelihood_loss(jnp.asarray(logits), jnp.asarray(choice), 0.1)
    np.testing.assert_allclose(loss, nll + 0.1 * np.square(logits).mean(), rtol=1e-5)
    np.testing.assert_allclose([metrics["behavior_nll"], metrics["behavior_entropy"]], [nll, entropy], rtol=1e-5)
