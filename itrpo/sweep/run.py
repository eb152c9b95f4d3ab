"""A sweep: all runs of a plan, however often it is interrupted.

What is done is read from the runs' own folders, so nothing is lost with this process: the same call goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from itrpo import files
from itrpo.errors import InputError, ItrpoError
from itrpo.results.store import STATUS, read_status
from itrpo.signals import stop_on_signal
from itrpo.sweep import cost
from itrpo.sweep.board import Board
from itrpo.sweep.local import Ended
from itrpo.sweep.plan import Plan, PlannedRun
from itrpo.sweep.state import State, check_folder, state_of, write_plan
from itrpo.sweep.worker import Task, task

if TYPE_CHECKING:
    from rich.console import Console

LOOK_SECONDS = 0.5  # between two looks at the runs


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


def begin(plan: Plan, out: Path, only: str | None, console: Console) -> Sweep:
    """What there is to do. Raises InputError if `out` holds another sweep, or if nothing is called `only`."""
    runs = tuple(run for run in plan.runs if only is None or matches(run, only))
    if not runs:
        raise InputError(f"--only {only}: no run of {plan.name} is called so; a run is DATASET/LABEL, * is anything")
    check_folder(plan, out)
    states = {run.folder: state_of(run, out) for run in plan.runs}
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


def sweep(it: Sweep, executor: Executor, jobs: int, console: Console) -> list[Ended]:
    """Trains what is left, `jobs` runs at a time; -> those that failed or diverged, now or before.

    A run that fails is tried once more at the end. Raises KeyboardInterrupt after a signal, once every run that was
    going on has its checkpoint; a second one ends them at once.
    """
    states, failed = dict(it.states), dict[str, Ended]()
    runs = {run.folder: run for run in it.runs}
    for folder in runs:
        if states[folder].name == "diverged":
            failed[folder] = Ended(folder, "diverged", states[folder].message)
    queue = [folder for folder in runs if states[folder].name in ("to do", "unfinished")]
    again: list[str] | None = []  # None: these are the second tries
    running = list[str]()
    refusal = f"another sweep is running in {it.out}; wait for it, or choose another --out"
    with (
        files.lock(it.out / ".sweep.lock", refusal),
        closing(executor),
        stop_on_signal(console) as signals,
        Board(console, it.plan.name, it.out, it.runs, it.speeds) as board,
    ):
        write_plan(it.plan, it.out, states)
        asked = 0
        while queue or running or again:
            if not queue and not running and again:
                queue, again = again, None
            while queue and len(running) < jobs and not signals:
                folder = queue.pop(0)
                running.append(folder)
                executor.start(folder, task_of(runs[folder], it.out), log_of(it.out, folder))
            for ended in map(partial(checked, runs, it.out, states), executor.ended()):
                running.remove(ended.folder)
                retry = ended.outcome in ("failed", "stopped") and again is not None and not signals
                failed.pop(ended.folder, None)
                if retry and again is not None:
                    again.append(ended.folder)
                elif ended.outcome in ("failed", "diverged"):
                    failed[ended.folder] = ended
                board.report(ended, states, retry)
                write_plan(it.plan, it.out, states)
            if len(signals) > asked:
                executor.stop(at_once=False)
                asked = len(signals)
            if signals and not running:
                raise KeyboardInterrupt("the sweep is stopped; the same command goes on from there")
            board.update(states, running, failed, [*queue, *(again or [])])
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
    if ended.outcome == "finished" and state.name != "finished":
        return ended._replace(outcome="failed", message=f"it ended without an error, but is {state.name}")
    return ended


def task_of(run: PlannedRun, out: Path) -> Task:
    """A run that has more seeds already than the plan wants keeps them."""
    folder, options, path = out / run.folder, run.options, Path(run.dataset).expanduser()
    if (folder / STATUS).exists() and options.seeds is not None:
        options = replace(options, seeds=max(options.seeds, read_status(folder).seeds))
    dataset = str(path.absolute()) if path.is_file() else run.dataset  # for who works in another folder
    return task(dataset, run.algorithm, options, run.fields, folder)


def log_of(out: Path, folder: str) -> Path:
    return out / f"{folder}.log"


def left(it: Sweep) -> Sequence[tuple[PlannedRun, State, float | None]]:
    """Each run with its state, and the seconds that it is expected to take."""
    return [(run, it.states[run.folder], cost.seconds_left(run, it.states[run.folder], it.speeds)) for run in it.runs]
