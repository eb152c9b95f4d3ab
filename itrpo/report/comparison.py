"""One table of many algorithms on one dataset, from their run folders: what `itrpo compare` prints and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from itrpo import files
from itrpo.console import duration
from itrpo.data.wording import listed
from itrpo.evaluation.environments import score_name
from itrpo.registry import folder_name
from itrpo.report.aggregate import FEW, Interval, final_score, mean_interval, window
from itrpo.report.published import TABLES
from itrpo.report.tables import algorithm_name, count, format_interval, format_returns
from itrpo.results.schema import Status
from itrpo.results.store import CONFIG, read_metrics, read_provenance, read_status, read_timing

if TYPE_CHECKING:
    from rich.console import Console


class ComparisonRow(NamedTuple):
    """One algorithm. Numbers are None where a run has none (yet)."""

    algorithm: str
    returns: Interval | None
    score: Interval | None
    per_seed: list[float]  # scores, or returns where there is no score
    evaluations: int  # that these are means of
    train_seconds: float  # of training alone: without the fit of pi_beta, compilation and evaluations
    steps_per_second: float | None  # of all seeds together: one step updates each of them
    paper: tuple[float, float | None] | None  # mean and std of the paper's Table 2 or 3, where the dataset is its own
    state: str  # "finished", "stopped", "diverged: ...", ...


class Comparison(NamedTuple):
    dataset: str
    dataset_return: float | None
    dataset_score: float | None
    status: Status  # of one of the runs: seeds, episodes, environment
    holdout: float  # share of the episodes that was set aside
    presets: dict[str, str]  # by algorithm
    rows: list[ComparisonRow]


def read_comparison(folder: Path, names: Sequence[str]) -> Comparison:
    """What the runs FOLDER/NAME hold; names without a run are left out. Raises StorageError for a damaged one."""
    runs = {name: folder / folder_name(name) for name in names}
    runs = {name: run for name, run in runs.items() if (run / "status.json").exists()}
    first = next(iter(runs.values()))
    about = read_provenance(first)["dataset"]
    config = files.read_json(first / CONFIG)["config"]
    train, evaluation = config["train"], config["evaluation"]
    last = window(-(-train["steps"] // evaluation["eval_every"]))  # one for all: a run that ended early has fewer
    published = TABLES.get(config["data"]["task"] or "", {}) if about["source"]["kind"] == "d4rl" else {}
    return Comparison(
        about["name"],
        about.get("return_mean"),
        about.get("score_mean"),
        read_status(first),
        config["data"].get("holdout") or 0.0,
        {name: files.read_json(run / CONFIG)["config"]["preset"] for name, run in runs.items()},
        [_row(run, name, published.get(name), last) for name, run in runs.items()],
    )


def write_comparison(folder: Path, names: Sequence[str]) -> None:
    """FOLDER/comparison.md: the table in Markdown."""
    comparison = read_comparison(folder, names)
    header, rows = table_cells(comparison)
    lines = [title(comparison), "", "| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    files.write(folder / "comparison.md", "\n".join([*lines, "", footnote(comparison), ""]).encode())


def print_comparison(folder: Path, names: Sequence[str], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    comparison = read_comparison(folder, names)
    header, rows = table_cells(comparison)
    table = Table(title=title(comparison), title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in ("algorithm", "state") else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(footnote(comparison)))


def title(comparison: Comparison) -> str:
    status = comparison.status
    return f"{comparison.dataset}, {status.env_id or 'no environment'}, {status.steps:,} gradient steps"


def footnote(comparison: Comparison) -> str:
    status = comparison.status
    evaluations = max(it.evaluations for it in comparison.rows)
    text = f"Means of the last {count(evaluations, 'evaluation')} x {count(status.episodes, 'episode')}"
    text += f" ± 95% interval (Student-t) over {status.seeds} seeds." if status.seeds >= FEW else ""
    text += "" if status.seeds >= FEW else " of one seed." if status.seeds == 1 else ", and in brackets each seed's."
    if not evaluations:
        aside = comparison.holdout
        on = f"the episodes that --holdout {aside:g} set aside" if aside else "episodes of another file (--data FILE)"
        blind = f"No environment: `itrpo select` ranks the runs on {on}."
        text = blind if status.env_id is None else "Nothing was evaluated."
    if any(row.paper for row in comparison.rows):
        text += " paper: mean ± std of its Table 2 or 3, after 1M steps."
    return f"{text} {presets_in_words(comparison.presets)} Time and speed are those of training alone."


def presets_in_words(presets: Mapping[str, str]) -> str:
    """Which constants the algorithms had: most of them those of one preset."""
    most = Counter(presets.values()).most_common(1)[0][0]
    others = [f"{algorithm_name(name)} {preset}" for name, preset in presets.items() if preset != most]
    return f"Preset {most}{f', but {listed(others)}' if others else ''}."


def table_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """(column names, rows), best first, then runs without a score, then the dataset; columns nobody fills left out."""
    rows = comparison.rows
    by_score = sorted(rows, key=lambda it: -(it.score or it.returns or Interval(float("-inf"), None)).mean)
    dataset_return = None if comparison.dataset_return is None else Interval(comparison.dataset_return, None)
    named = score_name(comparison.status.env_id, comparison.status.reference)
    columns = {
        "algorithm": [algorithm_name(it.algorithm) for it in by_score] + ["dataset"],
        "return": [format_returns(it.returns) for it in by_score] + [format_returns(dataset_return)],
        named: [format_interval(it.score, 1) for it in by_score] + [_number(comparison.dataset_score, 1)],
        "each seed": [_seeds(it) for it in by_score] + [""],
        "paper": [_paper(it.paper) for it in by_score] + [""],
        "train time": [duration(it.train_seconds) for it in by_score] + [""],
        "steps/s": [_number(it.steps_per_second, 1) for it in by_score] + [""],
        "state": ["" if it.state == "finished" else it.state for it in by_score] + [""],
    }
    shown = {name: cells for name, cells in columns.items() if any(it not in ("", "-") for it in cells)}
    return list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)]


def _row(run: Path, name: str, paper: tuple[float, float | None] | None, last: int) -> ComparisonRow:
    metrics, status = read_metrics(run), read_status(run)
    finals = [final_score(metrics, metric, last) for metric in ("return", "score")]
    returns, score = (None if it is None else mean_interval(it.per_seed) for it in finals)
    final = finals[1] or finals[0]
    per_seed, evaluations = ([], 0) if final is None else (final.per_seed.tolist(), final.evaluations)
    timing = read_timing(run)
    seconds = sum(it["train_seconds"] for it in timing)
    steps = sum(it["train_seconds"] * it["steps_per_second"] for it in timing)
    state = f"{status.state}: {status.message}" if status.message else status.state
    rate = steps / seconds if seconds else None
    return ComparisonRow(name, returns, score, per_seed, evaluations, seconds, rate, paper, state)


def _seeds(row: ComparisonRow) -> str:
    """A few seeds say more than their interval, and stand in its place where they are fewer still; many do not."""
    if len(row.per_seed) != FEW:
        return ""
    return ", ".join(f"{it:,.1f}" if row.score else format_returns(Interval(it, None)) for it in row.per_seed)


def _paper(cell: tuple[float, float | None] | None) -> str:
    return "" if cell is None else f"{cell[0]}" if cell[1] is None else f"{cell[0]} ± {cell[1]}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
