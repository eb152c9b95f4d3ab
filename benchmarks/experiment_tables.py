"""Tables 2 and 3 of docs/experiments.md, from the rows in the repository.

    python benchmarks/experiment_tables.py

A cell is the mean over seeds of each one's last evaluations (the later half, at most ten), and each seed in brackets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars
from documents import DOCS, write

from itrpo.report.aggregate import final_score
from itrpo.results.frames import read_results

DOC = DOCS / "experiments.md"
KINDS = ("random", "medium-replay", "medium", "medium-expert", "expert")


class Table(NamedTuple):
    rows: str  # title of the column of data, and name of the table in DOC
    tasks: tuple[str, ...]
    arms: dict[str, tuple[str, str]]  # title of the column -> (plan, label)
    digits: int
    means: dict[str, slice]  # title of a last row -> of which tasks it is the mean


TABLES = (
    Table(
        "set made here",
        tuple(f"{name}-{kind}" for kind in KINDS for name in ("halfcheetah", "hopper", "walker2d")),
        {
            "iTRPO": ("table2", "itrpo"),
            "BRAC, alpha": ("table2", "brac_v"),
            "BRAC, alpha (1 - tau)": ("table2", "brac_lambda"),
            "IQL": ("table2", "iql"),
            "TD3+BC": ("table2", "td3_bc"),
            "CQL": ("table2", "cql"),
            "PBRL": ("table2", "pbrl"),
            "UWAC": ("table2", "uwac"),
            "BEAR": ("table2", "bear"),
            "BC": ("table2", "bc"),
        },
        1,
        {"mean of 15": slice(None)},
    ),
    Table(
        "ant maze made here",
        tuple(
            f"antmaze-{it}"
            for it in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
        ),
        {
            "iTRPO": ("table3", "itrpo"),
            "BRAC": ("table3", "brac_lambda"),
            "iTRPO, clipped": ("maze_alpha", "itrpo_clipped"),
            "IQL": ("table3", "iql"),
            "TD3+BC": ("table3", "td3_bc"),
            "SPOT": ("table3", "spot"),
            "PLAS": ("table3", "plas"),
            "CQL": ("table3", "cql"),
            "BEAR": ("table3", "bear"),
            "BC": ("table3", "bc"),
        },
        0,
        {"mean of six": slice(None), "mean of the larger four": slice(2, None)},
    ),
)


def read(table: Table) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, float]]:
    """(task, title of an arm) -> score of each seed; task -> score of the log."""
    found, logs = dict[tuple[str, str], np.ndarray](), dict[str, float]()
    for plan in {it[0] for it in table.arms.values()}:
        results = read_results([DOCS / "report" / "rows" / f"{plan}.parquet"])
        titles = {label: title for title, (own, label) in table.arms.items() if own == plan}
        for run in results.runs.sort("dataset").iter_rows(named=True):
            title = titles.get(run["label"])
            score = final_score(results.rows.filter(polars.col("run") == run["run"]), "score")
            if title is not None and run["state"] == "finished" and score is not None:
                found[run["task"], title] = score.per_seed
                logs.setdefault(run["task"], run["dataset_score"])
    return found, logs


def lines(table: Table) -> str:
    scores, logs = read(table)
    arms = tuple(table.arms)
    told = [f"| {table.rows} | log | " + " | ".join(arms) + " |", "| --- " * (len(arms) + 2) + "|"]
    for task in table.tasks:
        own = {arm: scores[task, arm] for arm in arms if (task, arm) in scores}
        best = max((it.mean() for it in own.values()), default=np.nan)
        cells = [cell(own[arm], best, table.digits) if arm in own else "" for arm in arms]
        told.append(f"| {task.removeprefix('antmaze-')} | {logs[task]:.{table.digits}f} | " + " | ".join(cells) + " |")
    for title, place in table.means.items():
        own = table.tasks[place]
        means = [mean([scores.get((task, arm)) for task in own]) for arm in arms]
        told.append(f"| {title} | {mean([logs[task] for task in own])} | " + " | ".join(means) + " |")
    return "\n".join(told) + "\n"


def cell(scores: np.ndarray, best: float, digits: int) -> str:
    """The highest of a row in bold."""
    mean, each = f"{scores.mean():.{digits}f}", ", ".join(f"{it:.0f}" for it in scores)
    return f"**{mean}** ({each})" if scores.mean() == best else f"{mean} ({each})"


def mean(values: Sequence[np.ndarray | float | None]) -> str:
    """Empty where one of them is missing."""
    return (
        "" if any(it is None for it in values) else f"{np.mean([np.mean(it) for it in values if it is not None]):.1f}"
    )


def main() -> None:
    for table in TABLES:
        write(DOC, table.rows, lines(table))


if __name__ == "__main__":
    main()
