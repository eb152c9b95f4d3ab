"""The command that trains all runs of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.text import Text

from itrpo import files
from itrpo.cli.flags import Word, allow_own
from itrpo.console import say
from itrpo.options import ScaleName
from itrpo.ranges import Count, NonNegative

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Sweep:
    """Train every run of a plan: datasets x algorithms, into OUT/DATASET/LABEL; say first what it will take.

    The same command goes on after Ctrl-C or a kill: what is finished is skipped, what has begun is resumed. A run that
    fails is tried once more at the end; the others go on. docs/sweeps.md has the plans' format.
    """

    plan: Annotated[str | None, Word("PLAN")] = None  # a shipped plan's name, or a YAML file [list the shipped ones]
    out: Path | None = None  # folder to write into [runs/PLAN-SCALE]
    scale: ScaleName = "laptop"  # lengths and preset, as the plan says for each
    executor: Literal["local", "ray"] = "local"  # where runs are trained: here, or on a Ray cluster
    jobs: Count | None = None  # runs at a time; one uses all cores already [1; ray: as the cluster has room]
    together: Count | None = None  # runs that differ in numbers alone, as one program [64 on a GPU, 1 on a CPU]
    yes: bool = False  # don't ask before what takes more than a week
    dry_run: bool = False  # list the runs with their state and expected time, and train nothing
    only: tuple[str, ...] = ()  # runs to train: DATASET/LABEL, DATASET or LABEL, with * for anything [all]
    packed: tuple[Path, ...] = ()  # files of `itrpo runs pack`: what they hold is finished [none]
    env: tuple[str, ...] = ()  # environments of your own that the plan names, MODULE:ID: their modules run [none]
    ray_address: str | None = None  # auto, or HOST:PORT of the cluster's head [a local one]
    cpus_per_run: Count = 1  # of a Ray node
    gpus_per_run: NonNegative = 0  # of a Ray node; a fraction shares one


def sweep(command: Sweep, console: Console) -> int:
    from itrpo.data.fit import users_env
    from itrpo.sweep.plan import read_plan, shipped_plans

    if command.plan is None:
        width = max(map(len, shipped_plans()))
        for name in shipped_plans():
            say(console, f"{name:{width}}  {read_plan(name).title}")
        return 0
    allow_own(*command.env)
    for env in command.env:
        users_env(env)
    plan = read_plan(command.plan, command.scale)
    out = (command.out or Path("runs") / f"{plan.name}-{plan.scale}").absolute()
    from itrpo.sweep.board import print_plan
    from itrpo.sweep.cost import total
    from itrpo.sweep.local import LocalExecutor
    from itrpo.sweep.run import begin, default_together, left, sweep
    from itrpo.training.outlook import confirm

    work = begin(plan, out, command.only, console, command.packed)
    print_plan(left(work), work.sources, console, command.dry_run)
    if command.dry_run:
        return 0
    files.check_may_write(out)
    jobs = command.jobs or 1
    if not command.yes and command.ray_address is None:  # how fast a cluster is nobody knows here
        known, _ = total(seconds for _, state, seconds in left(work) if state.name in ("to do", "unfinished"))
        confirm(known / jobs, console, "--scale laptop, runs by name with --only, a GPU, more --jobs at a time")
    if command.executor == "ray":
        from itrpo.sweep.on_ray import RayExecutor

        executor = RayExecutor(command.ray_address, command.cpus_per_run, command.gpus_per_run)
        jobs = command.jobs or len(work.runs)
        together = 64 if command.gpus_per_run else 1
    else:
        executor, together = LocalExecutor(), default_together()
    failed = sweep(work, executor, jobs, console, command.together or together)
    for ended in failed:
        words = f"{ended.folder} {ended.outcome}: {ended.message} ({out / ended.folder}.log)"
        console.print(Text(words), soft_wrap=not console.is_terminal)
    return 1 if failed else 0
