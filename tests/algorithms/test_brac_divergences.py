"""BRAC's other divergences: losses by hand in NumPy, discriminators that reach closed forms, and known optima."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import brac_dual, brac_mmd
from itrpo.algorithms import divergence_actor_critic as base
from itrpo.algorithms import kl_actor_critic as kl
from itrpo.algorithms.divergence_actor_critic import Backbone
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.errors import InputError
from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import trainable
from itrpo.ops import divergences
from itrpo.training.configure import make_setup
from itrpo.types import SpaceSpec, Transition
from tests.compiled import compiled

SPEC, ROWS, ALPHA, GAMMA = SpaceSpec(2, 2), 4, 0.7, 0.9
RNG = np.random.default_rng(0)
POLICY = 0.5 * RNG.normal(size=(2, 2, 2))  # mean M s, log std S s
W = np.array([[0.2, -0.4, 2.0, -1.7], [-0.3, 0.1, -1.6, 1.9]])  # Q_i(s,a) = w_i . (s, a) + (sum of a)^2
C = np.array([0.5, -0.3, 1.4, 2.2])  # c(s,a) = w . (s, a^2)


def q_of(params, observation, action):
    return jnp.concatenate([observation, action], axis=1) @ params + jnp.sum(action, axis=1) ** 2


def c_of(params, observation, action):
    return jnp.concatenate([observation, action**2], axis=1) @ params


BASE = base.Networks(
    GaussianActor(
        lambda key: None, lambda params, observation: (observation @ params[0].T, observation @ params[1].T), SPEC
    ),
    ensemble(Network(lambda key: None, q_of), 2),
    *[optax.set_to_zero()] * 2,
)
DUAL = brac_dual.Networks(BASE, Network(lambda key: None, c_of), optax.set_to_zero())


def batch() -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(ROWS, 2)), rng.uniform(-1, 1, (ROWS, 2)), rng.normal(size=ROWS), np.arange(ROWS) % 3 > 0]
    parts += [rng.normal(size=(ROWS, 2)), rng.uniform(-1, 1, (ROWS, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def least(s, a):
    return min(w @ np.concatenate([s, a]) + a.sum() ** 2 for w in W)


def acted(policy, s, noise):
    return np.tanh(policy[0] @ s + np.exp(policy[1] @ s) * noise)


def mmd_by_hand(x, y, bandwidth):
    def mean_kernel(one, other):
        return np.mean([np.exp(-np.abs(a - b).sum() / (2 * bandwidth)) for a in one for b in other])

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def softplus(x):
    return np.log1p(np.exp(x))


ESTIMATES = {
    "kl": (divergences.dual_kl, lambda own, data: np.log(softplus(own)) - softplus(data) + 1),
    "wasserstein": (divergences.dual_wasserstein, lambda own, data: own - data),
}


def c_by_hand(s, a):
    return C @ np.concatenate([s, a**2])


def slopes(loss, by_hand):
    """The gradient of a loss of the policy is that of its twin."""
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(POLICY, jnp.float32))
    for index in np.ndindex(2, 2, 2):
        step = np.zeros((2, 2, 2))
        step[index] = 1e-5
        slope = (by_hand(POLICY + step) - by_hand(POLICY - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=2e-3, atol=2e-4)


# --- MMD -----------------------------------------------------------------------------------------------------------

MMD_CONFIG = brac_mmd.Config(bandwidth=0.4, mmd_samples=3)
DRAWS = brac_mmd.Draws(
    *(jnp.asarray(it, jnp.float32) for it in (RNG.normal(size=(4, 3, 2)), RNG.uniform(size=(4, 3, 2))))
)


def samples(policy, observation):
    """(s, actions of pi, actions of pi_beta) of each row."""
    for s, noise, data in zip(*map(np.asarray, (observation, *DRAWS)), strict=True):
        yield s, np.stack([acted(policy, s, each) for each in noise]), data


def test_targets_of_brac_mmd_are_less_by_alpha_times_the_distance():
    rows, expected = batch(), []
    for (s, own, data), r, c in zip(samples(POLICY, rows.next_observation), rows.reward, rows.continues, strict=True):
        expected.append(r + GAMMA * c * (least(s, own[0]) - ALPHA * mmd_by_hand(own, data, 0.4)))

    @jax.jit
    def targets(policy, critics):
        after = brac_mmd.action_and_divergence(MMD_CONFIG, BASE, policy, rows.next_observation, DRAWS)
        return base.critic_targets(Backbone(gamma=GAMMA), BASE, ALPHA, critics, rows, *after)

    found = targets(jnp.asarray(POLICY), jnp.asarray(W))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("q_weight", [0.0, 1.0])
def test_policy_loss_of_brac_mmd_and_its_gradient(q_weight):
    def by_hand(policy):
        losses = [
            ALPHA * mmd_by_hand(own, data, 0.4) - q_weight * least(s, own[0])
            for s, own, data in samples(policy, batch().observation)
        ]
        return np.mean(losses)

    def loss(policy):
        fixed = (jnp.asarray(W), batch().observation, DRAWS)
        return brac_mmd.policy_loss(MMD_CONFIG, BASE, ALPHA, q_weight, policy, *fixed)[0]

    np.testing.assert_allclose(jax.jit(loss)(jnp.asarray(POLICY)), by_hand(POLICY), rtol=1e-4)
    slopes(loss, by_hand)


def test_the_model_s_samples_are_its_own_and_differ():
    model = compiled(GAUSSIAN.make(GAUSSIAN.config(hidden=(4,)), SPEC, 1))
    params, observation = model.params(model.init(jax.random.key(0))), jnp.ones((2000, 2))
    draw = jax.jit(lambda *it: brac_mmd.draw(brac_mmd.Config(mmd_samples=3), model, *it, 2, jax.random.key(1)))
    draws = draw(params, observation)
    assert draws.actions.shape == draws.noise.shape == (2000, 3, 2)
    mean, log_std = (np.asarray(it[0]) for it in model.moments(params, observation))
    u = np.arctanh(np.asarray(draws.actions, np.float64).clip(-1 + 1e-7, 1 - 1e-7)).reshape(-1, 2)
    np.testing.assert_allclose(np.median(u, axis=0), mean, atol=4 * 1.25 * np.exp(log_std).max() / np.sqrt(6000))
    assert abs(np.corrcoef(draws.actions[:, 0, 0], draws.actions[:, 1, 0])[0, 1]) < 0.1


# --- dual estimates ------------------------------------------------------------------------------------------------

BACKBONE = Backbone(gamma=GAMMA, value_share=0.4)
NOISE, SHARE = RNG.normal(size=(ROWS, 2)), RNG.uniform(size=ROWS)


@pytest.mark.parametrize("name", ESTIMATES)
def test_targets_of_brac_dual_compare_with_the_logged_next_action(name):
    estimate, by_hand = ESTIMATES[name]
    rows, expected = batch(), []
    columns = (rows.next_observation, rows.next_action, rows.reward, rows.continues)
    for s, logged, r, c, noise in zip(*map(np.asarray, columns), NOISE, strict=True):
        a = acted(POLICY, s, noise)
        divergence = by_hand(c_by_hand(s, a), c_by_hand(s, logged))
        expected.append(r + GAMMA * c * (least(s, a) - 0.4 * ALPHA * divergence))
    action = jnp.tanh(BASE.actor.pre_tanh(jnp.asarray(POLICY), rows.next_observation, jnp.asarray(NOISE)))
    divergence = brac_dual.divergence_at(
        estimate, DUAL, jnp.asarray(C), rows.next_observation, action, rows.next_action
    )
    found = base.critic_targets(BACKBONE, BASE, ALPHA, jnp.asarray(W), rows, action, divergence)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATES)
def test_policy_loss_of_brac_dual_and_its_gradient(name):
    estimate, of_values = ESTIMATES[name]
    rows = batch()

    def by_hand(policy):
        losses = []
        for s, logged, noise in zip(np.asarray(rows.observation), np.asarray(rows.action), NOISE, strict=True):
            a = acted(policy, s, noise)
            losses.append(ALPHA * of_values(c_by_hand(s, a), c_by_hand(s, logged)) - 0.5 * least(s, a))
        return np.mean(losses)

    def loss(policy):
        fixed = (jnp.asarray(W), jnp.asarray(C), rows, jnp.asarray(NOISE, jnp.float32))
        return brac_dual.policy_loss(estimate, DUAL, ALPHA, 0.5, policy, *fixed)[0]

    np.testing.assert_allclose(jax.jit(loss)(jnp.asarray(POLICY)), by_hand(POLICY), rtol=1e-4)
    slopes(loss, by_hand)


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_discriminator_s_loss_and_its_gradient(name):
    """c = w . (s, a^2), whose slope at a is |2 w_a a|: above 1 in some rows between the two actions, not in others."""
    estimate, of_values = ESTIMATES[name]
    rows, own = batch(), np.random.default_rng(5).uniform(-0.3, 1, (ROWS, 2))

    def by_hand(w):
        losses = []
        for s, a, logged, share in zip(np.asarray(rows.observation), own, np.asarray(rows.action), SHARE, strict=True):
            value, data = (w @ np.concatenate([s, it**2]) for it in (a, logged))
            slope = np.linalg.norm(2 * w[2:] * (a + share * (logged - a)))
            losses.append(5 * max(slope - 1, 0) ** 2 - of_values(value, data))
        return np.mean(losses)

    def loss(w):
        fixed = (rows.observation, jnp.asarray(own, jnp.float32), rows.action, jnp.asarray(SHARE, jnp.float32))
        return brac_dual.discriminator_loss(estimate, DUAL, 5.0, w, *fixed)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(C, jnp.float32))
    np.testing.assert_allclose(value, by_hand(C), rtol=1e-4)
    for index in range(4):
        step = 1e-5 * np.eye(4)[index]
        numeric = (by_hand(C + step) - by_hand(C - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], numeric, rtol=1e-3, atol=1e-4)


# --- what is reached, on one decision ------------------------------------------------------------------------------

ONE = SpaceSpec(1, 1)
MEAN_BETA, STD_BETA, CENTER = 0.2, 0.6, 0.9


def moments(params, observation):
    return tuple(jnp.broadcast_to(each, (len(observation), 1)) for each in params)


def before_tanh(action):
    return jnp.arctanh(jnp.clip(action, -1 + 1e-6, 1 - 1e-6))[..., 0]


def powers(u):
    return jnp.stack([jnp.ones_like(u), u, u**2], axis=-1)


def log_ratio_c(params, observation, action):
    """The c whose softplus is exp(params . (1, u, u^2)): a family that holds every ratio of two Gaussians."""
    ratio = jnp.clip(powers(before_tanh(action)) @ params, -20.0, 20.0)
    return jnp.where(ratio > 3.0, jnp.exp(ratio), jnp.log(jnp.expm1(jnp.exp(jnp.minimum(ratio, 3.0)))))


def one_decision(discriminator, policy, optimizer, actor=moments):
    networks = base.Networks(
        GaussianActor(lambda key: policy, actor, ONE),
        ensemble(Network(lambda key: jnp.zeros(3), lambda params, s, a: powers(before_tanh(a)) @ params), 2),
        optimizer,
        optimizer,
    )
    return brac_dual.Networks(networks, discriminator, optimizer)


def logged(key, rows=256):
    """Actions of pi_beta, with the reward -(u - c)^2 of what is before the tanh."""
    u, zeros = MEAN_BETA + STD_BETA * jax.random.normal(key, (rows, 1)), jnp.zeros((rows, 1))
    return Transition(zeros, jnp.tanh(u), -jnp.square(u[:, 0] - CENTER), zeros[:, 0], zeros, zeros)


def repeat(step, state, steps):
    def body(i, state):
        return step(state, *jax.random.split(jax.random.fold_in(jax.random.key(0), i)))

    return jax.jit(partial(jax.lax.fori_loop, 0, steps, body))(state)


def falling(rate, steps):
    return optax.adam(optax.exponential_decay(rate, steps // 4, 0.2))


def test_the_dual_estimate_converges_to_the_kl_of_two_gaussians():
    """And the discriminator to the ratio of their densities."""
    policy = jnp.array([0.5, np.log(0.4)])
    networks = one_decision(Network(lambda key: jnp.zeros(3), log_ratio_c), policy, falling(0.1, 1500))
    config = brac_dual.Config(slope_penalty=0.0, discriminator_steps=1)

    def step(discriminator, data_key, key):
        rows = logged(data_key)
        return brac_dual.train_discriminator(divergences.dual_kl, config, networks, discriminator, policy, rows, key)[0]

    found = repeat(step, trainable(networks.discriminator_optimizer, jnp.zeros(3)), 1500).params
    mean, std = 0.5, 0.4
    a, b = 1 / std**2, 1 / STD_BETA**2
    expected = [
        np.log(STD_BETA / std) - mean**2 * a / 2 + MEAN_BETA**2 * b / 2,
        mean * a - MEAN_BETA * b,
        (b - a) / 2,
    ]
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)
    rows, noise = logged(jax.random.key(5), 200_000), jax.random.normal(jax.random.key(6), (200_000, 1))
    own = jnp.tanh(mean + std * noise)
    estimate = brac_dual.divergence_at(divergences.dual_kl, networks, found, rows.observation, own, rows.action)
    kl_ = np.log(STD_BETA / std) + (std**2 + (mean - MEAN_BETA) ** 2) * b / 2 - 0.5
    np.testing.assert_allclose(jnp.mean(estimate), kl_, rtol=0.03)


SHIFT = 0.5


def shifted(key):
    """(actions of the data, of a policy that is 0.5 further on), even over 0.4."""
    one, other = jax.random.uniform(key, (2, 256, 1), minval=-0.7, maxval=-0.3)
    return one, other + SHIFT


@pytest.mark.parametrize(
    ("kind", "slope_penalty"), [("linear", 5.0), pytest.param("network", 50.0, marks=pytest.mark.slow)]
)
def test_the_wasserstein_estimate_reaches_the_shift_of_two_distributions(kind, slope_penalty):
    """A linear c finds shift (1 + shift / (2 slope_penalty)); a network's slope may differ from place to place."""
    spec = brac_dual.make_networks(brac_dual.Config(discriminator_hidden=(32,)), ONE)
    linear = Network(lambda key: jnp.zeros(()), lambda params, s, a: params * a[:, 0])
    networks = spec._replace(
        discriminator=linear if kind == "linear" else spec.discriminator, discriminator_optimizer=falling(0.02, 1500)
    )

    def step(discriminator, data_key, key):
        data, other = shifted(data_key)
        fixed = (jnp.zeros((256, 1)), other, data, jax.random.uniform(key, (256,)))
        return brac_dual.gradient_step(
            discriminator,
            networks.discriminator_optimizer,
            lambda params: brac_dual.discriminator_loss(
                divergences.dual_wasserstein, networks, slope_penalty, params, *fixed
            ),
        )[0]

    start = trainable(networks.discriminator_optimizer, jax.jit(networks.discriminator.init)(jax.random.key(2)))
    params = repeat(step, start, 1500).params
    data, other = shifted(jax.random.key(9))
    found = brac_dual.divergence_at(divergences.dual_wasserstein, networks, params, jnp.zeros((256, 1)), other, data)
    shift = float(jnp.mean(other) - jnp.mean(data))  # of this sample
    if kind == "linear":
        np.testing.assert_allclose(params, 1 + SHIFT / (2 * slope_penalty), rtol=5e-3)
    np.testing.assert_allclose(jnp.mean(found), shift * (1 + SHIFT / (2 * slope_penalty)), rtol=0.02)


def dual_state(networks, config):
    return brac_dual.State(
        trainable(networks.base.policy_optimizer, jax.jit(networks.base.actor.init)(jax.random.key(0))),
        trainable(networks.base.critic_optimizer, jax.jit(networks.base.critics.init)(jax.random.key(0)), target=True),
        trainable(networks.discriminator_optimizer, jax.jit(networks.discriminator.init)(jax.random.key(0))),
        kl.start_weight(config.backbone.alpha, config.backbone.divergence_target),
        jnp.ones(()),
    )


@pytest.mark.slow
def test_brac_dual_kl_reaches_brac_s_optimum():
    """pi* ~ pi_beta exp(r / alpha), of which tests/learning/test_gaussian_bandit.py gives the precision."""
    alpha, steps = 3.0, 3000
    policy = jnp.array([MEAN_BETA, np.log(STD_BETA)])
    networks = one_decision(Network(lambda key: jnp.zeros(3), log_ratio_c), policy, falling(0.005, steps))
    networks = networks._replace(  # quicker than the policy, which shrinks to a point where a discriminator lags behind
        discriminator_optimizer=falling(0.05, 3 * steps),
        base=networks.base._replace(critic_optimizer=falling(0.02, steps)),
    )
    config = brac_dual.Config(slope_penalty=0.0, backbone=Backbone(alpha=alpha))

    def step(state, data_key, key):
        return brac_dual.update(divergences.dual_kl, config, networks, state, logged(data_key), key, jnp.asarray(0))[0]

    mean, log_std = repeat(step, dual_state(networks, config), steps).policy.params
    precision = 1 / STD_BETA**2 + 2 / alpha
    best = (MEAN_BETA / STD_BETA**2 + 2 * CENTER / alpha) / precision
    np.testing.assert_allclose((mean, jnp.exp(log_std)), (best, precision**-0.5), rtol=0.05)


def test_brac_wasserstein_moves_until_q_rises_as_slowly_as_the_distance():
    """r = -(a - c)^2, a point policy, a linear c: 2 (c - a) = alpha (1 + (a - data's mean) / (2 slope_penalty))."""
    alpha, center, steps = 0.8, 0.7, 3000
    slope = Network(lambda key: jnp.zeros(()), lambda params, s, a: params * a[:, 0])
    still = lambda params, observation: (jnp.full((len(observation), 1), params), jnp.full((len(observation), 1), -9.0))  # noqa: E731
    networks = one_decision(slope, jnp.zeros(()), falling(0.03, steps), still)
    critics = ensemble(Network(lambda key: jnp.zeros(3), lambda params, s, a: powers(a[..., 0]) @ params), 2)
    networks = networks._replace(base=networks.base._replace(critics=critics))
    config = brac_dual.Config(backbone=Backbone(alpha=alpha))

    def step(state, data_key, key):
        action, zeros = jax.random.uniform(data_key, (64, 1), minval=-0.9, maxval=0.5), jnp.zeros((64, 1))
        rows = Transition(zeros, action, -jnp.square(action[:, 0] - center), zeros[:, 0], zeros, zeros)
        return brac_dual.update(divergences.dual_wasserstein, config, networks, state, rows, key, jnp.asarray(0))[0]

    state = repeat(step, dual_state(networks, config), steps)
    mean_data = -0.2
    expected = (2 * center - alpha * (1 - mean_data / 10)) / (2 + alpha / 10)
    np.testing.assert_allclose(np.tanh(state.policy.params), expected, atol=0.01)
    np.testing.assert_allclose(state.discriminator.params, 1 + (expected - mean_data) / 10, atol=0.02)


# --- the weight that adapts ----------------------------------------------------------------------------------------


def test_a_weight_climbs_while_the_divergence_is_above_its_target_and_stays_in_its_range():
    weight = kl.start_weight(2.0, 0.1)
    up = kl.weight_step(weight, jnp.asarray(0.4), 0.1)
    down = kl.weight_step(weight, jnp.asarray(0.05), 0.1)
    np.testing.assert_allclose([up.params - 2.0, down.params - 2.0], [1e-3, -1e-3], rtol=1e-3)  # Adam's first step
    ends = kl.weight_step(kl.start_weight(0.0, 0.1), jnp.asarray(0.0), 0.1), kl.start_weight(500.0, 0.1)
    assert ends[0].params == 0
    assert kl.weight_step(ends[1], jnp.asarray(9.0), 0.1).params == 500
    assert kl.start_weight(2.0, None) is None
    assert kl.weight_step(None, jnp.asarray(0.4), None) is None


@pytest.mark.parametrize("name", ["brac_mmd", "brac_wasserstein", "brac_dual_kl"])
def test_an_alpha_that_adapts_is_in_units_of_reward(name):
    with pytest.raises(InputError, match=r"divergence_target = 0.1: .*--alpha-scale absolute"):
        make_setup(name, preset="quick", fields={"divergence_target": 0.1})
    own = {"divergence_target": 0.1, "alpha_scale": "absolute"}
    assert make_setup(name, preset="quick", fields=own).algorithm_config.backbone.divergence_target == 0.1


def test_brac_mmd_holds_its_distance_at_the_target():
    """With alpha that adapts, where the peak of the reward is farther from the data than the target allows."""
    steps, target = 3000, 0.2
    falling_ = falling(0.02, steps)
    networks = one_decision(None, jnp.array([MEAN_BETA, np.log(0.5)]), falling_).base
    model = GAUSSIAN.make(GAUSSIAN.config(hidden=(4,)), ONE, 1)._replace(
        sample=lambda params, observation, key: MEAN_BETA + STD_BETA * jax.random.normal(key, (len(observation), 1))
    )
    backbone = Backbone(alpha=2.0, divergence_target=target)
    config = brac_mmd.Config(bandwidth=0.5, mmd_samples=8, backbone=backbone)
    state = brac_mmd.State(
        trainable(falling_, jax.jit(networks.actor.init)(jax.random.key(0))),
        trainable(falling_, jnp.zeros((2, 3)), target=True),
        None,
        kl.start_weight(backbone.alpha, target),
        jnp.ones(()),
    )

    def step(state, data_key, key):
        return brac_mmd.update(config, networks, model, state, logged(data_key, 64), key, jnp.asarray(0))[0]

    state = repeat(step, state, steps)
    draws = brac_mmd.draw(config, model, None, jnp.zeros((20_000, 1)), 1, jax.random.key(3))
    _, found = brac_mmd.action_and_divergence(config, networks, state.policy.params, jnp.zeros((20_000, 1)), draws)
    np.testing.assert_allclose(jnp.mean(found), target, rtol=0.1)
    assert 0 < state.weight.params < 8
    assert abs(float(state.weight.params) - 2.0) > 0.1
    assert MEAN_BETA + 0.1 < state.policy.params[0] < CENTER
