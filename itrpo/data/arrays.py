"""Arrays of the user's own: an NPZ file, or a mapping of names to NumPy arrays.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N]; timeouts [N], which may be left out if
next_observations [N, O] is there; env_id, a string, and infos/action_log_probs [N], optional. Other keys are ignored.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itrpo.data.columns import check_layout, check_stored_size, empty_rows, require_keys, to_flags, to_float32
from itrpo.data.episodes import follows
from itrpo.errors import InputError
from itrpo.files import file_sha256
from itrpo.types import DataSource, Episodes

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations", "env_id", "infos/action_log_probs")
PIECE = 1 << 20  # bytes read at once


class _Header(NamedTuple):
    """Of one array in an NPZ file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    member: str = ""  # its name in the archive
    size: int = 0  # bytes before its values
    by_columns: bool = False  # Fortran's order


def read(path: str | os.PathLike[str]) -> Episodes:
    """The rows of an NPZ file; never unpickles. Raises InputError if it is missing, damaged or laid out otherwise."""
    path = Path(path)
    where = str(path)
    try:
        headers = _headers(path)
        keys = _wanted(headers, where)
        check_layout({key: headers[key] for key in keys if key != "env_id"}, where)
        with zipfile.ZipFile(path) as archive:
            arrays = {key: _read_array(archive, key, headers[key]) for key in keys}
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # damaged archives raise errors of many kinds
        raise InputError(f"{where}: not a readable NPZ file ({error}); write it with numpy.savez") from error
    return to_episodes(arrays, where, DataSource(path.stem, "npz", str(path.resolve()), file_sha256(path)))


def from_mapping(arrays: Mapping[str, np.ndarray]) -> Episodes:
    """The rows of a mapping with the keys above. Raises InputError if it is not laid out so."""
    where = "the arrays"
    kept: dict[str, np.ndarray] = {}
    for key in _wanted(arrays, where):
        try:
            kept[key] = np.asarray(arrays[key])
        except ValueError as error:  # a ragged list
            raise InputError(f"{where}: {key!r} is not an array ({error})") from error
    check_layout({key: value for key, value in kept.items() if key != "env_id"}, where)
    digest = hashlib.sha256()
    for key in sorted(kept):
        digest.update(f"{key} {kept[key].dtype.str} {kept[key].shape}".encode())
        digest.update(np.ascontiguousarray(kept[key]).data)
    return to_episodes(kept, where, DataSource("arrays", "arrays", sha256=digest.hexdigest()))


def _headers(path: Path) -> dict[str, _Header]:
    """Shape and type of every array in the file, read without its rows and checked against the bytes stored for it."""
    headers: dict[str, _Header] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            key = member.filename.removesuffix(".npy")
            if key not in REQUIRED + OPTIONAL:
                headers[key] = _Header((), np.dtype(object))  # never read
                continue
            with archive.open(member) as file:
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(np.lib.format.read_magic(file))
                if read_header is None:
                    raise InputError(
                        f"{path}: {key!r} is in a version of NumPy's format that this reader does not know"
                    )
                shape, by_columns, dtype = read_header(file)
                headers[key] = _Header(shape, dtype, member.filename, file.tell(), by_columns)
            if min(shape, default=0) < 0:
                raise InputError(f"{path}: {key!r} has shape {list(shape)}; the file is damaged")
            check_stored_size(key, headers[key], member.compress_size, str(path))
    return headers


def _read_array(archive: zipfile.ZipFile, key: str, header: _Header) -> np.ndarray:
    """One array: flags and text as they are, numbers as float32, converted piece by piece without a second copy."""
    with archive.open(header.member) as file:
        if key == "env_id":
            return np.lib.format.read_array(file, allow_pickle=False)
        file.read(header.size)
        flags = key in ("terminals", "timeouts")
        values = np.empty(header.shape, header.dtype) if flags else empty_rows(*header.shape)
        rows = values.T if header.by_columns else values  # in the order of the file's bytes
        width = header.dtype.itemsize * math.prod(rows.shape[1:])
        count = max(1, PIECE // width)
        for start in range(0, len(rows), count):
            block = rows[start : start + count]
            data = file.read(len(block) * width)
            with np.errstate(over="ignore"):
                block[...] = np.frombuffer(data, header.dtype).reshape(block.shape)
        if file.read(1):  # this also makes zipfile compare the checksum
            raise ValueError(f"{key!r} goes on after its last row")
    return values


def _wanted(present: Iterable[str], where: str) -> list[str]:
    """The keys to read, in the order of this module's docstring."""
    present = set(present)
    needed = REQUIRED if "next_observations" in present else (*REQUIRED, "timeouts")
    if "timeouts" in needed and "timeouts" not in present and present.issuperset(REQUIRED):
        raise InputError(
            f"{where}: add 'timeouts' (1 in rows where the clock ended the episode, else 0), or 'next_observations':"
            " without either nobody can tell where an episode was cut"
        )
    require_keys(present, needed, where)
    for key in OPTIONAL:
        similar = difflib.get_close_matches(key, present - {*REQUIRED, *OPTIONAL}, n=1, cutoff=0.85)
        if key not in present and similar:
            raise InputError(f"{where}: unknown key {similar[0]!r}: rename it to {key!r} if that is what it means")
    return [key for key in REQUIRED + OPTIONAL if key in present]


def to_episodes(arrays: Mapping[str, np.ndarray], where: str, source: DataSource) -> Episodes:
    """Arrays with the keys above, their layout checked already, as `Episodes`. Raises InputError for other flags."""
    observations = to_float32(arrays["observations"])
    terminals = to_flags(arrays["terminals"], "terminals", where)
    next_observations = to_float32(arrays["next_observations"]) if "next_observations" in arrays else None
    if "timeouts" in arrays:
        timeouts = to_flags(arrays["timeouts"], "timeouts", where)
    else:  # cut wherever the next row does not start where this one led to; the last row is an episode still open
        assert next_observations is not None
        timeouts = ~terminals & ~follows(observations, next_observations)
        timeouts[-1] = False
    env_id, log_probs = arrays.get("env_id"), arrays.get("infos/action_log_probs")
    if env_id is not None and (env_id.ndim or env_id.dtype.kind != "U"):
        raise InputError(f"{where}: 'env_id' must be one string, like 'Hopper-v4'")
    return Episodes(
        observations=observations,
        actions=to_float32(arrays["actions"]),
        rewards=to_float32(arrays["rewards"]).reshape(-1),
        terminals=terminals,
        timeouts=timeouts,
        next_observations=next_observations,
        behavior_log_probs=None if log_probs is None else to_float32(log_probs).reshape(-1),
        env_id=None if env_id is None else str(env_id),
        source=source,
    )
