"""Downloads from servers that misbehave: over HTTPS with an authority of our own, by a proxy, by eight processes.

The servers are those of tests/data/test_download.py. Whatever they do, the file that comes is the published one, or
none comes and one sentence says why.
"""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.soak.log import Log
from tests.data.test_download import BEHAVIOURS, CONTENT, ENTRY, FETCH, Handler, Server

COMES = {"good", "breaks", "no-ranges", "says-nothing", "says-nonsense", "says-nothing-breaks", "moved", "stalls-later"}
EITHER = {"no-ranges-breaks", "endless", "busy-at-first"}
FAST = (
    FETCH.replace("timeout=60.0", "timeout=3.0, pauses=()").replace(
        "print(fetch(", "from itrpo.errors import ItrpoError\ntry: print(fetch("
    )
    + "except ItrpoError as error: print('refused', str(error).splitlines()[1:2], flush=True); sys.exit(2)\n"
)


def run(log: Log, place: Path, only: str = "") -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    authority, certificate = certificates(place)
    for case in ("https", "https, unknown authority", "https through a proxy", "eight at once"):
        if only not in case:
            continue
        with log.case("downloads", case, log.seed) as done, served(certificate) as server, proxy() as through:
            known = {} if "unknown" in case else {"SSL_CERT_FILE": str(authority)}
            extra = known | ({"https_proxy": through.address, "no_proxy": ""} if "proxy" in case else {"no_proxy": "*"})
            wrong, fetched = list[str](), 0
            if case == "eight at once":
                wrong, fetched = eight(place / "eight", server, extra)
            else:
                names = ["good", "breaks", "wrong"] if "unknown" in case else sorted(BEHAVIOURS)
                running = {}
                for name in names:  # each into a cache of its own
                    cache = place / f"{case}-{name}".replace(" ", "-").replace(",", "")
                    running[name] = (cache, start(cache, server.mirror(name), extra))
                for name, (cache, process) in running.items():
                    comes = None if name in EITHER else name in COMES and "unknown" not in case
                    path = cache / "d4rl" / "tiny.hdf5"
                    wrong += [f"{name}: {it}" for it in judged(process, path, comes)]
                    fetched += path.exists()
            if "proxy" in case and not through.asked:
                wrong.append("nobody asked the proxy")
            done(not wrong, "; ".join(wrong[:4]), fetched=fetched, requests=len(server.requests))


def judged(process: subprocess.Popen[str], path: Path, comes: bool | None) -> Iterator[str]:
    """What is wrong with how a download ended; `comes`: whether the file has to, None: it may."""
    printed, errors = process.communicate(timeout=300)
    if comes is not None and path.exists() != comes:
        yield "it came" if path.exists() else printed[-200:]
    if path.exists() and path.read_bytes() != CONTENT:
        yield "other bytes"
    if process.returncode not in (0, 2) or "Traceback" in errors:
        yield f"exit status {process.returncode}: {errors[-300:]}"


def eight(cache: Path, server: Any, extra: dict[str, str]) -> tuple[list[str], int]:
    """Eight processes want one file from a server whose connections break: it is downloaded once, in pieces."""
    running = [start(cache, server.mirror("breaks"), extra) for _ in range(8)]
    ends = [(it.communicate(timeout=300), it.returncode) for it in running]
    wrong = [f"exit status {status}: {errors[-300:]}" for (_, errors), status in ends if status != 0]
    path = cache / "d4rl" / "tiny.hdf5"
    if not path.exists() or path.read_bytes() != CONTENT:
        wrong.append("not the published bytes")
    if len(server.requests) != 3:
        wrong.append(f"{len(server.requests)} requests instead of 3")
    return wrong, sum(status == 0 for _, status in ends)


def start(cache: Path, mirror: str, extra: dict[str, str]) -> subprocess.Popen[str]:
    kept = {name: it for name, it in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.Popen(
        [sys.executable, "-c", FAST, mirror, str(ENTRY.size), str(ENTRY.sha256)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept | {"ITRPO_CACHE": str(cache)} | extra,
    )


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who does not trust us hangs up."""


@contextmanager
def served(certificate: Path) -> Iterator[Server]:
    """The misbehaving server, over TLS."""
    state = Server()
    http = Quiet(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"state": state}))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    state.address = f"https://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        state.stop.set()
        http.shutdown()
        http.server_close()


class Proxy(socketserver.ThreadingTCPServer):
    """Connects whoever asks with CONNECT, and copies bytes both ways."""

    allow_reuse_address = daemon_threads = True
    address = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Tunnel(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Proxy)
        self.server.asked.append(asked)
        host, _, port = asked.split()[1].partition(":")
        with suppress(OSError), socket.create_connection((host, int(port))) as far:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(far, self.connection), daemon=True)
            back.start()
            copy(self.connection, far)
            back.join()


def copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def certificates(place: Path) -> tuple[Path, Path]:
    """An authority of our own, and a certificate of 127.0.0.1 with its key that it signed, for a day. Needs openssl."""
    authority, key, own = place / "authority.pem", place / "authority.key", place / "own.pem"
    request, signed, own_key = place / "own.csr", place / "own.crt", place / "own.key"
    extension = place / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl(*new, "-x509", "-days", "1", "-subj", "/CN=soak", "-keyout", key, "-out", authority, *ca)
    openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", own_key, "-out", request)
    by = ("-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", "1", "-extfile", extension)
    openssl("x509", "-req", "-in", request, *by, "-out", signed)
    own.write_text(own_key.read_text() + signed.read_text())
    return authority, own


def openssl(*words: Any) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
