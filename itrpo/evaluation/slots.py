"""A group of environments that are stepped together: here, or in a process of its own.

`python -m itrpo.evaluation.slots FD ENV_ID COUNT` is that process.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import numpy as np

from itrpo.errors import ItrpoError
from itrpo.evaluation.environments import allow, failed, make_env
from itrpo.evaluation.process import Process, until_closed

_RESET, _STEP = b"R", b"S"
_FAILED = b""  # in place of an answer, which is never empty; the reason comes after it


class LocalSlots:
    """`count` environments in this process. What goes wrong in one while it is played raises ItrpoError."""

    def __init__(self, env_id: str, count: int, render_mode: str | None = None) -> None:
        from gymnasium.spaces import Discrete

        self._env_id = env_id
        self.envs = [make_env(env_id, render_mode) for _ in range(count)]
        self._choices = count > 0 and isinstance(self.envs[0].action_space, Discrete)

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Seeds [n] uint32 -> first observations [n, O] float32."""
        try:
            starts = [env.reset(seed=int(seed))[0] for env, seed in zip(self.envs, seeds, strict=True)]
            return np.stack(starts).astype(np.float32)
        except Exception as error:
            raise failed(self._env_id, "at a reset", error) from error

    def step(self, active: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step the slots where `active` [n] is true with actions [n, A] float32, choices [n, 1].

        Returns observations [n, O] float32, rewards [n] float64 and whether the episode ended [n] bool, zeros
        elsewhere.
        """
        count = len(self.envs)
        shape = self.envs[0].observation_space.shape
        observations = np.zeros((count, *shape), np.float32)  # pyright: ignore[reportOptionalIterable] (a Box has one)
        rewards, ended = np.zeros(count), np.zeros(count, bool)
        try:
            for i in np.flatnonzero(active):
                action = round(float(actions[i, 0])) if self._choices else actions[i]
                observations[i], reward, terminated, truncated, _ = self.envs[i].step(action)
                rewards[i], ended[i] = float(reward), terminated or truncated
        except Exception as error:
            raise failed(self._env_id, "at a step", error) from error
        return observations, rewards, ended

    def close(self) -> None:
        for env in self.envs:
            env.close()


class RemoteSlots:
    """`count` environments in another process: `send_*` starts the work, `receive_*` waits for what it gives."""

    def __init__(self, env_id: str, count: int) -> None:
        self._count = count
        self._process = Process("itrpo.evaluation.slots", env_id, count)

    def send_reset(self, seeds: np.ndarray) -> None:
        self._process.send(_RESET + seeds.astype(np.uint32).tobytes())

    def receive_reset(self) -> np.ndarray:
        return np.frombuffer(self._receive(), np.float32).reshape(self._count, -1)

    def send_step(self, active: np.ndarray, actions: np.ndarray) -> None:
        self._process.send(_STEP + active.tobytes() + np.ascontiguousarray(actions, np.float32).tobytes())

    def receive_step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reply, count = self._receive(), self._count
        rewards = np.frombuffer(reply, np.float64, count)
        ended = np.frombuffer(reply, bool, count, offset=8 * count)
        return np.frombuffer(reply, np.float32, offset=9 * count).reshape(count, -1), rewards, ended

    def close(self) -> None:
        self._process.close()

    def _receive(self) -> bytes:
        reply = self._process.receive()
        if reply == _FAILED:
            raise ItrpoError(self._process.receive().decode())
        return reply


def serve(pipe: Connection, env_id: str, count: int) -> None:
    """Answer the messages of a `RemoteSlots` until it closes the pipe."""
    try:
        allow(env_id)  # the word of the process that started this one
        slots = LocalSlots(env_id, count)
        while True:
            answer(pipe, slots, count)
    except (EOFError, ConnectionError):
        return
    except ItrpoError as error:
        pipe.send_bytes(_FAILED)
        pipe.send_bytes(str(error).encode())
        until_closed(pipe)


def answer(pipe: Connection, slots: LocalSlots, count: int) -> None:
    """One message. Raises ItrpoError if an environment fails, EOFError when the pipe is closed."""
    message = pipe.recv_bytes()
    if message[:1] == _RESET:
        pipe.send_bytes(slots.reset(np.frombuffer(message, np.uint32, offset=1)).tobytes())
    else:
        active = np.frombuffer(message, bool, count, offset=1)
        actions = np.frombuffer(message, np.float32, offset=1 + count).reshape(count, -1)
        observations, rewards, ended = slots.step(active, actions)
        pipe.send_bytes(rewards.tobytes() + ended.tobytes() + observations.tobytes())


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
