"""The command line: parsing only. Every command is one function call that Python users can make too."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from itrpo import registry
from itrpo.errors import InputError, ItrpoError

if TYPE_CHECKING:
    from rich.console import Console


def whole(words: list[str]) -> int:
    """["1e6"], ["1_000_000"] -> 1000000."""
    try:
        return int(words[0])
    except ValueError:
        pass
    try:
        if float(words[0]).is_integer():
            return int(float(words[0]))
    except ValueError:
        pass
    raise ValueError(f"{words[0]!r} is not a whole number")


def absent(hint: str, metavar: str = "INT") -> object:
    """For a flag that is None unless given: its help says what happens then."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"[{hint}]")


def shown(default: int | None) -> list[str]:
    return ["none" if default is None else f"{default:,}"]


WHOLE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT",
    instance_from_str=whole,
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=shown,
)
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]


@dataclass(frozen=True)
class Train:
    """Train policies on a dataset, and evaluate them as they learn.

    The same command on the same folder continues a run; more --steps extend it. Fields of the algorithm are flags too
    (--alpha 0.9 --tau 0.5), fields of pi_beta's model with behavior- in front (--behavior-hidden 256,256):
    `itrpo algorithms NAME` lists them.
    """

    dataset: Name
    """name (`itrpo datasets list`), path to a file (.hdf5, .npz, .parquet, .csv), or minari:ID"""
    algorithm: str = "itrpo"
    """`itrpo algorithms` lists them"""
    scale: Literal["smoke", "laptop", "paper"] = "paper"
    """steps, seeds: smoke 300, 2; laptop 12,000, 4; paper 1,000,000, 4. The flags below win over it"""
    steps: Annotated[int | None, WHOLE, absent("paper: 1,000,000")] = None
    """gradient steps"""
    seeds: Annotated[int | None, WHOLE, absent("paper: 4")] = None
    """policies trained together as one program"""
    eval_every: Annotated[int | None, WHOLE, absent("5,000; in mazes 50,000")] = None
    """gradient steps between evaluations"""
    eval_episodes: Annotated[int | None, WHOLE, absent("10; in mazes 100")] = None
    """episodes per seed and evaluation"""
    out: Annotated[Path | None, absent("runs/NAME-HASH", "PATH")] = None
    """run folder"""
    preset: Annotated[str | None, absent("the algorithm's default", "STR")] = None
    """constants: source, matched, and more with some (`itrpo algorithms NAME`)"""
    env: Annotated[str | None, absent("what the dataset says", "STR")] = None
    """gymnasium id to evaluate in, or none"""
    seed: Annotated[int, WHOLE] = 0
    """everything random comes from it"""
    behavior: Annotated[str | None, absent("the preset's", "STR")] = None
    """model of pi_beta: gaussian, mixture, factored_mixture or cvae, where the algorithm allows it"""
    behavior_steps: Annotated[int | None, WHOLE, absent("the source's, scaled by --steps, at least 100")] = None
    """gradient steps of its fit"""
    task: Annotated[str | None, absent("what the dataset's name says", "STR")] = None
    """whose constants a preset takes where they differ by task, e.g. hopper-medium"""
    columns: Annotated[tuple[str, ...], absent("their usual names", "FIELD=COLUMN ...")] = ()
    """which columns of a CSV, Parquet or NPZ file are what: see `itrpo datasets convert --help`"""
    normalize_observations: Annotated[Literal["true", "false"] | None, absent("the preset's", "{true,false}")] = None
    """train on (s - mean) / (std + 1e-3); saved with the policy"""
    reward_scale: Annotated[float | None, absent("the preset's", "FLOAT")] = None
    """train on reward_scale * r + reward_shift"""
    reward_shift: Annotated[float | None, absent("the preset's", "FLOAT")] = None
    """see --reward-scale"""
    action_low: Annotated[tuple[float, ...] | None, absent("-1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes -1: one number, or one per dimension"""
    action_high: Annotated[tuple[float, ...] | None, absent("+1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes +1"""
    track: Annotated[
        tuple[Literal["tensorboard", "wandb"], ...], absent("nowhere else", "{tensorboard,wandb} ...")
    ] = ()
    """send metrics there as well (extras itrpo[tensorboard], itrpo[wandb])"""


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on a dataset with the same seeds, steps and evaluations, and print one table.

    The same command on the same folder continues it. --ALGORITHM.FIELD VALUE sets a field of one algorithm
    (--itrpo.alpha 6), --ALGORITHM.preset NAME its preset; `itrpo algorithms NAME` lists them.
    """

    dataset: Name
    """name (`itrpo datasets list`), or path to a file"""
    algorithms: str = "all"
    """names with commas between them, or all (`itrpo algorithms`)"""
    preset: str = "matched"
    """constants of every one: matched (one network, batch and length for all) or source (each one's own)"""
    scale: Literal["smoke", "laptop", "paper"] = "paper"
    """steps, seeds: smoke 300, 2; laptop 12,000, 4; paper 1,000,000, 4. The flags below win over it"""
    steps: Annotated[int | None, WHOLE, absent("paper: 1,000,000")] = None
    """gradient steps"""
    seeds: Annotated[int | None, WHOLE, absent("paper: 4")] = None
    """policies of an algorithm, trained together as one program"""
    eval_every: Annotated[int | None, WHOLE, absent("5,000; in mazes 50,000")] = None
    """gradient steps between evaluations"""
    eval_episodes: Annotated[int | None, WHOLE, absent("10; in mazes 100")] = None
    """episodes per seed and evaluation"""
    out: Annotated[Path | None, absent("runs/compare-NAME", "PATH")] = None
    """folder of run folders"""
    env: Annotated[str | None, absent("what the dataset says", "STR")] = None
    """gymnasium id to evaluate in, or none"""
    seed: Annotated[int, WHOLE] = 0
    """everything random comes from it"""
    task: Annotated[str | None, absent("what the dataset's name says", "STR")] = None
    """whose constants presets take where they differ by task, e.g. hopper-medium"""
    action_low: Annotated[tuple[float, ...] | None, absent("-1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes -1: one number, or one per dimension"""
    action_high: Annotated[tuple[float, ...] | None, absent("+1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes +1"""


@dataclass(frozen=True)
class Evaluate:
    """Play more episodes with the policies of a run, and print their returns with 95% intervals over seeds."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """run folder"""
    episodes: Annotated[int, WHOLE] = 100
    """per seed"""
    seed: Annotated[int, WHOLE] = 0
    """of the start states"""
    env: Annotated[str | None, absent("the run's own", "STR")] = None
    """gymnasium id"""


@dataclass(frozen=True)
class RunsList:
    """List the runs in a folder: how far they are, and what they score."""

    root: Path = Path("runs")
    """folder of run folders"""


@dataclass(frozen=True)
class DatasetsList:
    """List the datasets that go by name."""


@dataclass(frozen=True)
class DatasetsInfo:
    """Describe a dataset: transitions, returns, episode ends, dimensions, where it came from."""

    name: Name
    """name (`itrpo datasets list`), or path to a file"""
    columns: Annotated[tuple[str, ...], absent("their usual names", "FIELD=COLUMN ...")] = ()
    """which columns of a CSV, Parquet or NPZ file are what: see `itrpo datasets convert --help`"""
    env: Annotated[str | None, absent("what the dataset says", "STR")] = None
    """gymnasium id that scores are normalised for"""
    action_low: Annotated[tuple[float, ...] | None, absent("-1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes -1"""
    action_high: Annotated[tuple[float, ...] | None, absent("+1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes +1"""


@dataclass(frozen=True)
class DatasetsCheck:
    """Say what is wrong or unusual in a dataset, before training: each finding with its rows and what to do.

    The exit status is 1 if there are errors, 0 if there are only warnings and notes.
    """

    name: Name
    """name (`itrpo datasets list`), path to a file, or minari:ID"""
    columns: Annotated[tuple[str, ...], absent("their usual names", "FIELD=COLUMN ...")] = ()
    """which columns of a CSV, Parquet or NPZ file are what: see `itrpo datasets convert --help`"""
    picture: Annotated[Path | None, absent("none", "PATH")] = None
    """PNG file for histograms of returns, lengths and actions"""
    env: Annotated[str | None, absent("what the dataset says", "STR")] = None
    """gymnasium id, whose clock is known"""
    horizon: Annotated[int | None, WHOLE, absent("the environment's")] = None
    """steps after which the clock ends an episode"""
    action_low: Annotated[tuple[float, ...] | None, absent("-1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes -1"""
    action_high: Annotated[tuple[float, ...] | None, absent("+1", "FLOAT [FLOAT ...]")] = None
    """raw action that becomes +1"""


@dataclass(frozen=True)
class DatasetsConvert:
    """Write a dataset in another format: .hdf5, .h5, .npz, .parquet, .csv, minari:ID, or a Minari folder NAME-v0.

    Columns of a CSV, Parquet or NPZ file may have any names:
    --columns observations=temp,pressure actions=valve rewards=r terminals=tripped episode=run_id.
    A name may be a pattern (obs_*). The words may stand in a TOML file instead: --columns map.toml.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """name (`itrpo datasets list`), path to a file, or minari:ID"""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """file or Minari dataset to write; it must not exist"""
    columns: Annotated[tuple[str, ...], absent("their usual names", "FIELD=COLUMN ...")] = ()
    """FIELD=COLUMN[,COLUMN...] for observations, actions, rewards, terminals (or none), and what tells episodes apart:
    episode, timeouts (or none) or next_observations"""
    env: Annotated[str | None, absent("what the source says", "STR")] = None
    """gymnasium id to write down"""


@dataclass(frozen=True)
class DatasetsMake:
    """Make a dataset by D4RL's protocol, offline, from policies inside the package.

    `hopper-medium` is short for hopper-medium-itrpo1; hopper-medium-v2 is D4RL's file and is downloaded instead. After
    an interruption the same command goes on; the file is the same for any number of workers.
    """

    name: Name
    """ENV-SET-itrpo1: `itrpo datasets list`"""
    out: Annotated[Path | None, absent("the cache, where its name finds it", "PATH")] = None
    """HDF5 file"""
    steps: Annotated[int | None, WHOLE, absent("the set's own number")] = None
    """rows; needs --out"""
    seed: Annotated[int, WHOLE] = 0
    """of everything random; another than 0 needs --out"""
    workers: Annotated[int, WHOLE] = 0
    """processes [one per core]"""


@dataclass(frozen=True)
class Sac:
    """Train a policy in an environment with soft actor-critic; keep a ladder of policies, and the replay buffer.

    The same command on the same folder continues it; more --steps extend it. Fields of SAC are flags too
    (--policy-hidden 128,128 --gamma 0.98): docs/datasets.md.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """gymnasium id, MODULE:ID whose module registers it, or goal-ant"""
    out: Path
    """folder of the run"""
    steps: Annotated[int, WHOLE] = 1_000_000
    """environment steps, over all environments"""
    until: Annotated[float | None, absent("none", "FLOAT")] = None
    """stop at the first evaluation whose mean return of sampled actions is this much"""
    seed: Annotated[int, WHOLE] = 0
    """everything random comes from it"""
    envs: Annotated[int | None, WHOLE, absent("10")] = None
    """environments stepped together"""
    updates_per_step: Annotated[float | None, absent("1", "FLOAT")] = None
    """gradient steps per environment step"""
    every: Annotated[int | None, WHOLE, absent("20,000")] = None
    """environment steps between evaluations, each with a policy and a checkpoint"""
    episodes: Annotated[int | None, WHOLE, absent("20")] = None
    """per evaluation: this many with sampled actions, and as many with the policy's mode"""


@dataclass(frozen=True)
class SacReplay:
    """Write all steps of a run of `itrpo sac` as a dataset, also while it goes on."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """folder of the run"""
    steps: Annotated[int | None, WHOLE, absent("all so far")] = None
    """environment steps from the first on, over all environments"""
    out: Annotated[Path | None, absent("RUN/replay.hdf5", "PATH")] = None
    """HDF5 file"""


@dataclass(frozen=True)
class Algorithms:
    """List the algorithms, or the presets and fields of one."""

    name: Annotated[str | None, tyro.conf.Positional] = None


@dataclass(frozen=True)
class Theory:
    """Check the paper's statements on exact finite MDPs."""

    statement: Annotated[str, tyro.conf.Positional] = "all"
    """all, or one statement by name"""
    instances: Annotated[int, WHOLE] = 1000
    """random MDPs per statement"""
    seed: Annotated[int, WHOLE] = 0
    """of the instances"""
    out: Annotated[Path | None, absent("none", "PATH")] = None
    """folder for figures"""


COMMANDS = {
    "train": Train,
    "compare": Compare,
    "evaluate": Evaluate,
    "runs list": RunsList,
    "datasets list": DatasetsList,
    "datasets info": DatasetsInfo,
    "datasets check": DatasetsCheck,
    "datasets convert": DatasetsConvert,
    "datasets make": DatasetsMake,
    "sac": Sac,
    "sac replay": SacReplay,
    "algorithms": Algorithms,
    "theory": Theory,
}
USAGE = """usage: itrpo COMMAND ...

  train DATASET        train policies on a dataset        itrpo train hopper-demo --scale laptop
  compare DATASET      several algorithms on one dataset, and one table
  evaluate RUN         more episodes with trained policies
  runs list            runs and their scores
  datasets list        datasets that go by name
  datasets info NAME   what is in one, or in a file
  datasets check NAME  what is wrong in one            itrpo datasets check log.csv --columns ...
  datasets convert A B the same data in another format itrpo datasets convert log.csv log.hdf5 --columns ...
  datasets make NAME   make one by D4RL's protocol     itrpo datasets make hopper-medium
  sac ENV              train an acting policy          itrpo sac Hopper-v4 --out runs/hopper
  sac replay RUN       its replay buffer as a dataset
  algorithms [NAME]    algorithms, their presets and fields
  theory [STATEMENT]   the paper's statements on exact MDPs

`itrpo COMMAND --help` explains each; `itrpo --version` prints the version."""


def main(arguments: list[str] | None = None) -> int:
    """The `itrpo` command. -> exit status: 0 success, 1 failure, 2 bad input, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if given else 2
    if given[0] not in COMMANDS and given[1:2] in (["-h"], ["--help"]):
        of_group = [line for line in USAGE.splitlines() if line.startswith(f"  {given[0]} ")]
        if of_group:
            print("\n".join(of_group))
            return 0
    if given[0] == "--version":
        from itrpo import __version__

        print(f"itrpo {__version__}")
        return 0
    try:
        name, arguments = find_command(given)
        command, rest = tyro.cli(COMMANDS[name], prog=f"itrpo {name}", args=arguments, return_unknown_args=True)
        return run_command(command, rest)
    except ItrpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130


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


def run_command(command: object, rest: list[str]) -> int:
    from itrpo.console import make_console

    console = make_console()
    if rest and not isinstance(command, Compare | Train | Sac):
        raise InputError(f"unknown argument {rest[0]!r}{registry.nearest(rest[0], flags_of(command))}")
    match command:
        case Train():
            train(command, fields_from(rest), console)
        case Compare():
            compare(command, fields_from(rest), console)
        case Evaluate():
            evaluate(command, console)
        case RunsList():
            from itrpo.report.tables import print_runs

            print_runs(command.root, console)
        case DatasetsList():
            from itrpo.report.datasets import print_dataset_list

            print_dataset_list(console)
        case DatasetsInfo():
            datasets_info(command, console)
        case DatasetsCheck():
            return datasets_check(command, console)
        case DatasetsConvert():
            datasets_convert(command, console)
        case DatasetsMake():
            from itrpo.collection.recipes import make_dataset

            made = make_dataset(
                command.name,
                command.out,
                steps=command.steps,
                seed=command.seed,
                workers=command.workers,
                console=console,
            )
            console.print(str(made), soft_wrap=True)
        case Sac():
            sac(command, fields_from(rest), console)
        case SacReplay():
            from itrpo.collection.sac_rows import write_replay

            path = command.out or command.run / "replay.hdf5"
            console.print(f"{write_replay(command.run, path, command.steps):,} steps -> {path}")
        case Algorithms():
            algorithms(command.name, console)
        case Theory():
            from itrpo.theory.run import run_theory

            return run_theory(command.statement, command.instances, command.seed, command.out, console)
        case _:
            raise TypeError(f"a command without a case: {command!r}")
    return 0


def train(command: Train, fields: dict[str, str], console: Console) -> None:
    entry = registry.lookup(command.algorithm, registry.ALGORITHMS, "algorithm")
    from itrpo.config import leaves
    from itrpo.data.column_map import parse_columns
    from itrpo.report.tables import print_run_summary
    from itrpo.training import configure

    own = [f"--{name.replace('_', '-')}" for name, _, _ in leaves(entry.config())]
    for flag in (f"--{name.replace('_', '-')}" for name in fields):
        likely = registry.nearest(flag, [*flags_of(command), *own])
        is_field = flag in own or flag.startswith("--behavior-")
        if not is_field and any(repr(it) in likely for it in flags_of(command)):
            raise InputError(f"unknown flag {flag}{likely}")
    normalize = command.normalize_observations
    finished = configure.train(
        command.dataset,
        command.algorithm,
        steps=command.steps,
        seeds=command.seeds,
        scale=command.scale,
        out=command.out,
        preset=command.preset,
        fields=fields,
        behavior=command.behavior,
        seed=command.seed,
        behavior_steps=command.behavior_steps,
        eval_every=command.eval_every,
        eval_episodes=command.eval_episodes,
        env=command.env,
        task=command.task,
        columns=parse_columns(command.columns) if command.columns else None,
        normalize_observations=None if normalize is None else normalize == "true",
        reward_scale=command.reward_scale,
        reward_shift=command.reward_shift,
        action_low=one_or_many(command.action_low),
        action_high=one_or_many(command.action_high),
        track=command.track,
        console=console,
    )
    print_run_summary(finished.folder, console)


def compare(command: Compare, fields: dict[str, str], console: Console) -> None:
    names = list(registry.ALGORITHMS) if command.algorithms == "all" else command.algorithms.split(",")
    of_algorithm: dict[str, dict[str, str]] = {}
    presets = {}
    for flag, value in fields.items():
        name, dot, field = flag.partition(".")
        if not dot:
            raise InputError(f"unknown flag --{flag}; a field of one algorithm is given as --ALGORITHM.FIELD VALUE")
        if field == "preset":
            presets[name] = value
        else:
            of_algorithm.setdefault(name, {})[field] = value
    for name in names:  # before any data is read
        if name not in registry.ALGORITHMS:
            registry.lookup(name, registry.ALGORITHMS, "algorithm")
    from itrpo.report.comparison import print_comparison
    from itrpo.training.compare import compare as run_comparison

    out = command.out or Path("runs") / f"compare-{Path(command.dataset).stem}"
    run_comparison(
        command.dataset,
        names,
        preset=command.preset,
        presets=presets,
        fields=of_algorithm,
        out=out,
        steps=command.steps,
        seeds=command.seeds,
        scale=command.scale,
        seed=command.seed,
        eval_every=command.eval_every,
        eval_episodes=command.eval_episodes,
        env=command.env,
        task=command.task,
        action_low=one_or_many(command.action_low),
        action_high=one_or_many(command.action_high),
        console=console,
    )
    print_comparison(out, names, console)


def evaluate(command: Evaluate, console: Console) -> None:
    from itrpo.report.tables import print_evaluation
    from itrpo.training import run

    result = run.evaluate(command.run, episodes=command.episodes, seed=command.seed, env=command.env)
    print_evaluation(result, console)


def datasets_check(command: DatasetsCheck, console: Console) -> int:
    from itrpo.data.column_map import parse_columns
    from itrpo.data.health import check_dataset
    from itrpo.report.health import print_health

    health = check_dataset(
        command.name,
        columns=parse_columns(command.columns) if command.columns else None,
        env=command.env,
        horizon=command.horizon,
        action_low=one_or_many(command.action_low),
        action_high=one_or_many(command.action_high),
        console=console,
    )
    print_health(health, console)
    if command.picture is not None:
        from itrpo.plotting import health_picture

        health_picture(health, command.picture)
        console.print(f"Picture: {command.picture}", soft_wrap=True)
    return 1 if health.number("error") else 0


def datasets_convert(command: DatasetsConvert, console: Console) -> None:
    from itrpo.data.column_map import parse_columns
    from itrpo.data.convert import convert

    columns = parse_columns(command.columns) if command.columns else None
    done = convert(command.source, command.target, columns=columns, env=command.env, console=console)
    console.print(f"{done.path}: {done.rows:,} rows, {done.episodes:,} episodes", soft_wrap=True)
    for note in done.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def datasets_info(command: DatasetsInfo, console: Console) -> None:
    from itrpo.data.column_map import parse_columns
    from itrpo.data.load import load_dataset
    from itrpo.report.datasets import print_dataset_info

    dataset = load_dataset(
        command.name,
        columns=parse_columns(command.columns) if command.columns else None,
        env=command.env,
        action_low=one_or_many(command.action_low),
        action_high=one_or_many(command.action_high),
        console=console,
    )
    print_dataset_info(dataset, console)


def sac(command: Sac, fields: dict[str, str], console: Console) -> None:
    from itrpo.collection import sac_run

    given = {name: getattr(command, name) for name in ("until", "envs", "updates_per_step", "every", "episodes")}
    given = {name: value for name, value in given.items() if value is not None}
    done = sac_run.train(
        command.env, command.out, steps=command.steps, seed=command.seed, fields=fields | given, console=console
    )
    last = done.curve[-1]
    console.print(
        f"{done.config.env_id} after {last['step']:,} steps, {last['episodes']} episodes: "
        f"return {last['sampled_mean']:,.0f} ± {last['sampled_std']:,.0f} sampled, "
        f"{last['mode_mean']:,.0f} ± {last['mode_std']:,.0f} mode"
    )
    console.print(f"{done.folder}: policies/, curve.png, replay.hdf5")


def algorithms(name: str | None, console: Console) -> None:
    from itrpo.report.algorithms import print_algorithm, print_algorithms

    if name is None:
        print_algorithms(console)
    else:
        print_algorithm(name, console)


def fields_from(rest: list[str]) -> dict[str, str]:
    """['--alpha', '0.9', '--tau=0.5'] -> {'alpha': '0.9', 'tau': '0.5'}. Raises InputError for anything else."""
    fields: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            raise InputError(f"unexpected argument {word!r}; fields of the algorithm are given as --FIELD VALUE")
        if not equals:
            value = next(words, "")
            if not value or value.startswith("--"):
                raise InputError(f"{flag} needs a value: fields of the algorithm are given as --FIELD VALUE")
        fields[flag[2:].replace("-", "_")] = value
    return fields


def flags_of(command: object) -> list[str]:
    """['--steps', '--eval-every', ...]: the flags that a command has itself."""
    assert dataclasses.is_dataclass(command)
    return [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command)]


def one_or_many(values: tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    return values[0] if values is not None and len(values) == 1 else values


if __name__ == "__main__":
    sys.exit(main())
