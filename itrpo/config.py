"""What a run is made of, as frozen dataclasses; setting and describing their fields, writing them as JSON, hashing.

Algorithm configs nest groups of fields that several algorithms share. A field is set by its own name wherever it sits
(`--polyak-rate`), so the names within one config are unique.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import io
import json
import math
import os
import textwrap
import tokenize
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from itrpo.errors import InputError
from itrpo.ranges import check_ranges
from itrpo.registry import nearest


@dataclass(frozen=True)
class DataConfig:
    dataset: str  # name, path, or "arrays"
    env: str  # gymnasium id; "none": no evaluation
    task: str | None  # "hopper-medium": whose constants a preset takes where they differ by task
    normalize_observations: bool  # (s - mean) / (std + 1e-3), fitted on the data and saved with the policy
    reward_scale: float  # training sees reward_scale * r + reward_shift; reports never do
    reward_shift: float
    action_low: tuple[float, ...]  # raw actions in [low, high] are rescaled to [-1, 1]
    action_high: tuple[float, ...]
    columns: Mapping[str, Any] | None = None  # of a log with names of its own: field -> the columns that it took
    by_column: bool | None = None  # True: normalised without the 1e-3, constant columns left out; None: as published
    stack: int | None = None  # observations in a row that are one, with the actions between them; None: 1
    rules: Mapping[str, Any] | None = None  # gaps, fills and periods of tables (`itrpo.data.series`), times in seconds
    holdout: float | None = None  # share of the episodes that nothing of the run has seen; None: 0
    num_actions: int | None = None  # an action is one of so many choices from action_low on; None: a vector
    parent: Mapping[str, Any] | None = None  # the run that this one goes on from, and its normaliser


@dataclass(frozen=True)
class TrainConfig:
    steps: int  # gradient steps
    seeds: int  # policies, each trained as if it were alone
    seed: int  # everything random is derived from it
    behavior_steps: int | None  # of the fit of pi_beta; None: the source's length scaled by steps, at least 100
    divergence_limit: float | None = None  # of |Q|; None: 1e5 times the largest |reward|, at least 1e5


@dataclass(frozen=True)
class EvalConfig:
    eval_every: int  # gradient steps
    eval_episodes: int  # per seed and evaluation


@dataclass(frozen=True)
class RunConfig:
    data: DataConfig
    algorithm: str  # name in the registry, or MODULE:ENTRY
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
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield field.name, hints[field.name], value


def descriptions(kind: type) -> dict[str, str]:
    """Field -> the comment at the end of its line in the source, groups opened, in their order."""
    comments: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if dataclasses.is_dataclass(one):
            comments |= own_comments(one)
    hints, found = get_type_hints(kind), dict[str, str]()
    for field in dataclasses.fields(kind):
        group = hints[field.name]
        found |= (
            descriptions(group)
            if isinstance(group, type) and dataclasses.is_dataclass(group)
            else {field.name: comments.get(field.name, "")}
        )
    return found


def own_comments(kind: type) -> dict[str, str]:
    """Of the fields that stand in the class itself; none if it was typed into a notebook or a prompt."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (definition,) = ast.parse(source).body
    return {
        node.target.id: comments.get(node.end_lineno or 0, "")
        for node in ast.iter_child_nodes(definition)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def override(config: Any, values: Mapping[str, Any], what: str) -> Any:
    """`config` with fields replaced, wherever they sit.

    Raises InputError for an unknown field, naming the nearest, and for a value that is not of the field's type.
    """
    known = {name: kind for name, kind, _ in leaves(config)}
    for name in values:
        if name not in known:
            raise InputError(f"{what} has no field {name!r}{nearest(name, known)}; its fields: {', '.join(known)}")
    return replace_leaves(
        config, {name: checked(value, known[name], f"{what}: {name}") for name, value in values.items()}
    )


def replace_leaves(config: Any, values: Mapping[str, Any]) -> Any:
    """As `override`, for names and values known to fit."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = replace_leaves(value, values)
            if inner is not value:
                changes[field.name] = inner
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(config, **changes) if changes else config


Options = TypeVar("Options")


def checked_options(given: Options, kind: type[Options], what: str) -> Options:
    """An object of a dataclass, each of its values of its type and in its range. Raises InputError for any other."""
    if not isinstance(given, kind):
        raise InputError(f"{what} must be {kind.__name__}(...) of {kind.__module__}, got {got(given)}")
    return _checked_fields(given)


def _checked_fields(given: Any) -> Any:
    hints, values = get_type_hints(type(given)), {}
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        group = dataclasses.is_dataclass(value) and isinstance(value, hints[field.name])
        values[field.name] = _checked_fields(value) if group else checked(value, hints[field.name], field.name)
    found = dataclasses.replace(given, **values)
    check_ranges(found)
    return found


SHORT = 200  # characters


def got(value: Any) -> str:
    """A value in an error's words: itself if plain and short, else its type. One word of a command line is no list."""
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
        return repr(value[0])
    plain = isinstance(value, str | int | float | tuple | list | None)
    return text if plain and len(text := repr(value)) <= SHORT else f"an object of type {type(value).__name__}"


# --- values of a type ----------------------------------------------------------------------------------------------

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    Mapping: "a mapping",
    type(None): "none",
}
UNFIT = object()


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have: those of a union, or the one."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def checked(value: Any, kind: Any, what: str) -> Any:
    """`value` as a field of type `kind` holds it: NumPy's scalars as Python's, whole floats as ints, lists as tuples.

    Types are int, float (never NaN), bool, str, Path, Mapping, Literal, tuple[X, ...], and unions of those and None.
    Raises InputError for a value that is none of these.
    """
    for alternative in alternatives(kind):
        fitted = fit(value, alternative)
        if fitted is not UNFIT:
            return fitted
    plain_first = sorted(alternatives(kind), key=lambda it: get_origin(it) is tuple)
    wanted = " or ".join(in_words(it) for it in plain_first if it is not type(None))
    single = [get_args(it)[0] if get_origin(it) is tuple else it for it in alternatives(kind)]
    names = [name for it in single if get_origin(it) is Literal for name in get_args(it)]
    texts = [text for text in (value if isinstance(value, tuple | list) else [value]) if isinstance(text, str)]
    close = next((nearest(text, names) for text in texts if names and text not in names), "")
    raise InputError(f"{what} must be {wanted}, got {got(value)}{close}")


def fit(value: Any, kind: Any) -> Any:
    """`value` as `kind`, which is no union, or UNFIT."""
    origin = get_origin(kind) or kind
    if getattr(value, "shape", None) == ():
        value = value.item()
    if origin is tuple:
        values = value.tolist() if hasattr(value, "tolist") else value
        fitted = tuple(fit(it, get_args(kind)[0]) for it in values) if isinstance(values, list | tuple) else (UNFIT,)
        return UNFIT if UNFIT in fitted else fitted
    if origin is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else UNFIT
    if origin is Path:
        return Path(value) if isinstance(value, str | os.PathLike) else UNFIT
    if origin in (int, float):
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
            return UNFIT
        try:
            return float(value) if origin is float else int(value) if value == value // 1 else UNFIT
        except OverflowError:
            return UNFIT
    return value if isinstance(value, origin) else UNFIT


def in_words(kind: Any) -> str:
    """int -> 'a whole number'."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return f"a list, each {in_words(get_args(kind)[0])}"
    return WORDS[get_origin(kind) or kind]


def shown(value: Any) -> str:
    """A field's value as one types it on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(shown, value))
    return str(to_json(value)).lower() if isinstance(value, bool | None) else str(to_json(value))


# --- JSON and identity ---------------------------------------------------------------------------------------------


def to_json(config: Any) -> Any:
    """Nested dicts and lists of JSON's own types; infinities become the strings "inf" and "-inf"."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    if isinstance(config, float) and math.isinf(config):
        return "inf" if config > 0 else "-inf"
    return config


def config_hash(config: RunConfig) -> str:
    """Eight hex digits that identify a run: all of its config but its length and number of seeds, which may grow."""
    values = to_json(config)
    del values["train"]["steps"], values["train"]["seeds"]
    for name in ("by_column", "stack", "rules", "holdout", "num_actions", "parent"):
        if values["data"][name] is None:
            del values["data"][name]  # runs keep the names that they had before there was a choice
    if (values["algorithm_config"] or {}).get("divergence_target", 0) is None:
        del values["algorithm_config"]["divergence_target"]  # BRAC's, iTRPO's
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """'field: old -> new' for each leaf in which two results of `to_json` differ; a group may be null."""
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = ({} if group is None else group for group in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(set(old) | set(new))
        return [line for name in names for line in differences(old.get(name), new.get(name), f"{prefix}{name}.")]
    return [] if old == new else [f"{prefix[:-1]}: {old!r} -> {new!r}"]
