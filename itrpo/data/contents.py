"""Everything a dataset's file holds, in the file's own types: what `convert` carries from one format to another.

`Episodes` is what training needs: float32, known columns. `Contents` is the whole file: every per-step array under the
name that D4RL's HDF5 layout has for it (observations, rewards, infos/qpos, ...), and whatever else there is.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from itrpo.data.columns import NDIM, check_layout, check_stored_size, require_keys
from itrpo.data.d4rl import check_chunks, opened
from itrpo.data.wording import listed
from itrpo.errors import InputError, StorageError

if TYPE_CHECKING:
    import h5py

REQUIRED = ("observations", "actions", "rewards", "terminals", "timeouts")
MAX_DEPTH, MAX_ENTRIES = 8, 10_000  # of groups: a group may contain itself


@dataclass(frozen=True)
class Contents:
    """The rows of a file, N of them, and the rest of it."""

    columns: Mapping[str, np.ndarray]  # D4RL's name -> [N, ...], in the file's order and types; holds REQUIRED
    env_id: str | None
    extras: bytes | None = None  # an HDF5 file in memory: root attributes and arrays that aren't one row per step
    notes: tuple[str, ...] = ()  # what reading had to leave out or decide, for a person


def check_columns(columns: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The columns, with [N] where single numbers came as [N, 1]. Raises InputError unless the required ones are there
    and all known ones are laid out as they must be.
    """
    require_keys(columns, REQUIRED, where)
    check_layout({key: values for key, values in columns.items() if key in NDIM}, where)
    return {key: values.reshape(-1) if NDIM.get(key) == 1 else values for key, values in columns.items()}


def read_hdf5(path: Path) -> Contents:
    """All of an HDF5 file in D4RL's layout. Raises InputError if it isn't one, or refers to other files."""
    where = str(path)
    with opened(path) as file:
        datasets = all_datasets(file, where)
        require_keys(datasets, REQUIRED, where)
        rows = datasets["rewards"].shape[:1]
        columns: dict[str, np.ndarray] = {}
        rest: list[str] = []
        for name, dataset in datasets.items():
            check_stored_size(name, dataset, dataset.id.get_storage_size(), where)
            check_chunks(name, dataset, where)
            per_step = dataset.dtype.kind in "biuf" and dataset.shape[:1] == rows
            if name in REQUIRED or (per_step and not name.startswith("metadata/")):
                columns[name] = dataset[()]
            else:
                rest.append(name)
        return Contents(check_columns(columns, where), text_attribute(file, "env_id"), _copied(file, rest))


def all_datasets(group: h5py.Group, where: str) -> dict[str, h5py.Dataset]:
    """Every dataset below `group` by its path. Raises InputError for links and for rows kept in other files."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    waiting = [(str(name), group) for name in group]
    while waiting:
        name, parent = waiting.pop(0)
        last = name.rpartition("/")[2]
        if not isinstance(parent.get(last, getlink=True), h5py.HardLink):
            raise InputError(f"{where}: {name!r} is a link to somewhere else; copy its rows into this file")
        entry = parent[last]
        if isinstance(entry, h5py.Group):
            if name.count("/") >= MAX_DEPTH or len(waiting) > MAX_ENTRIES:
                raise InputError(f"{where}: too many groups within groups, at {name!r}; the file is no dataset of rows")
            waiting.extend((f"{name}/{child}", entry) for child in map(str, entry))
        elif isinstance(entry, h5py.Dataset):
            if entry.is_virtual or entry.external:
                raise InputError(f"{where}: {name!r} keeps its rows in another file; copy them into this one")
            found[name] = entry
    return found


def text_attribute(file: h5py.File, name: str) -> str | None:
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None


def _copied(file: h5py.File, names: list[str]) -> bytes | None:
    """Root attributes (but env_id) and the datasets `names` as a file of their own; None where there is neither."""
    import h5py

    attributes = {name: value for name, value in file.attrs.items() if name != "env_id"}
    if not names and not attributes:
        return None
    image = io.BytesIO()
    with h5py.File(image, "w") as target:
        target.attrs.update(attributes)
        for name in names:
            file.copy(file[name], target.require_group(name.rpartition("/")[0] or "/"), name.rpartition("/")[2])
    return image.getvalue()


def write_hdf5(contents: Contents, path: Path) -> None:
    """D4RL's layout, uncompressed. Raises StorageError if it can't be written."""
    import h5py

    image = io.BytesIO()  # HDF5 does not survive a full disk; plain writing does
    with h5py.File(image, "w") as file:
        for name, values in contents.columns.items():
            file.create_dataset(name, data=values)
        if contents.extras is not None:
            with h5py.File(io.BytesIO(contents.extras), "r") as extras:
                file.attrs.update(extras.attrs)
                for name, dataset in all_datasets(extras, "the extras").items():
                    extras.copy(dataset, file.require_group(name.rpartition("/")[0] or "/"), name.rpartition("/")[2])
        if contents.env_id is not None:
            file.attrs["env_id"] = contents.env_id
    with replaced(path) as target:
        target.write(image.getbuffer())


def read_npz(path: Path) -> Contents:
    """All per-step arrays of an NPZ file; never unpickles. `timeouts` is made up where the file has none (see
    `itrpo.data.arrays`). Raises InputError if it isn't laid out so.
    """
    from itrpo.data import arrays

    episodes = arrays.read(path)  # with every check on its layout
    columns: dict[str, np.ndarray] = {}
    left: list[str] = []
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if name == "env_id":
                    continue
                if name in NDIM or name.startswith("infos/"):
                    values = file[name]
                    if values.dtype.kind in "biuf" and values.shape[:1] == episodes.rewards.shape:
                        columns[name] = values
                        continue
                left.append(name)
    except (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable NPZ file ({error}); write it with numpy.savez") from error
    columns.setdefault("timeouts", episodes.timeouts)
    return Contents(check_columns(columns, str(path)), episodes.env_id, notes=left_out(left))


def write_npz(contents: Contents, path: Path) -> None:
    """An uncompressed NPZ file that needs no unpickling. Raises StorageError if it can't be written."""
    arrays = dict(contents.columns)
    if contents.env_id is not None:
        arrays["env_id"] = np.array(contents.env_id)
    with replaced(path) as target:
        np.savez(target, allow_pickle=False, **arrays)


def extras_in(contents: Contents) -> list[str]:
    """Names of the arrays and attributes that only HDF5 and Minari can hold."""
    if contents.extras is None:
        return []
    import h5py

    with h5py.File(io.BytesIO(contents.extras), "r") as file:
        return [*all_datasets(file, "the extras"), *file.attrs]


def left_out(names: list[str]) -> tuple[str, ...]:
    """A note that says so, or nothing."""
    if not names:
        return ()
    return (f"left out: {listed(names)}",)


@contextmanager
def replaced(path: Path) -> Generator[BinaryIO]:
    """A file to write that appears under `path` whole, or not at all. Raises StorageError."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
