"""Tables of the trust region study, from its runs or their pack: `itrpo sweep trust_region`, docs/trust_region.md.

    python benchmarks/trust_region_table.py docs/report/rows/trust_region.parquet

Every cell is of one lambda = alpha (1 - tau) and one tau, over all seeds; tau = 0 is BRAC. A set's mark, by which
time and collapse are told, is the score of its best BRAC with two critics. It writes into the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars
import tyro
from documents import DOCS, write

from itrpo.report.aggregate import mean_interval, over_seeds
from itrpo.results.frames import read_results

DOC, NAME = DOCS / "trust_region.md", "tables"
LABEL = re.compile(r"(?P<arm>\w+)-lambda=(?P<lam>[\d.]+)-tau=(?P<tau>[\d.]+)")
ARMS = {
    "two": "two critics, no clip",
    "two_clip": "two critics, log-ratio clipped at -1",
    "one": "one critic, no clip",
    "one_clip": "one critic, log-ratio clipped at -1",
}
Curve = tuple[np.ndarray, np.ndarray]  # steps [T], values [S, T]


@dataclass(frozen=True)
class Command:
    runs: Annotated[Path, tyro.conf.Positional]  # folder of the sweep, or a file of `itrpo runs pack`


def later_half(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[S]: the paper's protocol, the mean of the last ten evaluations, of a short run its later half."""
    return values[:, len(steps) - min(10, len(steps) // 2) :].mean(axis=1)


def score(curve: Curve, _: float) -> str:
    found = mean_interval(later_half(*curve))
    return f"{found.mean:.1f} ± {found.half_width:.1f}"


def last(curve: Curve, _: float) -> str:
    return f"{np.nanmedian(curve[1][:, -1]):.2g}"


def typical(curve: Curve, _: float) -> str:
    return f"{np.nanmedian(curve[1]):.2g}"


def lowest(curve: Curve, _: float) -> str:
    return f"{curve[1].mean(axis=0).min():.1f}"


def collapsed(curve: Curve, mark: float) -> str:
    return f"{(later_half(*curve) < mark / 2).sum()}"


def arrives(curve: Curve, mark: float) -> str:
    steps, values = curve
    there = np.flatnonzero(values.mean(axis=0) >= 0.95 * mark)
    return f"{steps[there[0]] / 1000:g}" if len(there) else "never"


MEASURES: list[tuple[str, str, Callable[[Curve, float], str]]] = [
    ("score of the later half, ± 95 %", "score", score),
    ("lowest score of the curve, mean of seeds", "score", lowest),
    ("seeds whose later half is below half of the mark", "score", collapsed),
    ("1,000 steps until the mean of seeds has 95 % of the mark", "score", arrives),
    ("D_KL[pi, pi_beta] at the end, median of seeds", "probe_kl", last),
    ("D_KL between policies 100 updates apart, median", "probe_kl_100", typical),
    ("fluctuation of targets, median", "probe_target_fluctuation", typical),
    ("fluctuation of Q', median", "probe_implicit_q_fluctuation", typical),
    ("root mean square of Q - y, median", "probe_error", typical),
    ("the same of its mean over 11 moments, median", "probe_error_average", typical),
]


def tables(path: Path) -> str:
    results = read_results([path])
    curves: dict[tuple[str, str, str, str], dict[str, Curve]] = {}
    diverged = set[tuple[str, str, str, str]]()
    for run in results.runs.iter_rows(named=True):
        found = LABEL.fullmatch(run["label"])
        if found is not None:
            key = (run["dataset"], found["arm"], found["lam"], found["tau"])
            rows = results.rows.filter(polars.col("run") == run["run"])
            curves[key] = {name: over_seeds(rows, name)[:2] for name in {it[1] for it in MEASURES}}
            if run["state"] == "diverged":
                diverged.add(key)
    lines = list[str]()
    for dataset in sorted({key[0] for key in curves}):
        bracs = [own for key, own in curves.items() if key[:2] == (dataset, "two") and float(key[3]) == 0]
        mark = max(later_half(*own["score"]).mean() for own in bracs)
        for arm in (it for it in ARMS if any(key[:2] == (dataset, it) for key in curves)):
            own = {key[2:]: value for key, value in curves.items() if key[:2] == (dataset, arm)}
            lambdas, taus = (sorted({key[at] for key in own}, key=float) for at in (0, 1))
            lines += [f"### `{dataset}`, {ARMS[arm]}", ""]
            lines += ["| | lambda | " + " | ".join(f"tau {it}" for it in taus) + " |", "| --- " * (2 + len(taus)) + "|"]
            for title, metric, shown in MEASURES:
                for place, lam in enumerate(lambdas):
                    cells = [shown(own[lam, tau][metric], mark) if (lam, tau) in own else "" for tau in taus]
                    stars = ["*" if (dataset, arm, lam, tau) in diverged else "" for tau in taus]
                    joined = " | ".join(cell + mark for cell, mark in zip(cells, stars, strict=True))
                    lines.append(f"| {title if place == 0 else ''} | {lam} | {joined} |")
            lines.append("")
    if diverged:
        lines += ["\\* A seed of it diverged; the rows are those before.", ""]
    return "\n".join([*lines, "## Best against best", "", *best(curves), ""])


def best(curves: dict[tuple[str, str, str, str], dict[str, Curve]]) -> list[str]:
    """Of BRAC's and iTRPO's arms those with the highest score; differences are paired by seed."""
    lines = ["| set | critics | BRAC | iTRPO, no clip | iTRPO, clipped |", "| --- | --- | --- | --- | --- |"]
    scores = {key: later_half(*own["score"]) for key, own in curves.items()}
    for dataset, critics in sorted({(key[0], key[1].removesuffix("_clip")) for key in scores}, reverse=True):
        arms = (critics, f"{critics}_clip")
        own = {key: values for key, values in scores.items() if key[0] == dataset and key[1] in arms}
        brac = max((key for key in own if float(key[3]) == 0), key=lambda key: own[key].mean())
        cells = [f"lambda {brac[2]}: {own[brac].mean():.1f}"]
        for arm in arms:
            top = max((key for key in own if key[1] == arm and float(key[3]) > 0), key=lambda key: own[key].mean())
            paired = mean_interval(own[top] - own[brac])
            ahead = f"{paired.mean:.1f} ± {paired.half_width:.1f}"
            cells.append(f"({top[2]}, {top[3]}): {own[top].mean():.1f}, difference {ahead}")
        lines.append(f"| `{dataset}` | {critics} | " + " | ".join(cells) + " |")
    return lines


def main(command: Command) -> None:
    write(DOC, NAME, tables(command.runs))


if __name__ == "__main__":
    main(tyro.cli(Command, description=__doc__))
