"""What a run of training in an environment (`itrpo.collection.online_run`) asks of whatever learns there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Int, Key

from itrpo.collection.rollout import ActingPolicy
from itrpo.errors import InputError
from itrpo.types import Metrics, SpaceSpec

HIDDEN_LAYERS = 2  # of an acting policy: its file format has this many


class Updates(NamedTuple):
    """A state is a NamedTuple of arrays; `policy`, a `Trainable`, is in it. An update sees a `Transition` of rows [B],
    on policy an `on_policy.Recent`.
    """

    init: Callable[[Key[Array, ""]], Any]
    update: Callable[[Any, Any, Key[Array, ""], Int[Array, ""]], tuple[Any, Metrics]]  # (.., number of updates)


class Agent(NamedTuple):
    name: str  # as readers know it
    metrics: tuple[str, ...]  # those of an update that curve.jsonl has
    validate: Callable[[Any], None]  # (config); raises InputError
    make: Callable[[Any, SpaceSpec], Updates]  # (config, spec)
    # (state, config) -> an acting policy's file: NAME.weight [in, out], NAME.bias; float32 on the host
    acting_arrays: Callable[[Any, Any], dict[str, np.ndarray]]
    # (policy, observations [B, O], standard normal noise [B, A]) -> actions [B, A] in [-1, 1], their log densities [B],
    # NaN where they have none; without noise the actions are the policy's modes
    act: Callable[[ActingPolicy, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    # (config) -> batches of steps that an iteration goes over, `make` and `acting_arrays` being given an
    # `on_policy.Sized` for a config; None: updates sample from a replay buffer
    batches: Callable[[Any], int] | None = None


def check_policy_hidden(widths: tuple[int, ...]) -> None:
    """Raises InputError for a policy that no file can hold."""
    if len(widths) != HIDDEN_LAYERS:
        raise InputError(
            f"policy_hidden must have {HIDDEN_LAYERS} widths, as files of acting policies do; got "
            f"{','.join(map(str, widths)) or 'none'}"
        )


def file_arrays(hidden: list[Any], heads: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """NAME.weight [in, out] and NAME.bias for hidden0, hidden1, mean and log_std. hidden: layers; heads: weight
    [out, in] and bias by name.
    """
    layers = {f"hidden{i}": (np.asarray(layer.weight), np.asarray(layer.bias)) for i, layer in enumerate(hidden)}
    arrays: dict[str, np.ndarray] = {}
    for name, (weight, bias) in (layers | dict(heads)).items():
        arrays[f"{name}.weight"] = np.ascontiguousarray(weight.T)
        arrays[f"{name}.bias"] = np.ascontiguousarray(bias)
    return arrays
