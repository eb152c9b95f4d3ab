"""Independent tasks in several processes, with the same results as in one.

As a program (`python -m itrpo.collection.workers`) it is a worker: it reads tasks as lines of JSON and writes each
result to a file. Plain subprocesses are used because a script without an `if __name__ == "__main__"` guard can't use
Python's multiprocessing, and because they share no state with JAX's threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import StorageError
from itrpo.evaluation.process import environment_of_a_process
from itrpo.registry import resolve


class Job(NamedTuple):
    """One task, and where its rows go."""

    collect: str  # dotted name of a function (task, on_progress) -> {name: rows}
    task: Any  # survives JSON
    path: str  # of the NPZ file that is written


def run_jobs(jobs: Sequence[Job], workers: int, on_progress: Callable[[int], None]) -> None:
    """Does every job whose file is not there yet, in `workers` processes.

    Jobs that no worker could do (none starts, one is killed) are done in this process, and errors come up from there.
    """
    jobs = [job for job in jobs if not os.path.exists(job.path)]
    if workers > 1:
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        processes = [process for _ in range(min(workers, len(jobs))) if (process := _start_worker())]
        threads = [
            threading.Thread(target=_feed, args=(process, waiting, on_progress), daemon=True) for process in processes
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for process in processes:
                _stop(process)
    for job in jobs:
        if not os.path.exists(job.path):
            run_job(job, on_progress)


def run_job(job: Job, on_progress: Callable[[int], None]) -> None:
    """Does one job in this process. Its file appears whole or not at all.

    Raises StorageError if its folder is gone: then another process has made the dataset, after ours was killed.
    """
    columns, path = resolve(job.collect)(job.task, on_progress), Path(job.path)
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent}: the folder for unfinished work is gone")
    with files.replacing(path) as file:
        np.savez(file, **columns)


def _start_worker() -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "itrpo.collection.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # an error comes up again, in full, when the job is redone here
            env=environment_of_a_process(),
        )
    except OSError:
        return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # bytes that it never took
            if pipe is not None:
                pipe.close()


def _feed(
    process: subprocess.Popen[bytes], waiting: queue.SimpleQueue[Job], on_progress: Callable[[int], None]
) -> None:
    """Gives a worker one job after the other until none waits or the worker is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            while "done" not in (message := json.loads(process.stdout.readline())):
                on_progress(message["steps"])
        except (OSError, ValueError):  # the worker died; its job stays without a result
            return


def _work() -> None:
    """A worker's life: a job as a line of JSON in; lines {"steps": n}, then {"done": true}, out."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever else prints must not get between the answers

    def answer(message: dict[str, int]) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    for line in sys.stdin:
        run_job(Job(*json.loads(line)), lambda done: answer({"steps": done}))
        answer({"done": True})


if __name__ == "__main__":
    _work()
