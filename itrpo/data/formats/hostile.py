"""What is refused in a file, whoever wrote it: all that leads out of it (links, virtual datasets, external storage),
rows that it declares but does not hold, pickles, groups without end, and bytes on which the HDF5 library crashes.

Reading a file must open no other, execute nothing, and allocate no memory for what isn't there.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data.formats.hdf5_probe import survives
from itrpo.errors import InputError

if TYPE_CHECKING:
    import h5py

MAX_COMPRESSION = 1100  # gzip and zip can't shrink anything by more than 1032 : 1
MAX_DEPTH, MAX_ENTRIES = 8, 10_000  # of groups: a group may contain itself


def refuse_pickle(key: str, dtype: np.dtype[Any], where: str) -> None:
    """Raises InputError for an array of Python objects: to read it, they would have to be unpickled."""
    if dtype.hasobject:
        raise InputError(f"{where}: {key!r} can't be read: it holds pickled Python objects; write plain numbers")


def check_stored_size(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], stored: int, where: str) -> None:
    """Raises InputError if a column declares more bytes than its `stored` bytes could expand to: a damaged or hostile
    header must not make us allocate memory for data that isn't there."""
    if min(shape, default=0) < 0:
        raise InputError(f"{where}: {key!r} has shape {list(shape)}; the file is damaged")
    declared = math.prod(shape) * dtype.itemsize
    if declared > MAX_COMPRESSION * stored:
        raise InputError(
            f"{where}: {key!r} declares {declared:,} bytes (shape {list(shape)}), but only {stored:,} bytes are"
            " stored for it; the file is damaged or was never filled"
        )


@contextmanager
def opened_hdf5(path: Path, probe: bool = True) -> Generator[h5py.File]:
    """The opened file; with `probe` it is tried in a process of its own first, as a damaged one may crash or hang this
    process. Whatever h5py raises about it, and it raises almost anything, becomes an InputError.
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


def opened_group(file: h5py.File, key: str, where: str) -> h5py.Group | None:
    """The group `key` of the file; None if there is nothing of that name, or no group. Raises InputError for a link."""
    import h5py

    entry = file
    for name in key.split("/"):
        if not isinstance(entry, h5py.Group) or name not in set(entry):  # a set of names follows no link
            return None
        _refuse_link(entry, name, where, f"{entry.name}/{name}".strip("/"))
        entry = entry[name]
    return entry if isinstance(entry, h5py.Group) else None


def opened_dataset(file: h5py.File, key: str, where: str) -> h5py.Dataset:
    """The array `key` of the file, no row of it read. Raises InputError if it can't be read safely and whole."""
    import h5py

    parts = key.split("/")
    for depth in range(1, len(parts) + 1):
        _refuse_link(file, "/".join(parts[:depth]), where)
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where}: {key!r} is a group, not a dataset")
    check_storage(key, dataset.id, where)
    check_chunks(key, dataset, where)
    return dataset


def datasets_below(group: h5py.Group, where: str) -> dict[str, h5py.Dataset]:
    """Every array below `group` by its path. Raises InputError for links and for rows kept in other files."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    waiting = [(str(name), group) for name in group]
    while waiting:
        name, parent = waiting.pop(0)
        last = name.rpartition("/")[2]
        _refuse_link(parent, last, where, name)
        entry = parent[last]
        if isinstance(entry, h5py.Group):
            if name.count("/") >= MAX_DEPTH or len(waiting) > MAX_ENTRIES:
                raise InputError(f"{where}: too many groups within groups, at {name!r}; the file is no dataset of rows")
            waiting.extend((f"{name}/{child}", entry) for child in map(str, entry))
        elif isinstance(entry, h5py.Dataset):
            _refuse_rows_elsewhere(name, entry.id, where)
            found[name] = entry
    return found


def check_storage(key: str, dataset: Any, where: str) -> None:
    """Raises InputError if an array's rows are in another file, or are more than its bytes could hold.

    Takes HDF5's low-level handle (`h5py.h5d.DatasetID`), as those who open thousands of arrays have no other.
    """
    _refuse_rows_elsewhere(key, dataset, where)
    check_stored_size(key, dataset.shape, dataset.dtype, dataset.get_storage_size(), where)


def check_chunks(key: str, dataset: h5py.Dataset, where: str) -> None:
    """Raises InputError if some rows were never written: HDF5 would pass them off as zeros."""
    if not dataset.chunks or not dataset.size:
        return
    declared = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    written = dataset.id.get_num_chunks()
    if written != declared:
        raise InputError(
            f"{where}: {key!r} declares shape {list(dataset.shape)}, which takes {declared:,} chunks, but {written:,}"
            " were written; write it anew, or cut the columns to the rows that are there"
        )


def text(value: Any) -> str | None:
    """An attribute or scalar that may be text in either of HDF5's two ways; None if it is none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def refuse_links(file: h5py.File, where: str) -> None:
    """Raises InputError if there is a link anywhere in the file."""
    from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue] (its stubs lack it)

    def look(name: bytes, info: Any) -> bytes | None:
        return None if info.type == h5l.TYPE_HARD else name

    found = file.id.links.visit(look, info=True)
    if found is not None:
        raise _link(found.decode(), where)


def _refuse_link(group: h5py.Group, name: str, where: str, path: str | None = None) -> None:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _link(path or name, where)


def _link(path: str, where: str) -> InputError:
    return InputError(f"{where}: {path!r} is a link to somewhere else; copy its rows into this file")


def _refuse_rows_elsewhere(key: str, dataset: Any, where: str) -> None:
    import h5py

    layout = dataset.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise InputError(f"{where}: {key!r} keeps its rows in another file; copy them into this one")
