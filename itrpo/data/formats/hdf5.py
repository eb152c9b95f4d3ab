"""HDF5 files laid out like D4RL's v2 files.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N], timeouts [N];
infos/action_log_probs [N], optional. [N, 1] will do for [N]: D4RL's replay buffers keep rewards so.
Training leaves `next_observations` aside even if the file has it, as D4RL's own Q-learning view does. Attributes of the
file's root, all optional: `env_id`, a gymnasium id; bounds, names and units of columns (`itrpo.data.attributes`); and
`recipe`, JSON that says how the file was made.
`metadata/policy/...` is the network that acted, where one did (`itrpo.data.behavior_policy` reads it).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo import files
from itrpo.data import attributes, column_map
from itrpo.data.column_map import ColumnMap, map_advice
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.formats import hdf5_table
from itrpo.data.formats.hostile import (
    check_chunks,
    check_storage,
    datasets_below,
    opened_dataset,
    opened_group,
    opened_hdf5,
    text,
)
from itrpo.data.layout import (
    FLAGS,
    LOG_PROBS,
    MINIMUM,
    NDIM,
    NUMERIC,
    REQUIRED,
    SAMPLE,
    Contents,
    check_columns,
    check_layout,
    left_out,
    require_keys,
    to_episodes,
)
from itrpo.data.memory import empty_rows, to_float32
from itrpo.errors import InputError
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import h5py


def read(
    path: str | os.PathLike[str], columns: ColumnMap | None = None, sha256: str | None = None, probe: bool = True
) -> Episodes:
    """The rows of an HDF5 file, floating-point columns as float32. `sha256` is the file's, if it is known already.

    `probe`: first make sure that libhdf5 survives the file; without it a damaged file may crash or hang the process.
    Raises InputError if the file is missing, truncated, not HDF5, or not laid out as above or as `columns` say.
    """
    path = Path(path)
    where = str(path)
    with opened_hdf5(path, probe) as file:
        source = DataSource(path.stem, "hdf5", str(path.resolve()), sha256 or files.file_sha256(path))
        said, env_id = _about(file, str(source.sha256)), _env_id(file, where)
        if columns is not None:
            return column_map.read(hdf5_table.table(file, where, env_id, said), columns, source)
        _require(file, where)
        infos = opened_group(file, "infos", where)
        with_log_probs = infos is not None and LOG_PROBS.removeprefix("infos/") in set(infos)
        keys = (*REQUIRED, LOG_PROBS) if with_log_probs else REQUIRED
        datasets = {key: opened_dataset(file, key, where) for key in keys}
        check_layout(datasets, where)
        samples = {key: _sample(datasets[key]) for key in keys if key not in FLAGS}
        values = {key: _float32(key, datasets.pop(key)) for key in keys}  # each has a cache while open
        source = replace(source, recipe=_recipe(file))
    return to_episodes(values, where, source, env_id, attributes.parse(said, values, where), samples)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """All of the file. Raises InputError as `read` does, and if it refers to other files."""
    where = str(path)
    with opened_hdf5(path) as file:
        said, env_id = _about(file, files.file_sha256(path)), _env_id(file, where)
        if columns is not None:
            table = hdf5_table.table(file, where, env_id, said)
            return column_map.read_contents(table, columns)
        _require(file, where)
        datasets = datasets_below(file, where)
        rows = datasets["rewards"].shape[:1]
        values: dict[str, np.ndarray] = {}
        rest: dict[str, h5py.Dataset] = {}
        for name, dataset in datasets.items():
            check_storage(name, dataset.id, where)
            check_chunks(name, dataset, where)
            per_step = dataset.dtype.kind in NUMERIC and dataset.shape[:1] == rows
            if name in REQUIRED or (per_step and not name.startswith("metadata/")):
                values[name] = dataset[()]
            else:
                rest[name] = dataset
        values = check_columns(values, where)
        return Contents(values, env_id, attributes.parse(said, values, where), _copied(file, rest))


def write(contents: Contents, path: Path) -> tuple[str, ...]:
    """D4RL's layout, uncompressed; returns notes for a person. Raises StorageError if it can't be written."""
    import h5py

    image = io.BytesIO()  # HDF5 does not survive a full disk; plain writing does
    with h5py.File(image, "w") as file:
        for name, values in contents.columns.items():
            file.create_dataset(name, data=values)
        if contents.extras is not None:
            with h5py.File(io.BytesIO(contents.extras), "r") as extras:
                file.attrs.update(extras.attrs)
                for name, dataset in datasets_below(extras, "the extras").items():
                    _copy(dataset, file, name)
        file.attrs.update(attributes.given(contents.attributes))
        if contents.env_id is not None:
            file.attrs["env_id"] = contents.env_id
    files.write(path, image.getbuffer())
    cut = int(np.asarray(contents.columns["timeouts"], bool).sum())
    if not cut or "next_observations" not in contents.columns:
        return ()
    return (
        f"read as D4RL reads it, the file's {cut:,} rows cut by the clock are no transitions, though their"
        " next_observations are in it",
    )


def notes_of_flat_files(contents: Contents) -> tuple[str, ...]:
    """What formats of plain columns have no place for, and what they mean otherwise than HDF5 does."""
    names: list[str] = []
    if contents.extras is not None:
        import h5py

        with h5py.File(io.BytesIO(contents.extras), "r") as file:
            names = [*datasets_below(file, "the extras"), *file.attrs]
    if "next_observations" not in contents.columns:
        return left_out(names)
    return (
        *left_out(names),
        "next_observations are there, so every row is a transition, rows cut by the clock too",
    )


def _require(file: h5py.File, where: str) -> None:
    present = set(file)
    if not present.issuperset(MINIMUM):
        table = hdf5_table.table(file, where, None, {})
        advice = map_advice(table.names, table.lengths is not None)
        kind = "in each episode" if table.lengths is not None else "it has"
        require_keys(present.intersection(MINIMUM).union(table.names), MINIMUM, where, advice, kind)
    if "timeouts" not in present:
        raise InputError(
            f"{where}: add a 'timeouts' column (1 in rows where the clock ended the episode, else 0; all 0 if episodes"
            " only end by themselves): without it nobody can tell where an episode was cut"
        )


def _float32(key: str, dataset: h5py.Dataset) -> np.ndarray:
    """All rows: flags as they are, other columns as float32. [N, 1] becomes [N] where a row is a single number."""
    if key in FLAGS:
        return dataset[()]
    if dataset.dtype.kind == "f":
        values = empty_rows(*dataset.shape)
        dataset.read_direct(values)  # libhdf5 converts piece by piece: no float64 copy in memory
    else:
        values = to_float32(dataset[()])
    return values.reshape(-1) if NDIM[key] == 1 else values


def _sample(dataset: h5py.Dataset) -> np.ndarray:
    """A few rows in their own type, from up to ten places, but no chunk twice: it may be compressed."""
    rows = len(dataset)
    if np.can_cast(dataset.dtype, np.float32):
        return dataset[:0]  # nothing is lost
    places = min(10, rows if dataset.chunks is None else -(-rows // dataset.chunks[0]))
    return np.concatenate([dataset[at : at + SAMPLE // places] for at in range(0, rows, -(-rows // places))])


def _copied(file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> bytes | None:
    """The root attributes that `Contents` has no place for, and the `datasets`, as a file; None where there is none."""
    import h5py

    others = {name: value for name, value in file.attrs.items() if name not in ("env_id", *attributes.KEYS)}
    if not datasets and not others:
        return None
    image = io.BytesIO()
    with h5py.File(image, "w") as target:
        target.attrs.update(others)
        for name, dataset in datasets.items():
            _copy(dataset, target, name)
    return image.getvalue()


def _copy(dataset: h5py.Dataset, target: h5py.File, name: str) -> None:
    parent, _, last = name.rpartition("/")
    target.copy(dataset, target.require_group(parent or "/"), last)


def _env_id(file: h5py.File, where: str) -> str | None:
    if "env_id" not in file.attrs:
        return None
    env_id = text(file.attrs["env_id"])
    if env_id is None:
        raise InputError(f"{where}: the attribute 'env_id' must be one string, like 'Hopper-v4'; change or delete it")
    return env_id or None


def _about(file: h5py.File, sha256: str) -> dict[str, Any]:
    """What the file says of its columns; with D4RL's view for D4RL's own files, whatever their names, and for sets that
    this package made.
    """
    versions = _recipe(file).get("versions")
    made_here = isinstance(versions, dict) and "itrpo" in versions
    known = sha256 in {file.sha256 for file in D4RL_FILES.values()}
    said = {key: file.attrs[key] for key in attributes.KEYS if key in file.attrs}
    return said | ({"d4rl_view": True} if made_here or known else {})


def _recipe(file: h5py.File) -> dict[str, Any]:
    try:
        recipe = json.loads(text(file.attrs.get("recipe")) or "{}")
    except (ValueError, RecursionError, TypeError, OSError):
        return {}  # somebody else's attribute of the same name
    changes = recipe.get("changes", []) if isinstance(recipe, dict) else None  # are read out to a person
    return recipe if isinstance(changes, list) and all(isinstance(it, str) for it in changes) else {}
