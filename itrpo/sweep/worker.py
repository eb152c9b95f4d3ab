"""One run of a sweep, in a process of its own: whatever happens to it, the others go on.

`python -m itrpo.sweep.worker` reads its task as a line of JSON from its standard input, and goes on reading: when that
pipe closes, because whoever started this process has ended, however it ended, the run stops at its next checkpoint. So
no kill leaves a process behind that trains on by itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from itrpo import files
from itrpo.console import say
from itrpo.errors import DivergenceError, ItrpoError
from itrpo.evaluation.process import python_path
from itrpo.options import RunOptions
from itrpo.results.run_folder import LOCK

DIVERGED = 3  # exit status
GRACE_SECONDS = 120.0  # between being asked to stop and being ended


class Task(NamedTuple):
    """All that a run needs to know, of JSON's own types (with infinities); or several that train as one program."""

    dataset: str
    algorithm: str
    options: dict[str, Any]  # of RunOptions
    fields: list[dict[str, Any]]  # of each run
    folders: list[str]

    def line(self) -> bytes:
        return (json.dumps(self._asdict()) + "\n").encode()


def task(dataset: str, algorithm: str, options: RunOptions, runs: Sequence[tuple[dict[str, Any], Path]]) -> Task:
    """runs: fields and folder of each."""
    fields, folders = [own for own, _ in runs], [str(folder) for _, folder in runs]
    return Task(dataset, algorithm, dataclasses.asdict(options), fields, folders)


def start(task: Task, log: Path) -> subprocess.Popen[bytes]:
    """A process that trains; what it prints is added to `log`. Its standard input must stay open, and alone ours."""
    files.make_folder(log.parent)
    with files.open_log(log) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "itrpo.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is for whoever started it to handle
        )
    assert process.stdin is not None
    try:
        process.stdin.write(task.line())
        process.stdin.flush()
    except BrokenPipeError:  # it has ended already; its exit status says so
        pass
    return process


def last_words(log: Path, status: int) -> str:
    """Why a process ended, from its exit status and the end of what it printed."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    try:
        lines = [it for it in log.read_text("utf-8", errors="replace").splitlines() if it.strip()]
    except OSError:
        lines = []
    errors = [it.removeprefix("error: ") for it in lines if it.startswith("error: ")]
    return (errors or lines or [f"exit status {status}"])[-1]


# --- the process itself --------------------------------------------------------------------------------------------


def stop_with(pipe: IO[bytes]) -> None:
    """Waits until the other end closes; then asks this process to stop, and ends it if it doesn't."""
    pipe.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def work(task: Task) -> None:
    """Trains, or continues, the task's runs. Raises as `itrpo.train` does."""
    from itrpo.console import make_console
    from itrpo.training.train import train, train_grid

    console, folders = make_console(), [Path(folder) for folder in task.folders]

    def wait() -> None:
        say(console, "another process is training there: waiting for it")

    for folder in folders:
        with files.lock(folder / LOCK, "", wait):  # such as one whose sweep was killed, on its way to a checkpoint
            pass
    options = RunOptions(**task.options)
    if len(folders) == 1:
        options = dataclasses.replace(options, out=folders[0])
        train(task.dataset, task.algorithm, options, fields=task.fields[0], console=console)
    else:
        train_grid(task.dataset, task.algorithm, options, task.fields, folders, console)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # from training on: at the next checkpoint
    task = Task(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=stop_with, args=(sys.stdin.buffer,), daemon=True).start()
    try:
        work(task)
        return 0
    except ItrpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return DIVERGED if isinstance(error, DivergenceError) else error.exit_status
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    # Not sys.exit: a thread that reads standard input holds a lock that the interpreter's end would wait for.
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
