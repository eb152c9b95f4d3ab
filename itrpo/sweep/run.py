"""A sweep: all runs of a plan, however often it is interrupted.

What is done is read from the runs' own folders, so nothing is lost with this process: the same call goes on.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from itrpo import files
from itrpo.errors import InputError, ItrpoError
from itrpo.options import lengths
from itrpo.results.store import STATUS, read_status
from itrpo.signals import stop_on_signal
from itrpo.sweep import cost
from itrpo.sweep.board import Board
from itrpo.sweep.local import Ended
from itrpo.sweep.plan import Plan, PlannedRun
from itrpo.sweep.state import State, check_folder, packed_states, state_of, write_plan
from itrpo.sweep.worker import Task, task
from itrpo.training.together import frame

if TYPE_CHECKING:
    from rich.console import Console

LOOK_SECONDS = 0.1  # between two looks at the runs


class Executor(Protocol):
    """Where runs are trained: `local.LocalExecutor`, `on_ray.RayExecutor`."""

    def start(self, folder: str, task: Task, log: Path) -> None: ...
    def ended(self) -> list[Ended]: ...
    def stop(self, at_once: bool) -> None: ...
    def close(self) -> None: ...


class Sweep(NamedTuple):
    """What there is to do."""

    plan: Plan
    out: Path
    runs: tuple[PlannedRun, ...]  # those of the plan that were asked for
    states: dict[str, State]  # by folder, of all of the plan's
    speeds: cost.Speeds
    sources: str  # where the speeds are from, in words


def begin(plan: Plan, out: Path, only: Sequence[str], console: Console, packed: Sequence[Path] = ()) -> Sweep:
    """What there is to do: the runs that are called one of `only`, or all if it is empty; not what `packed` files hold.

    Raises InputError if `out` holds another sweep, or if nothing is called one of `only`.
    """
    for pattern in only:
        if not any(matches(run, pattern) for run in plan.runs):
            raise InputError(
                f"--only {pattern}: no run of {plan.name} is called so; a run is DATASET/LABEL, * is anything"
            )
    runs = tuple(run for run in plan.runs if not only or any(matches(run, pattern) for pattern in only))
    check_folder(plan, out)
    states = {run.folder: state_of(run, out) for run in plan.runs}
    states |= {name: state for name, state in packed_states(plan.runs, packed).items() if states[name].name == "to do"}
    own = cost.speeds_in(plan.runs, out)
    todo = [run for run in runs if states[run.folder].name in ("to do", "unfinished")]
    measured = cost.measured_speeds(todo, own, console)
    needed = {cost.kind_of(run) for run in todo}
    from_runs, from_measuring = len(needed & set(own)), len(needed & set(measured))
    sources = [f"runs in {out} for {from_runs}"] * (from_runs > 0)
    sources += [f"{cost.MEASURED_STEPS} steps on random data, without evaluations, for {from_measuring}"] * (
        from_measuring > 0
    )
    return Sweep(plan, out, runs, states, own | measured, " and ".join(sources))


def matches(run: PlannedRun, only: str) -> bool:
    dataset, _, label = run.folder.partition("/")
    return any(fnmatchcase(name, only) for name in (run.folder, dataset, label))


def sweep(it: Sweep, executor: Executor, jobs: int, console: Console, together: int = 1) -> list[Ended]:
    """Trains what is left, `jobs` runs at a time; -> those that failed or diverged, now or before.

    Up to `together` runs that differ in numbers alone are one program, and count as one run of `jobs`. A run that fails
    is tried once more at the end, alone. Raises KeyboardInterrupt after a signal, once every run that was going on has
    its checkpoint; a second one ends them at once.
    """
    states, failed = dict(it.states), dict[str, Ended]()
    runs = {run.folder: run for run in it.runs}
    for folder in runs:
        if states[folder].name == "diverged":
            failed[folder] = Ended(folder, "diverged", states[folder].message)
    queue = grouped([run for run in it.runs if states[run.folder].name in ("to do", "unfinished")], together)
    again: list[str] | None = []  # None: these are the second tries
    running = dict[str, list[str]]()  # by the first one's folder
    board = Board(console, it.plan.name, it.out, it.runs, it.speeds)
    refusal = f"another sweep is running in {it.out}; wait for it, or choose another --out"
    with (
        files.lock(it.out / ".sweep.lock", refusal),
        closing(executor),
        stop_on_signal(console) as signals,
        board.shown,
    ):
        write_plan(it.plan, it.out, states)
        asked = 0
        while queue or running or again:
            if not queue and not running and again:
                queue, again = [[folder] for folder in again], None
            while queue and len(running) < jobs and not signals:
                folders = queue.pop(0)
                running[folders[0]] = folders
                executor.start(
                    folders[0], task_of([runs[each] for each in folders], it.out), log_of(it.out, folders[0])
                )
            for over in executor.ended():
                folders = running.pop(over.folder)
                for ended in (checked(runs, it.out, states, over._replace(folder=each)) for each in folders):
                    retry = ended.outcome in ("failed", "stopped") and again is not None and not signals
                    failed.pop(ended.folder, None)
                    if retry and again is not None:
                        again.append(ended.folder)
                    elif ended.outcome != "finished" and (ended.outcome != "stopped" or not signals):
                        failed[ended.folder] = ended
                    board.report(ended, states, retry)
                write_plan(it.plan, it.out, states)
            if len(signals) > asked:
                executor.stop(at_once=False)
                asked = len(signals)
            if signals and not running:
                raise KeyboardInterrupt("the sweep is stopped; the same command goes on from there")
            waiting = [*itertools.chain.from_iterable(queue), *(again or [])]
            board.update(states, list(running.values()), failed, waiting)
            time.sleep(LOOK_SECONDS)
    return list(failed.values())


def checked(runs: dict[str, PlannedRun], out: Path, states: dict[str, State], ended: Ended) -> Ended:
    """What the folder of a run says of how it ended; its state is updated."""
    before = states[ended.folder]
    try:
        state = states[ended.folder] = state_of(runs[ended.folder], out)
    except ItrpoError as error:  # a damaged file, or data that changed meanwhile
        states[ended.folder] = before._replace(name="unfinished")
        return ended._replace(outcome="failed", message=ended.message or str(error))
    if state.name == "diverged":  # one of several
        return ended._replace(outcome="diverged", message=state.message)
    if state.name == "finished":
        return ended._replace(outcome="finished", message="")
    if ended.outcome == "finished":
        return ended._replace(outcome="failed", message=f"it ended without an error, but is {state.name}")
    return ended


def default_together() -> int:
    """On a GPU a few seeds leave most of it idle, and 64 runs of four don't; on a CPU each seed has a core to itself.

    JAX is asked in another process: this one leaves the GPU to those that train.
    """
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    backend = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    return 1 if backend in ("", "cpu") else 64


def grouped(runs: Sequence[PlannedRun], most: int) -> list[list[str]]:
    """Folders of runs that one program can train, at most as many, where the first of them stands in the plan."""
    groups: dict[str, list[list[str]]] = {}
    for run in runs:
        same = run.setup._replace(algorithm_config=frame(run.algorithm, run.setup.algorithm_config))
        found = groups.setdefault(repr((run.dataset, run.options, same)), [[]])
        if len(found[-1]) == most:
            found.append([])
        found[-1].append(run.folder)
    order = {run.folder: place for place, run in enumerate(runs)}
    return sorted(itertools.chain.from_iterable(groups.values()), key=lambda folders: order[folders[0]])


def task_of(runs: Sequence[PlannedRun], out: Path) -> Task:
    """A run that has more seeds or steps already than the plan wants keeps them."""
    first, options = runs[0], runs[0].options
    folder, path = out / first.folder, Path(first.dataset).expanduser()
    if len(runs) == 1 and (folder / STATUS).exists():
        status, length = read_status(folder), lengths(options, False)
        if status.step > length.steps:
            options = replace(options, steps=status.steps)
        options = replace(options, seeds=max(length.seeds, status.seeds))
    dataset = str(path.absolute()) if path.is_file() else first.dataset  # for who works in another folder
    return task(dataset, first.algorithm, options, [(run.fields, out / run.folder) for run in runs])


def log_of(out: Path, folder: str) -> Path:
    return out / f"{folder}.log"


def left(it: Sweep) -> Sequence[tuple[PlannedRun, State, float | None]]:
    """Each run with its state, and the seconds that it is expected to take."""
    return [(run, it.states[run.folder], cost.seconds_left(run, it.states[run.folder], it.speeds)) for run in it.runs]
