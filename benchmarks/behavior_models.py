"""How well each model of pi_beta describes episodes that its fit has not seen: the table of docs/experiments.md.

    python benchmarks/behavior_models.py hopper-demo hopper-full-replay-itrpo1

Each model is fitted as `itrpo train --preset quick` fits it (2 x 128, batches of 256, normalised observations), to nine
tenths of the episodes. Figures are of the others, or of as many rows of the fit: means over rows of log b(a|s), the
density of actions in [-1, 1]^A, in nats, with actions clipped to +-(1 - 1e-6); the mean over seeds, and every seed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from itrpo import files, registry
from itrpo.algorithms.quick import CONSTANTS
from itrpo.config import replace_leaves
from itrpo.console import make_console
from itrpo.data.load import load_dataset
from itrpo.ops import distributions
from itrpo.types import Dataset, DensityModel, Transition

ROWS, AT_ONCE, EDGE = 20_000, 2_000, 1e-6


@dataclass(frozen=True)
class Command:
    datasets: Annotated[tuple[str, ...], tyro.conf.Positional]
    models: tuple[str, ...] = ("gaussian", "factored_mixture", "mixture", "flow", "flow_matching")
    steps: int = 10_000
    seeds: int = 2
    holdout: float = 0.1
    out: Path | None = None  # also written here, as Markdown


class Figures(NamedTuple):
    seen: float
    unseen: float
    low: float  # 1 % of unseen rows are below
    at_bound: float  # share of unseen rows with an action within 1e-3 of a bound
    microseconds: float  # of a step of the fit


def some(dataset: Dataset, moments: tuple[np.ndarray, np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """ROWS observations, normalised, and u = atanh(a)."""
    size = len(dataset)
    rows = np.random.default_rng(0).choice(size, min(size, ROWS) // AT_ONCE * AT_ONCE or size, replace=False)
    mean, std = moments
    observation = (dataset.transitions.observation[rows] - mean) / (std + 1e-3)
    action = jnp.asarray(dataset.transitions.action[rows])
    return jnp.asarray(observation, jnp.float32), distributions.to_pre_tanh(action, EDGE)


def measure(name: str, training: Dataset, held: Dataset, steps: int, seed: int) -> Figures:
    entry = registry.lookup(name, registry.BEHAVIOR_MODELS, "behaviour model")
    model: DensityModel = entry.make(replace_leaves(entry.config(), CONSTANTS), training.spec, steps)
    moments = training.observation_moments
    mean, std = (jnp.asarray(it, jnp.float32) for it in moments)
    data = Transition(*(jnp.asarray(it) for it in training.transitions))

    @jax.jit
    def fit(state, key, first, last):
        def body(step, state):
            row_key, fit_key = jax.random.split(jax.random.fold_in(key, step))
            batch = jax.tree.map(
                lambda it: it[jax.random.randint(row_key, (model.batch_size,), 0, len(data.reward))], data
            )
            batch = batch._replace(observation=(batch.observation - mean) / (std + 1e-3))
            return model.fit_step(state, batch, fit_key)[0]

        return jax.lax.fori_loop(first, last, body, state)

    @jax.jit
    def log_density(params, observation, u):
        return model.pre_tanh_log_prob(params, observation, u) - distributions.tanh_log_det(u)

    def densities(dataset: Dataset) -> np.ndarray:
        observation, u = some(dataset, moments)
        parts = range(0, len(u), AT_ONCE)
        return np.concatenate(
            [log_density(params, observation[at : at + AT_ONCE], u[at : at + AT_ONCE]) for at in parts]
        )

    init_key, fit_key = jax.random.split(jax.random.key(seed))
    state = fit(model.init(init_key), fit_key, 0, 1)  # compiles
    begun = time.perf_counter()
    params = jax.block_until_ready(model.params(fit(state, fit_key, 1, steps)))
    seconds = time.perf_counter() - begun
    unseen = densities(held)
    at_bound = float(np.mean(np.abs(held.transitions.action).max(axis=1) > 1 - 1e-3))
    return Figures(
        float(densities(training).mean()),
        float(unseen.mean()),
        float(np.quantile(unseen, 0.01)),
        at_bound,
        1e6 * seconds / steps,
    )


def main(command: Command) -> None:
    lines = [
        "| dataset (rows at a bound) | model | episodes of the fit | other episodes | their 1 % | a step of the fit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for source in command.datasets:
        training = load_dataset(source, holdout=command.holdout, console=make_console())
        assert training.held is not None
        for name in command.models:
            each = [measure(name, training, training.held, command.steps, seed) for seed in range(command.seeds)]
            seen, unseen, low, at_bound, step = (np.array(it) for it in zip(*each, strict=True))
            shown = f"{unseen.mean():.2f} ({', '.join(f'{it:.2f}' for it in unseen)})"
            lines.append(
                f"| {training.name} ({at_bound[0]:.1%}) | {name} | {seen.mean():.2f} | {shown} | {low.mean():.1f} |"
                f" {step.mean():.0f} us |"
            )
            print(lines[-1], flush=True)
    if command.out is not None:
        files.write(command.out, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Command, description=__doc__))
