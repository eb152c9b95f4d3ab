"""A trained policy as one NPZ file that acts with NumPy alone.

    from itrpo.policy import load_policy
    policy = load_policy("runs/demo/seed0/policy.npz")
    action = policy(observation)

The file holds the network, the observation normaliser, the action scaling and the acting rule, and no code. This module
imports nothing of itrpo, so it can be copied next to a policy and used where itrpo is not installed.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 1
KINDS = ("tanh_mlp", "tanh_mixture_mlp")


class PolicyFileError(ValueError):
    """The file is not a policy of ours, is damaged, or was written by a newer format."""


@dataclass(frozen=True)
class Policy:
    """The greedy policy of one seed. Calling it maps observations [..., O] to actions [..., A] in the dataset's
    units.
    """

    kind: str  # acting rule, see `save_policy`
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]  # (weight [out, in], bias [out]) float32, first to last
    observation_mean: np.ndarray  # [O] float32
    observation_std: np.ndarray  # [O] float32
    action_low: np.ndarray  # [A] float32: the action that the network's -1 stands for
    action_high: np.ndarray  # [A] float32: the action that the network's +1 stands for
    metadata: dict[str, Any]  # environment, dataset, algorithm, version, ...

    def __call__(self, observation: Any) -> np.ndarray:
        """Actions [..., A] float32 for raw observations [..., O]. Raises ValueError for another last dimension."""
        raw = np.asarray(observation, np.float32)
        if raw.ndim == 0 or raw.shape[-1] != len(self.observation_mean):
            raise ValueError(f"observations must be [..., {len(self.observation_mean)}], not {list(raw.shape)}")
        hidden = (raw - self.observation_mean) / self.observation_std
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, 0.0)
        weight, bias = self.layers[-1]
        pre_tanh = hidden @ weight.T + bias
        if self.kind == "tanh_mixture_mlp":
            pre_tanh = _heaviest_mean(pre_tanh, len(self.action_low))
        center, half_range = (self.action_high + self.action_low) / 2, (self.action_high - self.action_low) / 2
        return center + half_range * np.tanh(pre_tanh)


def _heaviest_mean(output: np.ndarray, action_dim: int) -> np.ndarray:
    """[..., K + K * A] (logits, then means) -> the mean [..., A] of the component with the largest weight."""
    components = output.shape[-1] // (1 + action_dim)
    means = output[..., components:].reshape(*output.shape[:-1], components, action_dim)
    heaviest = output[..., :components].argmax(axis=-1)[..., None, None]
    return np.take_along_axis(means, heaviest, axis=-2)[..., 0, :]


def save_policy(
    path: str | Path,
    export: Mapping[str, Any],
    observation_mean: Any,
    observation_std: Any,
    action_low: Any,
    action_high: Any,
    metadata: Mapping[str, Any],
) -> None:
    """Write a policy for `load_policy`, atomically.

    `export` is {"kind": name, "weight_0": [out, in], "bias_0": [out], "weight_1": ...}: a ReLU network whose last layer
    gives - "tanh_mlp": the mean [A] of the pre-tanh Gaussian; the action is its tanh;
    - "tanh_mixture_mlp": K logits, then K means [A]; the action is the tanh of the mean of the heaviest component.
    The network sees (observation - observation_mean) / observation_std, both [O]; its actions -1 and +1 become
    `action_low` and `action_high`, both [A]. `metadata` must be JSON. Raises PolicyFileError if the parts do not fit
    each other.
    """
    arrays = {name: np.asarray(value, np.float32) for name, value in export.items() if name != "kind"}
    arrays |= {
        "observation_mean": np.asarray(observation_mean, np.float32),
        "observation_std": np.asarray(observation_std, np.float32),
        "action_low": np.asarray(action_low, np.float32),
        "action_high": np.asarray(action_high, np.float32),
    }
    texts = {"kind": export["kind"], "metadata": json.dumps(dict(metadata), allow_nan=False)}
    content = arrays | {name: np.array(text) for name, text in texts.items()} | {"version": np.array(FORMAT_VERSION)}
    target = Path(path)
    _parse(target, content)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_policy(path: str | Path) -> Policy:
    """The policy in an NPZ file written by `save_policy`. Nothing in the file is executed or unpickled.

    Raises PolicyFileError (a ValueError) with the path and what is wrong, FileNotFoundError if there is no file.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as entries:
            content = {name: entries[name] for name in entries.files}
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise PolicyFileError(f"{path}: not a policy file, or damaged ({error})") from error
    return _parse(Path(path), content)


def _parse(path: Path, content: Mapping[str, np.ndarray]) -> Policy:
    """The one check of a file's content, before it is written and after it is read."""

    def problem(text: str) -> PolicyFileError:
        return PolicyFileError(f"{path}: {text}")

    if "version" not in content or "kind" not in content:
        raise problem("not a policy file (it lacks 'version' or 'kind')")
    if str(content["version"]) != str(FORMAT_VERSION):
        raise problem(f"policy format {content['version']}; this version of itrpo reads format {FORMAT_VERSION}")
    kind = str(content["kind"])
    if kind not in KINDS:
        raise problem(f"unknown kind of policy {kind!r}; known: {', '.join(KINDS)}")
    depth = sum(name.startswith("weight_") for name in content)
    needed = [f"{part}_{i}" for i in range(max(depth, 1)) for part in ("weight", "bias")]
    needed += ["observation_mean", "observation_std", "action_low", "action_high"]
    missing = [name for name in needed if name not in content]
    if missing or "metadata" not in content:
        raise problem(f"damaged: it lacks {', '.join(missing) or 'metadata'}")
    for name in needed:
        if content[name].dtype != np.float32 or not np.isfinite(content[name]).all():
            raise problem(f"damaged: {name} is not an array of finite float32 numbers")
    layers = tuple((content[f"weight_{i}"], content[f"bias_{i}"]) for i in range(depth))
    mean, std, low, high = (content[name] for name in needed[-4:])
    if mean.ndim != 1 or mean.shape != std.shape or low.ndim != 1 or low.shape != high.shape:
        raise problem("observation_mean and observation_std must be [O], action_low and action_high [A]")
    if not ((std > 0).all() and (low < high).all()):
        raise problem("observation_std must be positive and action_low below action_high")
    size = len(mean)
    for i, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 or weight.shape[1] != size or bias.shape != weight.shape[:1]:
            raise problem(
                f"layer {i}: weight {list(weight.shape)} and bias {list(bias.shape)} do not fit {size} inputs"
            )
        size = len(bias)
    fits = size == len(low) if kind == "tanh_mlp" else size > 0 and size % (1 + len(low)) == 0
    if not fits:
        raise problem(f"a {kind} with {size} outputs does not fit actions of {len(low)} numbers")
    try:
        metadata = json.loads(str(content["metadata"]))
    except json.JSONDecodeError as error:
        raise problem(f"damaged: its metadata is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise problem("damaged: its metadata is not a JSON object")
    return Policy(kind, layers, mean, std, low, high, metadata)
