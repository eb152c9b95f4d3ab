"""Disks that are full, read-only or gone, and files that were damaged: one sentence, and then the run goes on.

Each case stops a run in its own way, looks at what was said, mends what a person would mend, gives the same command
again, and compares the results with those of an undisturbed run, to the bit. A small disk is a tmpfs, which needs root;
where it can't be mounted, the cases that need one say so and are not done.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.soak import kills, processes
from benchmarks.soak.log import Log
from benchmarks.soak.processes import Command

JOBS = {"train": kills.JOBS["KL (itrpo)"], "sac": kills.JOBS["collection by SAC"]}
ENOUGH = 64 * 2**20  # bytes


class Setting(NamedTuple):
    """One case: a command on a disk of its own, and what an undisturbed one leaves."""

    command: Command
    out: Path
    whole: dict[str, str]
    size: int  # bytes on the disk at the end of an undisturbed one
    events: int
    draw: random.Random


def mount(place: Path, size: int) -> bool:
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True, capture_output=True)


@contextmanager
def disk(place: Path, size: int) -> Iterator[bool]:
    mounted = mount(place, size)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


def run(log: Log, place: Path, times: int, only: str = "") -> None:
    kills.write_data(place / "data")
    for name, job in JOBS.items():
        cases = {case: do for case, do in CASES.items() if only in f"{name}: {case}"}
        if not cases:
            continue
        compiled, base = place / "compiled", place / f"whole-{name}"
        shutil.rmtree(base, ignore_errors=True)
        command = Command(job.words(place / "data", base / job.result), base, base / "log", base / "cache", compiled)
        status = processes.finish(processes.start(command._replace(counts=base / "events")))
        if status != 0:
            log.add("disk", f"{name}: undisturbed", log.seed, False, processes.tail(base / "log"))
            continue
        whole, events = processes.left_by(base / job.result), int((base / "events").read_text())
        size = sum(it.stat().st_blocks * 512 for it in base.rglob("*") if it.name != "log")
        for case, do in cases.items():
            for number in range(times):
                seed = f"{log.seed}.{number}"
                own = place / f"{name}-{case}-{seed}".replace(" ", "-")
                shutil.rmtree(own, ignore_errors=True)
                words = job.words(place / "data", own / job.result)
                it = Command(words, own, own.with_suffix(".log"), own / "cache", compiled)
                it.log.unlink(missing_ok=True)
                draw = random.Random(f"{seed} {name} {case}")
                with log.case("disk", f"{name}: {case}", seed) as done:
                    do(Setting(it, own / job.result, whole, size, events, draw), done)
                if log.rows[-1]["ok"]:
                    shutil.rmtree(own, ignore_errors=True)


def start(it: Setting, dies_at: int = -1) -> int | None:
    """The command, to its end. -> exit status."""
    return processes.finish(processes.start(it.command._replace(dies_at=dies_at)))


def half_done(it: Setting) -> None:
    """Kills the command somewhere in its second half, when there are checkpoints."""
    start(it, int(it.events * it.draw.uniform(0.5, 0.95)))


def one_sentence(it: Setting, status: int | None) -> str:
    """What is wrong with how the command ended; nothing if it said what the disk refused and exited with 1."""
    text = it.command.log.read_text(errors="replace")
    said = [line for line in text.splitlines() if line.startswith("error: ")]
    if "Traceback" in text:
        return f"a traceback: {processes.tail(it.command.log)}"
    if status != 1 or len(said) != 1:
        return f"exit status {status}, {len(said)} errors: {processes.tail(it.command.log)}"
    return ""


def goes_on(it: Setting, done: Callable[..., None], wrong: str = "", must_say: str = "") -> None:
    """The same command again: it ends well, with the same bits."""
    status = start(it)
    text = it.command.log.read_text(errors="replace")
    if status != 0:
        wrong = wrong or f"the same command ends with {status}: {processes.tail(it.command.log)}"
    elif different := processes.differences(it.whole, processes.left_by(it.out)):
        wrong = wrong or f"not the same bits: {different[:5]}"
    elif must_say not in text:
        wrong = wrong or f"it does not say {must_say!r}"
    elif "Traceback" in text:
        wrong = wrong or "a traceback"
    done(not wrong, wrong)


def full(it: Setting, done: Callable[..., None]) -> None:
    """The disk of results and cache holds a part of what the run takes; then it grows."""
    room = int(it.size * it.draw.uniform(0.02, 0.98)) // 4096 * 4096 + 4096
    with disk(it.command.folder, room) as mounted:
        if not mounted:
            done(True, "not done: tmpfs can't be mounted here", skipped=1)
            return
        status = start(it)
        wrong = "" if status == 0 else one_sentence(it, status)
        remount(it.command.folder, f"size={ENOUGH}")
        goes_on(it, done, wrong)


def read_only(it: Setting, done: Callable[..., None]) -> None:
    """The disk is read-only when a run that was killed is to go on."""
    with disk(it.command.folder, ENOUGH) as mounted:
        if not mounted:
            done(True, "not done: tmpfs can't be mounted here", skipped=1)
            return
        half_done(it)
        remount(it.command.folder, "ro")
        wrong = one_sentence(it, start(it))
        remount(it.command.folder, "rw")
        goes_on(it, done, wrong)


def deleted(it: Setting, done: Callable[..., None]) -> None:
    """The folder of the results is deleted under the run, once it is there."""
    process = processes.start(it.command)
    checkpoints = it.out / "checkpoints"
    processes.wait_for(lambda: process.exitcode is not None or any(checkpoints.glob("*_0*")), 200)
    process.join(it.draw.uniform(0, 3.0))
    over = process.exitcode is not None
    shutil.rmtree(it.out, ignore_errors=True)
    status = processes.finish(process)
    left = processes.left_by(it.out) if it.out.exists() else {}
    wrong = ""
    if not over and status != 1:
        whole = not processes.differences(it.whole, left)
        wrong = "" if status == 0 and whole else f"exit status {status} with a part of the results: {sorted(left)[:9]}"
    elif not over:
        wrong = one_sentence(it, status)
    goes_on(it, done, wrong)


def damaged_checkpoint(it: Setting, done: Callable[..., None]) -> None:
    """Flipped bits in the newest checkpoint, or it is cut short."""
    half_done(it)
    found = sorted((it.out / "checkpoints").glob("*_0*"))
    if len(found) < 2:
        goes_on(it, done)
        return
    victim = found[-1] / it.draw.choice(("arrays.safetensors", "meta.json"))
    content = bytearray(victim.read_bytes())
    if it.draw.random() < 0.5:
        del content[it.draw.randrange(len(content)) :]
    else:
        content[it.draw.randrange(len(content))] ^= 1 << it.draw.randrange(8)
    victim.write_bytes(content)
    goes_on(it, done, must_say="is damaged")


def torn_lines(it: Setting, done: Callable[..., None]) -> None:
    """Half of a line at the end of every file that is added to; curve.jsonl is none, but written whole each time."""
    half_done(it)
    torn = 0
    for path in sorted(it.out.rglob("*")):
        if path.name in ("metrics.jsonl", "timing.jsonl", "rows.bin"):
            content = path.read_bytes()
            line = content.splitlines(keepends=True)[-1] if path.suffix == ".jsonl" and content else b"torn row"
            path.write_bytes(content + line[: it.draw.randrange(1, max(2, len(line) - 1))])
            torn += 1
    goes_on(it, done, "" if torn else "there was no such file yet")


CASES: dict[str, Callable[[Setting, Callable[..., None]], None]] = {
    "full": full,
    "read-only": read_only,
    "folder deleted": deleted,
    "damaged checkpoint": damaged_checkpoint,
    "torn last lines": torn_lines,
}
