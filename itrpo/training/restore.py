"""A run's configuration and trained states, from its folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from itrpo import files
from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig, checked, leaves, override
from itrpo.errors import InputError, StorageError
from itrpo.results import checkpoint
from itrpo.results.store import CONFIG
from itrpo.training.configure import choose
from itrpo.training.scaling import algorithm_of, behavior_of
from itrpo.training.seeds import members
from itrpo.types import Algorithm, DiscreteSpec, SpaceSpec


def recorded(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises InputError where the folder is no run, StorageError for a damaged one."""
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder} is no run: it has no config.json; `itrpo runs list` shows where runs are")
    found = files.read_json(path)
    if not isinstance(found, dict) or "config" not in found:
        raise InputError(f"{folder} is a run of another kind than `itrpo train` makes; name one of those")
    return found


def read_config(folder: Path, named: str | None = None) -> RunConfig:
    """The inverse of `config.to_json`. Raises InputError as `recorded` does, for an algorithm of a module of the user's
    own, which no file may have imported, unless it is the one that the user `named`; and for fields that this version
    does not have. StorageError for a damaged one.
    """
    path = folder / CONFIG
    try:
        return _config(recorded(folder)["config"], folder, named)
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: not the configuration of a run, or damaged ({error!r})") from error


def _config(own: Any, folder: Path, named: str | None) -> RunConfig:
    if ":" in own["algorithm"] and own["algorithm"] != named:
        raise InputError(f"{folder} was trained with {own['algorithm']}, whose module is imported only if you name it")
    setup = choose(own["algorithm"], own["preset"], own["behavior"])
    where = f"{folder / 'config.json'}:"
    return RunConfig(
        data=_filled(DataConfig, own["data"]),
        algorithm=own["algorithm"],
        preset=own["preset"],
        algorithm_config=_overridden(setup.algorithm_config, own["algorithm_config"], f"{where} {own['algorithm']}"),
        behavior=own["behavior"],
        behavior_config=_overridden(setup.behavior_config, own["behavior_config"], f"{where} {own['behavior']}"),
        train=_filled(TrainConfig, own["train"]),
        evaluation=_filled(EvalConfig, own["evaluation"]),
        scaled_fields=tuple(own.get("scaled_fields", ())),
    )


def _filled(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{name: tuple(it) if isinstance(it, list) else it for name, it in values.items()})


def _overridden(config: Any, values: Mapping[str, Any] | None, where: str) -> Any:
    """A config with the values of its JSON."""
    if config is None or values is None:
        return None
    kinds = {name: kind for name, kind, _ in leaves(config)}
    given = {
        name: float(it) if it in ("inf", "-inf") and kinds.get(name) is not str else it for name, it in _flat(values)
    }
    return override(config, {name: _as(it, kinds.get(name), f"{where}: {name}") for name, it in given.items()}, where)


def _as(value: Any, kind: Any, what: str) -> Any:
    return value if kind is None else checked(value, kind, what)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, tuple(value) if isinstance(value, list) else value


def trained_states(
    folder: Path, spec: SpaceSpec | DiscreteSpec, named: str | None = None
) -> tuple[Algorithm, list[Any], int]:
    """The algorithm, and each seed's state at the newest checkpoint, and that checkpoint's step.

    `named`: as of `read_config`. Raises InputError where there is none of training, or it is of another version.
    """
    config, about = read_config(folder, named), recorded(folder)
    behavior = behavior_of(config, spec, about["behavior_steps"])
    algorithm = algorithm_of(config, spec, behavior, about["begun_steps"])
    for path in checkpoint.sorted_checkpoints(folder / "checkpoints"):
        try:
            arrays, meta = checkpoint.load(path)
        except ValueError:
            continue
        if meta["phase"] != "train":
            break
        keys = jax.random.split(jax.random.key(0), meta["seeds"])
        params = None
        if behavior is not None:
            params = jax.eval_shape(lambda keys: jax.vmap(lambda key: behavior.params(behavior.init(key)))(keys), keys)
        shapes = jax.eval_shape(jax.vmap(algorithm.init), keys, params)
        own = {name.removeprefix("state/"): it for name, it in arrays.items() if name.startswith("state/")}
        try:
            return algorithm, members(checkpoint.unflatten(shapes, own)), meta["step"]
        except ValueError as error:
            raise InputError(f"the checkpoint in {folder} is of another version of itrpo: {error}") from error
    raise InputError(f"{folder} has no whole checkpoint of training")
