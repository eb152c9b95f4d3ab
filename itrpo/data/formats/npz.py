"""Arrays of the user's own: an NPZ file, or a mapping of names to NumPy arrays.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N]; timeouts [N], which may be left out if
next_observations [N, O] is there; env_id, a string, bounds, names and units of columns (`itrpo.data.attributes`), and
infos/action_log_probs [N], optional. Training ignores other keys. With a column map (see `itrpo.data.column_map`),
arrays may have any names.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import zipfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.data import attributes, column_map
from itrpo.data.column_map import ColumnMap, map_advice
from itrpo.data.formats.hdf5 import notes_of_flat_files
from itrpo.data.formats.hostile import check_stored_size, refuse_pickle
from itrpo.data.layout import (
    FLAGS,
    LOG_PROBS,
    MINIMUM,
    NDIM,
    NUMERIC,
    SAMPLE,
    Contents,
    check_columns,
    check_layout,
    flags_in,
    left_out,
    require_keys,
    to_episodes,
)
from itrpo.data.memory import empty_rows, unmasked
from itrpo.errors import InputError
from itrpo.types import DataSource, Episodes

ABOUT = ("env_id", *attributes.KEYS)  # arrays that are no columns
OPTIONAL = ("timeouts", "next_observations", *ABOUT, LOG_PROBS)
PIECE = 1 << 20  # bytes read at once


class _Header(NamedTuple):
    """Of one array in an NPZ file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int  # bytes before its values
    by_columns: bool  # Fortran's order


class _Archive(NamedTuple):
    """An opened NPZ file."""

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # by the names of their arrays
    where: str

    def header(self, key: str) -> _Header:
        """Shape and type of an array, read without its rows and checked against the bytes stored for it."""
        member = self.members[key]
        with self.file.open(member) as file:
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(np.lib.format.read_magic(file))
            if read_header is None:
                raise InputError(
                    f"{self.where}: {key!r} is in a version of NumPy's format that this reader does not know"
                )
            shape, by_columns, dtype = read_header(file)
            header = _Header(shape, dtype, file.tell(), by_columns)
        refuse_pickle(key, dtype, self.where)
        check_stored_size(key, shape, dtype, member.compress_size, self.where)
        return header

    def values(
        self, key: str, header: _Header, as_float32: bool = False, samples: dict[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """All of an array; numbers are converted piece by piece, without a second copy. A few rows, in the file's own
        type, go into `samples`.
        """
        with self.file.open(self.members[key]) as file:
            if header.dtype.kind not in NUMERIC or not header.shape:
                return np.lib.format.read_array(file, allow_pickle=False)
            file.read(header.size)
            values = empty_rows(*header.shape) if as_float32 else np.empty(header.shape, header.dtype)
            rows = values.T if header.by_columns else values  # in the order of the file's bytes
            width = header.dtype.itemsize * math.prod(rows.shape[1:])
            count = max(1, PIECE // max(1, width))
            every, some = max(1, len(rows) // SAMPLE), list[np.ndarray]()
            for start in range(0, len(rows), count):
                block = rows[start : start + count]
                data = file.read(len(block) * width)
                with np.errstate(over="ignore"):
                    own = np.frombuffer(data, header.dtype).reshape(block.shape)
                    block[...] = own
                if samples is not None:
                    some.append(own[-start % every :: every].copy())  # a view would keep all bytes
            if file.read(1):  # this also makes zipfile compare the checksum
                raise ValueError(f"{key!r} goes on after its last row")
            if samples is not None and some and not header.by_columns:
                samples[key] = np.concatenate(some)
        return values


def read(path: str | os.PathLike[str], columns: ColumnMap | None = None) -> Episodes:
    """The rows of an NPZ file; never unpickles. Raises InputError if it is missing, damaged or laid out otherwise."""
    path = Path(path)
    with _opened(path) as archive:
        source = DataSource(path.stem, "npz", str(path.resolve()), files.file_sha256(path))
        if columns is not None:
            return column_map.read(_table(archive), columns, source)
        headers, samples = _headers(archive), dict[str, np.ndarray]()
        values = {
            key: archive.values(key, header, key not in (*FLAGS, *ABOUT), samples) for key, header in headers.items()
        }
    return _episodes(values, archive.where, source, samples)


def read_contents(path: Path, columns: ColumnMap | None = None) -> Contents:
    """All per-step arrays of an NPZ file; never unpickles. `timeouts` is made up where the file has none. Raises
    InputError as `read` does.
    """
    with _opened(path) as archive:
        if columns is not None:
            return column_map.read_contents(_table(archive), columns)
        known, where = _headers(archive), archive.where
        rows = known["rewards"].shape[:1]
        found: dict[str, np.ndarray] = {}
        left: list[str] = []
        for name in archive.members:
            if name in NDIM or name.startswith("infos/"):
                header = known.get(name) or archive.header(name)
                if header.dtype.kind in NUMERIC and header.shape[:1] == rows:
                    found[name] = archive.values(name, header)
                    continue
            if name not in ABOUT:
                left.append(name)
        about = {key: archive.values(key, known[key]) for key in ABOUT if key in known}
    _, timeouts = flags_in(found, where)
    found.setdefault("timeouts", timeouts)
    columns_found = check_columns(found, where)
    said = attributes.parse(about, columns_found, where)
    return Contents(columns_found, _env_id(about, where), said, notes=left_out(left))


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Some arrays of an NPZ file by name; never unpickles. Those with a key of a dataset must be there, and are float32
    unless they are flags; others have their own type. Raises InputError as `read` does.
    """
    with _opened(path) as archive:
        require_keys(archive.members, [name for name in names if name in NDIM], archive.where)
        headers = {name: archive.header(name) for name in names if name in archive.members}
        check_layout({name: header for name, header in headers.items() if name in NDIM}, archive.where)
        return {
            name: archive.values(name, header, as_float32=name in NDIM and name not in FLAGS)
            for name, header in headers.items()
        }


def read_mapping(
    arrays: Mapping[str, np.ndarray],
    columns: ColumnMap | None = None,
    ends_known: bool = False,
    where: str = "the arrays",
) -> Episodes:
    """The rows of a mapping with the keys above, or with names that `columns` maps. `ends_known`: `timeouts` may be
    missing, the rows are one episode, there may be one observation more. Raises InputError, which names `where`, if it
    is not laid out so.
    """

    def load(key: str) -> np.ndarray:
        try:
            return unmasked(arrays[key], f"{where}: {key!r}")
        except InputError:  # which is a ValueError
            raise
        except ValueError as error:  # a ragged list
            raise InputError(f"{where}: {key!r} is not an array ({error})") from error

    if columns is not None:
        table = column_map.array_table([str(name) for name in arrays], load, where)
        values, selected, names = column_map.assemble(table, columns, ends_known)
        if ends_known and not {"timeouts", "next_observations"} & set(values):
            values["timeouts"] = np.zeros(len(values["rewards"]), bool)
        episodes, said = read_mapping(values, None, ends_known, where), column_map.attributes_of(table, values, names)
        source = replace(episodes.source, recipe={**episodes.source.recipe, "columns": selected})
        return replace(episodes, source=source, env_id=table.env_id, attributes=said)
    if ends_known and "terminals" in arrays and not np.ndim(load("terminals")):
        raise InputError(
            f"{where}: 'terminals' is {arrays['terminals']!r}, one flag for the episode; give one for each step, the"
            " last one 1 if the environment ended the episode, all others 0"
        )
    if ends_known and "terminals" in arrays and not {"timeouts", "next_observations"} & set(arrays):
        arrays = {**arrays, "timeouts": np.zeros(len(arrays["terminals"]), bool)}
    if ends_known and {"observations", "rewards"} <= set(arrays) and "next_observations" not in arrays:
        seen = load("observations")
        if seen.ndim > 1 and len(seen) == load("rewards").size + 1:  # the last one follows the last step
            arrays = {**arrays, "observations": seen[:-1], "next_observations": seen[1:]}
    kept = {key: load(key) for key in _wanted(arrays, where, ends_known)}
    check_layout({key: values for key, values in kept.items() if key not in ABOUT}, where, 1 if ends_known else 2)
    digest = hashlib.sha256()
    for key in sorted(kept):
        digest.update(f"{key} {kept[key].dtype.str} {kept[key].shape}".encode())
        digest.update(np.ascontiguousarray(kept[key]).data)
    source = DataSource("arrays", "arrays", sha256=digest.hexdigest())
    return _episodes(kept, where, source)


def write(contents: Contents, path: Path) -> tuple[str, ...]:
    """An uncompressed NPZ file that needs no unpickling; returns notes for a person. Raises StorageError if it can't be
    written.
    """
    about = attributes.given(contents.attributes)
    if contents.env_id is not None:
        about["env_id"] = contents.env_id
    arrays = {**contents.columns, **{key: np.array(value) for key, value in about.items()}}
    with files.replacing(path) as target:
        np.savez(target, allow_pickle=False, **arrays)
    return notes_of_flat_files(contents)


@contextmanager
def _opened(path: Path) -> Generator[_Archive]:
    """Whatever is wrong with the file becomes an InputError: damaged archives raise errors of many kinds."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as file:
            members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
            yield _Archive(file, members, str(path))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable NPZ file ({error}); write it with numpy.savez") from error


def _headers(archive: _Archive) -> dict[str, _Header]:
    """Of the arrays with the keys above, their layout checked."""
    headers = {key: archive.header(key) for key in _wanted(archive.members, archive.where)}
    check_layout({key: header for key, header in headers.items() if key not in ABOUT}, archive.where)
    return headers


def _table(archive: _Archive) -> column_map.Table:
    def load(key: str) -> np.ndarray:
        return archive.values(key, archive.header(key))

    return column_map.array_table(list(archive.members), load, archive.where)


def _wanted(present: Iterable[str], where: str, ends_known: bool = False) -> list[str]:
    """The keys to read, in the order of this module's docstring."""
    present = set(present)
    needed = MINIMUM if ends_known or "next_observations" in present else (*MINIMUM, "timeouts")
    if "timeouts" in needed and "timeouts" not in present and present.issuperset(MINIMUM):
        near = difflib.get_close_matches("timeouts", present.difference(MINIMUM), n=1, cutoff=0.85)
        raise InputError(
            f"{where}: add 'timeouts' (1 in rows where the clock ended the episode, else 0), or 'next_observations':"
            " without either nobody can tell where an episode was cut"
            + (f"; rename {near[0]!r} to it if that is what it means" if near else "")
        )
    require_keys(present, needed, where, map_advice(present, ends_known))
    for key in OPTIONAL:
        similar = difflib.get_close_matches(key, present - {*MINIMUM, *OPTIONAL}, n=1, cutoff=0.85)
        if key not in present and similar:
            raise InputError(f"{where}: unknown key {similar[0]!r}: rename it to {key!r} if that is what it means")
    return [key for key in MINIMUM + OPTIONAL if key in present]


def _episodes(
    arrays: Mapping[str, np.ndarray], where: str, source: DataSource, samples: Mapping[str, np.ndarray] = {}
) -> Episodes:
    said = attributes.parse(arrays, arrays, where)
    return to_episodes(arrays, where, source, _env_id(arrays, where), said, samples)


def _env_id(arrays: Mapping[str, np.ndarray], where: str) -> str | None:
    env_id = arrays.get("env_id")
    if env_id is not None and (env_id.ndim or env_id.dtype.kind != "U"):
        raise InputError(f"{where}: 'env_id' must be one string, like 'Hopper-v4'")
    return None if env_id is None else str(env_id)
