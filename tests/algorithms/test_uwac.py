"""UWAC against its equations, in NumPy loops over masks; without dropout and spectral norm, against BEAR."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import bear, uwac
from itrpo.algorithms.uwac import UWAC, Config
from itrpo.errors import InputError
from itrpo.nn.dropout import draw_masks
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(2, 2)
SIZES = {"policy_hidden": (6,), "critic_hidden": (7, 5), "cvae_hidden": (6,), "batch_size": 8, "target_actions": 3}
RATES = dict.fromkeys(("policy_learning_rate", "critic_learning_rate", "cvae_learning_rate"), 0.01)
CONFIG = Config(**SIZES, **RATES, uncertainty_weight=3.0, masks=5, masks_at_once=2, critic_dropout=0.3, warm_up_steps=0)


def batch(rows: int = 8) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


@cache
def critics():
    """(parameters, directions, normalised MLPs) of weights that make Q vary."""

    def draw(keys):
        params = jax.tree.map(lambda it: 2 * it, uwac.make_networks(CONFIG, SPEC).critics.init(keys[0]))
        directions = jax.vmap(lambda key, mlp: uwac.spectral.init_directions(key, mlp, 100))(keys, params.mlp)
        return params, directions, uwac.normalised(CONFIG, params, directions)

    return jax.tree.map(np.asarray, jax.jit(draw)(jax.random.split(jax.random.key(0), 2)))


def q_by_hand(mlp, i, s, a, masks):
    """Q_i(s, a) of normalised MLPs; masks: one [width] array for each hidden layer."""
    hidden = np.concatenate([s, a])
    for layer, mask in zip(mlp.layers, (*masks, None), strict=True):
        hidden = layer.weight[i].astype(np.float64) @ hidden + layer.bias[i]
        hidden = hidden if mask is None else np.maximum(hidden, 0) * mask
    return hidden[0]


def masks_of(seed, count):
    """NumPy masks [count, 2, width] for both critics."""
    return tuple(map(np.asarray, draw_masks(jax.random.key(seed), CONFIG.critic_hidden, 0.3, (count, 2))))


def test_moments_are_over_the_masks_and_the_variance_is_unbiased():
    params, _, mlp = critics()
    for i in (0, 1):
        for layer, raw in zip(mlp.layers, params.mlp.layers, strict=True):
            sigma = np.linalg.svd(raw.weight[i])[1][0]
            np.testing.assert_allclose(layer.weight[i], raw.weight[i] / sigma, rtol=1e-4)
    masks, it = masks_of(2, 5), batch()
    mean, variance = uwac.q_moments(CONFIG, mlp, it.observation, it.action, masks)
    for row in range(8):
        s, a = np.asarray(it.observation[row]), np.asarray(it.action[row])
        for i in (0, 1):
            q = [q_by_hand(mlp, i, s, a, [layer[t, i] for layer in masks]) for t in range(5)]
            np.testing.assert_allclose(mean[row, i], np.mean(q), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(variance[row, i], np.sum((q - np.mean(q)) ** 2) / 4, rtol=1e-3, atol=1e-8)
    assert variance.max() > 1e-4


def test_target_and_weight_by_hand():
    """Critics are mixed, then the best action taken; the weight is that of the largest sum of variances."""
    mean = np.array([[1.0, 3.0], [2.5, 2.6], [0.0, 9.0]])
    variance = np.array([[0.1, 0.2], [0.3, 0.05], [0.02, 0.02]])
    config = Config(uncertainty_weight=3.0, min_weight=0.75, gamma=0.9)
    row = jax.tree.map(lambda it: it[1], batch())
    target, weight = uwac.critic_target(config, row, jnp.asarray(mean), jnp.asarray(variance))
    best = max(0.75 * q.min() + 0.25 * q.max() for q in mean)
    np.testing.assert_allclose(target, float(row.reward) + 0.9 * float(row.continues) * best, rtol=1e-6)
    np.testing.assert_allclose(weight, np.exp(-3.0 * 0.35), rtol=1e-6)
    np.testing.assert_allclose(uwac.weight(config, jnp.array([0.0, 1e9])), [1.0, 0.0])


def test_critic_loss_has_the_weight_inside_the_square_and_a_mask_per_row():
    params, directions, mlp = critics()
    masks, it = masks_of(4, 8), jax.tree.map(np.asarray, batch())
    targets, weights = np.linspace(-1, 1, 8), np.linspace(0.2, 1, 8)
    expected = np.mean(
        [
            sum(
                (
                    weights[b]
                    * (q_by_hand(mlp, i, it.observation[b], it.action[b], [m[b, i] for m in masks]) - targets[b])
                )
                ** 2
                for i in (0, 1)
            )
            for b in range(8)
        ]
    )
    evaluate = jax.jit(partial(uwac.critic_loss, CONFIG))
    loss, metrics = evaluate(params, directions, it, jnp.asarray(targets), jnp.asarray(weights), masks)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_weight"], weights.mean(), rtol=1e-5)


def policy_loss(config, policy_params, critics_mlp, masks, q_weight=1.0):
    networks = uwac.make_networks(config, SPEC)
    model = networks.model.params(networks.model.init(jax.random.key(3)))
    draws = jax.random.normal(jax.random.key(4), (8, 4, 2)), jax.random.normal(jax.random.key(5), (8, 4, 4))
    fixed = (critics_mlp, model, jnp.zeros(()), batch().observation, *draws, masks)
    return uwac.policy_loss(networks, config, q_weight, policy_params, *fixed)


def test_the_actor_weighs_the_least_mean_q_and_holds_the_weight_constant():
    networks, (_, _, mlp), masks = uwac.make_networks(CONFIG, SPEC), critics(), masks_of(7, 5)
    policy = jax.tree.map(lambda it: 5 * it, networks.policy.init(jax.random.key(6)))
    evaluate = jax.jit(jax.value_and_grad(lambda p, q: policy_loss(CONFIG, p, mlp, masks, q), has_aux=True))
    ((loss, metrics), slopes), ((without, _), others) = evaluate(policy, 1.0), evaluate(policy, 0.0)
    noise = np.asarray(jax.random.normal(jax.random.key(4), (8, 4, 2)))
    means, log_stds = map(np.asarray, jax.vmap(networks.policy.apply, (None, 0))(policy, batch().observation))
    values, weights = [], []
    for row in range(8):
        s = np.asarray(batch().observation[row])
        a = np.tanh(means[row] + np.exp(log_stds[row]) * noise[row, 0])
        q = np.array([[q_by_hand(mlp, i, s, a, [m[t, i] for m in masks]) for t in range(5)] for i in (0, 1)])
        weights.append(np.exp(-3.0 * q.var(axis=1, ddof=1).sum()))
        values.append(q.mean(axis=1).min())
    np.testing.assert_allclose(float(loss - without), -np.mean(np.multiply(weights, values)), rtol=1e-3)
    np.testing.assert_allclose(metrics["policy_weight"], np.mean(weights), rtol=1e-4)
    assert np.ptp(weights) > 1e-3

    def weighted(p):  # the weights are numbers here
        mean, log_std = jax.vmap(networks.policy.apply, (None, 0))(p, batch().observation)
        action = jnp.tanh(mean + jnp.exp(log_std) * noise[:, 0])
        q, _ = uwac.q_moments(CONFIG, mlp, batch().observation, action, masks)
        return -jnp.mean(jnp.asarray(weights) * jnp.min(q, axis=1))

    expected = jax.tree.leaves(jax.jit(jax.grad(weighted))(policy))
    for one, other, right in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), expected, strict=True):
        np.testing.assert_allclose(one - other, right, rtol=2e-3, atol=1e-5)


def test_masks_at_once_changes_nothing_but_rounding():
    (_, _, mlp), masks, it = critics(), masks_of(2, 5), batch()
    results = [
        uwac.q_moments(Config(masks=5, masks_at_once=size), mlp, it.observation, it.action, masks)
        for size in (1, 2, 50)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result[0], results[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result[1], results[0][1], rtol=1e-3, atol=1e-7)


def run(module, config, steps: int = 3):
    entry = module.UWAC if module is uwac else module.BEAR
    algorithm = entry.make(config, SPEC, None)
    update, state = jax.jit(algorithm.update), algorithm.init(jax.random.key(0), None)
    for step in range(steps):
        state, metrics = update(state, batch(), jax.random.key(20 + step), jnp.asarray(step))
    return algorithm, state, metrics


def test_without_dropout_and_spectral_norm_it_is_bear():
    """All masks agree then, so variances are 0 and weights 1: the same states, through the warm-up and beyond."""
    shared = {**SIZES, **RATES, "mmd_limit": 0.1, "warm_up_steps": 1}
    _, theirs, their_metrics = run(bear, bear.Config(**shared))
    algorithm, ours, metrics = run(uwac, Config(**shared, masks=3, critic_dropout=0.0, spectral_norm=False))
    for part in ("cvae", "policy", "critic", "log_multiplier"):
        leaves = zip(jax.tree.leaves(getattr(ours, part)), jax.tree.leaves(getattr(theirs, part)), strict=True)
        for left, right in leaves:
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
    assert metrics["critic_weight"] == metrics["policy_weight"] == 1
    for name in ("critic_loss", "policy_loss", "q_target", "mmd"):
        np.testing.assert_allclose(metrics[name], their_metrics[name], rtol=1e-3)
    s = jnp.array([0.3, -0.8])
    np.testing.assert_allclose(
        algorithm.act(ours, s, jax.random.key(0), True),
        bear.BEAR.make(bear.Config(**shared), SPEC, None).act(theirs, s, jax.random.key(0), True),
        rtol=1e-3,
    )


def test_with_them_critics_have_slopes_below_one_and_directions_follow_the_weights():
    algorithm, state, metrics = run(uwac, CONFIG)
    assert 0 < metrics["critic_weight"] < 1
    assert 0 < metrics["policy_weight"] < 1
    exported = algorithm.export(state)
    for i in range(3):
        np.testing.assert_allclose(np.linalg.svd(exported[f"critic_weight_{i}"])[1][0], 1.0, atol=0.02)
    target = uwac.normalised(CONFIG, state.critic.target_params, state.directions.target)
    for layer in target.layers:
        np.testing.assert_allclose(np.linalg.svd(np.asarray(layer.weight[0]))[1][0], 1.0, atol=0.02)


def test_values_are_checked():
    assert (Config().masks, Config().uncertainty_weight, Config().mmd_limit, Config().critic_dropout) == (
        100,
        0.5,
        0.07,
        0.1,
    )
    for bad in ({"masks": 1}, {"critic_dropout": 1.0}, {"uncertainty_weight": -1.0}, {"masks_at_once": 0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            UWAC.validate(Config(**bad), None, None)
