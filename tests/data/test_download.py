from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from itrpo.data.cache import cache_dir
from itrpo.data.d4rl_files import D4RLFile
from itrpo.data.download import download_url, fetch
from itrpo.errors import InputError, StorageError

CONTENT = bytes(range(256)) * 12_000  # three chunks
ENTRY = D4RLFile("folder", "tiny.hdf5", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "Hopper-v4", 1)


@dataclass
class Server:
    """A local web server whose behaviour depends on the first part of the address."""

    address: str
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range header)

    def mirror(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/{{folder}}/{{file}}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            behaviour = self.path.split("/")[1]
            if behaviour == "missing":
                self.send_error(404)
                return
            body = {"wrong": CONTENT[::-1], "portal": b"<html>please log in</html>"}.get(behaviour, CONTENT)
            start = 0
            if wanted and behaviour != "no-ranges":
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if behaviour != "endless":
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if behaviour in ("breaks", "no-ranges"):  # after at most a megabyte and a half
                self.wfile.write(body[start : start + 1_500_000])
            elif behaviour == "endless":
                with contextlib.suppress(ConnectionError):  # the client hangs up
                    self.wfile.write(body * 3)
            else:
                self.wfile.write(body[start:])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_address[1]}")
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "d4rl"


def get(*mirrors: str, console: Console | None = None) -> Path:
    return fetch("tiny-v2", console, mirrors=mirrors, files={"tiny-v2": ENTRY})


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("ITRPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/itrpo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/someone")
    assert cache_dir() == Path("/someone/.cache/itrpo")


def test_a_good_download_arrives_whole_and_shows_progress(server: Server, cache: Path) -> None:
    shown = io.StringIO()
    path = get(server.mirror("good"), console=Console(file=shown, width=120, force_terminal=True))
    assert path == cache / "tiny.hdf5"
    assert path.read_bytes() == CONTENT
    assert "Downloading tiny.hdf5" in shown.getvalue()
    assert download_url(path) == f"{server.address}/good/folder/tiny.hdf5"
    assert not list(cache.glob("*.part"))


def test_the_second_time_neither_downloads_nor_hashes(server: Server) -> None:
    path = get(server.mirror("good"))
    status = path.stat()
    path.write_bytes(CONTENT[::-1])  # same size; with the old time, only hashing could notice
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert get(server.mirror("good")) == path
    assert len(server.requests) == 1


def test_a_changed_file_is_noticed(server: Server) -> None:
    path = get(server.mirror("good"))
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(InputError, match=r"not the published file: SHA-256 [0-9a-f]{64} instead of 3,072,000 bytes"):
        get(server.mirror("good"))
    assert path.read_bytes() == CONTENT[::-1]  # the user's to delete


def test_a_broken_connection_goes_on_where_it_broke(server: Server) -> None:
    assert get(server.mirror("breaks")).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=1500000-", "bytes=3000000-"]


def test_a_part_of_an_earlier_run_is_used(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:2_000_000])
    assert get(server.mirror("good")).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=2000000-"]


def test_a_server_that_cannot_resume_starts_again(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match="broke off after 1,500,000 of 3,072,000 bytes"):
        get(server.mirror("no-ranges"))
    assert (cache / "tiny.hdf5.part").read_bytes() == CONTENT[:1_500_000]
    assert get(server.mirror("no-ranges"), server.mirror("good")).read_bytes() == CONTENT


def test_a_missing_file_is_taken_from_the_mirror(server: Server) -> None:
    path = get(server.mirror("missing"), server.mirror("good"))
    assert path.read_bytes() == CONTENT
    assert download_url(path) == f"{server.address}/good/folder/tiny.hdf5"


def test_wrong_bytes_are_kept_aside_and_explained(server: Server, cache: Path) -> None:
    with pytest.raises(
        InputError, match=r"other bytes than the published ones, SHA-256 [0-9a-f]{64}; kept as .*wrong-hash"
    ):
        get(server.mirror("wrong"))
    assert (cache / "tiny.hdf5.wrong-hash").read_bytes() == CONTENT[::-1]
    assert not (cache / "tiny.hdf5").exists()
    assert get(server.mirror("wrong"), server.mirror("good")).read_bytes() == CONTENT


def test_a_wrong_part_of_an_earlier_run_does_not_spoil_the_mirror(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(b"x" * 1000)
    assert get(server.mirror("good"), server.mirror("good")).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


def test_a_log_in_page_is_not_taken_for_the_file(server: Server, cache: Path) -> None:
    with pytest.raises(InputError, match="offers 26 bytes instead of 3,072,000"):
        get(server.mirror("portal"))
    assert not (cache / "tiny.hdf5.part").exists()


def test_a_server_that_sends_without_end_is_stopped(server: Server, cache: Path) -> None:
    with pytest.raises(InputError, match="sends more than 3,072,000 bytes"):
        get(server.mirror("endless"))
    assert (cache / "tiny.hdf5.part").stat().st_size <= len(CONTENT)


def test_offline_says_which_file_to_put_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError) as caught:
        get("http://127.0.0.1:9/{folder}/{file}", "http://127.0.0.1:9/mirror/{file}")
    message = str(caught.value)
    for part in ("127.0.0.1:9/folder/tiny.hdf5", "127.0.0.1:9/mirror/tiny.hdf5", str(cache / "tiny.hdf5")):
        assert part in message
    assert "3,072,000 bytes" in message
    assert ENTRY.sha256 in message
    (cache / "tiny.hdf5").write_bytes(CONTENT)  # as the message says
    path = get("http://127.0.0.1:9/{file}")
    assert download_url(path) is None


def test_runs_at_the_same_time_share_one_download(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(server.mirror("breaks")), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 3


def test_an_unknown_name() -> None:
    with pytest.raises(InputError, match=r"unknown D4RL dataset 'tiny-v3' \(did you mean 'tiny-v2'\?\)"):
        fetch("tiny-v3", files={"tiny-v2": ENTRY})


def test_a_full_disk_is_a_storage_error(server: Server, cache: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").symlink_to(full)
    with pytest.raises(StorageError, match="set ITRPO_CACHE") as caught:
        get(server.mirror("good"))
    assert caught.value.__cause__.errno == errno.ENOSPC  # type: ignore[union-attr]
