"""Processes that measure one thing each and print lines of JSON, under one clock for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATH = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
# NumPy's own threads would fight with those of the measurement; XLA does not read these
ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Clock:
    """What a whole benchmark may take; what came too late for it."""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    skipped: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.started + self.seconds - time.monotonic()


def lines(
    command: Sequence[str], clock: Clock, what: str, environment: dict[str, str] | None = None, cores: int | None = None
) -> Iterator[dict[str, Any]]:
    """The lines of JSON of a command, as they come.

    It is killed when the clock runs out, and may use the first `cores`. What fails or is cut off is noted in
    `clock.skipped`, and is no error: other measurements go on.
    """
    if clock.left < 1:
        clock.skipped.append(f"{what}: no time left")
        return
    settings = {**os.environ, "PYTHONPATH": PATH, **(ONE_THREAD_EACH if environment is None else environment)}
    pinned = (lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])) if cores else None
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=settings, preexec_fn=pinned
        )
        limit = threading.Timer(clock.left, process.kill)
        limit.daemon = True
        limit.start()
        try:
            for line in process.stdout or ():
                if line.startswith("{"):
                    yield json.loads(line)
            failed = process.wait() != 0
        finally:
            limit.cancel()
            process.kill()
            process.wait()
        if failed:
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()]
            reason = "no time left" if clock.left < 1 else said[-1] if said else f"exit status {process.returncode}"
            clock.skipped.append(f"{what}: {reason}")


def script(name: str, *words: str) -> list[str]:
    """A command that runs one of the scripts beside this one, with this Python."""
    return [sys.executable, str(HERE / name), *words]
