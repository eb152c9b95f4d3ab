"""Commands that train, and that look at what was trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from itrpo import registry
from itrpo.cli.datasets import source_of
from itrpo.cli.flags import Flag, Word, field_flags, flags_of, look
from itrpo.errors import InputError
from itrpo.options import RunOptions
from itrpo.ranges import Count, Seed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Train:
    """Train policies on a dataset, and evaluate them as they learn.

    The same command on the same folder continues a run; more --steps extend it. The fields of the algorithm are flags
    too, and below: name another --algorithm, --preset or --behavior to see what they have.
    """

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # name, path, 'logs/*.parquet' or minari:ID; several are one
    algorithm: str = "itrpo"  # `itrpo algorithms` lists them; or MODULE:ENTRY, one of your own
    options: RunOptions = RunOptions()
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


def train_fields(words: Sequence[str]) -> list[Flag]:
    """The fields of the algorithm that the words name."""
    given = look(flags_of(Train), words)
    return algorithm_flags(given.get("algorithm", Train.algorithm), given)


def allow_own(algorithm: str) -> None:
    """MODULE:ENTRY may lie in the current folder, which Python leaves out for an installed command."""
    if ":" in algorithm and "" not in sys.path:
        sys.path.append("")


def algorithm_flags(name: str, given: Mapping[str, Any], prefix: str = "") -> list[Flag]:
    """The fields of an algorithm and of its model of pi_beta, with the preset, scale and model that are given."""
    allow_own(name)
    from itrpo.training.configure import BEHAVIOR, choose

    setup = choose(name, given.get("preset"), given.get("behavior"), given.get("scale", RunOptions.scale))
    flags = field_flags(setup.algorithm_config, prefix, f"{setup.preset}: ")
    if setup.behavior_config is not None:
        flags += field_flags(setup.behavior_config, prefix + BEHAVIOR, f"{setup.preset}: ")
    return flags


def train(command: Train, console: Console) -> None:
    from itrpo.report.tables import print_run_summary
    from itrpo.training.train import train

    finished = train(
        source_of(command.dataset), command.algorithm, command.options, fields=command.fields, console=console
    )
    print_run_summary(finished.folder, console)


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on a dataset with the same seeds, steps and evaluations, and print one table.

    The same command on the same folder continues it. --ALGORITHM.FIELD VALUE sets a field of one algorithm
    (--itrpo.alpha 6, --mymodule:ENTRY.alpha 6), --ALGORITHM.preset NAME its preset; `itrpo algorithms NAME` lists them.
    """

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # name, path, 'logs/*.parquet' or minari:ID; several are one
    algorithms: str = "all"  # names with commas between them, or all (`itrpo algorithms`)
    options: RunOptions = RunOptions()
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


def compared(algorithms: str) -> list[str]:
    return registry.algorithm_names() if algorithms == "all" else algorithms.split(",")


def compare_fields(words: Sequence[str]) -> list[Flag]:
    """The presets and fields of those algorithms that the words set some of: only these are imported."""
    given = look(flags_of(Compare), words)
    names = {name.replace("_", "-"): name for name in compared(given.get("algorithms", Compare.algorithms))}
    flags: list[Flag] = []
    for word in dict.fromkeys(word.partition("=")[0].rpartition(".")[0] for word in words if word.startswith("--")):
        if word:
            name = names.get(word[2:].replace("_", "-"))
            if name is None:
                close = registry.nearest(word[2:], names.values())
                raise InputError(f"fields were given for {word[2:]!r}{close}, which is not compared")
            own = Flag(f"{name}.preset", str | None, "set of constants of this algorithm alone [that of --preset]")
            preset = look([own], words).get(own.name, given.get("preset"))
            flags += [own, *algorithm_flags(name, {**given, "preset": preset}, f"{name}.")]
    return flags


def compare(command: Compare, console: Console) -> None:
    names, presets, fields = compared(command.algorithms), dict[str, str](), dict[str, dict[str, Any]]()
    for flag, value in command.fields.items():
        name, _, field_name = flag.rpartition(".")
        if field_name == "preset":
            presets[name] = value
        else:
            fields.setdefault(name, {})[field_name] = value
    allow_own(command.algorithms)
    from itrpo.report.comparison import print_comparison
    from itrpo.training.compare import compare

    path = compare(source_of(command.dataset), names, command.options, presets=presets, fields=fields, console=console)
    print_comparison(path.parent, names, console)


@dataclass(frozen=True)
class Evaluate:
    """Play more episodes with the policies of a run, and print their returns with 95% intervals over seeds."""

    run: Annotated[Path, Word("RUN")]  # run folder
    episodes: Count = 100  # per seed
    seed: Seed = 0  # of the start states
    env: str | None = None  # gymnasium id [the run's own]


def evaluate(command: Evaluate, console: Console) -> None:
    from itrpo.report.tables import print_evaluation
    from itrpo.training.evaluate import evaluate

    result = evaluate(command.run, episodes=command.episodes, seed=command.seed, env=command.env)
    print_evaluation(result, console)


@dataclass(frozen=True)
class RunsList:
    """List the runs in a folder: how far they are, and what they score."""

    root: Path = Path("runs")  # folder of run folders


def runs_list(command: RunsList, console: Console) -> None:
    from itrpo.report.tables import print_runs

    print_runs(command.root, console)


@dataclass(frozen=True)
class RunsPaths:
    """Draw how the policies of runs on one dataset moved while they learned, beside each other (the paper's Figure 1).

    For runs of itrpo, brac_v, brac_p and itrpo_insample. Axes: the two principal directions of all their policies.
    """

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders
    out: Path = Path("paths.png")  # picture
    seed: Seed = 0  # index of the seed


def runs_paths(command: RunsPaths, console: Console) -> None:
    from itrpo.plotting import policy_paths

    policy_paths(command.runs, command.out, command.seed)
    console.print(f"wrote {command.out}")


@dataclass(frozen=True)
class RunsPack:
    """Keep what runs measured in one small Parquet file, without their folders: values as float32, no paths of this
    machine, no policies and no checkpoints. Of runs with one hash the one that is further is kept.
    """

    paths: Annotated[tuple[Path, ...], Word("DIR")]  # folders of runs at any depth, and files of this command
    out: Path  # the file to write; its name ends in .parquet


def runs_pack(command: RunsPack, console: Console) -> None:
    from itrpo.results.frames import pack, read_results

    results = read_results(command.paths, console)
    pack(results, command.out)
    runs, rows, size = len(results.runs), len(results.rows), command.out.stat().st_size
    console.print(f"{command.out}: {runs:,} runs, {rows:,} rows, {size:,} bytes", markup=False, highlight=False)


@dataclass(frozen=True)
class Algorithms:
    """List the algorithms, or the presets and fields of one."""

    name: Annotated[str | None, Word("NAME")] = None  # or MODULE:ENTRY, one of your own [all]


def algorithms(command: Algorithms, console: Console) -> None:
    from itrpo.report.algorithms import print_algorithm, print_algorithms

    if command.name is None:
        print_algorithms(console)
    else:
        allow_own(command.name)
        print_algorithm(command.name, console)
