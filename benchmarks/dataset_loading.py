"""Time and memory of reading a dataset's file, against NumPy at its best and against D4RL's own loop.

    python benchmarks/dataset_loading.py [--rows 1000000 2000000] [--layouts plain gzip replay]

Files of 17 + 6 numbers per row with D4RL's keys, made in a temporary folder: `plain` (float32), `gzip` (float32,
compressed as D4RL's are), `replay` (the same in float64, as D4RL's replay files). Each way of reading runs in a process
of its own that has read a small file before, so imports do not count:

- itrpo: `load_dataset`: every check, SHA-256 of the file, transitions, densities and statistics of episodes.
- vectorised: h5py and NumPy, and nothing but the transitions: the needed columns, then indexing.
- D4RL: all columns, then a Python loop over rows, as its `get_dataset` and `qlearning_dataset` do.

Memory is the peak of the resident size beyond the one before, over the size of the transitions that training needs.
Linux only.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import tyro

OBSERVATION_DIM, ACTION_DIM = 17, 6
TRANSITION_BYTES = 4 * (2 * OBSERVATION_DIM + 2 * ACTION_DIM + 2)
Layout = Literal["plain", "gzip", "replay"]
Way = Literal["itrpo", "vectorised", "D4RL"]


@dataclass(frozen=True)
class Arguments:
    rows: tuple[int, ...] = (1_000_000, 2_000_000)
    layouts: tuple[Layout, ...] = ("plain", "gzip", "replay")
    repeats: int = 3
    """of each measurement; the fastest counts"""
    read: tuple[Way, Path, Path] | None = None
    """way, small and large file: what a process of its own does"""


def make_file(path: Path, rows: int, layout: Layout) -> None:
    random = np.random.default_rng(0)
    kind, compression = (np.float64 if layout == "replay" else np.float32), (None if layout == "plain" else "gzip")
    widths = {"observations": (OBSERVATION_DIM,), "next_observations": (OBSERVATION_DIM,), "actions": (ACTION_DIM,)}
    with h5py.File(path, "w") as file:
        for key, width in (widths | {"rewards": (), "infos/action_log_probs": ()}).items():
            column = file.create_dataset(key, (rows, *width), kind, compression=compression)
            step = column.chunks[0] if column.chunks else 100_000
            for start in range(0, rows, step):
                values = random.normal(size=(min(step, rows - start), *width)).astype(np.float32)
                column[start : start + step] = np.tanh(values) if key == "actions" else values
        step_of_episode = np.arange(rows) % 1000
        file.create_dataset("terminals", data=step_of_episode == 500, compression=compression)
        file.create_dataset("timeouts", data=step_of_episode == 999, compression=compression)


def read_itrpo(path: Path) -> object:
    from itrpo.data.load import load_dataset

    return load_dataset(path)


def read_vectorised(path: Path) -> object:
    with h5py.File(path) as file:
        keys = ("observations", "actions", "rewards", "terminals", "timeouts")
        observations, actions, rewards, terminals, timeouts = (np.asarray(file[key]) for key in keys)
    rows = np.flatnonzero(~timeouts[:-1])
    return (
        observations[rows].astype(np.float32),
        actions[rows].astype(np.float32),
        rewards[rows].astype(np.float32),
        (~terminals[rows]).astype(np.float32),
        observations[rows + 1].astype(np.float32),
        np.where(terminals[rows, None], 0, actions[rows + 1]).astype(np.float32),
    )


def read_d4rl(path: Path) -> object:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        data = {name: np.asarray(file[name]) for name in names}
    columns: tuple[list, ...] = ([], [], [], [], [])
    for i in range(len(data["rewards"]) - 1):
        if data["timeouts"][i]:
            continue
        row = (
            data["observations"][i].astype(np.float32),
            data["observations"][i + 1].astype(np.float32),
            data["actions"][i].astype(np.float32),
            data["rewards"][i].astype(np.float32),
            bool(data["terminals"][i]),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return tuple(np.array(column) for column in columns)


READ = {"itrpo": read_itrpo, "vectorised": read_vectorised, "D4RL": read_d4rl}


def resident(field: str) -> int:
    """Of this process, in bytes: VmRSS now, VmHWM at its highest."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(way: Way, small: Path, large: Path) -> None:
    """Prints seconds, CPU seconds and bytes of reading `large`."""
    READ[way](small)
    before, wall, cpu = resident("VmRSS:"), time.perf_counter(), cpu_seconds()
    result = READ[way](large)
    print(json.dumps([time.perf_counter() - wall, cpu_seconds() - cpu, resident("VmHWM:") - before]))
    del result


def main(arguments: Arguments) -> None:
    if arguments.read is not None:
        measure(*arguments.read)
        return
    print(
        f"{platform.machine()}, Python {platform.python_version()}, h5py {h5py.__version__}, numpy {np.__version__}\n"
    )
    print("| rows | layout | file, MB | way | seconds | CPU seconds | over itrpo's | peak memory / transitions |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small.hdf5", Path(name) / "large.hdf5"
        make_file(small, 2_000, "plain")
        for rows in arguments.rows:
            for layout in arguments.layouts:
                make_file(large, rows, layout)
                reference = 0.0
                for way in READ:
                    command = [sys.executable, __file__, "--read", way, str(small), str(large)]
                    runs = [
                        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                        for _ in range(arguments.repeats)
                    ]
                    wall, cpu, peak = (min(values) for values in zip(*runs, strict=True))
                    reference = reference or cpu
                    print(
                        f"| {rows:,} | {layout} | {large.stat().st_size / 1e6:.0f} | {way} | {wall:.2f} | {cpu:.2f} "
                        f"| {cpu / reference:.1f} | {peak / (rows * TRANSITION_BYTES):.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
