"""What the worker of `files` does with a file: all that itrpo reads out of it. Nothing here writes or trains."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from itrpo.data import formats
from itrpo.data.column_map import parse_columns
from itrpo.data.formats import hostile
from itrpo.data.load import load_dataset
from itrpo.errors import ItrpoError
from itrpo.policy import MissingInput, PolicyFileError, load_policy
from itrpo.results import checkpoint, frames, store
from itrpo.sweep.plan import read_plan
from itrpo.training.restore import read_config

hostile.survives = lambda path: True  # a process for each file takes long; `files` asks it where this one crashed


def warm() -> None:
    """Imports what is imported late and starts the threads of polars, whose stacks and heaps take more addresses than
    a file does: the limit on memory is about files alone.
    """
    import h5py

    h5py.get_config()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text("rewards,terminals\n" + "1,0\n" * 1000)
        read("csv", path)


def read(kind: str, path: Path) -> str:
    try:
        return f"read: {READERS[kind](path)}"
    except (ItrpoError, PolicyFileError) as error:
        return f"refused: {type(error).__name__}: {error}" if str(error).strip() else "error: no message"
    except BaseException as error:
        return f"error: {type(error).__name__}: {error}"


def rows(path: Path) -> str:
    """The dataset, whose parts must fit each other. -> digest of its transitions."""
    dataset = load_dataset(path, env="none")
    own = dataset.transitions
    size = len(own.reward)
    lengths = {len(it) for it in own}
    assert lengths == {size}, f"columns of unequal lengths: {lengths}"
    assert all(np.isfinite(it).all() for it in own), "numbers that are not finite"
    assert np.isin(own.continues, (0, 1)).all(), "flags that are none"
    assert np.abs(own.action).max() <= 1 + 1e-6, "actions beyond their bounds"
    contents = formats.read_contents(path)
    assert len(contents.columns["rewards"]) >= size if hasattr(contents, "columns") else True
    return hashlib.sha256(b"".join(np.ascontiguousarray(it).tobytes() for it in own)).hexdigest()


def policy(path: Path) -> str:
    own = load_policy(path)
    for observations in (np.zeros(own.frame), np.zeros((3, own.frame)), np.full((2, own.frame), np.nan)):
        own.reset()
        try:
            action = own(observations)
        except MissingInput:
            continue
        assert action.shape[: observations.ndim - 1] == observations.shape[:-1], "actions of another shape"
        assert np.isfinite(action).all() or not np.isfinite(observations).all(), "actions that are not finite"
        assert str(own.explain(observations))
    return f"{own.kind} {repr(own)[:40]}"


def safetensors(path: Path) -> str:
    try:
        arrays, meta = checkpoint.load(path)
    except ValueError as error:  # what it documents
        raise PolicyFileError(str(error)) from error
    return f"{len(arrays)} arrays, step {meta['step']}"


def plan(path: Path) -> str:
    return f"{len(read_plan(str(path)).arms)} arms"


def column_map(path: Path) -> str:
    data = path.parent if path.parent.name == "good" else path.parent / "good"
    return rows_by_map(data / "rows.csv", path)


def rows_by_map(data: Path, columns: Path) -> str:
    return str(len(load_dataset(data, env="none", columns=parse_columns([str(columns)]))))


def run(path: Path) -> str:
    config = read_config(path)
    status, timing = store.read_status(path), store.read_timing(path)
    metrics = store.read_metrics(path)
    frames.read_results([path])
    return f"{config.algorithm} {status.state} {len(timing)} {len(metrics)}"


READERS: dict[str, Any] = {
    **dict.fromkeys(("npz", "hdf5", "parquet", "csv", "minari rows", "minari metadata"), rows),
    "policy": policy,
    "safetensors": safetensors,
    "yaml": plan,
    "toml": column_map,
    "run": run,
}
