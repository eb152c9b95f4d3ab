"""Commands that judge and choose without a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from itrpo.cli.flags import Word
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.ranges import Count, Discount, NonNegative, Positive, Seed, Several

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Judge:
    """Judge the policies of runs without a simulator, on logged episodes that the runs have not seen.

    What each estimate means, and when not to believe it, is in docs/judging.md. The runs must have been trained with
    --holdout, or --data has episodes that are new to them. The result is kept in each run's folder: judgement.json, and
    judgement.html, a page with warnings, verdict, estimates, and what the policies would do where (itrpo[report]).
    """

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders; those on the same data are judged together
    data: str | None = None  # a dataset of new episodes, or the runs' own at another place [their held-out episodes]
    folds: Several = 11  # fits of each policy: one on all episodes, the others on bootstraps of them, for intervals
    steps: Count | None = None  # gradient steps of each fit [100 / (1 - gamma), from 2,000 to 50,000]
    gamma: Discount | None = None  # discount per step: 1 / (1 - gamma) steps are what a value sees [the run's]
    seed: Seed = 0  # of the fits and of the bootstraps
    algorithm: str | None = None  # MODULE:ENTRY of runs of your own module: imports it, for densities [no densities]
    again: bool = False  # judge what has been judged with the same settings once more
    json: bool = False  # print JSON, with every fold's values, in place of tables


def judge(command: Judge, console: Console) -> None:
    from itrpo.console import silent_console
    from itrpo.ope.estimate import JudgeOptions
    from itrpo.ope.fqe import FQE
    from itrpo.ope.judgement import FILE, to_json
    from itrpo.ope.page import FILE as PAGE
    from itrpo.ope.runs import judge
    from itrpo.ope.table import print_judgement
    from itrpo.report.runs import print_json

    options = JudgeOptions(command.folds, command.seed, fqe=FQE(steps=command.steps))
    quiet = silent_console() if command.json else console
    found = judge(
        command.runs,
        command.data,
        options,
        gamma=command.gamma,
        again=command.again,
        algorithm=command.algorithm,
        console=quiet,
    )
    if command.json:
        print_json([to_json(it) for it in found], console)
        return
    for folder, it in zip(command.runs, found, strict=True):
        print_judgement(it, console)
        told = f"; as a page: {folder / PAGE}" if (folder / PAGE).exists() else ""
        say(console, f"saved to {folder / FILE}{told}")


@dataclass(frozen=True)
class Select:
    """Rank the policies of runs by their estimates from logged data, and say which can't be told apart.

    Runs that are not judged yet are judged first, as `itrpo judge` does. With --trials a few real trials go where they
    tell most: enter what came with --tried, and it says which policy to try next, and when to stop. What such a choice
    is worth was measured: docs/judging.md.
    """

    runs: Annotated[tuple[Path, ...], Word("RUN")]  # run folders, or folders with runs below
    data: str | None = None  # as of `itrpo judge`, for runs that are not judged yet [their held-out episodes]
    by: Literal["policy", "run"] = "policy"  # a run is the mean of its seeds' policies
    estimator: Literal["fqe", "wdr", "dr", "wpdis", "pdis"] = "fqe"  # docs/judging.md has what they are
    out: Path = Path("selection.json")  # the ranking, for other programs
    trials: Path | None = None  # file of real trials, made if it is not there [no trials]
    tried: tuple[str, ...] = ()  # what came of new trials: RUN/seed0=123.4 ...
    keep: Count | None = None  # only so many policies are tried, the first of the ranking [all; the file keeps it]
    budget: Count | None = None  # trials after which to stop in any case [none; the file keeps it]
    worth: NonNegative | None = None  # difference in returns not worth more trials [5% of the best mean; kept]
    scale: Positive | None = None  # what returns differ by at most [spread of those that came; kept]
    exploration: NonNegative | None = None  # weighs the bonus of what has been tried little [2; kept]
    json: bool = False  # print JSON in place of tables


def select(command: Select, console: Console) -> None:
    from itrpo.console import silent_console
    from itrpo.ope.select import print_selection, print_tried, select, to_json, try_out, write
    from itrpo.report.runs import print_json

    rule = {name: getattr(command, name) for name in ("keep", "budget", "worth", "scale", "exploration")}
    if command.trials is None and (command.tried or any(it is not None for it in rule.values())):
        raise InputError("--tried, --keep, --budget, --worth, --scale, --exploration are of trials: add --trials FILE")
    quiet = silent_console() if command.json else console
    found = select(command.runs, command.data, command.by, command.estimator, console=quiet)
    tried = None if command.trials is None else try_out(found, command.trials, command.tried, **rule)
    write(command.out, found, tried)
    if command.json:
        print_json(to_json(found, tried), console)
        return
    print_selection(found, console)
    if tried is not None and command.trials is not None:
        print_tried(tried, command.trials, console)
    say(console, f"saved to {command.out}")
