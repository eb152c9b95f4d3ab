"""Fitting pi_beta before training: one model per seed, frozen afterwards, cached by a hash of all that it depends on.

The cache can never change a result: its key covers data, configs, seeds, versions, device, threads and the code of the
fit, and what it holds is exactly what fitting again would give.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from itrpo.config import RunConfig, leaves, replace_leaves, to_json
from itrpo.files import cache_dir
from itrpo.results.store import available_cores
from itrpo.training.checkpoint import flatten, unflatten, write_synced
from itrpo.types import Params

MIN_BEHAVIOR_STEPS = 100


def behavior_steps(config: RunConfig, source_steps: int, source_behavior_steps: int) -> int:
    """Gradient steps of the fit: as given, or the source's length times steps over the source's steps, at least 100."""
    if config.train.behavior_steps is not None:
        return config.train.behavior_steps
    return max(MIN_BEHAVIOR_STEPS, round(source_behavior_steps * config.train.steps / source_steps))


def scaled_config(config: RunConfig, source_steps: int, steps: int) -> Any:
    """The algorithm's config for a run of `steps`: counts of steps in a run of `source_steps`, like the length of a
    warm-up, become the same share of this one, at least 1 where they are not 0.
    """
    counts = {name: value for name, _, value in leaves(config.algorithm_config) if name in config.scaled_fields}
    scaled = {name: max(1, round(value * steps / source_steps)) for name, value in counts.items() if value}
    return replace_leaves(config.algorithm_config, scaled)


def machine() -> dict[str, Any]:
    """What a run's bits depend on besides its inputs; recorded, and compared when it resumes."""
    versions = {it: _version(it) for it in ("jax", "jaxlib", "equinox", "optax")}
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "threads": os.environ.get("PJRT_NPROC") or str(available_cores()),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **versions,
    }


def fit_key(config: RunConfig, dataset_sha256: str, steps: int) -> str:
    """Name of a fit in the cache."""
    package = Path(__file__).resolve().parents[1]
    parts = [package / "training" / "loop.py", package / "training" / "run.py"]
    for folder in ("behavior", "nn", "ops"):
        parts += sorted((package / folder).glob("*.py"))
    depends_on = {
        "dataset": dataset_sha256,
        "data": [config.data.normalize_observations, config.data.action_low, config.data.action_high],
        "behavior": [config.behavior, to_json(config.behavior_config)],
        "steps": steps,
        "seeds": [config.train.seed, config.train.seeds],
        "machine": machine(),
        "code": [hashlib.sha256(it.read_bytes()).hexdigest() for it in parts],
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:24]


def read_fit(key: str, template: Params) -> tuple[Params, dict[str, list[float]]] | None:
    """(parameters [S, ...], metrics by name [S]) from the cache; None if it has none, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    path = _path(key)
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metrics = json.loads(file.metadata()["metrics"])
        return unflatten(template, arrays), metrics
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def write_fit(key: str, params: Params, metrics: dict[str, list[float]]) -> None:
    """Puts a fit into the cache. A cache that can't be written is no reason to stop."""
    from safetensors.numpy import save

    path = _path(key)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    arrays = {name: np.ascontiguousarray(value) for name, value in flatten(params).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, save(arrays, metadata={"metrics": json.dumps(metrics)}))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_dir() / "behavior" / f"{key}.safetensors"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
