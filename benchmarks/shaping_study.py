"""What the shaping reward of Eq. (5) changes, all else equal: the table behind docs/experiments.md.

    python benchmarks/shaping_study.py train DATASET --seeds 4 --steps 10000 --alpha 6 --tau 0.5 --out runs/study
    python benchmarks/shaping_study.py table runs/study

Three arms with the same preset, seeds, pi_beta and evaluations: iTRPO(alpha, tau), BRAC-v(alpha), and
BRAC-v(alpha (1 - tau)), which has iTRPO's fixed point (docs/theory.md). BC is the fitted pi_beta's mode, evaluated
once. Scores are means of the last evaluations, with 95% Student-t intervals over seeds; differences are paired by seed,
since seed k shares its pi_beta.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import itrpo
from itrpo.files import read_json
from itrpo.report.aggregate import final_score, mean_interval, over_seeds
from itrpo.results.store import read_metrics


@dataclass(frozen=True)
class Train:
    dataset: tyro.conf.Positional[str]
    out: Path
    seeds: int = 4
    steps: int = 10_000
    alpha: float = 6.0
    tau: float = 0.5
    preset: str = "quick"
    eval_every: int = 1_000
    eval_episodes: int = 5


@dataclass(frozen=True)
class Table:
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    last: int = 3
    """evaluations that a score is the mean of"""


def arms(alpha: float, tau: float) -> dict[str, tuple[str, dict[str, float]]]:
    return {
        "itrpo": ("itrpo", {"alpha": alpha, "tau": tau}),
        "brac_alpha": ("brac_v", {"alpha": alpha}),
        "brac_implicit": ("brac_v", {"alpha": alpha * (1 - tau)}),
    }


def train(command: Train) -> None:
    dataset = itrpo.load_dataset(command.dataset)
    for name, (algorithm, fields) in arms(command.alpha, command.tau).items():
        itrpo.train(
            dataset,
            algorithm,
            itrpo.RunOptions(
                steps=command.steps,
                seeds=command.seeds,
                preset=command.preset,
                eval_every=command.eval_every,
                eval_episodes=command.eval_episodes,
                out=command.out / name,
            ),
            fields=fields,
        )


def table(command: Table) -> None:
    for folder in command.folders:
        runs = {path.parent.name: read_metrics(path.parent) for path in sorted(folder.glob("*/status.json"))}
        if not runs:
            continue
        about = read_json(folder / next(iter(runs)) / "provenance.json")["dataset"]
        steps = max(int(frame["step"].max()) for frame in runs.values())
        print(f"\n{about['name']}, {steps:,} steps, score = mean of the last {command.last} evaluations\n")
        print("| arm | score | per seed | all evaluations | D_KL at the end |")
        print("| --- | --- | --- | --- | --- |")
        finals, curves = {}, {}
        for name, frame in runs.items():
            final = final_score(frame, "score", command.last)
            whole = final_score(frame, "score", 10_000)
            if final is None or whole is None:
                continue
            finals[name], curves[name] = final.per_seed, whole.per_seed
            kl = mean_interval(over_seeds(frame, "probe_kl")[1][:, -1])
            seeds = ", ".join(f"{it:.1f}" for it in final.per_seed)
            print(f"| {name} | {interval(final.per_seed)} | {seeds} | {interval(whole.per_seed)} | {kl.mean:.3g} |")
        behavior = over_seeds(next(iter(runs.values())), "behavior_score")[1][:, 0]
        print(f"| BC | {interval(behavior)} | {', '.join(f'{it:.1f}' for it in behavior)} | | |")
        print(f"| dataset | {about['score_mean']:.1f} | | | |\n")
        for other in ("brac_alpha", "brac_implicit"):
            if "itrpo" in finals and other in finals:
                print(
                    f"itrpo - {other}: {interval(finals['itrpo'] - finals[other])} at the end, "
                    f"{interval(curves['itrpo'] - curves[other])} over the whole curve (paired by seed)"
                )


def interval(values: np.ndarray) -> str:
    it = mean_interval(values)
    return f"{it.mean:.1f}" if it.half_width is None else f"{it.mean:.1f} ± {it.half_width:.1f}"


if __name__ == "__main__":
    command = tyro.cli(
        tyro.extras.subcommand_type_from_defaults({"train": Train("", Path("runs/study")), "table": Table(())})
    )
    train(command) if isinstance(command, Train) else table(command)
