"""Commands that look at what runs have measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from itrpo.cli.flags import Word
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.ranges import Seed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class List:
    """List the runs in a folder and those below: how far they are, what they score, and in what they differ."""

    root: Path = Path("runs")  # folder of run folders, at any depth
    json: bool = False  # print JSON in place of a table


def list_all(command: List, console: Console) -> None:
    from itrpo.report.runs import print_runs

    print_runs(command.root, console, command.json)


@dataclass(frozen=True)
class Show:
    """Say all that a run's folder knows of it: results by seed, constants, versions, machine, every command line."""

    run: Annotated[Path, Word("RUN")]  # run folder
    json: bool = False  # print JSON, with the whole configuration and provenance, in place of a table


def show(command: Show, console: Console) -> None:
    from itrpo.report.runs import print_run

    print_run(command.run, console, command.json)


@dataclass(frozen=True)
class Diff:
    """Say in which constants, data and versions runs differ, and what each reached."""

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders, or folders with runs below
    json: bool = False  # print JSON in place of a table


def diff(command: Diff, console: Console) -> None:
    from itrpo.report.runs import print_differences

    print_differences(command.runs, console, command.json)


@dataclass(frozen=True)
class Plot:
    """Draw the curves of several runs, of any algorithms, in one picture: a panel for each dataset."""

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders, or folders with runs below
    out: Path = Path("curves.png")  # picture
    metric: str | None = None  # docs/metrics.md has their names [score, return, or else what all have]


def plot(command: Plot, console: Console) -> None:
    from itrpo.plotting import run_curves
    from itrpo.report.tables import count

    drawn = run_curves(command.runs, command.out, command.metric)
    say(console, f"wrote {command.out}: {count(len(drawn), 'run')}")


@dataclass(frozen=True)
class Paths:
    """Draw how the policies of runs on one dataset moved while they learned, beside each other (the paper's Figure 1).

    For runs of itrpo, brac_v, brac_p and itrpo_insample. Axes: the two principal directions of all their policies.
    """

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders
    out: Path = Path("paths.png")  # picture
    seed: Seed = 0  # index of the seed


def paths(command: Paths, console: Console) -> None:
    from itrpo.plotting import policy_paths

    policy_paths(command.runs, command.out, command.seed)
    say(console, f"wrote {command.out}")


@dataclass(frozen=True)
class Pack:
    """Keep what runs measured in one small Parquet file, without their folders: values as float32, no paths of this
    machine, no policies and no checkpoints. What is there twice, a folder and a packed copy of it say, is kept once.
    """

    paths: Annotated[tuple[Path, ...], Word("DIR")]  # folders of runs at any depth, and files of this command
    out: Path  # the file to write; its name ends in .parquet


def pack(command: Pack, console: Console) -> None:
    from itrpo.report.tables import count
    from itrpo.results import frames

    results = frames.read_results(command.paths, console)
    if command.out.exists() and frames.is_pack(command.out):
        lost = frames.number_lost(frames.read_results([command.out]), results)
        if lost:
            raise InputError(
                f"{command.out} holds {count(lost, 'run')} that would be lost: name it among the folders and files"
                " as well, or another --out"
            )
    frames.pack(results, command.out)
    rows, size = len(results.rows), command.out.stat().st_size
    say(console, f"{command.out}: {count(len(results.runs), 'run')}, {rows:,} rows, {size:,} bytes")
