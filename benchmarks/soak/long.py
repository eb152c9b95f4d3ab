"""Time: memory over many steps, a run stopped and resumed many times, SIGTERM, and a clock that is set back.

The clock of the machine stays as it is. A run that "began in the future" is made by dating every file of a half-done
run a year ahead, which is what a clock set back leaves. Under a running process it is libfaketime that moves the clock,
where that is installed (Debian's `faketime`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.soak import kills, processes
from benchmarks.soak.log import Log
from benchmarks.soak.processes import Command

TINY = (
    "--algorithm",
    "td3_bc",
    "--critic-hidden",
    "8",
    "--seeds",
    "1",
    "--batch-size",
    "8",
    "--eval-every",
    "5000",
    "--eval-episodes",
    "1",
)
TINY += ("--action-low", "-2", "--action-high", "2", "--env", "none", "--policy-hidden", "8")
YEAR = 365 * 86_400.0


def run(log: Log, place: Path, short: bool, only: str = "") -> None:
    kills.write_data(place / "data")
    cases = {
        "memory": lambda done: memory(log, place, 100_000 if short else 1_000_000, done),
        "stopped and resumed": lambda done: stopped(log, place, 8 if short else 50, done),
        "SIGTERM": lambda done: terminated(log, place, 2 if short else 5, done),
        "clock set back": lambda done: clock(log, place, done),
        "clock moved under a running process": lambda done: moving_clock(place, done),
    }
    if not faketime():
        del cases["clock moved under a running process"]
        print("libfaketime is not installed: no clock is moved under a running process", flush=True)
    for name, do in cases.items():
        if only in name:
            with log.case("time", name, log.seed) as done:
                do(done)


def made(place: Path, name: str, words: tuple[str, ...]) -> Command:
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".log").unlink(missing_ok=True)
    data = str(place / "data" / "pendulum.npz")
    return Command(
        ("train", data, *words, "--out", str(folder / "run")),
        folder,
        folder.with_suffix(".log"),
        folder / "cache",
        place / "compiled",
    )


def resident(pid: int) -> int:
    """Bytes of memory of a process; 0 if it is over."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):
        return 0


def memory(log: Log, place: Path, steps: int, done: Any) -> None:
    """Resident memory each second of training, before the picture at its end; the last half must not lie above the
    second quarter by more than 3 % and 8 MB.
    """
    it = made(place, "memory", (*TINY, "--steps", str(steps)))
    process, curve = processes.start(it), list[int]()
    while process.exitcode is None:
        process.join(1.0)
        status = it.folder / "run" / "status.json"
        over = status.exists() and json.loads(status.read_text())["state"] == "finished"
        if (size := resident(process.pid)) and not over:
            curve.append(size)
    trained = [size for size in curve if size > max(curve) / 2]  # without the imports at the beginning
    quarter = len(trained) // 4
    early, late = max(trained[quarter : 2 * quarter], default=0), max(trained[2 * quarter :], default=0)
    (place / "memory.json").write_text(json.dumps(curve))
    grown = late - early
    ok = process.exitcode == 0 and len(trained) >= 8 and grown <= max(0.03 * early, 8 * 2**20)
    said = "" if ok else f"exit status {process.exitcode}, {early} to {late} bytes: {processes.tail(it.log)}"
    done(
        ok, said, steps=steps, samples=len(trained), early_MB=round(early / 2**20, 1), grown_MB=round(grown / 2**20, 1)
    )


def whole(place: Path, words: tuple[str, ...]) -> tuple[dict[str, str], float]:
    it = made(place, "whole", words)
    began = time.monotonic()
    status = processes.finish(processes.start(it))
    if status != 0:
        raise RuntimeError(processes.tail(it.log))
    return processes.left_by(it.folder / "run"), time.monotonic() - began


def stopped(log: Log, place: Path, times: int, done: Any) -> None:
    """Ctrl-C as soon as there is a checkpoint more, so many times."""
    words = (*TINY, "--steps", str(times * 2_000), "--eval-every", "1000")
    expected, _ = whole(place, words)
    it, stops, statuses = made(place, "stopped", words), 0, set[Any]()
    checkpoints = it.folder / "run" / "checkpoints"
    for _ in range(20 * times):
        before = newest(checkpoints)
        process = processes.start(it)
        reached = processes.wait_for(
            lambda process=process, before=before: process.exitcode is not None or newest(checkpoints) > before, 200
        )
        if process.exitcode is None and reached:
            os.kill(process.pid, signal.SIGINT)
        status = processes.finish(process)
        statuses.add(status)
        stops += status == 130
        if status != 130:
            break
    different = processes.differences(expected, processes.left_by(it.folder / "run"))
    ok = statuses == {0, 130} and not different and stops >= times // 2
    done(ok, "" if ok else f"{statuses}, {different[:4]}, {stops} stops: {processes.tail(it.log)}", stops=stops)


def newest(checkpoints: Path) -> str:
    return max((it.name for it in checkpoints.glob("train_*")), default="")


def terminated(log: Log, place: Path, times: int, done: Any) -> None:
    """SIGTERM at a random moment of training: a checkpoint and the end within 30 seconds."""
    words, slowest, wrong = (*TINY, "--steps", "3000000", "--eval-every", "1000000"), 0.0, list[str]()
    for number in range(times):
        it, draw = made(place, f"term-{number}", words), random.Random(f"{log.seed} {number}")
        process = processes.start(it)
        status_file = it.folder / "run" / "status.json"
        processes.wait_for(lambda file=status_file: file.exists(), 200)
        process.join(draw.uniform(2, 10))
        os.kill(process.pid, signal.SIGTERM)
        began = time.monotonic()
        status = processes.finish(process, 60)
        slowest = max(slowest, time.monotonic() - began)
        state = json.loads(status_file.read_text())["state"]
        trains = "compiles" not in it.log.read_text()
        if status != 130 or state != "stopped" or (trains and not newest(it.folder / "run" / "checkpoints")):
            wrong.append(f"{number}: exit status {status}, {state}: {processes.tail(it.log)}")
    ok = not wrong and slowest < 30
    done(ok, "; ".join(wrong), signals=times, slowest_seconds=round(slowest, 1))


def clock(log: Log, place: Path, done: Any) -> None:
    words = (*TINY, "--steps", "8000", "--eval-every", "1000")
    expected, _ = whole(place, words)
    it = made(place, "clock", words)
    process = processes.start(it)
    processes.wait_for(lambda: process.exitcode is not None or newest(it.folder / "run" / "checkpoints"), 200)
    processes.kill(process, everyone=True)
    processes.finish(process)
    ahead = time.time() + YEAR
    for path in [*it.folder.rglob("*"), *it.compiled.rglob("*")]:
        os.utime(path, (ahead, ahead))
    status = processes.finish(processes.start(it))
    different = processes.differences(expected, processes.left_by(it.folder / "run"))
    done(status == 0 and not different, "" if status == 0 and not different else f"{status}, {different[:4]}")


def faketime() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


MOVES = ("-365d", "+30d", "-2h", "+0")  # of the clock, one at each checkpoint


def moving_clock(place: Path, done: Any) -> None:
    """Back a year, forward, back two hours and to what it was, while a run goes on."""
    words = (*TINY, "--steps", "40000", "--eval-every", "5000")
    expected, _ = whole(place, words)
    it, offset = made(place, "moving-clock", words), place / "offset"
    it.folder.mkdir(parents=True)
    own = {"LD_PRELOAD": str(faketime()), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    own |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    own |= {"ITRPO_CACHE": str(it.cache), "JAX_COMPILATION_CACHE_DIR": str(it.compiled)}
    offset.write_text(MOVES[0])
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    seen = float(subprocess.run(asked, env=os.environ | own, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if time.time() - seen < 0.9 * YEAR:
        done(False, "libfaketime does not move the clock here", moves=0)
        return
    offset.write_text("+0")
    checkpoints, moves = it.folder / "run" / "checkpoints", 0
    with it.log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "itrpo", *it.words], env=os.environ | own, stdout=output, stderr=output
        )
        for move in MOVES:
            before = newest(checkpoints)
            processes.wait_for(lambda before=before: process.poll() is not None or newest(checkpoints) > before, 200)
            if process.poll() is not None:
                break
            offset.write_text(move)
            moves += 1
        status = process.wait(600)
    different = processes.differences(expected, processes.left_by(it.folder / "run"))
    ok = status == 0 and not different and moves > 1
    done(ok, "" if ok else f"{status}, {different[:4]}, {moves} moves: {processes.tail(it.log)}", moves=moves)
