"""Commands about datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from itrpo.cli.flags import Only, Word, allow_own
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.options import READING, RULES, RunOptions, reading
from itrpo.ranges import Count, Seed

if TYPE_CHECKING:
    from rich.console import Console

AS_READ = Only(READING)
CONVERTING = ("env", "columns", "exclude", "action_low", "action_high", "num_actions", *RULES)


def source_of(words: Sequence[str]) -> str | list[str]:
    """One name or path, or several as one dataset."""
    return words[0] if len(words) == 1 else list(words)


def as_read(options: RunOptions) -> dict[str, Any]:
    allow_own(options.env)
    return reading(options)


@dataclass(frozen=True)
class List:
    """List the datasets that go by name."""


def list_all(command: List, console: Console) -> None:
    from itrpo.report.datasets import print_dataset_list

    print_dataset_list(console)


@dataclass(frozen=True)
class Info:
    """Describe a dataset: transitions, returns, episode ends, dimensions, where it came from."""

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # as for `itrpo train`: names, paths, patterns
    options: Annotated[RunOptions, AS_READ] = RunOptions()


def info(command: Info, console: Console) -> None:
    from itrpo.data.fit import misfit_of
    from itrpo.data.load import load_dataset
    from itrpo.report.datasets import describe, print_facts

    dataset = load_dataset(source_of(command.dataset), console=console, **as_read(command.options))
    misfit, unusable = None, ""
    if dataset.env_id is not None:
        try:
            misfit = misfit_of(dataset, dataset.env_id)
        except InputError as error:
            if command.options.env is not None:
                raise
            unusable = str(error)
    print_facts(dataset.name, describe(dataset, misfit, unusable), console)


@dataclass(frozen=True)
class Check:
    """Say what is wrong or unusual in a dataset, before training: each finding with its rows and what to do.

    The exit status is 1 if there are errors, 0 if there are only warnings and notes.
    """

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # as for `itrpo train`: names, paths, patterns
    options: Annotated[RunOptions, AS_READ] = RunOptions()
    horizon: Count | None = None  # steps after which the clock ends an episode [the environment's]
    picture: Path | None = None  # PNG file for histograms of returns, lengths and actions [none]


def check(command: Check, console: Console) -> int:
    from itrpo.data.health import check_dataset
    from itrpo.report.health import print_health

    source = source_of(command.dataset)
    health = check_dataset(source, horizon=command.horizon, console=console, **as_read(command.options))
    print_health(health, console)
    if command.picture is not None:
        from itrpo.plotting import health_picture

        health_picture(health, command.picture)
        say(console, f"Picture: {command.picture}")
    return 1 if health.number("error") else 0


@dataclass(frozen=True)
class Convert:
    """Write a dataset in another format: .hdf5, .h5, .npz, .parquet, .csv, minari:ID, or a Minari folder NAME-v0.

    Columns may have any names; --columns says which are what, FIELD=COLUMN[,COLUMN...]:
    --columns observations=temp,pressure actions=valve rewards=r terminals=tripped episode=run_id.

    The fields are observations, actions, rewards, terminals (or none), and what tells episodes apart: episode, timeouts
    (or none) or next_observations; exclude leaves columns out. A column may be a pattern (obs_*). The words may stand
    in a TOML file instead, --columns map.toml.
    """

    words: Annotated[tuple[str, ...], Word("SOURCE TARGET")]  # what to read, as in `itrpo train`; a new file or dataset
    options: Annotated[RunOptions, Only(CONVERTING)] = RunOptions()


def convert(command: Convert, console: Console) -> None:
    from itrpo.data.convert import convert

    *source, target = command.words
    if not source:
        raise InputError("itrpo datasets convert needs SOURCE and TARGET; `itrpo datasets convert --help` explains it")
    read = {name: value for name, value in as_read(command.options).items() if name in CONVERTING}
    done = convert(source_of(source), target, console=console, **read)
    say(console, f"{done.path}: {done.rows:,} rows, {done.episodes:,} episodes")
    for note in done.notes:
        say(console, f"note: {note}")


@dataclass(frozen=True)
class Make:
    """Make a dataset by D4RL's protocol, offline, from policies inside the package.

    `hopper-medium` is short for hopper-medium-itrpo1; hopper-medium-v2 is D4RL's file and is downloaded instead. After
    an interruption the same command goes on; the file is the same for any number of workers.
    """

    name: Annotated[str, Word("NAME")]  # ENV-SET-itrpo1: `itrpo datasets list`
    out: Path | None = None  # HDF5 file [the cache, where its name finds it]
    steps: Count | None = None  # rows; needs --out [the set's own number]
    seed: Seed = 0  # of everything random; another than 0 needs --out
    workers: int = 0  # processes [one per core]


def make(command: Make, console: Console) -> None:
    from itrpo.collection.recipes import make_dataset

    made = make_dataset(
        command.name,
        command.out,
        steps=command.steps,
        seed=command.seed,
        workers=command.workers,
        console=console,
    )
    say(console, str(made))
