"""Arrays of the user's own: an NPZ file, or a mapping of names to NumPy arrays.

Keys: observations [N, O], actions [N, A], rewards [N], terminals [N]; timeouts [N], which may be left out if
next_observations [N, O] is there; env_id, a string, optional. Other keys are ignored.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itrpo.data.columns import check_layout, check_stored_size, require_keys, to_flags, to_float32
from itrpo.data.episodes import follows
from itrpo.data.hashing import file_sha256
from itrpo.errors import InputError
from itrpo.types import DataSource, Episodes

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations", "env_id")


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


def read(path: str | os.PathLike[str]) -> Episodes:
    """The rows of an NPZ file; never unpickles. Raises InputError if it is missing, damaged or laid out otherwise."""
    path = Path(path)
    where = str(path)
    try:
        headers = _headers(path)
        keys = _wanted(headers, where)
        check_layout({key: headers[key] for key in keys if key != "env_id"}, where)
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in keys}
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not a readable NPZ file ({error}); write it with numpy.savez") from error
    return _episodes(arrays, where, DataSource(path.stem, "npz", str(path.resolve()), file_sha256(path)))


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
    return _episodes(kept, where, DataSource("arrays", "arrays", sha256=digest.hexdigest()))


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
                shape, _, dtype = read_header(file)
            headers[key] = _Header(shape, dtype)
            check_stored_size(key, headers[key], member.compress_size, str(path))
    return headers


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


def _episodes(arrays: Mapping[str, np.ndarray], where: str, source: DataSource) -> Episodes:
    observations = to_float32(arrays["observations"])
    terminals = to_flags(arrays["terminals"], "terminals", where)
    next_observations = to_float32(arrays["next_observations"]) if "next_observations" in arrays else None
    if "timeouts" in arrays:
        timeouts = to_flags(arrays["timeouts"], "timeouts", where)
    else:  # cut wherever the next row does not start where this one led to; the last row is an episode still open
        assert next_observations is not None
        timeouts = ~terminals & ~follows(observations, next_observations)
        timeouts[-1] = False
    env_id = arrays.get("env_id")
    if env_id is not None and (env_id.ndim or env_id.dtype.kind != "U"):
        raise InputError(f"{where}: 'env_id' must be one string, like 'Hopper-v4'")
    return Episodes(
        observations=observations,
        actions=to_float32(arrays["actions"]),
        rewards=to_float32(arrays["rewards"]),
        terminals=terminals,
        timeouts=timeouts,
        next_observations=next_observations,
        behavior_log_probs=None,
        env_id=None if env_id is None else str(env_id),
        source=source,
    )
