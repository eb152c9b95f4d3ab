"""`itrpo` commands in processes of their own, that die at a moment chosen beforehand; and what they leave behind.

A server that has imported JAX forks them, which saves seconds of imports each time. They are whole processes: sessions,
files, locks and children of their own, killed by the system.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PRELOAD = ["jax", "optax", "equinox", "polars", "matplotlib.pyplot", "gymnasium", "h5py", "safetensors.numpy"]
PRELOAD += ["itrpo.cli", "itrpo.training.train", "itrpo.collection.online_run", "itrpo.sweep.run"]
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


class Command(NamedTuple):
    words: tuple[str, ...]  # after `itrpo`
    folder: Path  # file events below it are counted
    log: Path  # what it prints is added here
    cache: Path  # $ITRPO_CACHE
    compiled: Path  # programs that XLA has compiled
    dies_at: int = -1  # file event at which it kills itself; -1: never
    counts: Path | None = None  # where the number of file events is written at the end


def command(it: Command) -> None:
    """The child: does what `itrpo WORDS` does, and exits with its status."""
    os.setsid()
    with suppress(OSError):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(it.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"ITRPO_CACHE": str(it.cache), "JAX_COMPILATION_CACHE_DIR": str(it.compiled)}
    os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    sys.argv = ["itrpo", *it.words]
    import jax

    jax.config.update("jax_compilation_cache_dir", str(it.compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    seen = [0]
    watch(it, seen)
    from itrpo.cli import main

    status = main(list(it.words))
    sys.stdout.flush()
    if it.counts is not None:
        it.counts.write_text(str(seen[0]))
    sys.exit(status)


def watch(it: Command, seen: list[int]) -> None:
    """Counts what the process does to files below its folder, and kills it just before event `dies_at`."""
    inside, me = str(it.folder), os.getpid()

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not given or os.getpid() != me:
            return
        if event == "open" and not (isinstance(given[2], int) and given[2] & WRITES):
            return
        path = given[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(inside):
            return
        if seen[0] == it.dies_at:
            os.kill(me, signal.SIGKILL)
        seen[0] += 1

    sys.addaudithook(hook)


def context() -> Any:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOAD)
    return made


SERVER = context()


def start(it: Command) -> Any:
    for folder in (it.folder.parent, it.log.parent, it.cache, it.compiled):
        folder.mkdir(parents=True, exist_ok=True)
    process = SERVER.Process(target=command, args=(it,))
    process.start()
    return process


def finish(process: Any, timeout: float = 240.0) -> int | None:
    """Its exit status (-9: killed); None if it had to be stopped because it hangs."""
    process.join(timeout)
    if process.exitcode is None:
        kill(process, everyone=True)
        process.join()
        return None
    return process.exitcode


def kill(process: Any, everyone: bool) -> None:
    """SIGKILL to the process alone, as of a shortage of memory, or to all of its session, as of a scheduler."""
    with suppress(ProcessLookupError, PermissionError):
        if everyone:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)


def tail(log: Path, lines: int = 6) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


# --- what a command leaves -------------------------------------------------------------------------------------------


def left_by(folder: Path) -> dict[str, str]:
    """Digest of each result below a folder (or of one file): rows of metrics, arrays of policies and of the last
    checkpoint, curves, datasets. Times of day and durations are none.
    """
    if folder.is_file():
        return {folder.name: digest(folder)}
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or ".tmp" in name:
            continue
        kept = path.name in ("metrics.jsonl", "rows.bin", "curve.jsonl") or path.suffix in (
            ".npz",
            ".hdf5",
            ".safetensors",
        )
        newest = "checkpoints" not in path.parts or path.parent == max(path.parents[1].iterdir())
        if kept and newest:
            found[name] = digest(path)
    return found


def digest(path: Path) -> str:
    if path.suffix != ".npz":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    hashed = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:  # a ZIP archive holds times of day
        for name in sorted(arrays.files):
            array = arrays[name]
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return hashed.hexdigest()


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def wait_for(true: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
