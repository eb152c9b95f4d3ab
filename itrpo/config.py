"""What a run is made of, as frozen dataclasses; reading them from text, writing them as JSON, hashing them.

Algorithm configs nest groups of fields that several algorithms share. A field is set by its own name wherever it sits
(`--polyak-rate`), so the names within one config are unique.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from itrpo.errors import InputError
from itrpo.registry import nearest


@dataclass(frozen=True)
class DataConfig:
    dataset: str  # name, path, or "arrays"
    env: str | None = None  # gymnasium id; None: what the dataset says; "none": no evaluation
    task: str | None = None  # "hopper-medium": whose constants a preset takes where they differ by task
    normalize_observations: bool = False  # (s - mean) / (std + 1e-3), fitted on the data and saved with the policy
    reward_scale: float = 1.0  # training sees reward_scale * r + reward_shift; reports never do
    reward_shift: float = 0.0
    action_low: tuple[float, ...] | None = None  # raw actions in [low, high] are rescaled to [-1, 1]
    action_high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1_000_000  # gradient steps (the paper's)
    seeds: int = 4  # trained together, as one compiled program (the paper's)
    seed: int = 0  # everything random is derived from it
    behavior_steps: int | None = None  # of the fit of pi_beta; None: the source's length scaled by steps, at least 100
    divergence_limit: float | None = None  # of |Q|; None: 1e5 times the largest |reward|, at least 1e5


@dataclass(frozen=True)
class EvalConfig:
    eval_every: int = 5_000  # gradient steps
    eval_episodes: int = 10  # per seed and evaluation


@dataclass(frozen=True)
class RunConfig:
    data: DataConfig
    algorithm: str  # name in the registry
    preset: str
    algorithm_config: Any
    behavior: str | None  # name in the registry of the model of pi_beta; None: the algorithm needs none
    behavior_config: Any
    train: TrainConfig
    evaluation: EvalConfig
    scaled_fields: tuple[str, ...] = ()  # of algorithm_config: step counts that a run scales from the preset's length


# --- fields by name ------------------------------------------------------------------------------------------------


def leaves(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, type, value) of every field that is not itself a dataclass, groups opened, in their order."""
    hints = get_type_hints(type(config))
    for it in dataclasses.fields(config):
        value = getattr(config, it.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield it.name, hints[it.name], value


def override(config: Any, values: Mapping[str, Any], what: str) -> Any:
    """`config` with fields replaced, wherever they sit. Text is parsed by the field's type.

    Raises InputError for an unknown field, naming the nearest, and for text that is not of the field's type.
    """
    known = {name: kind for name, kind, _ in leaves(config)}
    parsed = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{what} has no field {name!r}{nearest(name, known)}; its fields: {', '.join(known)}")
        parsed[name] = parse(value, known[name], f"{what} field {name!r}") if isinstance(value, str) else value
    return replace_leaves(config, parsed)


def replace_leaves(config: Any, values: Mapping[str, Any]) -> Any:
    """As `override`, for names and values known to fit."""
    changes: dict[str, Any] = {}
    for it in dataclasses.fields(config):
        value = getattr(config, it.name)
        if dataclasses.is_dataclass(value):
            inner = replace_leaves(value, values)
            if inner is not value:
                changes[it.name] = inner
        elif it.name in values:
            changes[it.name] = values[it.name]
    return dataclasses.replace(config, **changes) if changes else config


def parse(text: str, kind: Any, what: str) -> Any:
    """Text -> a value of type `kind`: int, float, bool, str, Literal, tuple[X, ...] ("256,256"), or those | None."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        options = [it for it in get_args(kind) if it is not type(None)]
        return None if text.lower() == "none" else parse(text, options[0], what)
    if origin is Literal:
        if text not in get_args(kind):
            raise InputError(f"{what} must be one of {', '.join(get_args(kind))}, got {text!r}")
        return text
    if origin is tuple:
        return tuple(parse(it.strip(), get_args(kind)[0], what) for it in text.strip("()[] ").split(",") if it.strip())
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind is int:
            return int(text.replace("_", ""))
        number = kind(text)
    except (ValueError, KeyError):
        raise InputError(f"{what} takes {kind.__name__}, got {text!r}") from None
    if kind is float and math.isnan(number):
        raise InputError(f"{what} must be a number, got {text!r}")
    return number


# --- JSON and identity ---------------------------------------------------------------------------------------------


def to_json(config: Any) -> Any:
    """Nested dicts and lists of JSON's own types; infinities become the strings "inf" and "-inf"."""
    if dataclasses.is_dataclass(config):
        return {it.name: to_json(getattr(config, it.name)) for it in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(it) for it in config]
    if isinstance(config, float) and math.isinf(config):
        return "inf" if config > 0 else "-inf"
    return config


def config_hash(config: RunConfig) -> str:
    """Eight hex digits that identify a run: all of its config but its length, so that a longer one continues it."""
    values = to_json(config)
    del values["train"]["steps"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """'field: old -> new' for each leaf in which two results of `to_json` differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(set(old) | set(new))
        return [line for it in names for line in differences(old.get(it), new.get(it), f"{prefix}{it}.")]
    return [] if old == new else [f"{prefix[:-1]}: {old!r} -> {new!r}"]
