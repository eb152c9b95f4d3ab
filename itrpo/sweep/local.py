"""The local executor: each run in a process of its own, on this machine."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from itrpo.sweep.worker import DIVERGED, Task, last_words, start


class Ended(NamedTuple):
    """How an attempt at a run ended."""

    folder: str  # of the run: its name in the sweep
    outcome: str  # "finished", "diverged", "stopped" or "failed"
    message: str = ""
    seconds: float = 0.0


def outcome(folder: str, status: int, log: Path, seconds: float) -> Ended:
    names = {0: "finished", DIVERGED: "diverged", 130: "stopped"}
    return Ended(folder, names.get(status, "failed"), "" if status == 0 else last_words(log, status), seconds)


class LocalExecutor:
    """Runs by their folders' names."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path, float]] = {}

    def start(self, folder: str, task: Task, log: Path) -> None:
        self._running[folder] = (start(task, log), log, time.monotonic())

    def ended(self) -> list[Ended]:
        """Those that have ended since the last call."""
        over = [folder for folder, (process, _, _) in self._running.items() if process.poll() is not None]
        found = list[Ended]()
        for folder in over:
            process, log, began = self._running.pop(folder)
            close(process)
            found.append(outcome(folder, process.returncode, log, time.monotonic() - began))
        return found

    def stop(self, at_once: bool) -> None:
        """Asks every run to stop at its next checkpoint, or ends it: then what it did since its last one is lost."""
        for process, _, _ in self._running.values():
            process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def close(self) -> None:
        """Ends what still runs."""
        for process, _, _ in self._running.values():
            process.kill()
            process.wait()
            close(process)
        self._running.clear()


def close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
