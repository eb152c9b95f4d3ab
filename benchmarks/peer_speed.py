"""Updates per second of itrpo and of other libraries on the same data, in rounds that take them in turn.

A loop in benchmarks/peers/ is called as `PYTHON peers/NAME_loop.py DATA.npz --algorithm NAME --preset PRESET --steps N
--seeds S`; its last line is JSON with library, version, updates (of all seeds), seconds and threads. d3rlpy trains one
policy in a process: several seeds are as many processes side by side, with the cores shared out between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from processes import HERE, Clock, lines, script

from itrpo.files import available_cores

OF_D3RLPY = ("td3_bc", "iql", "cql", "rebrac", "plas", "bear", "bcq")
ALL = ("itrpo", *OF_D3RLPY)
Measured = tuple[float, dict[str, Any]] | None  # updates per second, and about the library; None: it can't
TRIAL_STEPS = 100  # to find how many make a measurement


@dataclass(frozen=True)
class Contest:
    """Who is measured on what."""

    algorithm: str
    seeds: int
    data: Path  # .npz
    python: str  # that runs the scripts of peers/
    seconds: float  # of training in a measurement, about


@dataclass(frozen=True)
class Rate:
    """One measurement of one contestant."""

    algorithm: str
    seeds: int
    round: int
    library: str
    version: str
    updates_per_second: float  # of all seeds together
    threads: int | None  # of each process; None: its own choice


def preset_of(algorithm: str) -> str:
    return "quick" if algorithm == "itrpo" else "matched"


def ours(contest: Contest, clock: Clock) -> Measured:
    preset = preset_of(contest.algorithm)
    case = {"algorithm": contest.algorithm, "preset": preset, "seeds": [contest.seeds], "dataset": str(contest.data)}
    case |= {"seconds": contest.seconds, "rounds": 1, "cached": True}
    what = f"peers: itrpo, {contest.algorithm}"
    found = [it for it in lines(script("measure_training.py", json.dumps(case)), clock, what) if "seeds" in it]
    return (found[-1]["updates_per_second"], {"library": f"itrpo ({preset})"}) if found else None


def peer(file: Path, contest: Contest, clock: Clock, steps: int) -> Measured:
    """A script's updates per second, and what it says of itself."""
    command = [contest.python, str(file), str(contest.data), "--algorithm", contest.algorithm]
    command += ["--preset", preset_of(contest.algorithm), "--steps", str(steps), "--seeds", str(contest.seeds)]
    said = list(lines(command, clock, f"peers: {file.stem}, {contest.algorithm}", environment={}))
    return (said[-1]["updates"] / said[-1]["seconds"], said[-1]) if said else None


def d3rlpy(contest: Contest, clock: Clock, steps: int) -> Measured:
    command = [contest.python, str(HERE / "d3rlpy_worker.py"), str(contest.data), "--algorithm", contest.algorithm]
    command += ["--steps", str(steps)]
    threads = max(1, available_cores() // contest.seeds)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def one(seed: int) -> list[dict[str, Any]]:
        return list(lines([*command, "--seed", str(seed)], clock, f"peers: d3rlpy, {contest.algorithm}", environment))

    with ThreadPoolExecutor(contest.seeds) as pool:
        said = [answers[-1] for answers in pool.map(one, range(contest.seeds)) if answers]
    if len(said) < contest.seeds:
        return None
    about = {"library": "d3rlpy", "version": said[0]["d3rlpy"], "threads": threads}
    return sum(it["updates"] / it["seconds"] for it in said), about


def compare(contest: Contest, files: list[Path], rounds: int, clock: Clock) -> Iterator[Rate]:
    """Rounds of ours and every peer that can train this algorithm."""
    measures: dict[str, Callable[[int], Measured]] = {it.stem: partial(peer, it, contest, clock) for it in files}
    if contest.algorithm in OF_D3RLPY:
        measures["d3rlpy"] = partial(d3rlpy, contest, clock)
    trials = {name: measure(TRIAL_STEPS) for name, measure in measures.items()}
    steps = {
        name: max(TRIAL_STEPS, round(contest.seconds * trial[0] / contest.seeds))
        for name, trial in trials.items()
        if trial is not None
    }
    if not steps:
        return
    for turn in range(rounds):
        found = {"itrpo": ours(contest, clock)} | {name: measures[name](number) for name, number in steps.items()}
        for name, measured in found.items():
            if measured is not None:
                rate, about = measured
                own = (about.get("library", name), about.get("version", ""), rate, about.get("threads"))
                yield Rate(contest.algorithm, contest.seeds, turn, *own)


def measure(
    data: Path,
    python: str,
    algorithms: tuple[str, ...],
    seeds: tuple[int, ...],
    seconds: float,
    rounds: int,
    clock: Clock,
) -> Iterator[dict[str, Any]]:
    """Every algorithm and number of seeds."""
    files = sorted((HERE / "peers").glob("*_loop.py"))
    for algorithm in algorithms:
        for number in seeds:
            contest = Contest(algorithm, number, data, python, seconds)
            yield from map(asdict, compare(contest, files, rounds, clock))
