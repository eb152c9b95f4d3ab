"""The Ray executor: the same runs on a Ray cluster, into the same folder on a file system that all nodes share.

Each run is a Ray task that starts `sweep.worker` and waits for it, so a run has a process of its own here, too:
whatever a worker of Ray's trained before leaves nothing behind, and when Ray, a node or anybody kills that worker, the
pipe to the run closes and it stops at its next checkpoint. Ray then gives the task to another worker, which goes on.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from itrpo.errors import InputError
from itrpo.sweep.local import Ended, outcome
from itrpo.sweep.worker import Task, start

MAX_RETRIES = 100  # of a run whose worker or node is lost; a run that fails by itself is the sweep's to try again
POLL_SECONDS = 0.2


def attempt(task: dict[str, Any], log: str) -> tuple[int, float]:
    """What a worker of Ray's does: -> (exit status, seconds). Cancelled, it asks the run for a checkpoint and waits."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the sweep was started in the background
    began, process = time.monotonic(), start(Task(**task), Path(log))
    try:
        while process.poll() is None:  # Ray's way to interrupt would not end a wait
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
    return process.returncode, time.monotonic() - began


class RayExecutor:
    """Connects to the cluster at `address`, or starts one on this machine. Raises InputError if neither works."""

    def __init__(self, address: str | None, cpus: float, gpus: float) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(f"--executor ray needs Ray ({error}): pip install 'itrpo[ray]'") from None
        self._ray, self._running = ray, dict[Any, tuple[str, Path]]()
        try:
            if not ray.is_initialized():
                ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"--ray-address {address}: {error}") from error
        remote: Any = ray.remote(attempt)
        self._attempt = remote.options(num_cpus=cpus, num_gpus=gpus, max_retries=MAX_RETRIES)
        room = ray.cluster_resources()
        if address is None and (cpus > room.get("CPU", 0) or gpus > room.get("GPU", 0)):
            self.close()  # a cluster may grow; this machine can't
            raise InputError(f"--cpus-per-run {cpus:g}, --gpus-per-run {gpus:g}: this machine has {room}")

    def start(self, folder: str, task: Task, log: Path) -> None:
        self._running[self._attempt.remote(task._asdict(), str(log))] = (folder, log)

    def ended(self) -> list[Ended]:
        if not self._running:
            return []
        over, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._ended(task) for task in over]

    def _ended(self, task: Any) -> Ended:
        folder, log = self._running.pop(task)
        try:
            status, seconds = self._ray.get(task)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(folder, "stopped")
        except self._ray.exceptions.RayError as error:
            return Ended(folder, "failed", str(error).strip().splitlines()[0])
        return outcome(folder, status, log, seconds)

    def stop(self, at_once: bool) -> None:
        for task in self._running:
            self._ray.cancel(task, force=at_once)

    def close(self) -> None:
        self.stop(at_once=True)
        self._running.clear()
        self._ray.shutdown()
