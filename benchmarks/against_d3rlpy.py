"""The same algorithms in itrpo and in d3rlpy: scores and speed, on the same file, in the same run.

    python -m venv PEER && PEER/bin/pip install d3rlpy==2.8.1 'gymnasium[mujoco]'   # never a dependency
    python benchmarks/against_d3rlpy.py scores FILE.hdf5 --python PEER/bin/python --seeds 2 --steps 5000 --out runs/peer
    python benchmarks/against_d3rlpy.py speed FILE.hdf5 --python PEER/bin/python

Both have the constants of `matched` (d3rlpy_worker.py says where d3rlpy's own defaults differ), see every transition of
the file, and are evaluated once, at the end: greedy action, the same number of episodes of the file's environment.
Speed is that of one policy, the two measured in turn for several rounds, of which the table has the median (and the
least and the largest ratio); set PJRT_NPROC and OMP_NUM_THREADS to the same number of threads. itrpo's rate with four
seeds counts the updates of all four.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import training_program
import tyro
from rich.console import Console
from training_program import Training

import itrpo
from itrpo import xla
from itrpo.evaluation.environments import normalized_score, reference_score
from itrpo.report.aggregate import mean_interval
from itrpo.results.store import read_metrics
from itrpo.training import loop
from itrpo.types import SpaceSpec

ALGORITHMS = ("td3_bc", "rebrac", "iql", "plas", "bear", "bcq", "cql")
WORKER = Path(__file__).with_name("d3rlpy_worker.py")
# What d3rlpy cannot do otherwise: BCQ acts with as many samples as its target has; CQL's actor starts on Q at once.
# BEAR's kernel is that of Hopper on any file.
FIELDS: dict[str, dict[str, Any]] = {
    "bcq": {"acting_actions": 10},
    "cql": {"bc_steps": 0},
    "bear": {"kernel": "laplacian"},
}


@dataclass(frozen=True)
class Scores:
    dataset: tyro.conf.Positional[str]
    python: Path
    out: Path
    seeds: int = 2
    steps: int = 5_000
    episodes: int = 10
    algorithms: tuple[str, ...] = ALGORITHMS


@dataclass(frozen=True)
class Speed:
    dataset: tyro.conf.Positional[str]
    python: Path
    seconds: float = 6.0
    rounds: int = 3
    algorithms: tuple[str, ...] = ALGORITHMS


def peer(python: Path, dataset: str, algorithm: str, steps: int, *more: str) -> dict[str, Any]:
    command = [str(python), str(WORKER), dataset, "--algorithm", algorithm, "--steps", str(steps), *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def reward_scale(algorithm: str, dataset: Any) -> float:
    """IQL's 1000 / (largest - smallest return), which d3rlpy leaves to its user."""
    returns = dataset.episode_returns
    return 1000.0 / float(np.max(returns) - np.min(returns)) if algorithm == "iql" else 1.0


def interval(values: list[float]) -> str:
    it = mean_interval(np.asarray(values))
    return f"{it.mean:.1f}" if it.half_width is None else f"{it.mean:.1f} ± {it.half_width:.1f}"


def ratios(of_rounds: np.ndarray) -> str:
    """Median, and the smallest and largest of the rounds."""
    return f"{np.median(of_rounds):.1f} ({of_rounds.min():.1f}-{of_rounds.max():.1f})"


def scores(command: Scores) -> None:
    dataset = itrpo.load_dataset(command.dataset)
    env_id = dataset.env_id
    if env_id is None or reference_score(env_id) is None:
        raise SystemExit(f"{dataset.name}: names no environment whose returns have a score")
    print(f"{dataset.name}, {command.steps:,} steps, {command.seeds} seeds, {command.episodes} episodes each\n")
    print("| algorithm | itrpo | per seed | d3rlpy | per seed |\n| --- | --- | --- | --- | --- |")
    for name in command.algorithms:
        run = itrpo.train(
            dataset,
            name,
            itrpo.RunOptions(
                preset="matched",
                steps=command.steps,
                seeds=command.seeds,
                eval_every=command.steps,
                eval_episodes=command.episodes,
                out=command.out / name,
            ),
            fields=FIELDS.get(name, {}),
            console=Console(stderr=True),
        )
        ours = read_metrics(run.folder).filter(metric="score", step=command.steps).sort("seed")["value"].to_list()
        more = ["--env", env_id, "--episodes", str(command.episodes)]
        more += ["--reward-scale", str(reward_scale(name, dataset))]
        theirs = []
        for seed in range(command.seeds):
            answer = peer(command.python, command.dataset, name, command.steps, *more, "--seed", str(seed))
            theirs.append(np.asarray(normalized_score(env_id, np.mean(answer["returns"]))).item())
        columns = [f"{interval(it)} | {', '.join(f'{score:.1f}' for score in it)}" for it in (ours, theirs)]
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


def begun(name: str, seeds: int, dataset: itrpo.Dataset) -> Training:
    assert isinstance(dataset.spec, SpaceSpec)  # these algorithms act by numbers
    program = training_program.of_algorithm(name, "matched", dataset.spec)
    data = training_program.on_device(program, dataset.transitions)
    training = training_program.begin(program, loop.make_block(program.update, program.batch_size), data, seeds)
    training_program.warm_up(training)
    return training


def speed(command: Speed) -> None:
    xla.prepare()
    dataset = itrpo.load_dataset(command.dataset)
    print("| algorithm | itrpo, steps/s | four seeds | d3rlpy, steps/s | ratio, one seed | ratio, four |")
    print("| --- | --- | --- | --- | --- | --- |")
    answer: dict[str, Any] = {}
    for name in command.algorithms:
        ours = {seeds: begun(name, seeds, dataset) for seeds in (1, 4)}
        trial = answer = peer(command.python, command.dataset, name, 40)
        steps = max(40, round(command.seconds * trial["updates"] / trial["seconds"]))
        rates = []
        for _ in range(command.rounds):
            one, four = (training_program.updates_per_second(it, command.seconds) for it in ours.values())
            answer = peer(command.python, command.dataset, name, steps)
            rates.append((one, four, answer["updates"] / answer["seconds"]))
        one, four, theirs = np.transpose(rates)
        medians = " | ".join(f"{np.median(it):.1f}" for it in (one, four, theirs))
        print(f"| {name} | {medians} | {ratios(one / theirs)} | {ratios(four / theirs)} |", flush=True)
    if answer:
        print(f"\nd3rlpy {answer['d3rlpy']}, torch {answer['torch']}, {answer['threads']} threads")


if __name__ == "__main__":
    command = tyro.cli(
        tyro.extras.subcommand_type_from_defaults(
            {"scores": Scores("", Path(), Path("runs/peer")), "speed": Speed("", Path())}
        )
    )
    scores(command) if isinstance(command, Scores) else speed(command)
