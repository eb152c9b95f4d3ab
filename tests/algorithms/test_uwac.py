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
from itrpo.nn.trainable import Trainable
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


def test_without_dropout_and_spectral_norm_it_is_bear():
    """All masks agree then, so variances are 0 and weights 1: the same states, through the warm-up and beyond."""
    shared = {**SIZES, **RATES, "mmd_limit": 0.1, "warm_up_steps": 1}

    @partial(jax.jit, static_argnames="module")
    def update(module, state, dropout, key, step):
        if module is bear:
            return bear.BEAR.make(bear.Config(**shared), SPEC, None).update(state, batch(), key, step)
        config = Config(**shared, masks=3, critic_dropout=dropout, spectral_norm=False)
        return UWAC.make(config, SPEC, None).update(state, batch(), key, step)

    config = Config(**shared, masks=3, spectral_norm=False)
    ours, theirs = UWAC.make(config, SPEC, None), bear.BEAR.make(bear.Config(**shared), SPEC, None)
    states = [jax.jit(it.init)(jax.random.key(0), None) for it in (ours, theirs)]
    for step in range(3):
        key = jax.random.key(20 + step)
        pairs = [update(module, it, 0.0, key, step) for module, it in zip((uwac, bear), states, strict=True)]
        states, (metrics, their_metrics) = zip(*pairs, strict=True)
    for part in ("cvae", "policy", "critic", "log_multiplier"):
        for left, right in zip(*(jax.tree.leaves(getattr(it, part)) for it in states), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
    assert metrics["critic_weight"] == metrics["policy_weight"] == 1
    for name in ("critic_loss", "policy_loss", "q_target", "mmd"):
        np.testing.assert_allclose(metrics[name], their_metrics[name], rtol=1e-3)
    s = jnp.array([0.3, -0.8])
    greedy = [it.act(state, s, jax.random.key(0), True) for it, state in zip((ours, theirs), states, strict=True)]
    np.testing.assert_allclose(*greedy, rtol=1e-3)

    _, metrics = update(uwac, states[0], 0.3, jax.random.key(20), 0)
    assert 0 < metrics["critic_weight"] < 1
    assert 0 < metrics["policy_weight"] < 1


def test_directions_follow_the_weights_of_critics_and_of_their_targets():
    params, directions, _ = critics()
    moved = jax.tree.map(
        lambda it: it + 0.3 * np.random.default_rng(0).normal(size=it.shape).astype(np.float32), params
    )
    critic, found = Trainable(moved, None, params), uwac.Directions(directions, directions)

    def errors(found):
        """Largest distance of a spectral norm from 1: of the critics, of the targets."""
        used = [uwac.normalised(CONFIG, it, way) for it, way in zip((moved, params), found, strict=True)]
        return [max(abs(np.linalg.svd(it.weight)[1][:, 0] - 1).max() for it in mlp.layers) for mlp in used]

    before = errors(found)
    for _ in range(30):
        found = uwac.followed(CONFIG, critic, found)
    after = errors(found)
    assert before[0] > 0.02 > after[0]
    assert after[1] < 1e-3
    kept = uwac.followed(Config(spectral_norm=False), critic, uwac.Directions(directions, directions))
    np.testing.assert_array_equal(kept.critic[0], directions[0])


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
