"""Reader of HDF5 files laid out like D4RL's v2 files.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N], timeouts [N];
infos/action_log_probs [N], optional. [N, 1] will do for [N]: D4RL's replay buffers keep rewards so.
`next_observations` is left aside even if the file has it, as D4RL's own Q-learning view does. Attributes of the file's
root: `env_id`, a gymnasium id, and `recipe`, JSON that says how the file was made; both optional. `metadata/policy/...`
is the network that acted, where one did.

Nothing outside the file is ever opened: links, virtual datasets and external storage are refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data.behavior_policy import NONLINEARITIES, BehaviorPolicy, Layer
from itrpo.data.columns import NDIM, check_layout, check_stored_size, empty_rows, require_keys, to_flags, to_float32
from itrpo.data.hdf5_probe import survives
from itrpo.errors import InputError
from itrpo.files import file_sha256
from itrpo.types import DataSource, Episodes

if TYPE_CHECKING:
    import h5py

REQUIRED = ("observations", "actions", "rewards", "terminals")
LOG_PROBS = "infos/action_log_probs"
POLICY = "metadata/policy"


def read(path: str | os.PathLike[str], sha256: str | None = None, probe: bool = True) -> Episodes:
    """The rows of an HDF5 file, floating-point columns as float32. `sha256` is the file's, if it is known already.

    `probe`: first make sure that libhdf5 survives the file; without it a damaged file may crash or hang the process.
    Raises InputError if the file is missing, truncated, not HDF5, or not laid out as above.
    """
    path = Path(path)
    where = str(path)
    with opened(path, probe) as file:
        columns = _open_columns(file, where)
        check_layout(columns, where)
        arrays = {key: _read_column(key, columns.pop(key)) for key in list(columns)}  # each has a cache while open
        env_id, recipe = _env_id(file, where), _recipe(file)
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


def read_policy(path: str | os.PathLike[str]) -> BehaviorPolicy | None:
    """The network that acted, from a file that `read` has taken; None if the file has none.

    D4RL's layout: `metadata/policy/{fc0, fc1, ..., last_fc, last_fc_log_std}/{weight [out, in], bias [out]}` and the
    texts `nonlinearity` and `output_distribution`. `log_std_low` and `log_std_high`, numbers, hold the range that log
    standard deviations were clipped to (ours; D4RL's files don't have them, and rlkit's range is meant).
    Raises InputError if there is a policy, but not one that we can evaluate.
    """
    path = Path(path)
    with opened(path, probe=False) as file:
        return _policy(file, str(path))


@contextmanager
def opened(path: Path, probe: bool = True) -> Generator[h5py.File]:
    """The opened file; with `probe` it is tried in a process of its own first. Whatever h5py raises about it, and it
    raises almost anything, becomes an InputError.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    size = f"{path.stat().st_size:,} bytes"
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file ({size})")
    if probe and not survives(path):
        raise InputError(
            f"{path}: damaged HDF5 file ({size}; the HDF5 library crashes or hangs on it); copy or download it again"
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: truncated or damaged HDF5 file ({size}; {error}); copy or download it again"
        ) from error


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

    parts = key.split("/")
    for depth in range(1, len(parts) + 1):
        _refuse_link(file, "/".join(parts[:depth]), where)
    column = file[key]
    if not isinstance(column, h5py.Dataset):
        raise InputError(f"{where}: {key!r} is a group, not a dataset")
    if column.is_virtual or column.external:
        raise InputError(f"{where}: {key!r} keeps its rows in another file; copy them into this one")
    check_stored_size(key, column, column.id.get_storage_size(), where)
    check_chunks(key, column, where)
    return column


def check_chunks(key: str, column: h5py.Dataset, where: str) -> None:
    """Raises InputError if some rows were never written: HDF5 would pass them off as zeros."""
    if not column.chunks or not column.size:
        return
    declared = math.prod(-(-size // chunk) for size, chunk in zip(column.shape, column.chunks, strict=True))
    written = column.id.get_num_chunks()
    if written != declared:
        raise InputError(
            f"{where}: {key!r} declares shape {list(column.shape)}, which takes {declared:,} chunks, but {written:,}"
            " were written; write it anew, or cut the columns to the rows that are there"
        )


def _refuse_link(file: h5py.File, key: str, where: str) -> None:
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise InputError(f"{where}: {key!r} is a link to somewhere else; copy its rows into this file")


def _read_column(key: str, column: h5py.Dataset) -> np.ndarray:
    """All rows: flags as they are, other columns as float32. [N, 1] becomes [N] where a row is a single number."""
    if key in ("terminals", "timeouts"):
        return column[()]
    if column.dtype.kind == "f":
        values = empty_rows(*column.shape)
        column.read_direct(values)  # libhdf5 converts piece by piece: no float64 copy in memory
    else:
        values = to_float32(column[()])
    return values.reshape(-1) if NDIM[key] == 1 else values


def _env_id(file: h5py.File, where: str) -> str | None:
    if "env_id" not in file.attrs:
        return None
    text = _text(file.attrs["env_id"])
    if text is None:
        raise InputError(f"{where}: the attribute 'env_id' must be one string, like 'Hopper-v4'; change or delete it")
    return text or None


def _recipe(file: h5py.File) -> dict[str, Any]:
    try:
        recipe = json.loads(_text(file.attrs.get("recipe")) or "{}")
    except (ValueError, RecursionError, TypeError, OSError):
        return {}  # somebody else's attribute of the same name
    return recipe if isinstance(recipe, dict) else {}


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _policy(file: h5py.File, where: str) -> BehaviorPolicy | None:
    import h5py

    if "metadata" not in set(file):
        return None
    _refuse_link(file, "metadata", where)
    metadata = file["metadata"]
    if not isinstance(metadata, h5py.Group) or "policy" not in set(metadata):
        return None
    _refuse_link(file, POLICY, where)
    group = file[POLICY]
    if not isinstance(group, h5py.Group):
        raise InputError(f"{where}: {POLICY!r} is not a group of layers")
    names = set(group)
    require_keys(
        names, ("fc0", "last_fc", "last_fc_log_std", "nonlinearity", "output_distribution"), f"{where}: {POLICY}"
    )
    nonlinearity, distribution = (
        _text(_open_column(file, f"{POLICY}/{name}", where)[()]) for name in ("nonlinearity", "output_distribution")
    )
    if nonlinearity not in NONLINEARITIES or distribution != "tanh_gaussian":
        raise InputError(
            f"{where}: {POLICY!r} has nonlinearity {nonlinearity!r} and output_distribution {distribution!r}; known are"
            f" {', '.join(NONLINEARITIES)} and 'tanh_gaussian'"
        )
    hidden = tuple(_layer(file, f"fc{index}", where) for index in range(sum(name[:2] == "fc" for name in names)))
    low, high = (
        float(_open_column(file, f"{POLICY}/{name}", where)[()]) if name in names else default
        for name, default in (("log_std_low", -20.0), ("log_std_high", 2.0))
    )
    return BehaviorPolicy(
        hidden, _layer(file, "last_fc", where), _layer(file, "last_fc_log_std", where), nonlinearity, low, high
    )


def _layer(file: h5py.File, name: str, where: str) -> Layer:
    weight, bias = (_open_column(file, f"{POLICY}/{name}/{part}", where)[()] for part in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or weight.dtype.kind != "f" or bias.dtype.kind != "f":
        raise InputError(
            f"{where}: '{POLICY}/{name}' has a weight of shape {list(weight.shape)} and a bias of {list(bias.shape)};"
            " they must be floating-point [out, in] and [out]"
        )
    return Layer(weight.astype(np.float32), bias.astype(np.float32))
