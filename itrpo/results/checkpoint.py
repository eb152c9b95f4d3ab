"""Checkpoints: a folder each, `train_0000012000/` with `arrays.safetensors` and `meta.json`, written whole or not
at all.

The two newest are kept. `meta.json` holds the SHA-256 of the arrays, so that damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from itrpo import files
from itrpo.errors import StorageError

KEEP = 2
FOLDER = re.compile(r"(behavior|train)_\d{10}")  # in the order of their names
# Raise it when arrays, or the draws that follow from them, come to mean something else, so that runs of before are
# refused and not continued wrongly. It is in a run's config.json; before it was recorded, it was 1.
VERSION = 4


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """'path/of/leaf' -> array on the host. Random keys are not allowed in a state; it holds plain arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def unflatten(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Arrays in the structure of `template`. Raises ValueError where a name, shape or dtype does not fit."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if set(names) != set(arrays):
        raise ValueError(f"arrays {sorted(set(names) ^ set(arrays))[:5]} don't match this algorithm's state")
    for name, (_, leaf) in zip(names, paths, strict=True):
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise ValueError(f"array {name} is {arrays[name].dtype}{arrays[name].shape}, not {leaf.dtype}{leaf.shape}")
    return jax.tree_util.tree_unflatten(treedef, [jax.numpy.asarray(arrays[name]) for name in names])


def save(folder: Path, phase: str, step: int, tree: Any, meta: dict[str, Any]) -> None:
    """Writes `folder/PHASE_STEP/` and removes all but the newest two. Raises StorageError if the disk refuses."""
    from safetensors.numpy import save as to_bytes

    arrays = to_bytes(flatten(tree))
    about = {"phase": phase, "step": step, "sha256": hashlib.sha256(arrays).hexdigest()}
    try:
        with files.replacing_folder(folder / f"{phase}_{step:010d}") as temporary:
            files.write(temporary / "arrays.safetensors", arrays)
            files.write_json(temporary / "meta.json", meta | about)
    except StorageError as error:
        raise StorageError(f"{error}; earlier checkpoints are intact") from error
    for old in sorted_checkpoints(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, meta) of one checkpoint. Raises ValueError if it is not whole, or not the one that its name says."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        meta = json.loads((path / "meta.json").read_text())
        content = (path / "arrays.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise ValueError("its arrays don't have the recorded SHA-256")
        if path.name != f"{meta['phase']}_{meta['step']:010d}":
            raise ValueError(f"it says that it is {meta['phase']} at step {meta['step']}")
        return from_bytes(content), meta
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(str(error)) from error


def sorted_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first: those of training before those of the fit of pi_beta, then by step."""
    return sorted((path for path in folder.glob("*") if FOLDER.fullmatch(path.name)), reverse=True)
