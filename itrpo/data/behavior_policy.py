"""The policy that made a dataset, where the file keeps its network, and how well the stored densities fit to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data.formats.hostile import opened_dataset, opened_group, opened_hdf5, text
from itrpo.data.layout import require_keys
from itrpo.errors import InputError

if TYPE_CHECKING:
    import h5py

POLICY = "metadata/policy"
NONLINEARITIES = ("relu", "tanh")
EDGE = 1e-6  # an action with |a| > 1 - EDGE is saturated: in float32 it no longer says which u = atanh(a) was drawn
CHECKED_ROWS = 20_000  # rows, spread over the dataset, that densities are recomputed for


class Layer(NamedTuple):
    weight: np.ndarray  # [out, in] float32
    bias: np.ndarray  # [out] float32


class BehaviorPolicy(NamedTuple):
    """pi_beta(a|s): a = tanh(u), u ~ N(mean(s), diag(exp(log_std(s)))^2). rlkit's TanhGaussianPolicy, as in D4RL."""

    hidden: tuple[Layer, ...]
    mean: Layer
    log_std: Layer
    nonlinearity: str
    log_std_low: float  # log standard deviations are clipped to this range
    log_std_high: float


class Agreement(NamedTuple):
    """Stored log densities against those of the policy: absolute differences, in nats."""

    rows: int
    saturated: int  # further rows that were looked at and left out
    mean: float
    largest: float


def log_prob(policy: BehaviorPolicy, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """log pi_beta(a|s) [B] of actions [B, A] within (-1, 1), given observations [B, O]. A density of a, not of u."""
    features = observations
    for layer in policy.hidden:
        features = features @ layer.weight.T + layer.bias
        features = np.maximum(features, 0) if policy.nonlinearity == "relu" else np.tanh(features)
    mean = features @ policy.mean.weight.T + policy.mean.bias
    log_std = features @ policy.log_std.weight.T + policy.log_std.bias
    log_std = np.clip(log_std, policy.log_std_low, policy.log_std_high).astype(np.float64)
    pre_tanh = np.arctanh(actions.astype(np.float64))
    standardised = (pre_tanh - mean) * np.exp(-log_std)
    log_normal = -0.5 * np.square(standardised) - log_std - 0.5 * np.log(2 * np.pi)
    log_slope = 2 * (np.log(2) - pre_tanh - np.logaddexp(0, -2 * pre_tanh))  # log(1 - a^2)
    return (log_normal - log_slope).sum(axis=1)


def saturated(actions: np.ndarray) -> np.ndarray:
    """bool [B]: rows whose action has a component at the edge, where its density can't be told any more."""
    return np.any(np.abs(actions) > 1 - EDGE, axis=1)


def fits(policy: BehaviorPolicy, observation_dim: int, action_dim: int) -> bool:
    """Whether the layers fit on each other, and on observations and actions of these sizes."""
    sizes = [observation_dim]
    for layer in policy.hidden:
        if layer.weight.shape[1] != sizes[-1]:
            return False
        sizes.append(layer.weight.shape[0])
    return policy.mean.weight.shape == policy.log_std.weight.shape == (action_dim, sizes[-1])


def agreement(
    policy: BehaviorPolicy, observations: np.ndarray, actions: np.ndarray, log_probs: np.ndarray
) -> Agreement | None:
    """How the stored `log_probs` [B] compare with the policy's; None if every row that was looked at is saturated."""
    chosen = slice(None, None, -(-len(actions) // CHECKED_ROWS))
    observations, actions, log_probs = observations[chosen], actions[chosen], log_probs[chosen]
    usable = ~saturated(actions)
    if not usable.any():
        return None
    differences = np.abs(log_probs[usable] - log_prob(policy, observations[usable], actions[usable]))
    return Agreement(len(differences), int((~usable).sum()), float(differences.mean()), float(differences.max()))


def read_policy(path: str | os.PathLike[str]) -> BehaviorPolicy | None:
    """The network that acted, from an HDF5 file whose rows were read already; None if the file has none.

    D4RL's layout: `metadata/policy/{fc0, fc1, ..., last_fc, last_fc_log_std}/{weight [out, in], bias [out]}` and the
    texts `nonlinearity` and `output_distribution`. `log_std_low` and `log_std_high`, numbers, hold the range that log
    standard deviations were clipped to (ours; D4RL's files don't have them, and rlkit's range is meant).
    Raises InputError if there is a policy, but not one that we can evaluate.
    """
    path = Path(path)
    with opened_hdf5(path, probe=False) as file:
        return _policy(file, str(path))


def _policy(file: h5py.File, where: str) -> BehaviorPolicy | None:
    metadata = opened_group(file, "metadata", where)
    if metadata is None or "policy" not in set(metadata):
        return None
    group = opened_group(file, POLICY, where)
    if group is None:
        raise InputError(f"{where}: {POLICY!r} is not a group of layers")
    names = set(group)
    require_keys(
        names, ("fc0", "last_fc", "last_fc_log_std", "nonlinearity", "output_distribution"), f"{where}: {POLICY}"
    )
    nonlinearity, distribution = (
        text(opened_dataset(file, f"{POLICY}/{name}", where)[()]) for name in ("nonlinearity", "output_distribution")
    )
    if nonlinearity not in NONLINEARITIES or distribution != "tanh_gaussian":
        raise InputError(
            f"{where}: {POLICY!r} has nonlinearity {nonlinearity!r} and output_distribution {distribution!r}; known are"
            f" {', '.join(NONLINEARITIES)} and 'tanh_gaussian'"
        )
    hidden = tuple(_layer(file, f"fc{index}", where) for index in range(sum(name[:2] == "fc" for name in names)))
    low, high = (
        float(opened_dataset(file, f"{POLICY}/{name}", where)[()]) if name in names else default
        for name, default in (("log_std_low", -20.0), ("log_std_high", 2.0))
    )
    return BehaviorPolicy(
        hidden, _layer(file, "last_fc", where), _layer(file, "last_fc_log_std", where), nonlinearity, low, high
    )


def _layer(file: h5py.File, name: str, where: str) -> Layer:
    weight, bias = (opened_dataset(file, f"{POLICY}/{name}/{part}", where)[()] for part in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or weight.dtype.kind != "f" or bias.dtype.kind != "f":
        raise InputError(
            f"{where}: '{POLICY}/{name}' has a weight of shape {list(weight.shape)} and a bias of {list(bias.shape)};"
            " they must be floating-point [out, in] and [out]"
        )
    return Layer(weight.astype(np.float32), bias.astype(np.float32))
