"""The command line: which command the words name. What one does, Python users can do with functions of `itrpo`, too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from itrpo import files, registry
from itrpo.cli import about, collection, completion, datasets, export, judging, report, runs, sweep, theory, training
from itrpo.cli.flags import Flag, read
from itrpo.errors import InputError, ItrpoError

if TYPE_CHECKING:
    from rich.console import Console


class Command(NamedTuple):
    """`run` takes what the words say, a `kind`; `fields` finds the flags that depend on the words themselves."""

    kind: type
    run: Callable[[Any, Console], int | None]
    fields: Callable[[Sequence[str]], list[Flag]] = lambda words: []
    hint: str = ""  # at the end of the message about an unknown flag


COMMANDS = {
    "train": Command(training.Train, training.train, training.train_fields, "; `itrpo algorithms NAME` lists fields"),
    "compare": Command(
        training.Compare,
        training.compare,
        training.compare_fields,
        "; a field of one algorithm is given as --ALGORITHM.FIELD VALUE",
    ),
    "sweep": Command(sweep.Sweep, sweep.sweep),
    "evaluate": Command(
        training.Evaluate,
        training.evaluate,
        hint="; to watch a policy: itrpo video RUN",
    ),
    "judge": Command(judging.Judge, judging.judge),
    "export": Command(export.Export, export.export),
    "video": Command(training.Video, training.video),
    "select": Command(judging.Select, judging.select),
    "finetune": Command(training.Finetune, training.finetune, training.finetune_fields),
    "plot": Command(runs.Plot, runs.plot),
    "runs list": Command(runs.List, runs.list_all),
    "runs show": Command(runs.Show, runs.show),
    "runs diff": Command(runs.Diff, runs.diff),
    "runs paths": Command(runs.Paths, runs.paths),
    "runs pack": Command(runs.Pack, runs.pack),
    "report": Command(report.Report, report.report),
    "datasets list": Command(datasets.List, datasets.list_all),
    "datasets info": Command(datasets.Info, datasets.info),
    "datasets check": Command(datasets.Check, datasets.check),
    "datasets convert": Command(datasets.Convert, datasets.convert),
    "datasets make": Command(datasets.Make, datasets.make),
    **{
        it: Command(collection.Learn, partial(collection.learn, it), partial(collection.run_fields, it))
        for it in collection.KINDS
    },
    **{f"{it} replay": Command(collection.Replay, collection.replay) for it in collection.KINDS},
    "algorithms": Command(training.Algorithms, training.algorithms),
    "theory": Command(theory.Theory, theory.theory),
    "about": Command(about.About, about.about),
    "completion": Command(completion.Completion, completion.completion),
}
USAGE = """usage: itrpo COMMAND ...

  train DATASET        train policies on a dataset        itrpo train hopper-demo --scale laptop
  compare DATASET      several algorithms on one dataset, and one table
  sweep PLAN           all runs of a plan, resumed         itrpo sweep table2 --dry-run
  evaluate RUN         more episodes with trained policies
  judge RUN...         policies judged without a simulator, on held-out episodes
  select RUN...        which is best by its judgement, which can't be told apart, which to try next
  export RUN           its policy as ONNX, StableHLO, C or NPZ, with guards  itrpo export runs/demo --format c
  video RUN            episodes of its policies as MP4 or GIF
  finetune RUN         its policies go on learning in their environment
  plot RUN...          curves of several runs in one picture  itrpo plot runs/brac runs/itrpo
  runs list            runs, their scores, and in what they differ
  runs show RUN        all that is known of one
  runs diff RUN RUN    constants and versions in which they differ
  runs paths RUN ...   how their policies moved, drawn  itrpo runs paths runs/brac runs/itrpo
  runs pack DIR...     what they measured, in one small file
  report               the paper's tables and figures  itrpo report --runs runs/table2 --out report
  datasets list        datasets that go by name
  datasets info NAME   what is in one, or in a file
  datasets check NAME  what is wrong in one            itrpo datasets check log.csv --columns ...
  datasets convert A B the same data in another format itrpo datasets convert log.csv log.hdf5 --columns ...
  datasets make NAME   make one by D4RL's protocol     itrpo datasets make hopper-medium
  sac ENV              train an acting policy          itrpo sac Hopper-v4 --out runs/hopper
  sac replay RUN       its replay buffer as a dataset
  td3 ENV, td3 replay  the same with TD3; and with ppo, geppo and trpo
  algorithms [NAME]    algorithms, their presets and fields
  theory [STATEMENT]   the paper's statements on exact MDPs
  about                versions, devices, cache: for reports of faults
  completion SHELL     what completes these words in bash or zsh

`itrpo COMMAND --help` explains each; `itrpo --version` prints the version."""


def main(arguments: list[str] | None = None) -> int:
    """The `itrpo` command. -> exit status: 0 success, 1 failure, 2 bad input, 130 interrupted."""
    try:
        status = answer(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head`: who read has read enough
        files.print_no_more()
        return 1


def answer(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if given else 2
    if given[0] not in COMMANDS and given[1:2] in (["-h"], ["--help"]):
        group = [line for line in USAGE.splitlines() if line.startswith(f"  {given[0]} ")]
        if group:
            print("\n".join(group))
            return 0
    if given[0] == "--version":
        from itrpo import __version__

        print(f"itrpo {__version__}")
        return 0
    try:
        name, words = find_command(given)
        command = read_command(name, words)
        from itrpo.console import make_console

        return COMMANDS[name].run(command, make_console()) or 0
    except ItrpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130


def read_command(name: str, words: Sequence[str]) -> Any:
    """What the words after a command's name say. Raises InputError."""
    command = COMMANDS[name]
    return read(command.kind, words, f"itrpo {name}", command.fields(words), command.hint)


def find_command(given: list[str]) -> tuple[str, list[str]]:
    """['datasets', 'info', 'x'] -> ('datasets info', ['x']); a group alone lists. Raises InputError if unknown."""
    for words in (2, 1):
        if (name := " ".join(given[:words])) in COMMANDS:
            return name, given[words:]
    group = [name for name in COMMANDS if name.startswith(f"{given[0]} ")]
    if not group:
        first_words = {name.split()[0] for name in COMMANDS}
        raise InputError(f"unknown command {given[0]!r}{registry.nearest(given[0], first_words)}\n\n{USAGE}")
    if len(given) == 1:
        return f"{given[0]} list", []
    known = [name.split()[1] for name in group]
    raise InputError(
        f"unknown command 'itrpo {given[0]} {given[1]}'{registry.nearest(given[1], known)};"
        f" known: {', '.join(f'itrpo {name}' for name in group)}"
    )
