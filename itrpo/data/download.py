"""D4RL files by name: from the cache, else from the official server, else from a mirror.

A file counts only if its SHA-256 is the published one; of two no hash is known: any HDF5 file counts. A
download grows in `<file>.part`, goes on from there after an interruption, and gets its final name once it is checked; a
lock lets one process at a time work on a file.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo.console import say
from itrpo.data.d4rl_files import D4RL_FILES, MIRRORS, D4RLFile
from itrpo.errors import InputError, StorageError
from itrpo.files import add, d4rl_path, file_sha256, lock, open_log, put, read_json, write_json
from itrpo.registry import nearest

if TYPE_CHECKING:
    from rich.console import Console

TIMEOUT = 30.0  # seconds without a byte, or without MIN_BYTES, after which a connection is given up
MIN_BYTES = 1 << 15  # bytes: about a kilobyte per second; 200 MB would take two days
CHUNK = 1 << 18  # bytes read at once
WORTH_RESUMING = 1 << 20  # bytes that a connection must have brought for the same address to be asked again at once
SIGNATURE = b"\x89HDF\r\n\x1a\n"
PAUSES = (3.0, 15.0)  # seconds before all addresses are asked again, if one of them seems to be in trouble for a while
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may be different in a minute


class _MirrorError(Exception):
    """This address did not give us the file; the next one may. `temporary`: so may this one, later."""

    def __init__(self, message: str, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


def fetch(
    name: str,
    console: Console | None = None,
    *,
    mirrors: Sequence[str] = MIRRORS,
    files: Mapping[str, D4RLFile] = D4RL_FILES,
    timeout: float = TIMEOUT,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The verified local file of the D4RL dataset `name`, downloaded into the cache if it is not there yet. Of a file
    without a known hash, the mirror with an encrypted address is asked first.

    `mirrors` are URL templates with {folder} and {file}, tried in order; `timeout` and `pauses` are in seconds. Nothing
    is hashed twice unless it changed.
    Raises InputError if the name is unknown, if the cached file is not the published one, or if no address gives it
    (saying which file to put where); StorageError if the cache can't be written.
    """
    from itrpo.console import silent_console

    console = console or silent_console()
    if name not in files:
        raise InputError(f"unknown D4RL dataset {name!r}{nearest(name, files)}")
    entry = files[name]
    path = d4rl_path(entry.file)
    busy = f"Another process is downloading {entry.file}; waiting for it."
    try:
        if not path.exists():
            with lock(path.with_name(path.name + ".lock"), busy, wait=lambda: say(console, busy)):
                if not path.exists():  # another process may have finished it while we waited
                    _download(path, entry, mirrors, console, timeout, pauses)
        _check_cached(path, entry)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}; set ITRPO_CACHE to a folder with room to write"
        ) from error
    return path


def download_url(path: Path) -> str | None:
    """Where a fetched file was downloaded from; None if it was put into the cache by hand."""
    return _read_record(path).get("url")


def _download(
    path: Path,
    entry: D4RLFile,
    mirrors: Sequence[str],
    console: Console,
    timeout: float,
    pauses: Sequence[float],
) -> None:
    """Puts the published file at `path`: the first address that gives it, in up to 1 + len(pauses) rounds."""
    ordered = mirrors if entry.sha256 is not None else sorted(mirrors, key=lambda it: not it.startswith("https:"))
    urls = [template.format(folder=entry.folder, file=entry.file) for template in ordered]
    failures: dict[str, _MirrorError] = {}
    for pause in (0.0, *pauses):
        if pause:
            say(console, f"{entry.file} did not arrive yet; trying again in {pause:.0f} seconds")
        time.sleep(pause)
        for url in urls:
            if url in failures and not failures[url].temporary:
                continue
            try:
                digest = _download_from(url, path, entry, console, timeout)
            except _MirrorError as error:
                failures[url] = error
            else:
                _write_record(path, digest, url)
                return
        if not any(failure.temporary for failure in failures.values()):
            break
    raise InputError(
        f"{entry.file} is not in the cache and could not be downloaded.\n"
        + "\n".join(f"  {url}: {failure}" for url, failure in failures.items())
        + f"\nTo put it there by hand: {path}\n  {_published(entry)}"
    )


def _published(entry: D4RLFile) -> str:
    if entry.size is None or entry.sha256 is None:
        return "its size and SHA-256 are not known"
    return f"{entry.size:,} bytes, SHA-256 {entry.sha256}"


def _download_from(url: str, path: Path, entry: D4RLFile, console: Console, timeout: float) -> str:
    """Puts the published file at `path` and returns its SHA-256, or raises _MirrorError. Bytes of the wrong file are
    kept aside.

    Bytes of an earlier attempt may be the wrong ones, so a file that began with them gets a second chance.
    """
    part, aside = path.with_name(path.name + ".part"), path.with_name(path.name + ".wrong-hash")
    if entry.sha256 is None:
        part.unlink(missing_ok=True)  # nothing would tell whether its bytes are of the same file
    began_earlier = part.exists()
    size = _offered(url, timeout) if entry.size is None else entry.size
    while True:
        _fill(url, part, entry.file, size, console, timeout)
        digest = file_sha256(part)
        if entry.sha256 in (None, digest):
            break
        put(part, aside)
        if not began_earlier:
            raise _MirrorError(
                f"gave other bytes than the published ones, SHA-256 {digest}; kept as {aside} (D4RL has replaced"
                " files under the same name; to use such a version, give its path instead of the dataset's name)"
            )
        began_earlier = False
    if entry.sha256 is None and not is_hdf5(part):  # but a page that asks for a password, say
        part.unlink()
        raise _MirrorError("gave something that is no HDF5 file")
    put(part, path)
    return digest


def is_hdf5(path: Path) -> bool:
    """Whether it begins as HDF5 files do."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def _offered(url: str, timeout: float) -> int:
    """The bytes that this address says it has."""
    request = urllib.request.Request(url, headers={"User-Agent": "itrpo"}, method="HEAD")
    with _answer(request, timeout) as response:
        said = response.headers.get("Content-Length", "")
    if not said.isdigit():
        raise _MirrorError("does not say how many bytes the file has")
    return int(said)


def _fill(url: str, part: Path, name: str, size: int, console: Console, timeout: float) -> None:
    """Makes `part` hold `size` bytes; goes on after a broken connection as long as each one brings some."""
    from itrpo.console import progress_bar

    if _size(part) > size:
        part.unlink()
    have = _size(part)
    free = shutil.disk_usage(part.parent).free
    if free < size - have:
        raise OSError(errno.ENOSPC, f"{size - have:,} bytes are still to come, and {free:,} are free on the disk")
    with progress_bar(console, f"Downloading {name}", size, unit="bytes") as advance:
        advance(have)
        while (have := _size(part)) < size:
            try:
                _request(url, part, have, size, timeout, advance)
            except _MirrorError as error:
                if not error.temporary or _size(part) < min(have + WORTH_RESUMING, size):
                    raise


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _request(url: str, part: Path, have: int, size: int, timeout: float, advance: Callable[[int], None]) -> None:
    """One attempt to append bytes `have` to `size` of `url` to `part`."""
    headers = {"User-Agent": "itrpo"} | ({"Range": f"bytes={have}-"} if have else {})
    with _answer(urllib.request.Request(url, headers=headers), timeout) as response:
        position = have if response.status == 206 else 0  # a server without ranges sends what we have once more
        if response.status == 206 and not re.match(f"bytes {have}-", response.headers.get("Content-Range", "")):
            raise _MirrorError(f"sends another part of the file than the one from byte {have:,} on")
        if response.length is not None and position + response.length != size:
            raise _MirrorError(f"offers {position + response.length:,} bytes instead of {size:,}")
        with open_log(part) as file:
            for chunk in _body(response, timeout):
                position += len(chunk)
                if position > size:
                    raise _MirrorError(f"sends more than {size:,} bytes")
                new = chunk[-(position - have) :] if position > have else b""
                add(file, new)
                have += len(new)
                advance(len(new))
    if position < size:
        raise _MirrorError(f"broke off after {position:,} of {size:,} bytes", temporary=True)


def _answer(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # it is a response, too
        raise _MirrorError(f"HTTP {error.code} {error.reason}", temporary=error.code in BUSY) from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _body(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The rest of a response. Errors of the network, and only those, become _MirrorError."""
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _MirrorError(str(error) or type(error).__name__, temporary=True) from error
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        now = time.monotonic()
        if now - since > timeout:
            if received < MIN_BYTES:
                raise _MirrorError(f"sent {received:,} bytes in {now - since:.0f} seconds", temporary=True)
            since, received = now, 0


def _check_cached(path: Path, entry: D4RLFile) -> None:
    """Raises InputError unless the file is the published one. Hashes it only if it changed since the last time."""
    if entry.sha256 is None:
        return
    record, verified = _read_record(path), _state(path, entry.sha256)
    if record | verified == record:
        return
    size = path.stat().st_size
    digest = file_sha256(path) if size == entry.size else None
    if digest != entry.sha256:
        found = f"{size:,} bytes" if digest is None else f"SHA-256 {digest}"
        raise InputError(
            f"{path}: not the published file: {found} instead of {_published(entry)}."
            " Delete it to have it downloaded again (D4RL has replaced files under the same name), or give its path"
            " instead of the dataset's name to use it as it is"
        )
    _write_record(path, entry.sha256, url=None)


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(_record_path(path))
    except StorageError:
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, sha256: str, url: str | None) -> None:
    """Notes that `path` has this hash. A cache that can't be written only costs the time to hash again."""
    with contextlib.suppress(StorageError):
        write_json(_record_path(path), _state(path, sha256) | {"url": url})


def _state(path: Path, sha256: str) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}
