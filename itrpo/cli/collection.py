"""Commands that train acting policies for datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from itrpo.cli.flags import Flag, Word, allow_own, field_flags
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.ranges import Count

if TYPE_CHECKING:
    from rich.console import Console


KINDS = ("sac", "td3", "ppo", "geppo", "trpo")


@dataclass(frozen=True)
class Learn:
    """Train a policy in an environment with this algorithm; keep a ladder of policies, and all steps as a dataset.

    GePPO is PPO that goes over the batches of its last policies as well. The same command on the same folder continues
    it; more --steps extend it. See docs/acting_policies.md.
    """

    env: Annotated[str, Word("ENV")]  # gymnasium id, MODULE:ID whose module registers it, or goal-ant
    out: Path | None = None  # folder of the run [must be given]
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


def run_fields(kind: str, words: Sequence[str]) -> list[Flag]:
    """The fields of a run, and of what learns in it."""
    from itrpo.collection import online_run

    return [flag for flag in field_flags(online_run.KINDS[kind][0](""), "", "") if flag.name != "env_id"]


def learn(kind: str, command: Learn, console: Console) -> None:
    from itrpo.collection import online_run

    allow_own(command.env)
    if command.out is None:
        raise InputError(f"itrpo {kind} needs --out, the folder of the run")
    done = online_run.train(command.env, command.out, kind, fields=command.fields, console=console)
    last = done.curve[-1]
    say(
        console,
        f"{done.config.env_id} after {last['step']:,} steps, {last['episodes']} episodes: "
        f"return {last['sampled_mean']:,.0f} ± {last['sampled_std']:,.0f} sampled, "
        f"{last['mode_mean']:,.0f} ± {last['mode_std']:,.0f} mode",
    )
    say(console, f"{done.folder}: policies/, curve.png, replay.hdf5")


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
    say(console, f"{write_replay(command.run, path, command.steps, command.env):,} steps -> {path}")
