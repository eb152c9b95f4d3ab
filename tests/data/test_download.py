from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from itrpo.data.d4rl_files import D4RLFile
from itrpo.data.download import SIGNATURE, download_url, fetch
from itrpo.errors import InputError, StorageError
from itrpo.files import cache_dir

CONTENT = bytes(range(256)) * 12_000
HALF = 1_500_000  # where connections break
ENTRY = D4RLFile("folder", "tiny.hdf5", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "Hopper-v4", 1)
TIMEOUT = 0.3


@dataclass
class Server:
    """A local web server whose behaviour is the first part of the address."""

    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range header)
    stop: threading.Event = field(default_factory=threading.Event)  # ends whatever stalls

    def mirror(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/{{folder}}/{{file}}"

    def ranges(self, behaviour: str) -> list[str | None]:
        """The Range header of each request of one kind."""
        return [wanted for path, wanted in self.requests if path.startswith(f"/{behaviour}/")]


class Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        behaviour, wanted = self.path.split("/")[1], self.headers.get("Range")
        self.state.requests.append((self.path, wanted))
        with contextlib.suppress(ConnectionError):  # the client hangs up
            if behaviour.isdigit():
                self.send_error(int(behaviour))
            else:
                BEHAVIOURS[behaviour](self, int(wanted[6:-1]) if wanted else 0)

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(
        self, body: bytes, start: int = 0, *, length: int | str | None = None, content_range: str | None = None
    ) -> None:
        """Status line and headers for `body` from `start` on, then the body. `length` replaces the true one."""
        self.send_response(206 if start or content_range else 200)
        if start or content_range:
            self.send_header("Content-Range", content_range or f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if length != "none":
            self.send_header("Content-Length", str(len(CONTENT) - start if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[start:])

    def redirect(self, path: str) -> None:
        self.send_response(302)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def drip(self) -> None:
        self.reply(b"")
        while not self.state.stop.wait(0.02):
            self.wfile.write(b"x")

    def busy_at_first(self, start: int) -> None:
        self.send_error(429) if len(self.state.requests) < 3 else self.reply(CONTENT, start)

    def log_message(self, *_: object) -> None:
        pass


# behaviour -> what it answers; `start` is the first byte that was asked for
BEHAVIOURS: dict[str, Callable[[Handler, int], object]] = {
    "good": lambda it, start: it.reply(CONTENT, start),
    "breaks": lambda it, start: it.reply(CONTENT[: start + HALF], start),
    "no-ranges": lambda it, start: it.reply(CONTENT),
    "no-ranges-breaks": lambda it, start: it.reply(CONTENT[:HALF]),
    "other-range": lambda it, start: it.reply(CONTENT, start, content_range="bytes 5-3071999/3072000"),
    "says-less": lambda it, start: it.reply(CONTENT, start, length=len(CONTENT) - start - 1000),
    "says-more": lambda it, start: it.reply(CONTENT, start, length=len(CONTENT) - start + 1000),
    "says-nonsense": lambda it, start: it.reply(CONTENT, start, length="many"),
    "says-nothing": lambda it, start: it.reply(CONTENT, start, length="none"),
    "says-nothing-breaks": lambda it, start: it.reply(CONTENT[: start + HALF], start, length="none"),
    "endless": lambda it, start: it.reply(CONTENT * 3, length="none"),
    "wrong": lambda it, start: it.reply(CONTENT[::-1], start),
    "portal": lambda it, start: it.reply(b"<html>please log in</html>", length=26),
    "moved": lambda it, start: it.redirect(it.path.replace("/moved/", "/breaks/")),
    "loops": lambda it, start: it.redirect(it.path),
    "stalls": lambda it, start: (it.reply(CONTENT[:100_000]), it.state.stop.wait(20)),
    "stalls-later": lambda it, start: (it.reply(CONTENT[: start + HALF], start), it.state.stop.wait(20)),
    "silent": lambda it, start: it.state.stop.wait(20),
    "hangs-up": lambda it, start: None,
    "drips": lambda it, start: it.drip(),
    "busy-at-first": lambda it, start: it.busy_at_first(start),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    state.stop.set()
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "d4rl"


def get(*mirrors: str, console: Console | None = None, pauses: tuple[float, ...] = ()) -> Path:
    return fetch("tiny-v2", console, mirrors=mirrors, files={"tiny-v2": ENTRY}, timeout=TIMEOUT, pauses=pauses)


def failure(*mirrors: str) -> str:
    with pytest.raises(InputError) as caught:
        get(*mirrors)
    return str(caught.value)


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
    assert server.ranges("breaks") == [None, "bytes=1500000-", "bytes=3000000-"]


def test_a_part_of_an_earlier_run_is_used(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:2_000_000])
    assert get(server.mirror("good")).read_bytes() == CONTENT
    assert server.ranges("good") == ["bytes=2000000-"]


def test_a_server_that_ignores_ranges_costs_time_but_nothing_that_we_have(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    part = cache / "tiny.hdf5.part"
    part.write_bytes(CONTENT[:2_000_000])
    assert "broke off after 1,500,000 of 3,072,000 bytes" in failure(server.mirror("no-ranges-breaks"))
    assert part.read_bytes() == CONTENT[:2_000_000]
    assert get(server.mirror("no-ranges")).read_bytes() == CONTENT
    assert server.ranges("no-ranges") == ["bytes=2000000-"]


def test_another_range_than_the_one_asked_for_is_refused(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:2_000_000])
    message = failure(server.mirror("other-range"))
    assert "sends another part of the file than the one from byte 2,000,000 on" in message
    assert (cache / "tiny.hdf5.part").read_bytes() == CONTENT[:2_000_000]


@pytest.mark.parametrize("behaviour", ["says-nothing", "says-nonsense", "says-nothing-breaks", "no-ranges", "moved"])
def test_odd_but_honest_servers(server: Server, behaviour: str) -> None:
    assert get(server.mirror(behaviour)).read_bytes() == CONTENT


def test_a_redirected_download_resumes(server: Server) -> None:
    path = get(server.mirror("moved"))
    assert server.ranges("breaks") == server.ranges("moved") == [None, "bytes=1500000-", "bytes=3000000-"]
    assert download_url(path) == f"{server.address}/moved/folder/tiny.hdf5"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("403", "HTTP 403 Forbidden"),
        ("404", "HTTP 404 Not Found"),
        ("429", "HTTP 429 Too Many Requests"),
        ("500", "HTTP 500 Internal Server Error"),
        ("204", "offers 0 bytes instead of 3,072,000"),
        ("says-less", "offers 3,071,000 bytes instead of 3,072,000"),
        ("says-more", "offers 3,073,000 bytes instead of 3,072,000"),
        ("portal", "offers 26 bytes instead of 3,072,000"),
        ("endless", "sends more than 3,072,000 bytes"),
        ("wrong", "gave other bytes than the published ones"),
        ("stalls", "timed out"),
        ("silent", "timed out"),
        ("hangs-up", "Remote end closed connection"),
        ("drips", r"sent \d+ bytes in 0 seconds"),
        ("loops", "HTTP 302 .*infinite loop"),
    ],
)
def test_a_server_that_fails_is_named_with_the_reason_and_the_next_one_asked(
    server: Server, cache: Path, behaviour: str, reason: str
) -> None:
    address = re.escape(f"{server.address}/{behaviour}/folder/tiny.hdf5")
    assert re.search(f"{address}: {reason}", failure(server.mirror(behaviour)), re.DOTALL)
    assert not (cache / "tiny.hdf5").exists()
    path = get(server.mirror(behaviour), server.mirror("good"))
    assert path.read_bytes() == CONTENT
    assert download_url(path) == f"{server.address}/good/folder/tiny.hdf5"


def test_what_came_before_a_stall_is_kept(server: Server, cache: Path) -> None:
    assert "timed out" in failure(server.mirror("stalls"))
    assert (cache / "tiny.hdf5.part").read_bytes() == CONTENT[:100_000]
    assert get(server.mirror("stalls-later")).read_bytes() == CONTENT
    assert server.ranges("stalls-later") == ["bytes=100000-", "bytes=1600000-"]


def test_busy_servers_are_asked_again_and_hopeless_ones_are_not(server: Server) -> None:
    shown = io.StringIO()
    get(server.mirror("404"), server.mirror("busy-at-first"), console=Console(file=shown), pauses=(0.01, 0.01))
    assert [path.split("/")[1] for path, _ in server.requests] == ["404", "busy-at-first", "busy-at-first"]
    assert "tiny.hdf5 did not arrive yet; trying again in 0 seconds" in shown.getvalue()


def test_without_a_busy_server_there_is_no_waiting(server: Server) -> None:
    with pytest.raises(InputError, match="HTTP 404"):
        get(server.mirror("404"), server.mirror("403"), pauses=(1000.0,))


def test_wrong_bytes_are_kept_aside_and_explained(server: Server, cache: Path) -> None:
    message = failure(server.mirror("wrong"))
    assert f"SHA-256 {hashlib.sha256(CONTENT[::-1]).hexdigest()}" in message
    assert "D4RL has replaced files under the same name" in message
    assert str(cache / "tiny.hdf5.wrong-hash") in message
    assert (cache / "tiny.hdf5.wrong-hash").read_bytes() == CONTENT[::-1]
    assert not (cache / "tiny.hdf5").exists()
    assert len(server.requests) == 1


def test_a_wrong_part_of_an_earlier_run_does_not_spoil_the_only_address(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(b"x" * 1000)
    assert get(server.mirror("good")).read_bytes() == CONTENT
    assert server.ranges("good") == ["bytes=1000-", None]


def test_a_server_that_sends_without_end_is_stopped(server: Server, cache: Path) -> None:
    failure(server.mirror("endless"))
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


def unknown(*mirrors: str) -> Path:
    """A file of which neither size nor hash is known."""
    entry = ENTRY._replace(size=None, sha256=None)
    return fetch("tiny-v2", mirrors=mirrors, files={"tiny-v2": entry}, timeout=TIMEOUT, pauses=())


def test_a_file_without_a_known_hash(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BEHAVIOURS, "hdf5", lambda it, start: it.reply(SIGNATURE + CONTENT[8:]))
    monkeypatch.setitem(
        BEHAVIOURS, "hdf5-breaks", lambda it, start: it.reply(SIGNATURE + CONTENT[8:HALF], length=HALF + 9)
    )
    cache.mkdir(parents=True)
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:1000])  # of who knows what
    with pytest.raises(InputError) as caught:
        unknown(*map(server.mirror, ("good", "404", "says-nothing", "hdf5-breaks")))
    for reason in (
        "good/folder/tiny.hdf5: gave something that is no HDF5 file",
        "HTTP 404 Not Found",
        "does not say how many bytes the file has",
        f"broke off after {HALF:,} of {HALF + 9:,} bytes",
        "its size and SHA-256 are not known",
    ):
        assert reason in str(caught.value)
    assert not (cache / "tiny.hdf5").exists()
    path = unknown(server.mirror("hdf5"))
    assert path.read_bytes() == SIGNATURE + CONTENT[8:]
    assert download_url(path) == f"{server.address}/hdf5/folder/tiny.hdf5"
    assert unknown(server.mirror("404")) == path


def test_a_file_without_a_known_hash_is_asked_for_where_the_line_is_encrypted(server: Server) -> None:
    with pytest.raises(InputError) as caught:
        unknown(server.mirror("404"), "https://127.0.0.1:9/{file}")
    assert re.search(r"https://127.0.0.1:9/tiny.hdf5: .*\n.*404", str(caught.value))


def test_threads_share_one_download(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(server.mirror("breaks")), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 3


FETCH = """
import sys
from rich.console import Console
from itrpo.data.d4rl_files import D4RLFile
from itrpo.data.download import fetch
entry = D4RLFile("folder", "tiny.hdf5", int(sys.argv[2]), sys.argv[3], "Hopper-v4", 1)
print(fetch("tiny-v2", Console(width=200), mirrors=[sys.argv[1]], files={"tiny-v2": entry}, timeout=60.0))
"""


def process(mirror: str) -> subprocess.Popen[str]:
    """`get(mirror)` in a process of its own, which prints the path."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, mirror, str(ENTRY.size), ENTRY.sha256], stdout=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_share_one_download_and_a_killed_one_leaves_its_part_to_the_next(server: Server, cache: Path) -> None:
    part = cache / "tiny.hdf5.part"
    first = process(server.mirror("stalls-later"))
    wait_until(lambda: part.exists() and part.stat().st_size == HALF)
    second = process(server.mirror("breaks"))
    assert second.stdout is not None
    assert second.stdout.readline() == "Another process is downloading tiny.hdf5; waiting for it.\n"
    assert server.ranges("breaks") == []
    first.kill()
    third = process(server.mirror("breaks"))
    printed = [it.communicate(timeout=30)[0].splitlines()[-1] for it in (second, third)]
    assert printed == [str(cache / "tiny.hdf5")] * 2
    first.communicate()
    assert (cache / "tiny.hdf5").read_bytes() == CONTENT
    assert server.ranges("breaks") == ["bytes=1500000-", "bytes=3000000-"]


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


def test_too_little_room_is_noticed_before_the_download(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent.parent)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"3,072,000 bytes are still to come, and 3,000,000 are free.*ITRPO_CACHE"):
        get(server.mirror("good"))
    assert server.requests == []
    (cache / "tiny.hdf5.part").write_bytes(CONTENT[:100_000])
    assert get(server.mirror("good")).read_bytes() == CONTENT
