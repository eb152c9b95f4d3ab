"""What a person sees while something runs: a live line on a terminal, plain lines in a log file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Literal

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 30.0  # between two lines where there is no terminal, at the longest
TIMED_SECONDS = 3.0  # after which a speed is worth a line
WIDE = 110  # columns, from which there is room for a bar


def make_console() -> Console:
    """The console of the command line, on standard output. Where that is no terminal, lines are 120 columns wide."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def say(console: Console, text: str, style: str = "") -> None:
    """A line as it is: brackets in a path are no markup, and a path stays whole however narrow the console is."""
    console.print(Text(text, style), soft_wrap=True)


def silent_console() -> Console:
    """For who asked for none: it prints nothing, and is no terminal."""
    return Console(quiet=True, force_terminal=False)


def on_terminal(live: Live) -> AbstractContextManager[object]:
    """Shows `live` while a block runs, where its console is a terminal; elsewhere nothing."""
    return live if live.console.is_terminal else nullcontext()


class LiveLine:
    """One line about a phase of training, redrawn in place: step, time left, speed, latest values.

        with LiveLine(console, "training", total=30_000, seeds=4) as line:
            line.update(5_000, {"critic_loss": 1.2, "score": 41.0}, evaluated=True)

    Where the console is no terminal, it prints a plain line as soon as the speed is known, at each evaluation, after
    LINE_SECONDS without one, also while nothing is updated, and at the end. `start` is the step that a resumed phase
    begins at. `members` are what there are so many `seeds` of.
    """

    def __init__(
        self, console: Console, phase: str, total: int, seeds: int, start: int = 0, members: str = "seeds"
    ) -> None:
        self._console, self._phase, self._total = console, phase, total
        self._seeds, self._members = seeds, members
        self._step = self._printed_step = start
        self._values: dict[str, float] = {}
        self._reference = self._updated = (time.monotonic(), start)  # the rate is that of the steps between the two
        self._compiled = self._timed = self._over = False
        self._live = on_terminal(
            Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        )
        self._printed = threading.Condition()  # notified of each plain line, and of the end

    def __enter__(self) -> LiveLine:
        self._live.__enter__()
        if not (self._console.is_terminal or self._console.quiet):
            threading.Thread(target=self._keep_talking, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)
        with self._printed:
            self._over = True
            self._printed.notify()
        if self._step != self._printed_step:
            self._print(self._step)

    def update(self, step: int, values: Mapping[str, float], evaluated: bool = False) -> None:
        """`step` gradient steps are done. `values` replace those of the same names; the others stay shown.

        They may be of an earlier step than the last update's: that of an evaluation which is over only now.
        """
        if step >= self._step:
            self._step, self._updated = step, (time.monotonic(), step)
        if not self._compiled and step < self._total:
            self._reference = self._updated  # the first block compiles: leave its time out
        self._compiled = True
        self._values = {**self._values, **values}  # a new one: threads that draw read it
        known = not self._timed and self._updated[0] - self._reference[0] > TIMED_SECONDS
        self._timed |= known
        if (evaluated or known) and not self._console.is_terminal:
            self._print(step)

    def _keep_talking(self) -> None:
        """In a thread of its own."""
        with self._printed:
            while not self._over:
                if not self._printed.wait(LINE_SECONDS):
                    self._print(self._step)

    def _print(self, step: int) -> None:
        with self._printed:
            self._printed_step = step
            self._console.print(
                Text(f"{self._progress(step)}  {self._details()}"), soft_wrap=not self._console.is_terminal
            )
            self._printed.notify()

    def _progress(self, step: int) -> str:
        return f"{self._phase} {step:,}/{self._total:,}"

    def _details(self, narrow: bool = False) -> str:
        """What matters most comes first: a line that is too long is cut off."""
        details = [f"{name} {_number(value)}" for name, value in self._values.items()]
        seconds, steps = self._updated[0] - self._reference[0], self._updated[1] - self._reference[1]
        if steps > 0 and seconds > 0:
            rate = steps / seconds
            left = max(0.0, (self._total - self._step) / rate - (time.monotonic() - self._updated[0]))
            several = self._seeds > 1 and not narrow
            of_all_seeds = f" ({_number(rate * self._seeds)} over {self._seeds} {self._members})" if several else ""
            time_left = [f"{duration(left)} left"] if self._step < self._total else []
            details = [*time_left, f"{_number(rate)} steps/s{of_all_seeds}", *details]
        elif not self._compiled:
            details = ["compiling", *details]
        return "  ".join(details)

    def _render(self) -> RenderableType:
        narrow = self._console.width < WIDE
        progress = Text(self._progress(self._step), style="bold", no_wrap=True)
        details = Text(self._details(narrow), no_wrap=True, overflow="ellipsis")
        if narrow:
            return Text("  ", no_wrap=True, overflow="ellipsis").join([progress, details])
        line = Table.grid(padding=(0, 2))
        line.add_row(progress, ProgressBar(total=self._total, completed=self._step, width=20), details)
        return line


@contextmanager
def progress_bar(
    console: Console, description: str, total: int | None, unit: Literal["bytes", "steps"] = "steps"
) -> Generator[Callable[[int], None]]:
    """A progress bar while the block runs; yields `advance(amount)`. `total` is None where it is not known.

    Where the console is no terminal, it prints the description once.
    """
    columns: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn())
    if unit == "steps":
        columns = (MofNCompleteColumn(),)
    described = TextColumn("{task.description}")
    progress = Progress(described, BarColumn(), *columns, TimeRemainingColumn(), console=console, transient=True)
    if not console.is_terminal:
        say(console, f"{description} ...")
        yield lambda amount: None
        return
    with progress:
        task = progress.add_task(description, total=total)
        yield lambda amount: progress.advance(task, amount)


def _number(value: float) -> str:
    """Three significant digits, without an exponent for large numbers: 0.0123, 4.57, 12,300."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """4:05, 2:04:05, or 3 days 2 h."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 72:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
