"""Tables of algorithms over choices, from the rows in the repository: docs/experiments.md, docs/trust_region.md.

    python benchmarks/discrete_tables.py

Returns are means over seeds of each one's last evaluations (the later half).
"""

from __future__ import annotations

import re

import numpy as np
import polars
from documents import DOCS, write

from itrpo.report.aggregate import final_score, mean_interval, over_seeds
from itrpo.results.frames import Results, read_results

ROWS = DOCS / "report" / "rows"
SETS = ("cartpole-medium-replay", "acrobot-medium", "lunarlander-medium-replay", "breakout-medium-replay")
LABEL = re.compile(r"exact(?P<clip>_clip)?-lambda=(?P<lam>[\d.]+)-tau=(?P<tau>[\d.]+)")
PROBES = {
    "D_KL between policies 100 updates apart": "probe_kl_100",
    "1,000 apart": "probe_kl_1000",
    "D_KL[pi, pi_beta]": "probe_kl",
    "fluctuation of targets": "probe_target_fluctuation",
    "Q - y": "probe_error",
    "its mean over 11 moments": "probe_error_average",
}


def rows_of(results: Results, run: str) -> polars.DataFrame:
    return results.rows.filter(polars.col("run") == run)


def algorithms() -> str:
    """One row for each, one column for each set, each seed in brackets; the highest mean of a set in bold."""
    results = read_results([ROWS / "discrete.parquet"])
    found, logs = dict[tuple[str, str], np.ndarray](), dict[str, float]()
    for run in results.runs.sort("label").iter_rows(named=True):
        final = final_score(rows_of(results, run["run"]))
        if run["state"] == "finished" and final is not None:
            found[run["label"], run["task"]] = final.per_seed
            logs[run["task"]] = run["dataset_return"]
    tasks = [task for task in SETS if task in logs]
    best = {task: max(values.mean() for (_, own), values in found.items() if own == task) for task in tasks}

    def cell(label: str, task: str) -> str:
        if (label, task) not in found:
            return ""
        values = found[label, task]
        digits = 1 if best[task] < 100 and logs[task] > -100 else 0
        mean = f"{values.mean():.{digits}f}"
        each = " / ".join(f"{it:.{digits}f}" for it in values)
        return f"**{mean}** ({each})" if values.mean() == best[task] else f"{mean} ({each})"

    lines = ["| algorithm | " + " | ".join(tasks) + " |", "| --- " * (len(tasks) + 1) + "|"]
    lines.append("| the log | " + " | ".join(f"{logs[task]:.1f}" for task in tasks) + " |")
    labels = dict.fromkeys(label for label, _ in found)
    lines += [f"| `{label}` | " + " | ".join(cell(label, task) for task in tasks) + " |" for label in labels]
    return "\n".join(lines) + "\n"


def trust_region() -> str:
    """One row for each arm of a set. Probes: means over seeds and the last evaluations."""
    results = read_results([ROWS / "discrete_trust_region.parquet"])
    found = dict[tuple[int, str, str, str], list[str]]()
    for run in results.runs.iter_rows(named=True):
        arm, rows = LABEL.fullmatch(run["label"]), rows_of(results, run["run"])
        final = final_score(rows)
        if arm is None or final is None or run["state"] != "finished":
            continue
        interval = mean_interval(final.per_seed)
        digits = 1 if abs(interval.mean) < 50 else 0
        cells = [f"{interval.mean:.{digits}f} ± {interval.half_width or 0:.{digits}f}"]
        cells += [f"{over_seeds(rows, name)[1][:, -final.evaluations :].mean():.2g}" for name in PROBES.values()]
        clip = "-1" if arm["clip"] else "none"
        found[SETS.index(run["task"]), arm["lam"], clip, arm["tau"]] = cells
    titles = ["set", "lambda", "clip", "tau", "return", *PROBES]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    shown: tuple[int, str, str] | None = None
    for (place, lam, clip, tau), cells in sorted(
        found.items(), key=lambda it: (it[0][0], it[0][1], it[0][2] != "none", it[0][3])
    ):
        ahead = [
            SETS[place] if shown is None or shown[0] != place else "",
            lam if shown is None or shown[:2] != (place, lam) else "",
            clip if shown != (place, lam, clip) else "",
        ]
        shown = (place, lam, clip)
        lines.append("| " + " | ".join([*ahead, tau, *cells]) + " |")
    return "\n".join(lines) + "\n"


TABLES = {
    "algorithms over choices": (DOCS / "experiments.md", algorithms),
    "exact policies": (DOCS / "trust_region.md", trust_region),
}


def main() -> None:
    for name, (document, table) in TABLES.items():
        write(document, name, table())


if __name__ == "__main__":
    main()
