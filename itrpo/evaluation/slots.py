"""A group of environments that are stepped together: here, or in a process of its own.

`python -m itrpo.evaluation.slots FD ENV_ID COUNT` is that process.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import numpy as np

from itrpo.evaluation.environments import make_env
from itrpo.evaluation.process import Process

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
        self._count = count
        self._process = Process("itrpo.evaluation.slots", env_id, count)

    def send_reset(self, seeds: np.ndarray) -> None:
        self._process.send(_RESET + seeds.astype(np.uint32).tobytes())

    def receive_reset(self) -> np.ndarray:
        return np.frombuffer(self._process.receive(), np.float32).reshape(self._count, -1)

    def send_step(self, active: np.ndarray, actions: np.ndarray) -> None:
        self._process.send(_STEP + active.tobytes() + np.ascontiguousarray(actions, np.float32).tobytes())

    def receive_step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reply, count = self._process.receive(), self._count
        rewards = np.frombuffer(reply, np.float64, count)
        ended = np.frombuffer(reply, bool, count, offset=8 * count)
        return np.frombuffer(reply, np.float32, offset=9 * count).reshape(count, -1), rewards, ended

    def close(self) -> None:
        self._process.close()


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
