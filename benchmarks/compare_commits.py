"""Training speed of two commits on this machine, in rounds that take them in turn: how a change of speed is shown.

    python benchmarks/compare_commits.py 4308a8f                                    # against the last commit
    python benchmarks/compare_commits.py 4308a8f . --cases itrpo:quick:4 iql:matched:1   # against the files as they are

A case is ALGORITHM:PRESET:SEEDS. Both commits are checked out into a temporary folder and run with the Python and the
installed packages that run this script. A measurement is one `itrpo train` without evaluations, and is read from the
`timing.jsonl` of its folder, which has the seconds of training between two evaluations. They contain no compilation,
which a run does before its first step; and the first of the four quarters of a run is left out, so that what remains is
the steady rate, whatever a cache of compiled programs holds. pi_beta is fitted for 100 steps before, outside that time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_tables import spread, table

from itrpo import files, registry
from itrpo.data.load import dataset_file

REPOSITORY = Path(__file__).resolve().parents[1]
NAMES = ("itrpo:quick", "itrpo:matched", "td3_bc:matched", "iql:matched", "cql:matched")
CASES = tuple(f"{name}:{seeds}" for name in NAMES for seeds in (4, 1))
QUARTERS = 4
TRIAL_STEPS = 40


@dataclass(frozen=True)
class Case:
    algorithm: str
    preset: str
    seeds: int


@dataclass(frozen=True)
class Measured:
    case: str
    round: int
    before: float  # updates per second of all seeds together
    after: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", default="HEAD", help="a commit, or `.`: the files as they are [HEAD]")
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="ALGORITHM:PRESET:SEEDS")
    parser.add_argument("--dataset", default="hopper-demo", help="a name or a file that both commits can read")
    parser.add_argument("--seconds", type=float, default=8.0, help="of training in each measurement, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/compare_commits"))
    return parser.parse_args()


def main(given: argparse.Namespace) -> None:
    data, _ = dataset_file(given.dataset)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        names = {"before": given.before, "after": given.after}
        sides = [stack.enter_context(checked_out(it, Path(scratch, side))) for side, it in names.items()]
        about: dict[str, Any] = {"before": commit(sides[0]), "after": commit(sides[1]), "argv": sys.argv[1:]}
        about |= {"cores": files.available_cores(), "seconds": given.seconds, "load": os.getloadavg()}
        measured: list[Measured] = []
        for word in given.cases:
            for row in rounds(word, sides, data.resolve(), given.seconds, given.rounds, Path(scratch)):
                measured.append(row)
                print(f"{row.case} round {row.round}: {row.before:.1f} -> {row.after:.1f}", file=sys.stderr, flush=True)
                files.make_folder(given.out)
                files.write_json(given.out / "compare.json", about | {"measured": list(map(asdict, measured))})
                files.write(given.out / "compare.md", markdown(about, measured).encode())
    print(markdown(about, measured))


# --- one commit ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checked_out(name: str, folder: Path) -> Generator[Path]:
    """The files of a commit, until the block ends; `.` stands for those of this repository as they are."""
    if name == ".":
        yield REPOSITORY
        return
    git("worktree", "add", "--quiet", "--detach", str(folder), name)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def git(*words: str, folder: Path = REPOSITORY) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def commit(folder: Path) -> str:
    changed = " and changes" if git("status", "--porcelain", "--untracked-files=no", folder=folder) else ""
    return git("log", "-1", "--format=%h %s", folder=folder).strip() + changed


def updates_per_second(folder: Path, cache: Path, case: Case, steps: int, data: Path) -> float:
    """Of all seeds together, in the last three quarters of a run of `steps` with the package in `folder`."""
    settings = {**os.environ, "PYTHONPATH": str(folder), "ITRPO_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "itrpo.cli", "train", str(data), "--env", "none", "--out", f"{out}/run"]
        command += ["--algorithm", case.algorithm, "--preset", case.preset, "--seeds", str(case.seeds)]
        command += ["--steps", str(steps), "--eval-every", str(steps // QUARTERS)]
        if registry.algorithm(case.algorithm).presets[case.preset].behavior is not None:
            command += ["--behavior-steps", "100"]
        done = subprocess.run(command, cwd=out, env=settings, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        rows = list(map(json.loads, Path(out, "run", "timing.jsonl").read_text("utf-8").splitlines()))
    return case.seeds * (rows[-1]["step"] - rows[0]["step"]) / sum(row["train_seconds"] for row in rows[1:])


# --- both ----------------------------------------------------------------------------------------------------------


def rounds(word: str, sides: list[Path], data: Path, seconds: float, number: int, scratch: Path) -> Iterator[Measured]:
    """The two commits in turn; every other round begins with the second."""
    algorithm, preset, seeds = word.split(":")
    case = Case(algorithm, preset, int(seeds))
    caches = [scratch / f"cache-{index}" for index in range(len(sides))]
    steps = TRIAL_STEPS
    for trial_seconds in (2.0, seconds):  # pieces of a run grow: a few steps alone would be slow ones
        rates = [updates_per_second(*side, case, steps, data) for side in zip(sides, caches, strict=True)]
        steps = max(TRIAL_STEPS, QUARTERS * round(trial_seconds * max(rates) / case.seeds / QUARTERS))
    for turn in range(number):
        rates = [0.0, 0.0]
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            rates[index] = updates_per_second(sides[index], caches[index], case, steps, data)
        yield Measured(word, turn, *rates)


def markdown(about: dict[str, Any], measured: list[Measured]) -> str:
    header = ["case", "before, updates/s: median (range)", "after", "after / before: median (range)"]
    body = []
    for case in dict.fromkeys(it.case for it in measured):
        before, after = np.transpose([(it.before, it.after) for it in measured if it.case == case])
        body.append([case.replace(":", " ") + " seeds", *map(spread, (before, after, after / before))])
    words = f"Before: {about['before']}\n\nAfter: {about['after']}\n\n"
    words += f"{about['cores']} cores; programs waiting for a core at the start: {about['load'][0]:.1f}."
    return f"{words} Updates of all seeds together.\n\n{table(header, body)}\n"


if __name__ == "__main__":
    main(arguments())
