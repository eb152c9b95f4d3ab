"""The parts of BRAC and iTRPO that the tabular check (tests/crosscheck) does not reach, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import kl_actor_critic
from itrpo.algorithms.brac import BRAC_P, BRAC_V
from itrpo.algorithms.itrpo import ITRPO, Config
from itrpo.algorithms.kl_actor_critic import Backbone
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.ensemble import critic_ensemble
from itrpo.ops import divergences
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC, ROWS = SpaceSpec(3, 2), 64
SMALL = Backbone(policy_hidden=(8,), critic_hidden=(8,), batch_size=ROWS)
MODEL = compiled(GAUSSIAN.make(GAUSSIAN.config(hidden=(8,)), SPEC, 1))
BEHAVIOR = MODEL.params(MODEL.init(jax.random.key(9)))


def batch(reward: float = 0.0) -> Transition:
    rng = np.random.default_rng(1)
    shapes = ((ROWS, 3), (ROWS, 2), (ROWS,), (ROWS,), (ROWS, 3), (ROWS, 2))
    columns = [rng.uniform(-0.9, 0.9, shape) for shape in shapes]
    columns[2], columns[3] = columns[2] * 0.01 + reward, np.ones(ROWS)
    return Transition(*(jnp.asarray(it, jnp.float32) for it in columns))


def made(config: Config):
    algorithm = compiled(ITRPO.make(config, SPEC, MODEL))
    return algorithm, algorithm.init(jax.random.key(0), BEHAVIOR), algorithm.update


def log_ratios(algorithm, state, rows: Transition) -> np.ndarray:
    """log pi(a|s) - log pi_beta(a|s) [B] from densities of actions, not of u = atanh(a): the Jacobians must cancel."""
    own = algorithm.acting.log_prob(state, rows.observation, rows.action)
    of_u = MODEL.pre_tanh_log_prob(BEHAVIOR, rows.observation, jnp.arctanh(rows.action))
    return np.asarray(own) - (np.asarray(of_u) - np.log(1 - np.asarray(rows.action) ** 2).sum(1))


@pytest.mark.parametrize("entry", [ITRPO, BRAC_V, BRAC_P])
def test_an_alpha_that_adapts_starts_from_alpha_and_rises_above_the_target(entry):
    """D_KL is about 0.5 there: above 0.1, below 5."""
    for target, sign in ((0.1, 1), (5.0, -1), (None, 0)):
        config = replace(entry.presets["paper"].config, alpha=0.7, divergence_target=target, backbone=SMALL)
        algorithm = compiled(entry.make(config, SPEC, MODEL))
        state = algorithm.init(jax.random.key(0), BEHAVIOR)
        found = []
        for step in range(3):
            state, metrics = algorithm.update(state, batch(), jax.random.key(step), jnp.asarray(step))
            found.append(float(metrics["alpha"]))
            assert 0.1 < metrics["kl"] < 5.0
        np.testing.assert_allclose(found, 0.7 + sign * 1e-3 * np.arange(3), rtol=1e-5)  # Adam's steps of its rate


@pytest.mark.parametrize(("reward", "floor"), [(10.0, False), (0.0, True)])
def test_a_relative_alpha_follows_the_size_of_the_targets_but_not_below_one(reward: float, floor: bool):
    rate = 0.2
    _, state, update = made(Config(alpha=0.05, backbone=replace(SMALL, alpha_scale="relative", polyak_rate=rate)))
    scale = 1.0
    for step in range(3):
        state, metrics = update(state, batch(reward), jax.random.key(step), jnp.asarray(step))
        np.testing.assert_allclose(metrics["alpha"], 0.05 * scale, rtol=1e-5)
        target = float(metrics["q_target"])  # all targets are positive, or small
        assert (abs(target) < 1) == floor
        scale += rate * ((1.0 if floor else target) - scale)
        np.testing.assert_allclose(state.q_scale, scale, rtol=1e-5)


def test_for_kl_only_steps_the_actor_sees_no_q():
    _, state, update = made(Config(alpha=0.5, backbone=replace(SMALL, kl_only_steps=2)))
    for step, without_q in ((1, True), (2, False)):
        _, metrics = update(state, batch(), jax.random.key(0), jnp.asarray(step))
        alone = bool(np.isclose(metrics["policy_loss"], 0.5 * metrics["kl"], rtol=1e-5))
        assert alone == without_q


@pytest.mark.parametrize("alpha_scale", ["absolute", "relative"])
def test_probes_are_means_over_the_data(alpha_scale: str):
    config = Config(
        alpha=0.7, tau=0.4, log_ratio_low=-0.5, log_ratio_high=0.3, backbone=replace(SMALL, alpha_scale=alpha_scale)
    )
    algorithm, state, _ = made(config)
    state = state._replace(q_scale=jnp.asarray(3.0))
    rows = batch()
    found = algorithm.probes(state, rows, jax.random.key(3))
    ratios = log_ratios(algorithm, state, rows)
    below, above = ratios < -0.5, ratios > 0.3
    assert 0 < below.mean() < 1
    assert 0 < above.mean() < 1
    alpha = 0.7 * (3.0 if alpha_scale == "relative" else 1.0)
    expected = {
        "probe_log_ratio": ratios.mean(),
        "probe_shaping_reward": 0.4 * alpha * np.clip(ratios, -0.5, 0.3).mean(),
        "probe_clipped_fraction": (below | above).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_the_probed_correlation_is_that_of_log_ratio_and_advantage():
    algorithm, state, _ = made(Config(backbone=SMALL))
    rows, key = batch(), jax.random.key(3)
    found = algorithm.probes(state, rows, key)
    critics = compiled(critic_ensemble(SPEC, (8,), 2, "fan_in"))
    mean, log_std = jax.jit(gaussian_actor(SPEC, (8,), (-5.0, 2.0)).moments)(state.policy.params, rows.observation)
    own = jnp.tanh(mean + jnp.exp(log_std) * jax.random.normal(key, (ROWS, 1, 2))[:, 0])
    least = [critics.apply(state.critic.params, rows.observation, action).min(0) for action in (rows.action, own)]
    advantage = least[0] - least[1]
    expected = np.corrcoef(log_ratios(algorithm, state, rows), advantage)[0, 1]
    assert abs(expected) > 0.02
    np.testing.assert_allclose(found["probe_ratio_advantage_correlation"], expected, rtol=1e-3)
    jacobian = jax.jit(jax.jacrev(critics.apply, argnums=2))(state.critic.params, rows.observation, own)  # [N, B, B, A]
    steepness = np.sqrt(np.square(jacobian).sum((0, 2, 3)) / 2).mean()
    np.testing.assert_allclose(found["probe_action_gradient_norm"], steepness, rtol=1e-4)


def test_sampled_and_closed_form_kl_agree():
    """With a wide policy, so that a standard deviation taken for its inverse would show."""
    mean, log_std = jnp.asarray([0.3, -0.8]), jnp.asarray([0.5, -1.0])
    actor = GaussianActor(None, lambda params, observation: (mean[None], log_std[None]), SPEC)
    critics, kls = critic_ensemble(SPEC, (8,), 2, "fan_in"), {}
    for kl in ("sampled", "closed_form"):
        config = Backbone(kl=kl, kl_samples=20_000, action_samples=20_000)
        networks = kl_actor_critic.gaussian_networks(config, actor, critics, MODEL)
        noise = jax.random.normal(jax.random.key(0), (1, networks.draws, 2))
        actions = jax.jit(networks.policy_actions)(None, BEHAVIOR, jnp.zeros((1, 3)), noise)
        kls[kl] = actions.kl
        np.testing.assert_allclose(jnp.sum(actions.weight), 1.0, rtol=1e-4)
        np.testing.assert_allclose(jnp.std(jnp.arctanh(actions.action[0]), axis=0), jnp.exp(log_std), rtol=0.03)
    np.testing.assert_allclose(kls["sampled"], kls["closed_form"], rtol=0.05)
    np.testing.assert_allclose(
        kls["closed_form"],
        divergences.normal_kl(mean[None], log_std[None], *MODEL.moments(BEHAVIOR, jnp.zeros((1, 3)))),
        rtol=1e-5,
    )
