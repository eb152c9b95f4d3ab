"""One update of SAC against the same update worked out by hand in NumPy, forwards and backwards, in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.collection import sac
from itrpo.collection.rollout import ActingPolicy, act
from itrpo.errors import InputError
from itrpo.nn.trainable import Trainable, trainable
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(3, 2)
CONFIG = sac.Config(
    gamma=0.9, polyak_rate=0.1, batch_size=6, policy_hidden=(6, 5), critic_hidden=(7, 4), initial_entropy_weight=0.3
)
TARGET_ENTROPY = -1.5
POLICY_RATE, CRITIC_RATE, ENTROPY_RATE = 0.3, 0.05, 0.7  # of plain gradient descent, which shows gradients as they are

Layers = list[tuple[np.ndarray, np.ndarray]]  # of an MLP: (weight [out, in], bias [out])


# --- by hand ---------------------------------------------------------------------------------------------------------


def forward(layers: Layers, inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs [B, out], and the inputs of every layer for the way back."""
    seen = [inputs]
    for weight, bias in layers[:-1]:
        seen.append(np.maximum(seen[-1] @ weight.T + bias, 0))
    weight, bias = layers[-1]
    return seen[-1] @ weight.T + bias, seen


def backward(layers: Layers, seen: list[np.ndarray], slope: np.ndarray) -> tuple[Layers, np.ndarray]:
    """From the loss's slope at the outputs [B, out]: its slopes at the parameters, and at the inputs [B, in]."""
    gradients: Layers = []
    for index in reversed(range(len(layers))):
        gradients.insert(0, (slope.T @ seen[index], slope.sum(0)))
        slope = slope @ layers[index][0]
        if index > 0:
            slope = slope * (seen[index] > 0)
    return gradients, slope


def descend(layers: Layers, gradients: Layers, rate: float) -> Layers:
    return [(w - rate * dw, b - rate * db) for (w, b), (dw, db) in zip(layers, gradients, strict=True)]


def sample_by_hand(policy: Layers, observation: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
    outputs, seen = forward(policy, observation)
    mean, raw = outputs[:, :2], outputs[:, 2:]
    log_std = np.clip(raw, -5, 2)
    std = np.exp(log_std)
    pre_tanh = mean + std * noise
    log_cosh = np.abs(pre_tanh) + np.log((1 + np.exp(-2 * np.abs(pre_tanh))) / 2)
    log_density = np.log(np.exp(-(noise**2) / 2) / np.sqrt(2 * np.pi) / std) + 2 * log_cosh  # tanh' = 1 / cosh^2
    return {
        "action": np.tanh(pre_tanh),
        "log_prob": log_density.sum(1),
        "std": std,
        "open": (raw > -5) & (raw < 2),  # where the clip passes a gradient
        "outputs": outputs,
        "seen": seen,  # pyright: ignore[reportReturnType]
    }


def update_by_hand(
    policy: Layers,
    critics: list[Layers],
    targets: list[Layers],
    log_weight: float,
    batch: Transition,
    next_noise: np.ndarray,
    noise: np.ndarray,
) -> dict[str, Any]:
    size, weight = len(batch.reward), np.exp(log_weight)
    following = sample_by_hand(policy, batch.next_observation, next_noise)
    inputs = np.concatenate([batch.next_observation, following["action"]], 1)
    next_q = np.stack([forward(it, inputs)[0][:, 0] for it in targets]).min(0)
    y = batch.reward + CONFIG.gamma * batch.continues * (next_q - weight * following["log_prob"])

    inputs, new_critics, critic_loss = np.concatenate([batch.observation, batch.action], 1), [], 0.0
    for critic in critics:
        q, seen = forward(critic, inputs)
        critic_loss += ((q[:, 0] - y) ** 2).mean()
        gradients, _ = backward(critic, seen, 2 * (q - y[:, None]) / size)
        new_critics.append(descend(critic, gradients, CRITIC_RATE))

    own = sample_by_hand(policy, batch.observation, noise)
    inputs = np.concatenate([batch.observation, own["action"]], 1)
    qs, slopes = [], []
    for critic in new_critics:
        q, seen = forward(critic, inputs)
        qs.append(q[:, 0])
        slopes.append(backward(critic, seen, np.ones_like(q))[1][:, 3:])  # dQ/da
    smallest = np.argmin(qs, axis=0)
    rows = np.arange(size)
    q, q_slope = np.array(qs)[smallest, rows], np.array(slopes)[smallest, rows]
    # at fixed noise: d log_prob / d pre_tanh = 2 tanh, from the Jacobian; d log_prob / d log_std = -1 besides that
    pre_tanh_slope = weight * 2 * own["action"] - q_slope * (1 - own["action"] ** 2)
    log_std_slope = (pre_tanh_slope * own["std"] * noise - weight) * own["open"]
    gradients, _ = backward(policy, own["seen"], np.concatenate([pre_tanh_slope, log_std_slope], 1) / size)  # pyright: ignore[reportArgumentType]
    new_targets = [
        [(0.9 * w + 0.1 * nw, 0.9 * b + 0.1 * nb) for (w, b), (nw, nb) in zip(target, critic, strict=True)]
        for target, critic in zip(targets, new_critics, strict=True)
    ]
    return {
        "policy": descend(policy, gradients, POLICY_RATE),
        "critics": new_critics,
        "targets": new_targets,
        "log_weight": log_weight + ENTROPY_RATE * (own["log_prob"].mean() + TARGET_ENTROPY),
        "critic_loss": critic_loss,
        "policy_loss": (weight * own["log_prob"] - q).mean(),
        "entropy": -own["log_prob"].mean(),
        "q_target": y.mean(),
        "entropy_weight": weight,
        "clipped": int((~own["open"]).sum()),
        "argmins": set(smallest.tolist()),
    }


# --- against it ------------------------------------------------------------------------------------------------------


def layers_of(mlp: Any, member: int | None = None) -> Layers:
    arrays = [(np.float64(layer.weight), np.float64(layer.bias)) for layer in mlp.layers]
    return arrays if member is None else [(w[member], b[member]) for w, b in arrays]


def assert_layers(layers: Layers, expected: Layers, before: Layers) -> None:
    """Compares what has changed, so that a small gradient counts as much as a large parameter."""
    for now, then, old in zip(layers, expected, before, strict=True):
        for a, b, start in zip(now, then, old, strict=True):
            assert np.abs(b - start).max() > 1e-5
            np.testing.assert_allclose(a - start, b - start, rtol=2e-3, atol=3e-6)


@pytest.fixture(scope="module")
def networks() -> sac.Networks:
    return sac.make_networks(CONFIG, SPEC)


def make_batch(seed: int) -> Transition:
    rng = np.random.default_rng(seed)
    size = CONFIG.batch_size
    return Transition(
        rng.normal(size=(size, 3)).astype(np.float32),
        rng.uniform(-1, 1, (size, 2)).astype(np.float32),
        rng.normal(size=size).astype(np.float32),
        np.float32([1, 1, 0, 1, 0, 1]),
        rng.normal(size=(size, 3)).astype(np.float32),
        np.zeros((size, 2), np.float32),
    )


def test_an_update_is_the_one_worked_out_by_hand(networks: sac.Networks) -> None:
    """Two updates in a row, from targets that differ from the critics, with clipped and free standard deviations."""
    descents = [optax.sgd(rate) for rate in (POLICY_RATE, CRITIC_RATE, ENTROPY_RATE)]
    networks = sac.Networks(networks.actor, networks.critics, *descents)
    keys = jax.random.split(jax.random.key(3), 3)
    policy, critic = jax.jit(networks.actor.init)(keys[0]), jax.jit(networks.critics.init)(keys[1])
    biases = jnp.float32([0.3, -0.2, 2.1, -0.4])  # of means and log_stds; the clips are at -5 and 2
    policy = eqx.tree_at(lambda it: it.mlp.layers[-1].bias, policy, biases)
    state = sac.State(
        trainable(networks.policy_optimizer, policy),
        trainable(networks.critic_optimizer, critic)._replace(target_params=jax.jit(networks.critics.init)(keys[2])),
        trainable(networks.entropy_optimizer, jnp.log(jnp.float32(0.3))),
    )
    update = jax.jit(partial(sac.update, CONFIG, TARGET_ENTROPY, networks))
    clipped, argmins = 0, set()
    for number in range(2):
        batch, key = make_batch(number), jax.random.key(10 + number)
        noises = np.float64(jax.random.normal(key, (2, CONFIG.batch_size, 2)))
        before = state
        state, metrics = update(state, batch, key)
        expected = update_by_hand(
            layers_of(before.policy.params.mlp),
            [layers_of(before.critic.params.mlp, i) for i in range(2)],
            [layers_of(before.critic.target_params.mlp, i) for i in range(2)],
            float(before.log_entropy_weight.params),
            Transition(*(np.float64(it) for it in batch)),
            *noises,
        )
        for name, value in metrics.items():
            np.testing.assert_allclose(value, expected[name], rtol=2e-5, err_msg=name)
        assert_layers(layers_of(state.policy.params.mlp), expected["policy"], layers_of(before.policy.params.mlp))
        for i in range(2):
            old, new = before.critic, state.critic
            assert_layers(layers_of(new.params.mlp, i), expected["critics"][i], layers_of(old.params.mlp, i))
            assert_layers(
                layers_of(new.target_params.mlp, i),
                expected["targets"][i],
                layers_of(old.target_params.mlp, i),
            )
        np.testing.assert_allclose(state.log_entropy_weight.params, expected["log_weight"], atol=2e-6)
        clipped += expected["clipped"]
        argmins |= expected["argmins"]
    assert 0 < clipped < 2 * CONFIG.batch_size * 2
    assert argmins == {0, 1}


def test_each_optimiser_has_its_own_rate_and_the_target_is_the_negative_action_size(networks: sac.Networks) -> None:
    """Adam's first step is the learning rate in every coordinate whose gradient is not nothing."""
    config = replace(CONFIG, policy_learning_rate=0.02, critic_learning_rate=0.003, entropy_learning_rate=0.0004)
    algorithm = sac.make(config, SPEC)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    after, metrics = jax.jit(algorithm.update)(state, make_batch(0), jax.random.key(1), 0)
    for part, rate in ((0, 0.02), (1, 0.003)):
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after[part].params, state[part].params)
        np.testing.assert_allclose(max(jax.tree.leaves(moved)), rate, rtol=1e-3)
    up = after.log_entropy_weight.params - state.log_entropy_weight.params
    np.testing.assert_allclose(up, 0.0004 * np.sign(-2 - metrics["entropy"]), rtol=1e-2)


def test_the_saved_policy_acts_as_the_trained_one(networks: sac.Networks) -> None:
    params = jax.tree.map(lambda it: 4 * it, jax.jit(networks.actor.init)(jax.random.key(5)))
    state: Any = SimpleNamespace(policy=Trainable(params, None, None))
    arrays = sac.acting_arrays(state, CONFIG)
    assert {name: array.shape for name, array in arrays.items() if name.endswith("weight")} == {
        "hidden0.weight": (3, 6),
        "hidden1.weight": (6, 5),
        "mean.weight": (5, 2),
        "log_std.weight": (5, 2),
    }
    pairs = [(arrays[f"{it}.weight"], arrays[f"{it}.bias"]) for it in ("hidden0", "hidden1", "mean", "log_std")]
    policy = ActingPolicy((pairs[0], pairs[1]), pairs[2], pairs[3])
    rng = np.random.default_rng(0)
    observation, noise = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    expected = sample_by_hand(layers_of(params.mlp), np.float64(observation), np.float64(noise))
    assert not expected["open"].all()  # some log standard deviations are clipped
    action, log_prob = act(policy, observation, noise)
    np.testing.assert_allclose(action, expected["action"], atol=2e-6)
    np.testing.assert_allclose(log_prob, expected["log_prob"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gamma", 1.0, "gamma must be in"),
        ("polyak_rate", 0.0, "polyak_rate must be in"),
        ("batch_size", 0, "batch_size must be at least 1"),
        ("critics", 0, "critics must be at least 1"),
        ("critic_learning_rate", 0.0, "critic_learning_rate must be positive"),
        ("initial_entropy_weight", -1.0, "initial_entropy_weight must be positive"),
        ("target_entropy", float("inf"), "target_entropy must be finite"),
        ("policy_hidden", (64,), "policy_hidden must have 2 widths"),
        ("critic_hidden", (64, 0), "critic_hidden: every number must be at least 1"),
    ],
)
def test_values_out_of_range_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sac.validate(replace(CONFIG, **{field: value}))
