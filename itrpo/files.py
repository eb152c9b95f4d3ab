"""Files: where they are kept, how they are written, locked and hashed; and how many cores there are.

A file or folder is written under a temporary name beside its place, flushed to the disk, and renamed: a reader sees the
old content or the whole new one, after a power cut too. Every part of itrpo writes through here, except `policy.py`,
which stands alone.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from itrpo.errors import InputError, StorageError

# --- places --------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """`$ITRPO_CACHE`, else `$XDG_CACHE_HOME/itrpo`, else `~/.cache/itrpo`. Not created here."""
    if chosen := os.environ.get("ITRPO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "itrpo"


def d4rl_path(file: str) -> Path:
    """Where a D4RL file of this name is kept, whether or not it is there yet."""
    return cache_dir() / "d4rl" / file


def generated_path(name: str) -> Path:
    """Where the generated dataset `name` is kept, whether or not it is there yet."""
    return cache_dir() / "generated" / f"{name}.hdf5"


def available_cores() -> int:
    """Cores this process may use, which is how many threads XLA starts unless PJRT_NPROC says otherwise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Generator[IO[bytes]]:
    """A new binary file, open for reading and writing, that becomes `path` once the block ends without an error.

    It grows in `folder`, which must be on the same disk; beside `path` by default. Raises StorageError if the disk
    refuses; then, as after any error in the block, `path` is as it was.
    """
    temporary = temporary_name(path, folder)
    try:
        with storage_errors(path):
            make_parents(temporary)
            with open(temporary, "x+b") as file:
                yield file
            put(temporary, path)
    finally:
        with suppress(OSError):  # it may never have been there
            temporary.unlink()


def put(finished: Path, path: Path) -> None:
    """Moves a finished file of the same disk to `path`, in place of what is there. Raises OSError."""
    sync(finished)
    os.replace(finished, path)
    note(path)
    sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """A new folder to fill, which becomes `path` once the block ends without an error; what was there goes just before.

    Raises StorageError if the disk refuses; then, as after any error in the block, `path` is as it was.
    """
    temporary = temporary_name(path)
    try:
        with storage_errors(path):
            make_parents(temporary)
            temporary.mkdir()
            yield temporary
            for it in sorted(temporary.rglob("*"), reverse=True):
                sync(it)
            sync(temporary)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            note(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes a file whole or not at all. Raises StorageError."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Writes strict, indented JSON (see `strict`) whole or not at all. Raises StorageError."""
    write(path, (json.dumps(strict(value), indent=2, allow_nan=False) + "\n").encode())


def json_line(value: Any) -> bytes:
    """One line of strict JSON (see `strict`)."""
    return (json.dumps(strict(value), allow_nan=False) + "\n").encode()


def append(path: Path, content: bytes) -> None:
    """Adds whole lines to a file, cutting off first what a kill left of a last line, and waits until they are on the
    disk. Raises StorageError.
    """
    with storage_errors(path):
        make_parents(path)
        note(path)
        with open(path, "a+b") as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def open_log(path: Path, size: int | None = None) -> io.FileIO:
    """A file to `add` to, cut to its first `size` bytes. Raises OSError.

    For what grows by pieces, and is whole at any length; `sync` it where it must not be lost.
    """
    file = open(path, "ab", buffering=0)  # noqa: SIM115 (who asked for it closes it)
    if size is not None:
        file.truncate(size)
    return file


def add(log: io.FileIO, content: bytes) -> None:
    """Adds to an open log at once: nothing waits in a buffer that closing it would write. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[log.write(rest) :]


def print_no_more() -> None:
    """What is still to be printed goes nowhere: its reader is gone, and Python's flush at the end would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def scratch_folder(within: Path, prefix: str) -> Generator[Path]:
    """A new folder in `within`, which is gone afterwards. Raises StorageError."""
    make_folder(within)
    with storage_errors(within), tempfile.TemporaryDirectory(dir=within, prefix=prefix) as name:
        yield Path(name)


HELD: dict[Path, list[set[Path]]] = {}  # see `never_made_again`; what was written below since each of two looks


@contextmanager
def never_made_again(folder: Path) -> Generator[None]:
    """In the block, nothing that is written below makes `folder` itself: one that was deleted stays so."""
    own = folder.absolute()
    HELD[own] = [set(), set()]
    try:
        yield
    finally:
        del HELD[own]


def looked_at(folder: Path) -> None:
    """Says that a held folder is still what it was; see `remove_rest`."""
    if (written := HELD.get(folder.absolute())) is not None:
        written[:] = [written[1], set()]


def note(path: Path) -> None:
    for folder, written in HELD.items():
        if path.absolute().is_relative_to(folder):
            written[1].add(path.absolute())


def remove_rest(folder: Path, keep: str) -> None:
    """Removes what was still written into a held folder while somebody deleted it; `keep` is a file that may stay.

    That is everything that is there, all of it written since the last look but one. Where anything else is there too,
    the folder was not deleted, and nothing is removed.
    """
    own = folder.absolute()
    written = set[Path]().union(*HELD[own])
    rest = [it for it in own.rglob("*") if not it.is_dir() and it.name != keep]
    if written and all(it in written or not written.isdisjoint(it.parents) for it in rest):
        for it in rest:
            it.unlink(missing_ok=True)
        for it in (*sorted(own.rglob("*"), reverse=True), own):
            with suppress(OSError):  # `keep` is in it
                it.rmdir()


def make_parents(path: Path) -> None:
    """Makes the folders above a file, but none that is `never_made_again`. Raises OSError."""
    parent = path.parent.absolute()
    missing = list[Path]()
    for it in (parent, *parent.parents):
        if it in HELD:
            if not it.exists():
                raise FileNotFoundError(errno.ENOENT, f"{it} was deleted")
            for below in reversed(missing):  # the first fails if `it` is gone since
                below.mkdir(exist_ok=True)
            return
        missing.append(it)
    parent.mkdir(parents=True, exist_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it. Raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"can't make the folder {path}: {error.strerror or error}") from error


def check_may_write(folder: Path, fix: str = "; give another with --out") -> None:
    """Raises StorageError, which ends with `fix`, if `folder` can't be made or written into: before what takes long,
    and nothing is made.
    """
    with storage_errors(folder):
        own = folder.absolute()
        there = next(it for it in (own, *own.parents) if os.path.lexists(it))
        if not os.path.isdir(there):
            why = f"{there} is {'a file' if os.path.exists(there) else 'a link to nothing'}"
        elif not os.access(there, os.W_OK | os.X_OK):
            why = f"no permission to write in {there}"
        else:
            return
    raise StorageError(f"can't write in the folder {folder}: {why}{fix}")


def temporary_name(path: Path, folder: Path | None = None) -> Path:
    """A name that no other writer of `path` uses, in any process on any machine: .NAME.RANDOM.tmp."""
    return (folder or path.parent) / f".{path.name}.{secrets.token_hex(8)}.tmp"


def remove_temporaries(folder: Path) -> None:
    """Removes what writers that were killed left in `folder`. Only for who holds its lock."""
    for it in folder.glob(".*.tmp"):
        shutil.rmtree(it, ignore_errors=True) if it.is_dir() else it.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Makes renames inside a folder, or what was written to a file, survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path, more: str = "") -> Generator[None]:
    """What the disk refuses in the block becomes a StorageError about `path`; `more` ends its message."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{cannot_write(path, error)}{more}") from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"can't write {path}: {error.strerror or error}")


# --- reading -------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises StorageError naming the file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"can't read {path}: {error}") from error


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of the file's bytes; about a second per gigabyte on a recent processor."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- JSON ----------------------------------------------------------------------------------------------------------


def strict(value: Any) -> Any:
    """`value` (nested dicts, lists, tuples, scalars) with the numbers that JSON lacks as their names."""
    if isinstance(value, dict):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return number_name(value)
    return value


def number_name(value: float) -> str:
    """ "NaN", "Infinity" or "-Infinity"."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# --- locking -------------------------------------------------------------------------------------------------------


@contextmanager
def lock(path: Path, refusal: str, wait: Callable[[], None] | None = None) -> Generator[None]:
    """Holds the lock file `path` for this process; the system frees it when the process ends, however it ends.

    If another holds it: with `wait`, calls it once and waits; else raises InputError(refusal).
    Raises StorageError if the file can't be made.
    """
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    held = FileLock(path)
    with storage_errors(path):
        try:
            held.acquire(blocking=False)
        except Timeout:
            if wait is None:
                raise InputError(refusal) from None
            wait()
            held.acquire()
    try:
        yield
    finally:
        held.release()
