"""UWAC against its equations, in NumPy loops over masks; without dropout and spectral norm, against BEAR."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import bear, mmd_actor_critic, uwac
from itrpo.algorithms.mmd_actor_critic import Backbone, Draws
from itrpo.algorithms.uwac import UWAC, Config
from itrpo.errors import InputError
from itrpo.nn.dropout import draw_masks
from itrpo.nn.trainable import Trainable
from itrpo.ranges import check_ranges
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(2, 2)
SIZES = {"policy_hidden": (6,), "critic_hidden": (7, 5), "cvae_hidden": (6,), "batch_size": 8, "target_actions": 3}
RATES = dict.fromkeys(("policy_learning_rate", "critic_learning_rate", "cvae_learning_rate"), 0.01)
CONFIG = Config(
    uncertainty_weight=3.0,
    masks=5,
    masks_at_once=2,
    critic_dropout=0.3,
    backbone=Backbone(**SIZES, **RATES, warm_up_steps=0),
)
NETWORKS = mmd_actor_critic.make_networks(CONFIG.backbone, SPEC)
q_moments = jax.jit(uwac.q_moments, static_argnums=0)  # one program each, where its parts would compile one by one
normalised, followed = (jax.jit(it, static_argnums=0) for it in (uwac.normalised, uwac.followed))


def batch(rows: int = 8) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


@cache
def critics():
    """(parameters, directions, normalised parameters) of weights that make Q vary."""

    def draw(keys):
        params = jax.tree.map(lambda it: 2 * it, NETWORKS.critics.init(keys[0]))
        directions = jax.vmap(lambda key, mlp: uwac.spectral.init_directions(key, mlp, 100))(keys, params.mlp)
        return params, directions, uwac.normalised(CONFIG, params, directions)

    return jax.jit(draw)(jax.random.split(jax.random.key(0), 2))


def q_by_hand(params, i, s, a, masks):
    """Q_i(s, a) of normalised critics; masks: one [width] array for each hidden layer."""
    hidden = np.concatenate([s, a])
    for layer, mask in zip(params.mlp.layers, (*masks, None), strict=True):
        hidden = np.float64(layer.weight)[i] @ hidden + np.float64(layer.bias)[i]
        hidden = hidden if mask is None else np.maximum(hidden, 0) * mask
    return hidden[0]


def masks_of(seed, count):
    """NumPy masks [count, 2, width] for both critics."""
    return tuple(map(np.asarray, draw_masks(jax.random.key(seed), CONFIG.backbone.critic_hidden, 0.3, (count, 2))))


def on_device(arrays):
    return jax.tree.map(jnp.asarray, arrays)


def test_moments_are_over_the_masks_and_the_variance_is_unbiased():
    params, _, used = critics()
    for i in (0, 1):
        for layer, raw in zip(used.mlp.layers, params.mlp.layers, strict=True):
            sigma = np.linalg.svd(raw.weight[i])[1][0]
            np.testing.assert_allclose(layer.weight[i], raw.weight[i] / sigma, rtol=1e-4)
    masks, it = masks_of(2, 5), batch()
    mean, variance = q_moments(CONFIG, used, it.observation, it.action, on_device(masks))
    for row in range(8):
        s, a = np.asarray(it.observation[row]), np.asarray(it.action[row])
        for i in (0, 1):
            q = [q_by_hand(used, i, s, a, [layer[t, i] for layer in masks]) for t in range(5)]
            np.testing.assert_allclose(mean[i, row], np.mean(q), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(variance[i, row], np.sum((q - np.mean(q)) ** 2) / 4, rtol=1e-3, atol=1e-8)
    assert variance.max() > 1e-4
    pairs = jnp.stack([-it.action, it.action], axis=1)  # two actions at each state
    for found, expected in zip(
        q_moments(CONFIG, used, it.observation, pairs, on_device(masks)), (mean, variance), strict=True
    ):
        np.testing.assert_allclose(found[:, :, 1], expected, rtol=1e-4, atol=1e-6)


def test_target_and_weight_by_hand():
    """Critics are mixed, then the best action taken; the weight is that of the largest sum of variances."""
    mean = np.array([[[1.0, 3.0], [2.5, 2.6], [0.0, 9.0]], [[1.0, -2.0], [0.5, 0.4], [3.0, 3.5]]])  # [B, n, 2]
    variance = np.array([[[0.1, 0.2], [0.3, 0.05], [0.02, 0.02]], [[0.1, 0.1], [0.0, 0.0], [0.0, 0.05]]])
    config = Config(uncertainty_weight=3.0, backbone=Backbone(min_weight=0.75, gamma=0.9))
    rows = jax.tree.map(lambda it: it[1:3], batch())
    moments = (jnp.moveaxis(jnp.asarray(it), 2, 0) for it in (mean, variance))
    target, weight = uwac.critic_targets(config, rows, *moments)
    for i in (0, 1):
        best = max(0.75 * q.min() + 0.25 * q.max() for q in mean[i])
        np.testing.assert_allclose(target[i], rows.reward[i] + 0.9 * rows.continues[i] * best, rtol=1e-6)
    np.testing.assert_allclose(weight, np.exp([-3.0 * 0.35, -3.0 * 0.2]), rtol=1e-6)
    np.testing.assert_allclose(uwac.weight(config, jnp.array([0.0, 1e9])), [1.0, 0.0])


def test_critic_loss_has_the_weight_inside_the_square_and_a_mask_per_row():
    params, directions, used = critics()
    masks, it = masks_of(4, 8), jax.tree.map(np.asarray, batch())
    targets, weights = np.linspace(-1, 1, 8), np.linspace(0.2, 1, 8)
    expected = np.mean(
        [
            sum(
                (
                    weights[b]
                    * (q_by_hand(used, i, it.observation[b], it.action[b], [m[b, i] for m in masks]) - targets[b])
                )
                ** 2
                for i in (0, 1)
            )
            for b in range(8)
        ]
    )
    evaluate = jax.jit(partial(uwac.critic_loss, CONFIG))
    own = tuple(np.moveaxis(mask, 1, 0) for mask in masks)
    loss, metrics = evaluate(params, directions, it, jnp.asarray(targets), jnp.asarray(weights), own)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_weight"], weights.mean(), rtol=1e-5)


def policy_loss(policy_params, used, masks, q_weight):
    model = NETWORKS.model.params(jax.jit(NETWORKS.model.init)(jax.random.key(3)))
    draws = Draws(jax.random.normal(jax.random.key(4), (8, 4, 2)), jax.random.normal(jax.random.key(5), (8, 4, 4)))
    fixed = (used, model, jnp.zeros(()), batch().observation, draws, masks)
    return uwac.policy_loss(NETWORKS, CONFIG, q_weight, policy_params, *fixed)


def test_the_actor_weighs_the_least_mean_q_and_holds_the_weight_constant():
    (_, _, used), masks = critics(), masks_of(7, 5)
    policy = jax.tree.map(lambda it: 5 * it, jax.jit(NETWORKS.actor.init)(jax.random.key(6)))
    evaluate = jax.jit(jax.value_and_grad(lambda p, q: policy_loss(p, used, on_device(masks), q), has_aux=True))
    ((loss, metrics), slopes), ((without, _), others) = evaluate(policy, 1.0), evaluate(policy, 0.0)
    noise = np.asarray(jax.random.normal(jax.random.key(4), (8, 4, 2)))
    means, log_stds = map(np.asarray, jax.jit(NETWORKS.actor.moments)(policy, batch().observation))
    values, weights = [], []
    for row in range(8):
        s = np.asarray(batch().observation[row])
        a = np.tanh(means[row] + np.exp(log_stds[row]) * noise[row, 0])
        q = np.array([[q_by_hand(used, i, s, a, [m[t, i] for m in masks]) for t in range(5)] for i in (0, 1)])
        weights.append(np.exp(-3.0 * q.var(axis=1, ddof=1).sum()))
        values.append(q.mean(axis=1).min())
    np.testing.assert_allclose(float(loss - without), -np.mean(np.multiply(weights, values)), rtol=1e-3)
    np.testing.assert_allclose(metrics["policy_weight"], np.mean(weights), rtol=1e-4)
    assert np.ptp(weights) > 1e-3

    def weighted(p):  # the weights are numbers here
        mean, log_std = NETWORKS.actor.moments(p, batch().observation)
        action = jnp.tanh(mean + jnp.exp(log_std) * noise[:, 0])
        q, _ = uwac.q_moments(CONFIG, used, batch().observation, action, on_device(masks))
        return -jnp.mean(jnp.asarray(weights) * jnp.min(q, axis=0))

    expected = jax.tree.leaves(jax.jit(jax.grad(weighted))(policy))
    for one, other, right in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), expected, strict=True):
        np.testing.assert_allclose(one - other, right, rtol=2e-3, atol=1e-5)


def test_masks_at_once_changes_nothing_but_rounding():
    (_, _, used), masks, it = critics(), masks_of(2, 5), batch()
    results = [
        q_moments(Config(masks=5, masks_at_once=size), used, it.observation, it.action, on_device(masks))
        for size in (1, 2, 50)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result[0], results[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result[1], results[0][1], rtol=1e-3, atol=1e-7)


def test_without_dropout_and_spectral_norm_it_is_bear():
    """All masks agree then, so variances are 0 and weights 1: the same states, through the warm-up and beyond."""
    shared = {"mmd_limit": 3.0, "backbone": Backbone(**SIZES, **RATES, warm_up_steps=1)}
    config = Config(**shared, masks=3, spectral_norm=False)
    ours, theirs = UWAC.make(config, SPEC, None), bear.BEAR.make(bear.Config(**shared), SPEC, None)

    @partial(jax.jit, static_argnames="module")
    def update(module, state, dropout, key, step):
        if module is bear:
            return theirs.update(state, batch(), key, step)
        return UWAC.make(replace(config, critic_dropout=dropout), SPEC, None).update(state, batch(), key, step)

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
    s, algorithms = jnp.array([[0.3, -0.8]]), (ours, theirs)
    greedy = [
        jax.jit(it.acting.act, static_argnums=3)(state, s, jax.random.key(0), True)
        for it, state in zip(algorithms, states, strict=True)
    ]
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
        used = [normalised(CONFIG, it, way) for it, way in zip((moved, params), found, strict=True)]
        return [max(abs(np.linalg.svd(it.weight)[1][:, 0] - 1).max() for it in each.mlp.layers) for each in used]

    before = errors(found)
    for _ in range(30):
        found = followed(CONFIG, critic, found)
    after = errors(found)
    assert before[0] > 0.02 > after[0]
    assert after[1] < 1e-3
    kept = uwac.followed(Config(spectral_norm=False), critic, uwac.Directions(directions, directions))
    np.testing.assert_array_equal(kept.critic[0], directions[0])


def test_a_single_mask_is_refused():
    with pytest.raises(InputError, match="masks must be at least 2"):
        check_ranges(Config(masks=1))
