"""Many small runs with planted numbers, as `itrpo.results.frames` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars

from itrpo.results.frames import Results, rows_schema, runs_schema


class Arm(NamedTuple):
    """`measure(task index, step)` -> metric -> its mean over seeds."""

    label: str
    measure: Callable[[int, int], dict[str, float]]
    algorithm: str | None = None
    alpha: float | None = None
    tau: float | None = None
    fields: dict[str, Any] | None = None


def made_results(
    arms: Sequence[Arm],
    tasks: Sequence[str],
    *,
    seeds: int = 4,
    steps: Sequence[int] = (10, 20),
    noise: float = 1.0,
    kind: str = "generated",
    plan: str | None = "table2",
) -> Results:
    """Each seed's value is the planted mean plus normal noise."""
    generator = np.random.default_rng(0)
    runs, rows = [], []
    for index, task in enumerate(tasks):
        for arm in arms:
            run = f"{kind}-{plan}-{task}-{arm.label}"
            own = {"alpha": arm.alpha, "tau": arm.tau}
            fields = own | (arm.fields or {})
            about = dict.fromkeys(runs_schema()) | own
            runs.append(
                about
                | {"run": run, "plan": plan, "label": arm.label, "algorithm": arm.algorithm or arm.label}
                | {"preset": "quick", "dataset": f"{task}-{'v2' if kind == 'd4rl' else 'itrpo1'}", "task": task}
                | {"kind": kind, "seeds": seeds, "step": steps[-1], "steps": steps[-1], "state": "finished"}
                | {"config": json.dumps({"task": task, "algorithm_config": fields}), "provenance": "{}"}
            )
            rows += [
                (run, seed, step, metric, value + noise * generator.normal())
                for step in steps
                for seed in range(seeds)
                for metric, value in arm.measure(index, step).items()
            ]
    return Results(polars.DataFrame(runs, runs_schema()), polars.DataFrame(rows, rows_schema(), orient="row"))


def constant(score: float) -> Callable[[int, int], dict[str, float]]:
    return lambda index, step: {"score": score}


def joined(*every: Results) -> Results:
    return Results(polars.concat([it.runs for it in every]), polars.concat([it.rows for it in every]))
