"""A small run folder with known numbers, for tests of tables and pictures."""

from __future__ import annotations

from pathlib import Path

from itrpo.results import store
from itrpo.results.schema import Row, Status


def make_run(run_dir: Path, seeds: int = 4, evaluations: int = 22, scores: bool = True, probes: bool = True) -> Path:
    """Seed k returns 1000 + 100 k in every evaluation but the first two, where it returns 0."""
    rows = []
    for seed in range(seeds):
        behavior = {"behavior_return": 500.0 + 10 * seed} | ({"behavior_score": 16.0} if scores else {})
        rows += [Row("canned", seed, 0, metric, value) for metric, value in behavior.items()]
        for evaluation in range(1, evaluations + 1):
            value = 1000.0 + 100 * seed if evaluation > 2 else 0.0
            measured = {"return": value} | ({"score": value / 32.5} if scores else {})
            if probes:
                measured |= {"probe_kl": 0.1 * evaluation + 0.02 * seed, "probe_shaping_reward": -0.02 * evaluation}
            rows += [Row("canned", seed, 5000 * evaluation, metric, number) for metric, number in measured.items()]
    store.append_metrics(run_dir, rows)
    steps = 5000 * evaluations
    store.write_status(
        run_dir, Status("canned", "itrpo", "hopper-demo", "Hopper-v4", seeds, 10, steps, steps, "finished")
    )
    dataset = {"return_mean": 800.0, "return_std": 300.0, "return_max": 2000.0, "score_mean": 25.0 if scores else None}
    store.write_json_atomic(run_dir / "provenance.json", {"dataset": dataset})
    return run_dir
