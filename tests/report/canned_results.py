"""Results as a reader of run folders gives them, made up: every kind of cell and figure that a report can have."""

from __future__ import annotations

import json
import zlib

import numpy as np
import polars

from itrpo.report.published import TABLES
from itrpo.results.frames import Results

HOSTILE = "</script><script>document.title='owned'</script>"  # as a file may have it
ARMS = {
    "itrpo": ("itrpo", 3.0, 0.8),
    "brac_alpha": ("brac_v", 3.0, None),
    "brac_lambda": ("brac_v", 0.6, None),
    "bc": ("bc", None, None),
    "td3_bc": ("td3_bc", None, None),
    "iql": ("iql", None, None),
    "cql": ("cql", None, None),
    "bear": ("bear", None, None),
    "uwac": ("uwac", None, None),
    "pbrl": ("pbrl", None, None),
}
PROVENANCE = {
    "versions": {"itrpo": "0.1", "jax": "0.10", "mujoco": "3.3"},
    "cpu_count": 2,
    "platform": "Linux",
    "devices": ["cpu"],
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "dataset": {
        "source": {"sha256": "ab" * 32},
        "transitions": 999_000,
        "return_mean": 1500.0,
        "return_std": 400.0,
        "length_mean": 450.0,
        "observation_mean": [1.0] * 11,
        "observation_std": [0.5] * 11,
    },
}


def make_results(
    plan: str | None = "table2",
    tasks=None,
    arms=None,
    kind: str = "generated",
    seeds: int = 4,
    steps: int = 50_000,
    evaluations: int = 12,
    scores=None,
    state=lambda task, label: "finished",
) -> Results:
    """Runs of each arm on each task. scores(task, label) -> [seeds, evaluations], drawn by default."""
    generator = np.random.default_rng(len(plan or ""))
    arms, runs, rows = arms or ARMS, [], []
    at = np.linspace(0, steps, evaluations + 1).astype(int).tolist()
    for task in tasks or [it for it in TABLES if not it.startswith("antmaze")]:
        for label, (algorithm, alpha, tau) in arms.items():
            how = state(task, label)
            if how is None:
                continue
            run, dataset = (
                f"{zlib.crc32(repr((plan, task, label, kind)).encode()):08x}",
                f"{task}-itrpo1" if kind == "generated" else f"{task}-v2",
            )
            runs.append(
                {
                    "run": run,
                    "plan": plan,
                    "label": label,
                    "algorithm": algorithm,
                    "preset": "quick",
                    "dataset": dataset,
                    "task": task,
                    "kind": kind,
                    "env_id": "Hopper-v4",
                    "seeds": seeds,
                    "step": 0 if how == "diverged" else steps // 2 if how == "unfinished" else steps,
                    "steps": steps,
                    "eval_every": steps // evaluations,
                    "eval_episodes": 10,
                    "state": how,
                    "message": HOSTILE if how == "diverged" else "",
                    "config": json.dumps({"algorithm_config": {"alpha": alpha, "tau": tau}}),
                    "provenance": json.dumps(PROVENANCE),
                    "dataset_score": 40.0,
                    "dataset_return": 1000.0,
                    "train_seconds": 600.0,
                    "behavior": "gaussian",
                    "alpha": alpha,
                    "tau": tau,
                }
            )
            if scores is not None:
                values = np.asarray(scores(task, label), float)
            else:
                top = TABLES.get(task, {}).get(algorithm, (50.0, 1.0))[0]
                rise = 1 - np.exp(-np.arange(1, evaluations + 1) / 4)
                values = (
                    top * rise
                    + generator.normal(scale=3, size=(seeds, evaluations))
                    + generator.normal(scale=2, size=(seeds, 1))
                )
            until = evaluations // 2 if how == "unfinished" else 0 if how == "diverged" else evaluations
            for seed in range(seeds):
                for index in range(until):
                    rows.append((run, seed, at[index + 1], "score", float(values[seed, index])))
                    rows.append((run, seed, at[index + 1], "return_std", 300.0))
                    if alpha is not None:
                        kl = (0.3 + 2 * (tau or 0)) * (1 + index) / evaluations / alpha + 0.02 * seed
                        rows.append((run, seed, at[index + 1], "probe_kl", kl))
                        rows.append(
                            (
                                run,
                                seed,
                                at[index + 1],
                                "probe_shaping_reward",
                                -(tau or 0.0) * kl + 0.05 * index / evaluations,
                            )
                        )
                        rows.append(
                            (run, seed, at[index + 1], "probe_kl_evaluations", (0.5 - 0.3 * (tau or 0)) / (1 + index))
                        )
    schema = {
        "run": polars.String,
        "seed": polars.Int64,
        "step": polars.Int64,
        "metric": polars.String,
        "value": polars.Float64,
    }
    return Results(
        polars.DataFrame(runs, infer_schema_length=None), polars.DataFrame(rows, schema=schema, orient="row")
    )


def joined(*results: Results) -> Results:
    return Results(
        polars.concat([it.runs for it in results], how="vertical_relaxed"), polars.concat([it.rows for it in results])
    )


def everything() -> Results:
    """All that a report can show: cells that finished, that did not, that diverged, that never ran; both
    tables; grids.
    """

    def state(task: str, label: str) -> str | None:
        if label == "pbrl" and task.startswith("walker2d"):
            return None
        if label == "uwac" and task == "hopper-expert":
            return "diverged"
        return "unfinished" if label == "uwac" and task == "walker2d-expert" else "finished"

    mazes = [it for it in TABLES if it.startswith("antmaze")]
    maze_arms = {it: ARMS[it] for it in ("itrpo", "brac_alpha", "bc", "iql")}
    taus = {f"itrpo-tau={tau:g}": ("itrpo", 3.0, tau) for tau in (0.0, 0.5, 0.8, 0.9)}
    grid = {
        f"itrpo-alpha={weight / (1 - tau):.3g}-tau={tau:g}": ("itrpo", weight / (1 - tau), tau)
        for weight in (0.1, 0.3, 1.0, 3.0)
        for tau in (0.0, 0.5, 0.8, 0.9, 0.95)
    }
    return joined(
        make_results(state=state),
        make_results("table3", mazes, maze_arms),
        make_results("figure2", ["hopper-medium", "walker2d-random"], taus),
        make_results("trust_region", ["halfcheetah-medium", "hopper-medium"], grid, evaluations=8),
    )
