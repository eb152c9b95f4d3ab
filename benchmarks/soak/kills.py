"""`kill -9` at random moments: what comes out in the end is what an uninterrupted run gives, to the bit.

Half of the kills come at a moment of the clock, half just before a file operation of the run, the n-th: there is no
moment between two of those that a later start could tell from another. A seed draws the moments; those of the second
kind are the same on any machine.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from benchmarks.soak import processes
from benchmarks.soak.log import Log
from benchmarks.soak.processes import Command

SIZES = (
    "--batch-size",
    "32",
    "--seeds",
    "2",
    "--steps",
    "900",
    "--eval-every",
    "300",
    "--eval-episodes",
    "2",
    "--action-low",
    "-2",
)
SIZES += ("--action-high", "2")
ACTOR_CRITIC = ("--policy-hidden", "16,16", "--critic-hidden", "16,16")
DENSITY = ("--behavior-hidden", "16,16", "--behavior-steps", "300")
SAC = ("--steps", "1500", "--every", "300", "--envs", "2", "--episodes", "1", "--uniform-steps", "100")
SAC += ("--policy-hidden", "8,8", "--critic-hidden", "8,8", "--batch-size", "8", "--steps-per-block", "10")
PLAN = """
name: small
datasets: [{data}]
arms:
  itrpo: {{title: iTRPO}}
  brac: {{algorithm: brac_v, fields: {{lambda: itrpo}}}}
options: {{steps: 400, seeds: 2, eval_every: 100, env: none, behavior_steps: 50, preset: quick}}
datasets_options:
  "*": {{fields: {{itrpo: {small}, brac_v: {small}}}}}
"""
SMALL_FIELDS = "{policy_hidden: [8], critic_hidden: [8], behavior_hidden: [8], batch_size: 16}"


class Job(NamedTuple):
    """A command whose results go to `result`, below a folder of its own; `at_once` of them share one cache."""

    words: Callable[[Path, Path], tuple[str, ...]]  # (data, place of the results) -> words
    result: str = "run"
    at_once: int = 1
    own_programs: bool = False  # compiled programs are in the cache that the processes share, empty at first


def train(algorithm: str, *more: str) -> Callable[[Path, Path], tuple[str, ...]]:
    words = ("--algorithm", algorithm, *SIZES, *more)
    return lambda data, out: ("train", str(data / "pendulum.npz"), *words, "--out", str(out))


JOBS = {
    "KL (itrpo)": Job(train("itrpo", "--preset", "quick", *ACTOR_CRITIC, *DENSITY)),
    "TD3 (td3_bc)": Job(train("td3_bc", *ACTOR_CRITIC)),
    "SAC with an ensemble (sac_n)": Job(train("sac_n", *ACTOR_CRITIC)),
    "VAE (bcq)": Job(train("bcq", *ACTOR_CRITIC, "--cvae-hidden", "16,16")),
    "IQL (iql)": Job(train("iql", *ACTOR_CRITIC)),
    "two processes, one cache, one compilation cache": Job(
        train("itrpo", "--preset", "quick", *ACTOR_CRITIC, *DENSITY), at_once=2, own_programs=True
    ),
    "collection by SAC": Job(lambda data, out: ("sac", "Pendulum-v1", *SAC, "--out", str(out))),
    "making of a dataset": Job(
        lambda data, out: (
            *("datasets", "make", "hopper-medium-replay", "--steps", "12000", "--workers", "2", "--out"),
            str(out),
        ),
        result="made.hdf5",
    ),
    "sweep": Job(lambda data, out: ("sweep", str(data / "plan.yaml"), "--out", str(out))),
    "sweep with Ray": Job(lambda data, out: ("sweep", str(data / "plan.yaml"), "--out", str(out), "--executor", "ray")),
}


def write_data(folder: Path) -> None:
    """Five episodes of Pendulum by random torques, and a plan of a sweep over them."""
    folder.mkdir(parents=True, exist_ok=True)
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"observations": [], "actions": [], "rewards": [], "terminals": [], "timeouts": []}
    for episode in range(5):
        observation, ended = env.reset(seed=episode)[0], False
        while not ended:
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            following, reward, terminal, timeout, _ = env.step(action)
            for key, value in zip(rows, (observation, action, reward, terminal, timeout), strict=True):
                rows[key].append(value)
            observation, ended = following, terminal or timeout
    arrays = {key: np.asarray(value) for key, value in rows.items()}
    np.savez(folder / "pendulum.npz", allow_pickle=False, env_id="Pendulum-v1", **arrays)
    np.savez(folder / "scaled.npz", allow_pickle=False, **arrays | {"actions": arrays["actions"] / 2})
    (folder / "plan.yaml").write_text(PLAN.format(data=folder / "scaled.npz", small=SMALL_FIELDS))


def run(log: Log, place: Path, kills: int, only: str = "") -> None:
    """About `kills` kills, shared out among all jobs (at least one run of each is killed)."""
    names = [name for name in JOBS if only in name and (name != "sweep with Ray" or has_ray())]
    write_data(place / "data")
    for name in names:
        hammer(log, place, name, -(-kills // len(names)))


def has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def hammer(log: Log, place: Path, name: str, kills: int) -> None:
    """Runs `name` undisturbed, and then again and again under kills until there were so many."""
    job, own = JOBS[name], place / "".join(it if it.isalnum() else "-" for it in name)
    shutil.rmtree(own, ignore_errors=True)
    compiled = own / "compiled"
    with log.case("kills", f"{name}: undisturbed", log.seed) as done:
        for attempt in ("compiles", "whole"):  # the second one's time is that of those that are killed
            began = time.monotonic()
            base = own / attempt
            it = Command(job.words(place / "data", base / job.result), base, own / "log", base / "cache", compiled)
            status = processes.finish(processes.start(it._replace(counts=own / "events")))
            seconds = time.monotonic() - began
        whole = processes.left_by(own / "whole" / job.result)
        ok = status == 0 and bool(whole) and whole == processes.left_by(own / "compiles" / job.result)
        done(ok, "" if ok else f"exit status {status}: {processes.tail(own / 'log')}", results=len(whole))
        if not ok:
            return
        events = int((own / "events").read_text())
    done_kills, number = 0, 0
    while done_kills < kills:
        seed = f"{log.seed}.{number}"
        with log.case("kills", name, seed) as done:
            done_kills += one_run(job, place, own, compiled, whole, seconds, events, seed, done)
        number += 1
        if not log.rows[-1]["ok"] and number > 2 * kills:
            return


def one_run(
    job: Job,
    place: Path,
    own: Path,
    compiled: Path,
    whole: dict[str, str],
    seconds: float,
    events: int,
    seed: str,
    done: Callable[..., None],
) -> int:
    """One run from its beginning to its end, under up to 4 kills. -> how many there were."""
    draw, base, killed = random.Random(f"{seed} {job.result}"), own / seed, 0
    shutil.rmtree(base, ignore_errors=True)
    outs = [base / str(index) / job.result for index in range(job.at_once)]
    running: list[Any] = [None] * job.at_once
    left, statuses = 4 * job.at_once, [-9] * job.at_once
    log = base / "log"
    while any(status == -9 for status in statuses):
        for index, out in enumerate(outs):
            if statuses[index] != -9:
                continue
            dies_at = draw.randrange(max(1, events)) if left and draw.random() < 0.5 else -1
            it = Command(
                job.words(place / "data", out),
                out.parent,
                log,
                base / "cache",
                base / "compiled" if job.own_programs else compiled,
                dies_at,
            )
            running[index] = (processes.start(it), dies_at)
        waits = {
            index: draw.uniform(0, seconds * (2 if job.own_programs else 1))
            for index, it in enumerate(running)
            if it is not None and it[1] < 0 and left
        }
        everyone = draw.random() < 0.5
        began = time.monotonic()
        for index in sorted(waits, key=waits.__getitem__):
            process = running[index][0]
            process.join(max(0.0, waits[index] - (time.monotonic() - began)))
            if process.exitcode is None:
                processes.kill(process, everyone)
        for index, it in enumerate(running):
            if it is None:
                continue
            status = processes.finish(it[0])
            statuses[index], running[index] = -1 if status is None else status, None
            killed += status == -9
            left -= status == -9
    if any(statuses):
        done(False, f"exit status {statuses}: {processes.tail(log)}", kills=killed)
        return killed
    wrong = [f"{out.parent.name}: {it}" for out in outs for it in processes.differences(whole, processes.left_by(out))]
    done(not wrong, f"not the same bits: {wrong[:5]}" if wrong else "", kills=killed)
    if not wrong:
        shutil.rmtree(base, ignore_errors=True)
    return killed
