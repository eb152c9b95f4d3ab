"""Rolling an acting policy out, and rolling many out in several processes with the same result as in one.

As a program (`python -m itrpo.collection.rollout`) it is a worker: it reads tasks as lines of JSON, and answers on its
standard output. Plain subprocesses are used because a script without an `if __name__ == "__main__"` guard can't use
Python's multiprocessing, and because they share no state with JAX's threads.
"""

from __future__ import annotations

import contextlib
import io
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

import itrpo

LOG_STD_RANGE = (-5.0, 2.0)  # of the policies' training; rlkit's, as in D4RL's own data
PROGRESS_EVERY = 500  # steps


class ActingPolicy(NamedTuple):
    """A tanh-Gaussian policy with two hidden ReLU layers. Weights are float32 [in, out]."""

    hidden: tuple[tuple[np.ndarray, np.ndarray], ...]  # (weight, bias) of each layer
    mean: tuple[np.ndarray, np.ndarray]
    log_std: tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """Roll `policy` out for whole episodes until at least `steps` steps are done. Same task, same rows."""

    env_id: str
    policy: str  # path of a safetensors file
    steps: int
    seed: tuple[int, ...]


class Rows(NamedTuple):
    """What `collect` logs. All episodes are complete."""

    observations: np.ndarray  # [N, O] float32, as the policy saw them
    actions: np.ndarray  # [N, A] float32, in [-1, 1]
    next_observations: np.ndarray  # [N, O] float32
    rewards: np.ndarray  # [N] float32
    terminals: np.ndarray  # [N] bool
    timeouts: np.ndarray  # [N] bool; never together with a terminal
    qpos: np.ndarray  # [N, ...] float64: the simulator's state before the step, exactly
    qvel: np.ndarray  # [N, ...] float64
    action_log_probs: np.ndarray  # [N] float32: log density of the action, tanh included


def load_acting_policy(path: str | os.PathLike[str]) -> ActingPolicy:
    """Reads one of the package's policies."""
    from safetensors.numpy import load_file

    arrays = load_file(path)

    def layer(name: str) -> tuple[np.ndarray, np.ndarray]:
        return arrays[f"{name}.weight"], arrays[f"{name}.bias"]

    return ActingPolicy((layer("hidden0"), layer("hidden1")), layer("mean"), layer("log_std"))


def sample_action(
    policy: ActingPolicy, observation: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.float32]:
    """A sampled action [A] float32 and its log density, for one observation [O] float32.

    log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2) with a = tanh(u); the last log is taken as
    2 (log 2 - u - softplus(-2u)), which is finite for every u.
    """
    hidden = observation
    for weight, bias in policy.hidden:
        hidden = np.maximum(_linear(hidden, weight, bias), 0)
    mean = _linear(hidden, *policy.mean)
    log_std = np.clip(_linear(hidden, *policy.log_std), *LOG_STD_RANGE)
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    pre_tanh = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - np.float32(0.5 * np.log(2 * np.pi))
    log_jacobian = 2 * (np.float32(np.log(2)) - pre_tanh - np.logaddexp(np.float32(0), -2 * pre_tanh))
    return np.tanh(pre_tanh), np.float32((log_normal - log_jacobian).sum())


def _linear(inputs: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """einsum rather than BLAS: its bits don't depend on the number of threads, and for one row it is fast enough."""
    return np.einsum("i,ij->j", inputs, weight) + bias


def collect(task: Task, on_progress: Callable[[int], None] = lambda steps: None) -> Rows:
    """Rolls one policy out with sampled actions. `on_progress` gets the number of steps done since its last call."""
    from itrpo.evaluation.environments import make_env

    policy = load_acting_policy(task.policy)
    rng = np.random.default_rng(task.seed)
    env = make_env(task.env_id)
    simulator = env.unwrapped.data  # pyright: ignore[reportAttributeAccessIssue] (MuJoCo's)
    rows: list[tuple[Any, ...]] = []
    reported, done = 0, False
    try:
        # only the first reset seeds the environment; later ones continue its stream
        observation = env.reset(seed=int(rng.integers(2**31)))[0].astype(np.float32)
        while len(rows) < task.steps or not done:
            if done:
                observation = env.reset()[0].astype(np.float32)
            action, log_prob = sample_action(policy, observation, rng)
            qpos, qvel = simulator.qpos.copy(), simulator.qvel.copy()
            following, reward, terminated, truncated, _ = env.step(action)
            following = following.astype(np.float32)
            timeout = truncated and not terminated
            rows.append((observation, action, following, reward, terminated, timeout, qpos, qvel, log_prob))
            observation, done = following, terminated or truncated
            if len(rows) - reported >= PROGRESS_EVERY:
                on_progress(len(rows) - reported)
                reported = len(rows)
    finally:
        env.close()
    on_progress(len(rows) - reported)
    kinds = (np.float32, np.float32, np.float32, np.float32, bool, bool, np.float64, np.float64, np.float32)
    return Rows(*(np.asarray(column, dtype=kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)))


def collect_all(
    tasks: Sequence[Task], workers: int, on_progress: Callable[[int], None] = lambda steps: None
) -> list[Rows]:
    """The rows of every task, in the order of `tasks`, from `workers` processes; the same bits for any number of them.

    Tasks that no worker could do (no process can be started, one was killed) are done in this process.
    """
    results: list[Rows | None] = [None] * len(tasks)
    if workers > 1:
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(tasks)):
            waiting.put(index)
        processes = [process for _ in range(workers) if (process := _start_worker())]
        threads = [
            threading.Thread(target=_feed, args=(process, tasks, waiting, results, on_progress), daemon=True)
            for process in processes
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for process in processes:
                _stop(process)
    return [collect(task, on_progress) if rows is None else rows for task, rows in zip(tasks, results, strict=True)]


def _start_worker() -> subprocess.Popen[bytes] | None:
    package_folder = str(Path(itrpo.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_folder, os.environ.get("PYTHONPATH")]))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "itrpo.collection.rollout"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # an error comes up again, in full, when the task is redone here
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
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
    process: subprocess.Popen[bytes],
    tasks: Sequence[Task],
    waiting: queue.SimpleQueue[int],
    results: list[Rows | None],
    on_progress: Callable[[int], None],
) -> None:
    """Gives a worker one task after the other until none waits or the worker is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            index = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(json.dumps(tasks[index]).encode() + b"\n")
            process.stdin.flush()
            while "size" not in (message := json.loads(process.stdout.readline())):
                on_progress(message["steps"])
            with np.load(io.BytesIO(process.stdout.read(message["size"])), allow_pickle=False) as file:
                results[index] = Rows(*(file[name] for name in Rows._fields))
        except (OSError, ValueError, KeyError):  # the worker died; its task stays without a result
            return


def _work() -> None:
    """A worker's life: a task as a line of JSON in; lines {"steps": n}, then {"size": b} and b bytes of NPZ, out."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever else prints must not get between the answers

    def answer(message: dict[str, int], body: bytes = b"") -> None:
        answers.write(json.dumps(message).encode() + b"\n" + body)
        answers.flush()

    for line in sys.stdin:
        env_id, policy, steps, seed = json.loads(line)
        rows = collect(Task(env_id, policy, steps, tuple(seed)), lambda done: answer({"steps": done}))
        body = io.BytesIO()
        np.savez(body, **rows._asdict())
        answer({"size": body.tell()}, body.getvalue())


if __name__ == "__main__":
    _work()
