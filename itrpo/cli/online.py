"""Commands that train acting policies for datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from itrpo.cli.flags import Flag, Word, allow_own, field_flags
from itrpo.errors import InputError
from itrpo.ranges import Count

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class InEnvironment:
    env: Annotated[str, Word("ENV")]  # gymnasium id, MODULE:ID whose module registers it, or goal-ant
    out: Path | None = None  # folder of the run [must be given]
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Sac(InEnvironment):
    """Train a policy in an environment with soft actor-critic; keep a ladder of policies, and the replay buffer.

    The same command on the same folder continues it; more --steps extend it. See docs/datasets.md.
    """


@dataclass(frozen=True)
class Td3(InEnvironment):
    """Train a policy in an environment with TD3; keep a ladder of policies, and the replay buffer.

    The same command on the same folder continues it; more --steps extend it. See docs/datasets.md.
    """


@dataclass(frozen=True)
class Ppo(InEnvironment):
    """Train a policy in an environment with PPO; keep a ladder of policies, and all steps as a dataset.

    The same command on the same folder continues it; more --steps extend it. See docs/datasets.md.
    """


@dataclass(frozen=True)
class Geppo(InEnvironment):
    """Train a policy in an environment with GePPO, PPO that goes over the batches of its last policies as well.

    Keeps a ladder of policies, and all steps as a dataset. The same command on the same folder continues it; more
    --steps extend it. See docs/datasets.md.
    """


@dataclass(frozen=True)
class Trpo(InEnvironment):
    """Train a policy in an environment with TRPO; keep a ladder of policies, and all steps as a dataset.

    The same command on the same folder continues it; more --steps extend it. See docs/datasets.md.
    """


def run_fields(kind: str) -> list[Flag]:
    """The fields of a run, and of what learns in it."""
    from itrpo.collection.online_run import KINDS

    return [flag for flag in field_flags(KINDS[kind][0](""), "", "") if flag.name != "env_id"]


def sac_fields(words: Sequence[str]) -> list[Flag]:
    return run_fields("sac")


def td3_fields(words: Sequence[str]) -> list[Flag]:
    return run_fields("td3")


def ppo_fields(words: Sequence[str]) -> list[Flag]:
    return run_fields("ppo")


def geppo_fields(words: Sequence[str]) -> list[Flag]:
    return run_fields("geppo")


def trpo_fields(words: Sequence[str]) -> list[Flag]:
    return run_fields("trpo")


def sac(command: Sac, console: Console) -> None:
    train("sac", command, console)


def td3(command: Td3, console: Console) -> None:
    train("td3", command, console)


def ppo(command: Ppo, console: Console) -> None:
    train("ppo", command, console)


def geppo(command: Geppo, console: Console) -> None:
    train("geppo", command, console)


def trpo(command: Trpo, console: Console) -> None:
    train("trpo", command, console)


def train(kind: str, command: InEnvironment, console: Console) -> None:
    from itrpo.collection import online_run

    allow_own(command.env)
    if command.out is None:
        raise InputError(f"itrpo {kind} needs --out, the folder of the run")
    done = online_run.train(command.env, command.out, kind, fields=command.fields, console=console)
    last = done.curve[-1]
    console.print(
        f"{done.config.env_id} after {last['step']:,} steps, {last['episodes']} episodes: "
        f"return {last['sampled_mean']:,.0f} ± {last['sampled_std']:,.0f} sampled, "
        f"{last['mode_mean']:,.0f} ± {last['mode_std']:,.0f} mode"
    )
    console.print(f"{done.folder}: policies/, curve.png, replay.hdf5")


@dataclass(frozen=True)
class Replay:
    """Write all steps of a run of `itrpo sac`, `td3`, `ppo`, `geppo` or `trpo` as a dataset, also while it goes on."""

    run: Annotated[Path, Word("RUN")]  # folder of the run
    steps: Count | None = None  # environment steps from the first on, over all environments [all so far]
    out: Path | None = None  # HDF5 file [RUN/replay.hdf5]
    env: str | None = None  # the run's environment, given again if it is of your own, MODULE:ID [the run's]


def replay(command: Replay, console: Console) -> None:
    from itrpo.collection.online_rows import write_replay

    path = command.out or command.run / "replay.hdf5"
    allow_own(command.env)
    console.print(f"{write_replay(command.run, path, command.steps, command.env):,} steps -> {path}")
