"""A group of environments that are stepped together: here, or in a process of its own.

`python -m itrpo.evaluation.slots FD ENV_ID COUNT` is that process. It is started afresh and not forked (a fork of a
process that runs JAX may hang), knows gymnasium and not JAX, and ends when the other end of its pipe closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from itrpo.errors import ItrpoError
from itrpo.evaluation.environments import make_env

_RESET, _STEP = b"R", b"S"


class LocalSlots:
    """`count` environments in this process."""

    def __init__(self, env_id: str, count: int) -> None:
        self.envs = [make_env(env_id) for _ in range(count)]

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Seeds [n] uint32 -> first observations [n, O] float32."""
        starts = [env.reset(seed=int(seed))[0] for env, seed in zip(self.envs, seeds, strict=True)]
        return np.stack(starts).astype(np.float32)

    def step(self, active: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step the slots where `active` [n] is true with actions [n, A] float32.

        Returns observations [n, O] float32, rewards [n] float64 and whether the episode ended [n] bool, zeros
        elsewhere.
        """
        count = len(self.envs)
        shape = self.envs[0].observation_space.shape
        observations = np.zeros((count, *shape), np.float32)  # pyright: ignore[reportOptionalIterable] (a Box has one)
        rewards, ended = np.zeros(count), np.zeros(count, bool)
        for i in np.flatnonzero(active):
            observations[i], reward, terminated, truncated, _ = self.envs[i].step(actions[i])
            rewards[i], ended[i] = float(reward), terminated or truncated
        return observations, rewards, ended

    def close(self) -> None:
        for env in self.envs:
            env.close()


class RemoteSlots:
    """`count` environments in another process: `send_*` starts the work, `receive_*` waits for what it gives."""

    def __init__(self, env_id: str, count: int) -> None:
        self._env_id, self._count = env_id, count
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "itrpo.evaluation.slots", str(theirs.fileno()), env_id, str(count)]
        # A session of its own: Ctrl-C is for the trainer to handle.
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment_of_a_process(), start_new_session=True
        )
        theirs.close()

    def send_reset(self, seeds: np.ndarray) -> None:
        self._send(_RESET + seeds.astype(np.uint32).tobytes())

    def receive_reset(self) -> np.ndarray:
        return np.frombuffer(self._receive(), np.float32).reshape(self._count, -1)

    def send_step(self, active: np.ndarray, actions: np.ndarray) -> None:
        self._send(_STEP + active.tobytes() + np.ascontiguousarray(actions, np.float32).tobytes())

    def receive_step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reply, count = self._receive(), self._count
        rewards = np.frombuffer(reply, np.float64, count)
        ended = np.frombuffer(reply, bool, count, offset=8 * count)
        return np.frombuffer(reply, np.float32, offset=9 * count).reshape(count, -1), rewards, ended

    def close(self) -> None:
        self._pipe.close()
        self._process.wait()

    def _send(self, message: bytes) -> None:
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> bytes:
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> ItrpoError:
        status = self._process.wait()
        return ItrpoError(f"a process that evaluates in {self._env_id} ended (status {status}); its message is above")


def environment_of_a_process() -> dict[str, str]:
    """The variables for another Python process, in which this very itrpo can be imported."""
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def serve(pipe: Connection, slots: LocalSlots) -> None:
    """Answer the messages of a `RemoteSlots` until it closes the pipe."""
    count = len(slots.envs)
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            return
        if message[:1] == _RESET:
            pipe.send_bytes(slots.reset(np.frombuffer(message, np.uint32, offset=1)).tobytes())
        else:
            active = np.frombuffer(message, bool, count, offset=1)
            actions = np.frombuffer(message, np.float32, offset=1 + count).reshape(count, -1)
            observations, rewards, ended = slots.step(active, actions)
            pipe.send_bytes(rewards.tobytes() + ended.tobytes() + observations.tobytes())


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), LocalSlots(sys.argv[2], int(sys.argv[3])))
