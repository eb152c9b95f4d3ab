"""What a plan will take: from the timing of its own runs, or from a short measurement of an algorithm on this machine.

What is expected of a run is its gradient steps, and what training waited for evaluations as far as runs in the sweep's
folder say. Reading data, compiling, and the fit of pi_beta come on top.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrpo import files, registry
from itrpo.console import say
from itrpo.errors import StorageError
from itrpo.options import RunOptions, lengths, reading
from itrpo.results.store import read_status, read_timing
from itrpo.sweep.plan import PlannedRun
from itrpo.sweep.state import State
from itrpo.sweep.worker import start, task

if TYPE_CHECKING:
    from rich.console import Console

Speeds = dict[str, float]  # `kind_of` a run -> seconds per step and seed
MEASURED_STEPS = 200
WORTH_MEASURING = 20 * MEASURED_STEPS  # steps, of a run
LASTING = 24 * 3600.0  # seconds that measurements are kept: the machine may have been busy
ROWS, OBSERVATIONS, ACTIONS = 10_000, 17, 6  # of the random data that is measured on; sizes of HalfCheetah's
CHOICES = 4  # of the same, for algorithms over choices


def kind_of(run: PlannedRun) -> str:
    """Runs of one kind are taken to be equally fast."""
    return f"{run.algorithm} {run.setup.preset} {lengths(run.options, False).seeds} seeds"


def seconds_per_step(folder: Path) -> float | None:
    """Of a run's timing, per step and seed; None if it has none yet."""
    try:
        records, seeds = read_timing(folder), read_status(folder).seeds
    except StorageError:
        return None
    steps = sum(it.get("seeds", seeds) * it["steps_per_second"] * it["train_seconds"] for it in records)
    seconds = sum(it["train_seconds"] + it["waited_seconds"] for it in records)
    return seconds / steps if steps > 0 else None


def speeds_in(runs: Iterable[PlannedRun], out: Path) -> Speeds:
    """From the timing of a sweep's own runs: of each kind, the mean."""
    found: dict[str, list[float]] = {}
    for run in runs:
        seconds = seconds_per_step(out / run.folder)
        if seconds is not None:
            found.setdefault(kind_of(run), []).append(seconds)
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def measured_speeds(runs: Iterable[PlannedRun], known: Speeds, console: Console) -> Speeds:
    """Of the kinds that are not known: trains 200 steps on random data, once a day.

    Kinds of short runs, and those that can't be measured, are left out.
    """
    path = files.cache_dir() / "sweep_speeds.json"
    cached: Speeds = {}
    with suppress(StorageError):  # a damaged cache is as good as none
        if path.exists() and time.time() - path.stat().st_mtime < LASTING:
            cached = files.read_json(path)
    wanted = {
        kind_of(run): run
        for run in runs
        if kind_of(run) not in known and lengths(run.options, False).steps >= WORTH_MEASURING
    }
    new = {kind: run for kind, run in wanted.items() if machine_key(kind) not in cached}
    for number, (kind, run) in enumerate(new.items(), start=1):
        say(console, f"measuring {kind} ({number} of {len(new)}), once a day")
        seconds = measure(run)
        if seconds is not None:
            cached[machine_key(kind)] = seconds
            with suppress(StorageError):  # one that can't be written is no reason to stop
                files.write_json(path, cached)
    return {kind: cached[machine_key(kind)] for kind in wanted if machine_key(kind) in cached}


def machine_key(kind: str) -> str:
    return f"{kind}, {files.available_cores()} cores"


def measure(run: PlannedRun) -> float | None:
    """Seconds per step and seed on random data, without evaluations; None where the run of it fails."""
    rng = np.random.default_rng(0)
    vectors = registry.algorithm(run.algorithm).actions == "continuous"
    actions = rng.uniform(-0.9, 0.9, (ROWS, ACTIONS)) if vectors else rng.integers(CHOICES, size=(ROWS, 1))
    with files.scratch_folder(files.cache_dir(), "measuring-") as folder:
        np.savez(
            folder / "random.npz",
            observations=rng.standard_normal((ROWS, OBSERVATIONS), np.float32),
            actions=actions.astype(np.float32),
            rewards=rng.standard_normal(ROWS, np.float32),
            terminals=np.zeros(ROWS, bool),
            timeouts=np.arange(ROWS) % 100 == 99,
        )
        options = replace(
            run.options,
            steps=MEASURED_STEPS,
            eval_every=MEASURED_STEPS,
            behavior_steps=10,
            track=(),
            **reading(RunOptions()) | {"env": "none", "num_actions": None if vectors else CHOICES},
        )
        measured = task(str(folder / "random.npz"), run.algorithm, options, [(run.fields, folder / "run")])
        with start(measured, folder / "log") as process:
            try:
                process.wait()
            finally:
                process.kill()
        return seconds_per_step(folder / "run")


def seconds_left(run: PlannedRun, state: State, speeds: Speeds) -> float | None:
    """None if it isn't known."""
    if state.name in ("finished", "diverged"):
        return 0.0
    speed = speeds.get(kind_of(run))
    return None if speed is None else (state.work - state.done) * speed


def total(seconds: Iterable[float | None]) -> tuple[float, int]:
    """-> the sum of what is known, and how many are not."""
    values = list(seconds)
    return sum(it for it in values if it is not None), values.count(None)
