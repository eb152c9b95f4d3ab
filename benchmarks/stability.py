"""Does Q stay finite and bounded? Every algorithm on several datasets, for some thousand steps.

    python benchmarks/stability.py FILE.hdf5 OTHER.hdf5 --out runs/stability --width 128 --batch-size 128

Trains without evaluating and prints, for each algorithm and dataset, the largest mean of |Q| that training saw (its
targets, and the probed Q at the data's and the policy's actions), as a fraction of what Q can be at most: the largest
reward of training, 1 / (1 - gamma) times. A run with a number that is not finite, or of a size that training gives up
at, is "diverged". A run that is done is not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

import itrpo
from itrpo import registry
from itrpo.config import leaves
from itrpo.errors import DivergenceError
from itrpo.results.store import read_metrics
from itrpo.types import Dataset

Q_METRICS = ("q_target", "probe_q_data", "probe_q_policy")


@dataclass(frozen=True)
class Arguments:
    datasets: tyro.conf.Positional[tuple[str, ...]]
    out: Path
    algorithms: tuple[str, ...] = tuple(registry.ALGORITHMS)
    preset: str = "matched"
    steps: int = 5_000
    width: int | None = None
    """of every hidden layer [the preset's]"""
    batch_size: int | None = None
    """[the preset's]"""
    masks: int = 10
    """of UWAC"""


def fields_of(name: str, arguments: Arguments) -> dict[str, Any]:
    """The sizes that were asked for, as fields of this algorithm."""
    preset = registry.lookup(name, registry.ALGORITHMS, "algorithm").presets[arguments.preset]
    sized = {field: value for field, _, value in leaves(preset.config)}
    if preset.behavior is not None:
        model = registry.lookup(preset.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
        sized |= {f"behavior_{field}": it for field, _, it in leaves(preset.behavior_config or model.config())}
    fields: dict[str, Any] = {"masks": arguments.masks} if name == "uwac" else {}
    for field, value in sized.items():
        if field.endswith("hidden") and arguments.width:
            fields[field] = (arguments.width,) * len(value)
        elif field == "batch_size" and arguments.batch_size:
            fields[field] = arguments.batch_size
    return fields


def largest_q(name: str, dataset: Dataset, arguments: Arguments) -> str:
    folder = arguments.out / dataset.name / name
    try:
        run = itrpo.train(
            dataset,
            name,
            itrpo.RunOptions(
                preset=arguments.preset,
                steps=arguments.steps,
                seeds=1,
                eval_every=max(1, arguments.steps // 10),
                env="none",
                out=folder,
            ),
            fields=fields_of(name, arguments),
            console=Console(stderr=True),
        )
    except DivergenceError as error:
        return f"diverged: {error}"
    metrics = read_metrics(folder)
    values = metrics["value"].to_numpy()
    if not np.isfinite(values).all():
        return "not finite"
    if name == "bc":
        return "no Q"
    rewards = dataset.transitions.reward * run.config.data.reward_scale + run.config.data.reward_shift
    gamma = {field: value for field, _, value in leaves(run.config.algorithm_config)}["gamma"]
    limit = float(np.abs(rewards).max()) / (1.0 - gamma)
    return f"{np.abs(values[metrics['metric'].is_in(Q_METRICS)]).max() / limit:.2f}"


def main(arguments: Arguments) -> None:
    datasets = [itrpo.load_dataset(it) for it in arguments.datasets]
    print(f"preset {arguments.preset}, {arguments.steps:,} steps, one seed", end="")
    print(f", width {arguments.width or 'of the preset'}, batches of {arguments.batch_size or 'the preset'}\n")
    print(f"| algorithm | {' | '.join(it.name for it in datasets)} |\n{'| --- ' * (len(datasets) + 1)}|")
    for name in arguments.algorithms:
        print(f"| {name} | {' | '.join(largest_q(name, it, arguments) for it in datasets)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
