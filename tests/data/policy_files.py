"""A small policy as D4RL's files keep it: 2 numbers, hidden layers of 5 and 4, 3 actions. All sizes differ, so that
nothing fits when it is transposed."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np

from itrpo.data.behavior_policy import BehaviorPolicy, Layer
from tests.data.hdf5_files import columns, write


def layer(random: np.random.Generator, inputs: int, outputs: int) -> Layer:
    weight, bias = random.normal(size=(outputs, inputs)), random.normal(size=outputs)
    return Layer(weight.astype(np.float32), (bias / 2).astype(np.float32))


def network(nonlinearity: str = "relu", low: float = -20.0, high: float = 2.0) -> BehaviorPolicy:
    random = np.random.default_rng(0)
    hidden = tuple(layer(random, *sizes) for sizes in ((2, 5), (5, 4)))
    return BehaviorPolicy(hidden, layer(random, 4, 3), layer(random, 4, 3), nonlinearity, low, high)


def moments(policy: BehaviorPolicy, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of u, neuron by neuron."""
    values = [float(value) for value in state]
    for weight, bias in policy.hidden:
        sums = [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        values = [max(it, 0.0) if policy.nonlinearity == "relu" else math.tanh(it) for it in sums]
    mean, log_std = (
        np.array([sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(*head, strict=True)])
        for head in (policy.mean, policy.log_std)
    )
    return mean, np.exp(np.clip(log_std, policy.log_std_low, policy.log_std_high))


def write_policy(path: Path, policy: BehaviorPolicy, arrays: dict[str, np.ndarray] | None = None) -> Path:
    """As D4RL's collect_data.py does; without `arrays` into a file of rows with 2 + 1 numbers."""
    write(path, arrays or columns())
    with h5py.File(path, "a") as file:
        group = file.create_group("metadata/policy")
        group["nonlinearity"] = np.bytes_(policy.nonlinearity)
        group["output_distribution"] = np.bytes_("tanh_gaussian")
        named = [(f"fc{index}", it) for index, it in enumerate(policy.hidden)]
        for name, (weight, bias) in [*named, ("last_fc", policy.mean), ("last_fc_log_std", policy.log_std)]:
            group[f"{name}/weight"], group[f"{name}/bias"] = weight, bias
    return path


def sampled(policy: BehaviorPolicy, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions and their log densities from the u that were drawn, all float32 as in a file."""
    random = np.random.default_rng(1)
    states = random.normal(size=(rows, 2))
    heads = [moments(policy, state) for state in states]
    mean, std = np.array([it[0] for it in heads]), np.array([it[1] for it in heads])
    noise = random.normal(size=mean.shape)
    pre_tanh = mean + std * noise
    log_slope = 2 * (np.log(2) - np.abs(pre_tanh) - np.log1p(np.exp(-2 * np.abs(pre_tanh))))
    densities = (-0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) - log_slope).sum(axis=1)
    return states.astype(np.float32), np.tanh(pre_tanh).astype(np.float32), densities.astype(np.float32)
