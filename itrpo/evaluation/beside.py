"""Evaluations in a process of their own, beside whatever else goes on in this one.

`python -m itrpo.evaluation.beside FD ENV_ID SEEDS EPISODES` is that process. It reads the policies from their files. An
environment that a program registered itself is known to no other process; evaluations in it are over when `start` is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import errors, files
from itrpo.evaluation.environments import allow, known_elsewhere
from itrpo.evaluation.process import Process, until_closed
from itrpo.evaluation.rollout import SLOTS_PER_PROCESS, EvaluationPool, Returns, acting, attempt, make_pool
from itrpo.policy import load_policy


class Evaluated(NamedTuple):
    returns: Returns | None  # None where there is no environment
    seconds: float  # that it took
    waited_since: float  # time.perf_counter() when its caller began to wait for it


class Evaluations:
    """Of S policies x E episodes; of none without an environment. One goes on at a time: `start`, then `settle`."""

    def __init__(self, env_id: str | None = None, num_seeds: int = 0, episodes: int = 0) -> None:
        self.waited = 0.0  # seconds that callers of `settle` have spent in it
        self._then: Callable[[Evaluated], None] | None = None
        self._asked: dict[str, Any] = {}
        self._process: Process | None = None
        self._pool: EvaluationPool | None = None
        if env_id is not None and known_elsewhere(env_id):
            self._process = Process("itrpo.evaluation.beside", env_id, num_seeds, episodes)
        elif env_id is not None:
            self._pool = make_pool(env_id, num_seeds, episodes)

    def start(
        self, policies: Sequence[Path], seed: int, step: int, indices: Sequence[int], then: Callable[[Evaluated], None]
    ) -> None:
        """Begins what `rollout.attempt` does. `settle` calls `then`; until it has, the files stay as they are."""
        self._asked = {"policies": list(map(str, policies)), "seed": seed, "step": step, "indices": list(indices)}
        self._then = then
        if self._process is None:
            self.settle()
        else:
            self._process.send(json.dumps(self._asked).encode())

    def settle(self, wait: bool = True) -> None:
        """Calls `then` if it has not been called yet; without `wait` only if the evaluation is over.

        Raises what `rollout.attempt` does, and ItrpoError if the process has ended.
        """
        then, since = self._then, time.perf_counter()
        if then is None or not (wait or self._process is None or self._process.answered()):
            return
        self._then = None
        returns, seconds = self._result()
        then(Evaluated(returns, seconds, since))
        self.waited += time.perf_counter() - since

    def close(self) -> None:
        """Ends the process, and with it what is not settled."""
        for own in (self._process, self._pool):
            if own is not None:
                own.close()

    def _result(self) -> tuple[Returns | None, float]:
        if self._process is not None:
            answer = json.loads(self._process.receive())
            if "error" in answer:
                raise getattr(errors, answer["error"])(answer["message"])
            return Returns(np.array(answer["returns"]), np.array(answer["lengths"])), answer["seconds"]
        if self._pool is not None:
            return play(self._pool, **self._asked)
        return None, 0.0


def play(
    pool: EvaluationPool,
    policies: list[str],
    seed: int,
    step: int,
    indices: list[int],
    look: Callable[[], None] | None = None,
) -> tuple[Returns, float]:
    """-> what the policies in these files did, and the seconds that it took. `look` is called at every step."""
    started, act = time.perf_counter(), acting([load_policy(path) for path in policies])

    def looking(observations: np.ndarray) -> np.ndarray:
        if look is not None:
            look()
        return act(observations)

    return attempt(pool, looking, seed, step, indices), time.perf_counter() - started


def serve(pipe: Connection, pool: EvaluationPool) -> None:
    """Answers the messages of `Evaluations` until it closes the pipe, also in the middle of an evaluation."""

    def look() -> None:
        if pipe.poll():  # nothing is sent before the answer: the other end is closed
            raise EOFError

    while True:
        try:
            (returns, lengths), seconds = play(pool, **json.loads(pipe.recv_bytes()), look=look)
            answer = {"returns": returns.tolist(), "lengths": lengths.tolist(), "seconds": seconds}
        except errors.ItrpoError as error:
            refuse(pipe, error)
            continue
        pipe.send_bytes(json.dumps(answer).encode())


def refuse(pipe: Connection, error: errors.ItrpoError) -> None:
    pipe.send_bytes(json.dumps({"error": type(error).__name__, "message": str(error)}).encode())


def main(descriptor: int, env_id: str, num_seeds: int, episodes: int) -> None:
    # Half of the cores: who trains has use for the others, and what is sent between processes costs time of its own.
    processes = max(1, min(files.available_cores() // 2, num_seeds * episodes // SLOTS_PER_PROCESS))
    pipe = Connection(descriptor)
    try:
        allow(env_id)  # the word of the process that started this one
        serve(pipe, make_pool(env_id, num_seeds, episodes, processes))
    except (EOFError, ConnectionError):
        return
    except errors.ItrpoError as error:  # it can't be built in this process
        refuse(pipe, error)
        until_closed(pipe)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
