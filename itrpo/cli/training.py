"""Commands that train, and that play what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from itrpo import registry
from itrpo.cli.datasets import source_of
from itrpo.cli.flags import Flag, Word, allow_own, field_flags, flags_of, look
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.options import USUAL_SCALE, RunOptions
from itrpo.ranges import Count, Seed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Train:
    """Train policies on a dataset, and evaluate them as they learn.

    The same command on the same folder continues a run. More --steps extend it, with what it took from the length that
    it began with (learning rates that fall, the fit of pi_beta), and it says which: it is not a run that had so many
    from the beginning. The fields of the algorithm are flags too, and below: name another --algorithm, --preset or
    --behavior to see what they have.
    """

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # name, path, 'logs/*.csv', minari:ID, ogbench:NAME
    algorithm: str = "itrpo"  # `itrpo algorithms` lists them; or MODULE:ENTRY, one of your own
    continue_from: Path | None = None  # finished run whose networks and constants to begin with, on new data [none]
    dry_run: bool = False  # say what it would be and how long it would take, and train nothing
    yes: bool = False  # don't ask before what takes more than a week
    options: RunOptions = RunOptions()
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


def train_fields(words: Sequence[str]) -> list[Flag]:
    """The fields of the algorithm that the words name."""
    given = look(flags_of(Train), words)
    return algorithm_flags(given.get("algorithm", Train.algorithm), given)


def algorithm_flags(name: str, given: Mapping[str, Any], prefix: str = "") -> list[Flag]:
    """The fields of an algorithm and of its model of pi_beta, with the preset, scale and model that are given."""
    allow_own(name)
    from itrpo.training.configure import BEHAVIOR, choose

    setup = choose(name, given.get("preset"), given.get("behavior"), given.get("scale", USUAL_SCALE))
    flags = field_flags(setup.algorithm_config, prefix, f"{setup.preset}: ")
    if setup.behavior_config is not None:
        flags += field_flags(setup.behavior_config, prefix + BEHAVIOR, f"{setup.preset}: ")
    return flags


def train(command: Train, console: Console) -> None:
    from itrpo.report.tables import print_run_summary
    from itrpo.training import outlook
    from itrpo.training.run import run
    from itrpo.training.train import prepare

    allow_own(command.options.env)
    parent = command.continue_from
    config, dataset, folder = prepare(
        source_of(command.dataset), command.algorithm, command.options, command.fields, console, parent, command.dry_run
    )
    wanted = [(config, folder)]
    if command.dry_run:
        dataset = outlook.announce([config], dataset, console)
        outlook.print_header(config, dataset, [folder], console)
        outlook.print_outlook(outlook.look_ahead(wanted, dataset, console), folder, console)
        return
    if config.train.steps >= outlook.MAY_TAKE_LONG and not command.yes:
        expected = outlook.look_ahead(wanted, dataset, console, outlook.LONG)
        outlook.confirm(sum(each.seconds or 0.0 for each in expected), console)
    finished = run(config, dataset, folder, console, command.options.track, parent)
    print_run_summary(finished.folder, console)
    if parent is not None:
        from itrpo.training.continuing import changes

        moved = ", ".join(f"{share:.1%}" for share in changes(parent, finished.folder, dataset))
        say(
            console,
            f"old and new  their actions differ by {moved} of the range on this data, by seed; {parent} is as it was, "
            f"and which is better is for you to see: itrpo runs diff {parent} {folder}",
        )


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on a dataset with the same seeds, steps and evaluations, and print one table.

    The same command on the same folder continues it. --ALGORITHM.FIELD VALUE sets a field of one algorithm
    (--itrpo.alpha 6, --mymodule:ENTRY.alpha 6), --ALGORITHM.preset NAME its preset; `itrpo algorithms NAME` lists them.
    """

    dataset: Annotated[tuple[str, ...], Word("DATASET")]  # name, path, 'logs/*.csv', minari:ID, ogbench:NAME
    algorithms: str = "all"  # names with commas between them, or all that take such actions (`itrpo algorithms`)
    dry_run: bool = False  # say how long each run would take, and train nothing
    yes: bool = False  # don't ask before what takes more than a week
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
    allow_own(command.algorithms, command.options.env)
    from itrpo.report.comparison import print_comparison
    from itrpo.training.compare import prepare, train_each
    from itrpo.training.outlook import LONG, confirm, look_ahead, print_outlook

    chosen = None if command.algorithms == "all" else names
    work = prepare(source_of(command.dataset), chosen, command.options, presets, fields, console, command.dry_run)
    enough = float("inf") if command.dry_run or command.yes else LONG
    seconds = print_outlook(look_ahead(work.runs, work.dataset, console, enough), work.folder, console)
    if command.dry_run:
        return
    if not command.yes:
        confirm(seconds, console)
    print_comparison(train_each(work, console).parent, [config.algorithm for config, _ in work.runs], console)


@dataclass(frozen=True)
class Evaluate:
    """Play more episodes with the policies of a run, and print their returns with 95% intervals over seeds."""

    run: Annotated[Path, Word("RUN")]  # run folder
    episodes: Count = 100  # per seed
    seed: Seed = 0  # of the start states
    env: str | None = None  # gymnasium id; of an environment of your own MODULE:ID, each time [the run's own]
    json: bool = False  # print JSON, with every episode's return, in place of a table


def evaluate(command: Evaluate, console: Console) -> None:
    from itrpo.console import silent_console
    from itrpo.report.runs import print_json
    from itrpo.report.tables import evaluation_json, print_evaluation
    from itrpo.results.run_folder import RunFolder
    from itrpo.training.evaluate import evaluate

    allow_own(command.env)
    told = silent_console() if command.json else console
    result = evaluate(command.run, episodes=command.episodes, seed=command.seed, env=command.env, console=told)
    about = evaluation_json(result, command.seed)
    if command.json:
        print_json(about, console)
    else:
        print_evaluation(result, console)
    path = RunFolder(command.run).save_evaluation(about)
    if not command.json:
        say(console, f"saved to {path}")


@dataclass(frozen=True)
class Video:
    """Film episodes with each seed's policy, off screen: MP4, or GIF without the extra itrpo[video].

    They are the first ones that `itrpo evaluate` plays. MuJoCo draws through EGL or OSMesa, whichever works;
    MUJOCO_GL=egl or osmesa chooses.
    """

    run: Annotated[Path, Word("RUN")]  # run folder
    seed: Seed | None = None  # index of the seed whose policy plays [all, each with a file]
    episodes: Count = 1  # of each seed, one after the other
    out: Path | None = None  # .mp4 or .gif [RUN/videos/seedK.mp4]
    env: str | None = None  # gymnasium id; of an environment of your own MODULE:ID, each time [the run's own]


def video(command: Video, console: Console) -> None:
    from itrpo.training.evaluate import video

    allow_own(command.env)
    options = {name: getattr(command, name) for name in ("seed", "episodes", "out", "env")}
    video(command.run, **options, console=console)


@dataclass(frozen=True)
class Finetune:
    """Let the policies of a finished run go on learning in their environment: offline to online, by CORL's protocol.

    For runs of iql, cql, spot and itrpo. The same command on the same folder continues it. See docs/finetuning.md.
    """

    run: Annotated[Path, Word("RUN")]  # run folder
    out: Path | None = None  # folder to write into [RUN-finetuned]
    env: str | None = None  # gymnasium id, or MODULE:ID of your own [the run's own]
    data: str | None = None  # the run's dataset, if it lies elsewhere now [where it was]
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


def finetune_fields(words: Sequence[str]) -> list[Flag]:
    from itrpo.online.finetune import Config

    return [flag for flag in field_flags(Config("", {}), "", "") if flag.name not in ("env_id", "parent")]


def finetune(command: Finetune, console: Console) -> None:
    from itrpo.online.finetune import finetune
    from itrpo.online.table import print_finetuned

    allow_own(command.env)
    out = command.out or command.run.with_name(f"{command.run.resolve().name}-finetuned")
    done = finetune(command.run, out, env=command.env, data=command.data, fields=command.fields, console=console)
    print_finetuned(done, console)


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
