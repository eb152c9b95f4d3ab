"""What a person sees of a sweep: a table that is redrawn in place, or one line per run where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from itrpo.console import duration, on_terminal
from itrpo.errors import StorageError
from itrpo.options import lengths
from itrpo.report.aggregate import final_score, mean_interval
from itrpo.report.tables import count, format_interval
from itrpo.results.store import read_metrics, read_status, read_timing
from itrpo.sweep import cost
from itrpo.sweep.local import Ended
from itrpo.sweep.plan import PlannedRun
from itrpo.sweep.state import State

if TYPE_CHECKING:
    from rich.console import Console

RUNNING_SHOWN, FAILED_SHOWN = 16, 5


class Board:
    def __init__(self, console: Console, name: str, out: Path, runs: Sequence[PlannedRun], speeds: cost.Speeds) -> None:
        self._console, self._name, self._out, self._runs = console, name, out, runs
        self._speeds = dict(speeds)
        self._jobs = 1
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self.shown = on_terminal(self._live)

    def report(self, ended: Ended, states: dict[str, State], retry: bool) -> None:
        """One line about a run that has ended."""
        run = next(run for run in self._runs if run.folder == ended.folder)
        self._speeds |= cost.speeds_in([run], self._out)
        words = f"{ended.outcome} after {duration(ended.seconds)}"
        if ended.outcome == "finished":
            words += f", {score(self._out / run.folder)}"
        else:
            words += f": {ended.message}" + ("; once more at the end" if retry else "")
        line = f"{done(self._runs, states)}/{len(self._runs)} {ended.folder} {words}; {self.time_left(states)}"
        self._console.print(Text(line), soft_wrap=not self._console.is_terminal)

    def update(
        self,
        states: dict[str, State],
        running: Sequence[Sequence[str]],
        failed: dict[str, Ended],
        waiting: Sequence[str],
    ) -> None:
        """Redraws the table."""
        self._jobs = max(1, len(running))
        if not self._console.is_terminal:
            return
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        going_on = sum(map(len, running))
        counts = f"{done(self._runs, states)}/{len(self._runs)} runs, {going_on} running, {len(waiting)} waiting"
        bad = f", {len(failed)} failed" if failed else ""
        table.add_row(Text(self._name, "bold"), Text(counts + bad), Text(self.time_left(states)))
        by_folder = {run.folder: run for run in self._runs}
        for first, *others in running[:RUNNING_SHOWN]:
            more = f" and {len(others)} more with it" if others else ""
            table.add_row(Text("running"), Text(first + more), Text(progress(self._out / first, by_folder[first])))
        for ended in list(failed.values())[-FAILED_SHOWN:]:
            table.add_row(Text(ended.outcome, "red"), Text(ended.folder), Text(ended.message, no_wrap=True))
        self._live.update(table)

    def time_left(self, states: dict[str, State]) -> str:
        """In all, of the runs that are left."""
        known, unknown = cost.total(cost.seconds_left(run, states[run.folder], self._speeds) for run in self._runs)
        if unknown and not known:
            return "time left not known yet"
        return f"{duration(known / self._jobs)} left" + (
            f" and {count(unknown, 'run')} of unknown speed" if unknown else ""
        )


def done(runs: Sequence[PlannedRun], states: dict[str, State]) -> int:
    return sum(states[run.folder].name == "finished" for run in runs)


def progress(folder: Path, run: PlannedRun) -> str:
    """Step, speed and time left of a run that is going on, as of its last evaluation."""
    length = lengths(run.options, False)
    try:
        status, timing = read_status(folder), read_timing(folder)
    except StorageError:
        return "reading data, or fitting pi_beta"
    words = f"step {status.step:,}/{length.steps:,}"
    if timing:
        rate = timing[-1]["steps_per_second"]
        words += f"  {rate:,.0f} steps/s  {duration(max(0, length.steps - status.step) / rate)} left"
    return words


def score(folder: Path) -> str:
    """What a finished run reached."""
    try:
        status, metrics = read_status(folder), read_metrics(folder)
    except StorageError:
        return ""
    words = f"{status.step:,} steps x {status.seeds} seeds"
    for name in ("score", "return"):
        final = final_score(metrics, name)
        if final is not None:
            return f"{words}, {name} {format_interval(mean_interval(final.per_seed), 1)}"
    return words


def print_plan(
    rows: Sequence[tuple[PlannedRun, State, float | None]], sources: str, console: Console, listed: bool
) -> None:
    """The cost of a plan; with `listed`, every run of it."""
    if listed:
        table = Table("run", "steps", "seeds", "state", "expected time")
        for run, state, seconds in rows:
            length = lengths(run.options, False)
            share = f" ({state.done / state.work:.0%})" if state.name == "unfinished" else ""
            time = "?" if seconds is None else duration(seconds) if seconds else ""
            table.add_row(Text(run.folder), f"{length.steps:,}", str(length.seeds), state.name + share, time)
        console.print(table)
    todo = [row for row in rows if row[1].name in ("to do", "unfinished")]
    known, unknown = cost.total(seconds for _, _, seconds in todo)
    work = sum(state.work - state.done for _, state, _ in todo)
    finished, diverged = (sum(state.name == name for _, state, _ in rows) for name in ("finished", "diverged"))
    states = f"{finished} finished, {diverged} diverged, {len(todo)} to do with {work:,} steps x seeds"
    line = f"{count(len(rows), 'run')}: {states}"
    if todo and len(todo) > unknown:
        line += f", about {duration(known)} one after the other, by the speed of {sources}"
    if unknown:
        line += f"; {count(unknown, 'run')} of unknown speed"
    console.print(Text(line), soft_wrap=not console.is_terminal)
