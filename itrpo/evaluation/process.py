"""Another Python process of ours that answers messages, one after the other.

`python -m MODULE FD ENV_ID SIZES` is that process. It is started afresh and not forked (a fork of a process that runs
JAX may hang), knows gymnasium and not JAX, and ends when the other end of its pipe closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from itrpo.errors import ItrpoError


class Process:
    """Runs `module`, which evaluates in `env_id`, with some numbers as its arguments."""

    def __init__(self, module: str, env_id: str, *sizes: int) -> None:
        self._env_id = env_id
        self._pipe, theirs = Pipe()
        # A session of its own: Ctrl-C is for the trainer to handle.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), env_id, *map(str, sizes)],
            pass_fds=[theirs.fileno()],
            env=environment_of_a_process(),
            start_new_session=True,
        )
        theirs.close()

    def send(self, message: bytes) -> None:
        """Raises ItrpoError if the process has ended."""
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise self._ended() from error

    def answered(self) -> bool:
        """Whether `receive` would not wait."""
        return self._pipe.poll()

    def receive(self) -> bytes:
        """Waits for the next answer. Raises ItrpoError if the process has ended."""
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _ended(self) -> ItrpoError:
        status = self._process.wait()
        return ItrpoError(
            f"a process that evaluates in {self._env_id} ended (status {status}); if it said why, that is above"
        )


def until_closed(pipe: Connection) -> None:
    """Waits in such a process until the other end has read what was sent, and closes the pipe."""
    with suppress(EOFError, OSError):
        while True:
            pipe.recv_bytes()


def environment_of_a_process() -> dict[str, str]:
    """The variables for another Python process, in which this very itrpo and this process's modules are found.

    NumPy multiplies with one thread there: with more, the last bits of a product depend on their number, and they wait
    for each other by spinning on cores that have other work.
    """
    return {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def python_path() -> str:
    """PYTHONPATH of another process: this very itrpo, and what this one finds, also where it changed `sys.path`."""
    package_root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys(filter(None, (package_root, os.environ.get("PYTHONPATH"), *sys.path))))
