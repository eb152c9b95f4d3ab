"""How fast itrpo trains here, next to what this machine can do and to other libraries: one command, one table.

    make bench                                                     # all of it, under 15 minutes on two cores
    python benchmarks/bench.py --sections ceiling algorithms --cases itrpo:quick td3_bc:matched
    python benchmarks/bench.py --sections peers --python PEER/bin/python             # with d3rlpy, and PyTorch, of PEER
    python benchmarks/bench.py --sections ceiling algorithms million --seeds 1 4 16 64 256 --dataset random   # a GPU

Sections: `ceiling` (the machine's float32 products, before and after everything else), `algorithms` (FLOPs, updates/s
by number of seeds, share of the ceiling, compile time, memory), `growth` (of iTRPO's time with sizes), `start` (from
the command to its first update), `peers`, and `million` (the time that a million steps take at the rate of 20,000).
Every measurement is a process of its own and trains through the same functions as `itrpo train`. Results are written to
`--out` after each of them, as `bench.json` and `bench.md`; what `--budget` leaves no time for is named at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_tables
import numpy as np
import peer_speed
import training_program
from processes import Clock, lines, script

from itrpo import files, registry

SECTIONS = ("ceiling", "algorithms", "growth", "start", "peers", "million")
BY_DEFAULT = ("ceiling", "start", "algorithms", "growth", "peers")
SLOW = ("sac_n", "edac", "cql", "combo", "pbrl", "uwac")  # last, so that a short budget loses the fewest rows
MILLION = 1_000_000
MEASURED_STEPS = 20_000  # of each seed, for `million`
GROWTH_CASE = ("itrpo", "quick")
GROWTH: dict[str, list[dict[str, Any]]] = {  # what grows -> fields of the algorithm, or rows of the data
    "batch": [{"batch_size": it} for it in (64, 256, 1024)],
    "width": [{"policy_hidden": (it, it), "critic_hidden": (it, it)} for it in (64, 128, 256, 512)],
    "critics": [{"critics": it} for it in (2, 4, 10)],
    "actions per state": [{"action_samples": it} for it in (1, 4, 10)],
    "rows": [{"rows": it} for it in (20_000, 200_000, 2_000_000)],
}
START_CASES = (("itrpo", "quick"), ("td3_bc", "matched"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=BY_DEFAULT)
    parser.add_argument("--cases", nargs="+", default=None, help="ALGORITHM:PRESET; `all`: every preset")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--growth-seeds", type=int, default=4)
    parser.add_argument("--peer-seeds", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--peer-algorithms", nargs="+", default=peer_speed.ALL, choices=peer_speed.ALL)
    parser.add_argument("--dataset", default="hopper-demo", help="as for `itrpo train`, or `random`: rows of noise")
    parser.add_argument("--seconds", type=float, default=1.0, help="of training in each measurement, about")
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each number, but in `peers`")
    parser.add_argument("--rounds", type=int, default=3, help="of `peers`, each taking every library in turn")
    parser.add_argument("--million", nargs="+", default=["itrpo:quick"], help="ALGORITHM:PRESET of that section")
    parser.add_argument("--million-seeds", type=int, default=4)
    parser.add_argument("--python", default=None, help="of an environment with d3rlpy, torch and flax, for `peers`")
    parser.add_argument("--budget", type=float, default=840.0, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    return parser.parse_args()


def main(given: argparse.Namespace) -> None:
    clock, began = Clock(given.budget), time.monotonic()
    results: dict[str, Any] = {"about": about(given, clock), "skipped": clock.skipped}
    keep(results, given.out)  # a folder that can't be written shows before the work
    before_and_after = "ceiling" in given.sections
    if before_and_after:
        collect(results, "ceiling", ceiling("before", clock, on_cpu(results)), given)
    makers = {"start": start, "algorithms": algorithms, "growth": growth, "peers": peers, "million": million}
    for section in (it for it in given.sections if it in makers):
        collect(results, section, makers[section](given, clock), given)
    if before_and_after:
        collect(results, "ceiling", ceiling("after", clock, on_cpu(results)), given)
    results["about"] |= {"seconds": time.monotonic() - began, "load_after": os.getloadavg()}
    keep(results, given.out)
    print(bench_tables.markdown(results), flush=True)


def collect(results: dict[str, Any], section: str, rows: Iterator[dict[str, Any]], given: argparse.Namespace) -> None:
    """Adds rows as they are measured, and writes everything after each."""
    found = results.setdefault(section, [])
    for row in rows:
        found.append(row)
        keep(results, given.out)
        print(section, bench_tables.brief(row), file=sys.stderr, flush=True)


def keep(results: dict[str, Any], folder: Path) -> None:
    files.make_folder(folder)
    files.write_json(folder / "bench.json", results)
    files.write(folder / "bench.md", bench_tables.markdown(results).encode())


def about(given: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Machine, versions, command. JAX starts in another process: this one leaves a GPU to those that measure."""
    code = "import json; from itrpo.results.provenance import provenance; print(json.dumps(provenance()))"
    (found,) = lines([sys.executable, "-c", code], clock, "versions") or ({},)
    found |= {"argv": [Path(sys.argv[0]).name, *sys.argv[1:]], "cores": files.available_cores()}
    return found | {"dataset": given.dataset, "load_before": os.getloadavg()}


def on_cpu(results: dict[str, Any]) -> bool:
    return results["about"].get("backend") == "cpu"


# --- sections: rows as they are measured ---------------------------------------------------------------------------


def ceiling(when: str, clock: Clock, cpu: bool) -> Iterator[dict[str, Any]]:
    for cores in (1, None) if cpu and hasattr(os, "sched_setaffinity") else (None,):
        environment = (
            None if cores is None else {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PJRT_NPROC": "1"}
        )
        for row in lines(script("ceiling.py", "--seconds", "0.2"), clock, f"ceiling {when}", environment, cores):
            yield row | {"when": when}


def case_rows(clock: Clock, what: str, about: dict[str, Any], **case: Any) -> Iterator[dict[str, Any]]:
    """Of one process: each measurement with what is trained in it."""
    program: dict[str, Any] = {}
    for line in lines(script("measure_training.py", json.dumps(case)), clock, what):
        if "seeds" in line:
            yield about | program | line
        else:
            program = line


def algorithms(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    for name, preset in chosen_cases(given.cases):
        own = {"algorithm": name, "preset": preset}
        measured = {"seeds": given.seeds, "seconds": given.seconds, "rounds": given.repeats, "dataset": given.dataset}
        yield from case_rows(clock, f"algorithms: {name} {preset}", own, **own, **measured)


def chosen_cases(words: list[str] | None) -> list[tuple[str, str]]:
    names = sorted(registry.ALGORITHMS, key=lambda name: (name in SLOW and 1 + SLOW.index(name), name))
    if words == ["all"]:
        return [(name, preset) for name in names for preset in registry.algorithm(name).presets]
    if words is None:
        return [("itrpo", "quick"), *((name, "matched") for name in names)]
    return [with_preset(word) for word in words]


def with_preset(word: str) -> tuple[str, str]:
    name, _, preset = word.partition(":")
    return name, preset or registry.algorithm(name).default_preset


def growth(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    name, preset = GROWTH_CASE
    measured = {"algorithm": name, "preset": preset, "seconds": given.seconds, "rounds": given.repeats}
    for axis, points in GROWTH.items():
        for point in points:
            fields = {key: value for key, value in point.items() if key != "rows"}
            own = {"axis": axis, "value": next(iter(point.values()))}
            data = {"dataset": given.dataset, "rows": point.get("rows")}
            what = f"growth: {axis} {own['value']}"
            yield from case_rows(clock, what, own, **measured, **data, fields=fields, seeds=[given.growth_seeds])


def start(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        data = npz(given.dataset, Path(folder))
        for name, preset in START_CASES:
            for again in range(3):
                command = ["train", str(data), "--algorithm", name, "--preset", preset, "--env", "none"]
                command += ["--steps", "1000", "--behavior-steps", "100", "--out", f"{folder}/{name}-{again}"]
                environment = {"ITRPO_CACHE": f"{folder}/cache-{name}"}
                now = repr(time.time())
                for row in lines(script("first_update.py", now, *command), clock, f"start: {name}", environment):
                    yield {"algorithm": name, "preset": preset, "cache": "warm" if again else "empty"} | row


def npz(dataset: str, folder: Path) -> Path:
    """The dataset's transitions as a file that every library here can read."""
    it, _ = training_program.load(dataset)
    terminals = it.continues == 0
    timeouts = np.append((it.next_observation[:-1] != it.observation[1:]).any(axis=1), True) & ~terminals
    columns = {"observations": it.observation, "actions": it.action, "rewards": it.reward}
    path = folder / "transitions.npz"
    np.savez(path, **columns, next_observations=it.next_observation, terminals=terminals, timeouts=timeouts)
    return path


def peers(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    if given.python is None:
        clock.skipped.append("peers: other libraries need an environment of their own (--python PEER/bin/python)")
        return
    with tempfile.TemporaryDirectory() as folder:
        data, seeds = npz(given.dataset, Path(folder)), tuple(given.peer_seeds)
        seconds = 2 * given.seconds
        yield from peer_speed.measure(
            data, given.python, tuple(given.peer_algorithms), seeds, seconds, given.rounds, clock
        )


def million(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """20,000 steps of each seed, and of the fit of pi_beta before them, and how long a million take at that rate."""
    for name, preset in map(with_preset, given.million):
        fits = registry.algorithm(name).presets[preset].behavior is not None
        for fit in (True, False) if fits else (False,):
            own = {"algorithm": name, "preset": preset, "phase": "fit of pi_beta" if fit else "training"}
            case = {"algorithm": name, "preset": preset, "behavior_fit": fit, "dataset": given.dataset, "rounds": 1}
            case |= {"seeds": [given.million_seeds], "steps": MEASURED_STEPS}
            for row in case_rows(clock, f"million: {name} {preset}", own, **case):
                steps_per_second = row["updates_per_second"] / row["seeds"]
                yield row | {"steps": MEASURED_STEPS, "seconds_of_a_million": MILLION / steps_per_second}


if __name__ == "__main__":
    main(arguments())
