"""The table of the search for the constants of `quick`, from its runs or their pack, written to docs/tuning.md.

    python benchmarks/tuning_table.py docs/report/rows/tuning.parquet                           # itrpo sweep tuning
    python benchmarks/tuning_table.py benchmarks/results/tuning_mazes.parquet --search mazes    # tuning_mazes.yaml

It holds what has run so far, and chooses for an algorithm only where all of its configurations are there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import polars
import tyro
from documents import DOCS, write

from itrpo import registry
from itrpo.config import differences, to_json
from itrpo.report.aggregate import final_score
from itrpo.results.frames import read_results

WITHOUT_CHOICE = ("bc",)  # no constant was searched
DOC = DOCS / "tuning.md"


class Search(NamedTuple):
    last: int  # evaluations that a score is the mean of
    configurations: int  # of every algorithm but those without a choice
    name: str  # of its table in DOC
    of_mazes: bool = True  # whose constants are a task's, in no preset's config


SEARCHES = {
    "sets": Search(3, 6, "table", False),
    "mazes": Search(1, 5, "table of mazes"),
    "umaze": Search(1, 5, "table of umaze"),
}


class Tried(NamedTuple):
    """One configuration of an algorithm."""

    label: str
    scores: dict[str, np.ndarray | str]  # by dataset: of each seed, or why there is none
    config: Any  # of the algorithm, as JSON has it


@dataclass(frozen=True)
class Command:
    runs: Annotated[Path, tyro.conf.Positional]  # OUT of the sweep, or a file of `itrpo runs pack`
    search: Literal["sets", "mazes", "umaze"] = "sets"  # tuning.yaml, tuning_mazes.yaml, tuning_umaze.yaml


def collect(runs: Path, last: int) -> tuple[dict[str, list[Tried]], list[str], dict[str, int]]:
    """Configurations by algorithm, datasets, and the steps of an algorithm's runs."""
    results = read_results([runs])
    found: dict[str, dict[str, Tried]] = defaultdict(dict)
    steps = dict[str, int]()
    for run in results.runs.sort("label").iter_rows(named=True):
        rows = results.rows.filter(polars.col("run") == run["run"])
        score = final_score(rows, "score", last) if run["state"] == "finished" else None
        config = json.loads(run["config"])["algorithm_config"]
        tried = found[run["algorithm"]].setdefault(run["label"], Tried(run["label"], {}, config))
        tried.scores[run["dataset"]] = run["state"] if score is None else score.per_seed
        steps[run["algorithm"]] = run["steps"]
    datasets = sorted(results.runs["dataset"].unique(), reverse=True)
    return {name: list(tried.values()) for name, tried in found.items()}, datasets, steps


def mean(tried: Tried, datasets: list[str]) -> float:
    """Over the sets; what diverged, or has not run on one of them, is below all others."""
    means = [np.mean(it) for it in map(tried.scores.get, datasets) if isinstance(it, np.ndarray)]
    return float(np.mean(means)) if len(means) == len(datasets) else -np.inf


def is_over(tried: Tried, datasets: list[str]) -> bool:
    ended = [tried.scores.get(dataset, "to run") for dataset in datasets]
    return not any(isinstance(it, str) and it != "diverged" for it in ended)


def table(runs: Path, search: Search) -> str:
    algorithms, datasets, steps = collect(runs, search.last)
    lines = [
        "| algorithm | configuration | " + " | ".join(datasets) + " | mean | |",
        "| --- | --- |" + " --- |" * len(datasets) + " --- | --- |",
    ]
    for name in sorted(algorithms):
        tried = sorted(algorithms[name], key=lambda it: -mean(it, datasets))
        needed = 1 if name in WITHOUT_CHOICE else search.configurations
        over = sum(is_over(it, datasets) for it in tried)
        for index, one in enumerate(tried):
            cells = [cell(one.scores.get(dataset, "to run")) for dataset in datasets]
            score = mean(one, datasets)
            note = "" if over == needed else f"{over} of {needed} configurations have run" if index == 0 else ""
            if over == needed and index == 0 and name not in WITHOUT_CHOICE:
                note = "chosen" if search.of_mazes or in_preset(name, one) else "best, not in the preset"
            shown = "" if score == -np.inf else f"{score:.1f}"
            told = f"{name}, {steps[name]:,} steps" if index == 0 else ""
            lines.append(f"| {told} | `{one.label}` | {' | '.join(cells)} | {shown} | {note} |")
    return "\n".join(lines) + "\n"


def in_preset(name: str, tried: Tried) -> bool:
    """Whether `quick` is what was tried, in all of its constants."""
    return not differences(tried.config, to_json(registry.algorithm(name).presets["quick"].config))


def cell(scores: np.ndarray | str) -> str:
    """67.3 (64.1, 70.5): mean, and every seed."""
    return scores if isinstance(scores, str) else f"{np.mean(scores):.1f} ({', '.join(f'{it:.1f}' for it in scores)})"


def main(command: Command) -> None:
    search = SEARCHES[command.search]
    write(DOC, search.name, table(command.runs, search))


if __name__ == "__main__":
    main(tyro.cli(Command, description=__doc__))
