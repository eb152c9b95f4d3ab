"""What torch_loop.py and flax_loop.py share: the command line, the file, seeds in processes. It imports NumPy alone.

The file is one that `itrpo datasets convert NAME DATA.npz` wrote: observations, actions, rewards, next_observations and
terminals, every row a transition. Rewards are taken as they are (IQL's scaling changes no cost).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NORMALIZED = {("td3_bc", "matched"), ("itrpo", "quick")}  # the others train on observations as they are
COLUMNS = ("observations", "actions", "rewards", "next_observations", "continues")
GAMMA = 0.99
BATCH_SIZE = 256


class Constants(NamedTuple):
    """Those in which presets differ. All else is the same: two hidden layers, two critics, batches of 256, Adam."""

    hidden: tuple[int, int]
    policy_rate: float
    critic_rate: float
    polyak_rate: float
    alpha: float = 0.0  # iTRPO
    tau: float = 0.0  # iTRPO
    layer_norm: bool = False  # of the critics, after each ReLU


CONSTANTS = {
    ("td3_bc", "matched"): Constants((256, 256), 3e-4, 3e-4, 0.005),
    ("iql", "matched"): Constants((256, 256), 3e-4, 3e-4, 0.005),
    ("itrpo", "matched"): Constants((256, 256), 3e-4, 3e-4, 0.005, alpha=0.9, tau=0.5),
    ("itrpo", "quick"): Constants((128, 128), 3e-4, 1e-3, 0.03, alpha=6.0, tau=0.5, layer_norm=True),
}


class Task(NamedTuple):
    """What a worker is to do."""

    data: Path
    algorithm: str
    preset: str
    steps: int
    seeds: tuple[int, ...]
    compiled: bool  # torch alone
    check: Path | None

    @property
    def constants(self) -> Constants:
        return CONSTANTS[self.algorithm, self.preset]


def transitions(task: Task) -> dict[str, np.ndarray]:
    """observations, actions, rewards, next_observations, continues: float32, normalised where the preset says so."""
    with np.load(task.data) as file:
        columns = {name: file[name] for name in COLUMNS[:-1]}
        columns["continues"] = 1.0 - file["terminals"]
    if (task.algorithm, task.preset) in NORMALIZED:
        columns = normalized(columns)
    return {name: np.ascontiguousarray(column, np.float32) for name, column in columns.items()}


def normalized(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    mean, std = columns["observations"].mean(0), columns["observations"].std(0) + 1e-3
    return columns | {name: (columns[name] - mean) / std for name in ("observations", "next_observations")}


def given(task: Task) -> dict[str, np.ndarray]:
    """What same_work.py wrote: batches [K, B, ...], noise [K, noises, B, A], weights NETWORK.LAYER.weight [out, in]."""
    assert task.check is not None
    with np.load(task.check) as file:
        return dict(file)


def summary(leaves: Sequence[Any]) -> tuple[int, float]:
    """How many numbers there are, and the sum of their squares."""
    return sum(it.size for it in leaves), float(sum(np.sum(np.square(np.asarray(it, np.float64))) for it in leaves))


def parse(description: str | None, processes: str) -> tuple[Task, int]:
    """The task, and the number of processes among which its seeds are to be split."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--algorithm", required=True, choices=("td3_bc", "iql", "itrpo"))
    parser.add_argument("--preset", default="matched", choices=("quick", "matched"))
    parser.add_argument("--steps", type=int, default=2_000, help="timed updates of each seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=0, help=f"default: {processes}")
    parser.add_argument("--compile", action="store_true", help="torch.compile (flax_loop.py is compiled anyway)")
    parser.add_argument("--check", type=Path, help="weights, rows and noise to begin with: see same_work.py")
    it = parser.parse_args()
    if (it.algorithm, it.preset) not in CONSTANTS:
        parser.error(f"{it.algorithm} has no preset {it.preset}, here as in itrpo")
    seeds = tuple(range(it.seeds))
    return Task(it.data, it.algorithm, it.preset, it.steps, seeds, it.compile, it.check), it.processes


def cores() -> int:
    return len(os.sched_getaffinity(0))


Train = Callable[[Task, Callable[[], Any]], dict[str, Any]]  # (task, called when warm) -> about the library


def timed(train: Train, task: Task, ready: Callable[[], Any], answers: Any) -> None:
    started = 0.0

    def start() -> None:
        nonlocal started
        ready()
        started = time.monotonic()  # one clock for all processes of a machine

    about = train(task, start)
    answers.put((started, time.monotonic(), about))


def run(train: Train, task: Task, processes: int) -> None:
    """Train the seeds in so many processes, each with its share of the cores; print what it took as a line of JSON.

    Time runs from when all processes are warm, compiled where they compile, to when the last is done.
    """
    threads = max(1, cores() // processes)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "PJRT_NPROC": str(threads)}  # before the library is imported
    context = multiprocessing.get_context("spawn")
    answers, barrier = context.Queue(), context.Barrier(processes)
    shares = [task._replace(seeds=task.seeds[i::processes]) for i in range(processes)]
    workers = [context.Process(target=timed, args=(train, share, barrier.wait, answers)) for share in shares]
    for worker in workers:
        worker.start()
    starts, ends, abouts = zip(*(answers.get() for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    updates = task.steps * len(task.seeds)
    counts = {"updates": updates, "seconds": max(ends) - min(starts), "threads": threads * processes}
    print(json.dumps(abouts[0] | counts | {"processes": processes}))
