"""Reader of HDF5 files laid out like D4RL's v2 files.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N], timeouts [N];
infos/action_log_probs [N], optional.
`next_observations` is left aside even if the file has it, as D4RL's own Q-learning view does. Attributes of the file's
root: `env_id`, a gymnasium id, and `recipe`, JSON that says how the file was made; both optional.

Nothing outside the file is ever opened: links, virtual datasets and external storage are refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data.columns import check_layout, check_stored_size, require_keys, to_flags, to_float32
from itrpo.data.hashing import file_sha256
from itrpo.errors import InputError
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import h5py

REQUIRED = ("observations", "actions", "rewards", "terminals")
LOG_PROBS = "infos/action_log_probs"


def read(path: str | os.PathLike[str], sha256: str | None = None) -> Episodes:
    """The rows of an HDF5 file, floating-point columns as float32. `sha256` is the file's, if it is known already.

    Raises InputError if the file is missing, truncated, not HDF5, or not laid out as above.
    """
    import h5py

    path = Path(path)
    where = str(path)
    if not path.is_file():
        raise InputError(f"{where}: no such file")
    if not h5py.is_hdf5(path):
        raise InputError(f"{where}: not an HDF5 file ({path.stat().st_size:,} bytes)")
    try:
        with h5py.File(path, "r") as file:
            columns = _open_columns(file, where)
            check_layout(columns, where)
            arrays = {key: _read_column(column) for key, column in columns.items()}
            env_id, recipe = _text_attribute(file, "env_id"), _recipe(file)
    except (OSError, RuntimeError, MemoryError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{where}: truncated or damaged HDF5 file ({size:,} bytes; {error}); copy or download it again"
        ) from error
    return Episodes(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminals=to_flags(arrays["terminals"], "terminals", where),
        timeouts=to_flags(arrays["timeouts"], "timeouts", where),
        next_observations=None,
        behavior_log_probs=arrays.get(LOG_PROBS),
        env_id=env_id,
        source=DataSource(path.stem, "hdf5", str(path.resolve()), sha256 or file_sha256(path), recipe=recipe),
    )


def _open_columns(file: h5py.File, where: str) -> dict[str, h5py.Dataset]:
    import h5py

    present = set(file)
    require_keys(present, REQUIRED, where)
    if "timeouts" not in present:
        raise InputError(
            f"{where}: add a 'timeouts' column (1 in rows where the clock ended the episode, else 0; all 0 if episodes"
            " only end by themselves): without it nobody can tell where an episode was cut"
        )
    keys = [*REQUIRED, "timeouts"]
    if "infos" in present:
        _refuse_link(file, "infos", where)
        infos = file["infos"]
        if isinstance(infos, h5py.Group) and "action_log_probs" in set(infos):  # a set of names follows no link
            keys.append(LOG_PROBS)
    return {key: _open_column(file, key, where) for key in keys}


def _open_column(file: h5py.File, key: str, where: str) -> h5py.Dataset:
    import h5py

    _refuse_link(file, key, where)
    column = file[key]
    if not isinstance(column, h5py.Dataset):
        raise InputError(f"{where}: {key!r} is a group, not a dataset")
    if column.is_virtual or column.external:
        raise InputError(f"{where}: {key!r} keeps its rows in another file; copy them into this one")
    check_stored_size(key, column, column.id.get_storage_size(), where)
    return column


def _refuse_link(file: h5py.File, key: str, where: str) -> None:
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise InputError(f"{where}: {key!r} is a link to somewhere else; copy its rows into this file")


def _read_column(column: h5py.Dataset) -> np.ndarray:
    if column.name in ("/terminals", "/timeouts"):
        return column[()]
    if column.dtype.kind != "f" or column.dtype.itemsize <= 4:
        return to_float32(column[()])
    values = np.empty(column.shape, np.float32)  # float64 is converted while reading: no float64 copy in memory
    column.read_direct(values)
    return values


def _text_attribute(file: h5py.File, name: str) -> str | None:
    value: Any = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None


def _recipe(file: h5py.File) -> dict[str, Any]:
    try:
        recipe = json.loads(_text_attribute(file, "recipe") or "{}")
    except json.JSONDecodeError:
        return {}  # somebody else's attribute of the same name
    return recipe if isinstance(recipe, dict) else {}
