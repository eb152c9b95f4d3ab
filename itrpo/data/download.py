"""D4RL files by name: from the cache, else from the official server, else from a mirror.

A file counts only if its SHA-256 is the published one. A download grows in `<file>.part`, goes on from there after an
interruption, and gets its final name once it is checked; a lock lets one process at a time work on a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo.data.cache import d4rl_path
from itrpo.data.d4rl_files import D4RL_FILES, MIRRORS, D4RLFile
from itrpo.data.hashing import file_sha256
from itrpo.errors import InputError, StorageError
from itrpo.registry import nearest

if TYPE_CHECKING:
    from rich.console import Console

TIMEOUT = 30.0  # seconds without a single byte
CHUNK = 1 << 20  # bytes


class _MirrorError(Exception):
    """This address did not give us the file; the next one may."""


def fetch(
    name: str,
    console: Console | None = None,
    *,
    mirrors: Sequence[str] = MIRRORS,
    files: Mapping[str, D4RLFile] = D4RL_FILES,
) -> Path:
    """The verified local file of the D4RL dataset `name`, downloaded into the cache if it is not there yet.

    `mirrors` are URL templates with {folder} and {file}, tried in order. Nothing is hashed twice unless it changed.
    Raises InputError if the name is unknown, if the cached file is not the published one, or if no address gives it
    (saying which file to put where); StorageError if the cache can't be written.
    """
    if name not in files:
        raise InputError(f"unknown D4RL dataset {name!r}{nearest(name, files)}")
    entry = files[name]
    path = d4rl_path(entry.file)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(path.with_name(path.name + ".lock"), console):
                if not path.exists():  # another process may have finished it while we waited
                    _download(path, entry, mirrors, console)
        _check_cached(path, entry)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}; set ITRPO_CACHE to a folder with room to write"
        ) from error
    return path


def download_url(path: Path) -> str | None:
    """Where a fetched file was downloaded from; None if it was put into the cache by hand."""
    return _read_record(path).get("url")


def _download(path: Path, entry: D4RLFile, mirrors: Sequence[str], console: Console | None) -> None:
    part = path.with_name(path.name + ".part")
    failures = []
    for template in mirrors:
        url = template.format(folder=entry.folder, file=entry.file)
        try:
            _download_from(url, part, entry, console)
            digest = file_sha256(part)
            if digest != entry.sha256:
                aside = part.replace(path.with_name(path.name + ".wrong-hash"))
                raise _MirrorError(f"gave other bytes than the published ones, SHA-256 {digest}; kept as {aside}")
        except _MirrorError as error:
            failures.append(f"  {url}: {error}")
            continue
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _write_record(path, entry.sha256, url)
        return
    raise InputError(
        f"{entry.file} is not in the cache and could not be downloaded.\n"
        + "\n".join(failures)
        + f"\nTo put it there by hand: {path}\n  {entry.size:,} bytes, SHA-256 {entry.sha256}"
    )


def _download_from(url: str, part: Path, entry: D4RLFile, console: Console | None) -> None:
    """Makes `part` hold `entry.size` bytes; goes on after a broken connection as long as each attempt brings some."""
    if part.exists() and part.stat().st_size > entry.size:
        part.unlink()
    with _progress_bar(entry, console) as show:
        while (have := part.stat().st_size if part.exists() else 0) < entry.size:
            try:
                _request(url, part, have, entry.size, show)
            except _MirrorError:
                if not part.exists() or part.stat().st_size <= have:
                    raise


def _request(url: str, part: Path, have: int, size: int, show: Callable[[int], None]) -> None:
    """One attempt to append bytes `have` to `size` of `url` to `part`."""
    headers = {"User-Agent": "itrpo"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(str(getattr(error, "reason", error))) from error
    with response:
        start = have if response.headers.get("Content-Range", "").startswith(f"bytes {have}-") else 0
        offered = response.headers.get("Content-Length")
        if offered is not None and start + int(offered) != size:
            raise _MirrorError(f"offers {start + int(offered):,} bytes instead of {size:,}")
        with part.open("ab" if start else "wb") as file:
            for chunk in _body(response):
                start += len(chunk)
                if start > size:
                    raise _MirrorError(f"sends more than {size:,} bytes")
                file.write(chunk)
                show(start)
    if start < size:
        raise _MirrorError(f"broke off after {start:,} of {size:,} bytes")


def _body(response: HTTPResponse) -> Iterator[bytes]:
    """The rest of a response. Errors of the network, and only those, become _MirrorError."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, HTTPException) as error:
            raise _MirrorError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _progress_bar(entry: D4RLFile, console: Console | None) -> Generator[Callable[[int], None]]:
    if console is None:
        yield lambda done: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(f"Downloading {entry.file}", total=entry.size)
        yield lambda done: progress.update(bar, completed=done)


@contextlib.contextmanager
def _lock(path: Path, console: Console | None) -> Generator[None]:
    """Held by one process at a time; the system frees it when that process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if console is not None:
                console.print(f"Another process is downloading {path.stem}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_cached(path: Path, entry: D4RLFile) -> None:
    """Raises InputError unless the file is the published one. Hashes it only if it changed since the last time."""
    status = path.stat()
    record = _read_record(path)
    if (record.get("size"), record.get("mtime_ns")) == (status.st_size, status.st_mtime_ns) and record.get(
        "sha256"
    ) == entry.sha256:
        return
    digest = file_sha256(path) if status.st_size == entry.size else None
    if digest != entry.sha256:
        found = f"{status.st_size:,} bytes" if digest is None else f"SHA-256 {digest}"
        raise InputError(
            f"{path}: not the published file: {found} instead of {entry.size:,} bytes, SHA-256 {entry.sha256}."
            " Delete it to have it downloaded again (D4RL has replaced files under the same name), or give its path"
            " instead of the dataset's name to use it as it is"
        )
    _write_record(path, entry.sha256, url=None)


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, sha256: str, url: str | None) -> None:
    """Notes that `path` has this hash. A cache that can't be written only costs the time to hash again."""
    status = path.stat()
    record = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256, "url": url}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(record))
        temporary.replace(_record_path(path))
