"""Tables for a person, from run folders alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from itrpo.errors import StorageError
from itrpo.files import read_json
from itrpo.report.aggregate import Interval, final_score, mean_interval, over_seeds
from itrpo.results.schema import Evaluation, Status
from itrpo.results.store import read_metrics, read_status

if TYPE_CHECKING:
    import polars
    from rich.console import Console

_NAMES = {
    "brac_p": "BRAC-p",
    "brac_v": "BRAC-v",
    "fisher_brc": "Fisher-BRC",
    "itrpo": "iTRPO",
    "itrpo_insample": "iTRPO in-sample",
    "rebrac": "ReBRAC",
    "sac_n": "SAC-N",
    "td3_bc": "TD3-BC",
}


class SummaryRow(NamedTuple):
    """One line of the summary. Returns are undiscounted sums of rewards; scores are D4RL's, None where it has none."""

    policy: str
    returns: Interval
    score: Interval | None
    seeds: int | None  # None: not a matter of seeds (the dataset)
    mean_of: str


class RunEntry(NamedTuple):
    """One line of `itrpo runs list`."""

    name: str  # the folder's
    status: Status | None  # None: the folder is damaged, `problem` says how
    returns: Interval | None  # final, None if nothing was evaluated
    score: Interval | None
    problem: str = ""


def algorithm_name(algorithm: str) -> str:
    """The name of a registered algorithm as people write it."""
    return _NAMES.get(algorithm, algorithm if ":" in algorithm else algorithm.upper())


def summarize_run(run_dir: Path) -> list[SummaryRow]:
    """The trained policy, BC (the mode of the fitted pi_beta) and the dataset; a line without numbers is left out."""
    metrics, status = read_metrics(run_dir), read_status(run_dir)
    rows = []
    final = final_score(metrics)
    if final is not None:
        mean_of = f"last {_count(final.evaluations, 'evaluation')} x {_count(status.episodes, 'episode')}"
        score = final_score(metrics, "score")
        score_interval = None if score is None else mean_interval(score.per_seed)
        returns = mean_interval(final.per_seed)
        rows.append(SummaryRow(algorithm_name(status.algorithm), returns, score_interval, len(final.seeds), mean_of))
    behavior = _first(metrics, "behavior_return")
    if behavior is not None:
        mean_of = f"1 evaluation x {_count(status.episodes, 'episode')}"
        score_interval = _first(metrics, "behavior_score")
        rows.append(SummaryRow("BC (mode of pi_beta)", behavior, score_interval, status.seeds, mean_of))
    dataset = read_json(run_dir / "provenance.json")["dataset"]
    if dataset.get("return_mean") is not None:
        known_score = dataset.get("score_mean")
        score_interval = None if known_score is None else Interval(known_score, None)
        mean_of = "the logged episodes"
        rows.append(SummaryRow("dataset", Interval(dataset["return_mean"], None), score_interval, None, mean_of))
    return rows


def print_run_summary(run_dir: Path, console: Console) -> None:
    """Print `summarize_run` as a table, and what its intervals are."""
    from rich.table import Table

    rows, status = summarize_run(run_dir), read_status(run_dir)
    title = f"{status.dataset}, {status.env_id or 'no environment'}, after {status.step:,} gradient steps"
    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    table.add_column("return", justify="right")
    with_score = any(row.score for row in rows)
    if with_score:
        table.add_column("D4RL score", justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("mean of")
    for row in rows:
        score = [format_interval(row.score, 1)] if with_score else []
        table.add_row(row.policy, format_returns(row.returns), *score, str(row.seeds or ""), row.mean_of)
    console.print(table)
    if status.seeds > 1:
        console.print(f"± is the half-width of the 95% interval (Student-t) over the {status.seeds} seeds.")
    else:
        console.print("One seed gives no interval; train with --seeds 4 for one.")


def print_evaluation(result: Evaluation, console: Console) -> None:
    """Print the returns of `itrpo.evaluate`: a line per seed, the mean over seeds with its interval."""
    from rich.table import Table

    episodes = result.returns.shape[1]
    title = f"{result.env_id}, policies after {result.step:,} gradient steps, {_count(episodes, 'episode')} per seed"
    table = Table("seed", "return", "std over episodes", "episode length", title=title, title_justify="left")
    if result.scores is not None:
        table.add_column("D4RL score")
    for column in table.columns[1:]:
        column.justify = "right"
    for seed, (returns, lengths) in enumerate(zip(result.returns, result.lengths, strict=True)):
        score = [] if result.scores is None else [f"{result.scores[seed].mean():.1f}"]
        digits = return_digits(returns.mean())
        spread = f"{returns.std():,.{digits}f}"
        table.add_row(str(seed), f"{returns.mean():,.{digits}f}", spread, f"{lengths.mean():,.0f}", *score)
    means = [mean_interval(result.returns.mean(axis=1))]
    scores = [] if result.scores is None else [format_interval(mean_interval(result.scores.mean(axis=1)), 1)]
    table.add_section()
    table.add_row("all", format_returns(means[0]), "", f"{result.lengths.mean():,.0f}", *scores)
    console.print(table)
    if len(result.returns) > 1:
        console.print("± is the half-width of the 95% interval (Student-t) over seeds.")


def list_runs(root: Path) -> list[RunEntry]:
    """The runs in the folders directly below `root`, by name. Folders without a status.json are not runs."""
    return [_entry(path.parent) for path in sorted(root.glob("*/status.json"))]


def print_runs(root: Path, console: Console) -> None:
    """Print `list_runs` as a table."""
    from rich.table import Table
    from rich.text import Text

    entries = list_runs(root)
    if not entries:
        console.print(Text(f"No runs in {root}."))
        return
    table = Table("run", "algorithm", "dataset", "seeds", "steps", "return", "D4RL score", "state")
    for name in ("seeds", "steps", "return", "D4RL score"):
        next(column for column in table.columns if column.header == name).justify = "right"
    for entry in entries:
        status = entry.status
        if status is None:
            table.add_row(entry.name, *[""] * 6, Text(entry.problem))
            continue
        steps = f"{status.step:,}/{status.steps:,}"
        state = f"{status.state}: {status.message}" if status.message else status.state
        numbers = (str(status.seeds), steps, format_returns(entry.returns), format_interval(entry.score, 1))
        table.add_row(entry.name, status.algorithm, status.dataset, *numbers, Text(state))
    console.print(table)
    console.print("return and score: mean of each run's last evaluations ± 95% interval over seeds")


def _entry(run_dir: Path) -> RunEntry:
    try:
        metrics, status = read_metrics(run_dir), read_status(run_dir)
    except StorageError as error:
        return RunEntry(run_dir.name, None, None, None, f"damaged: {error}")
    finals = [final_score(metrics, metric) for metric in ("return", "score")]
    returns, score = (None if final is None else mean_interval(final.per_seed) for final in finals)
    return RunEntry(run_dir.name, status, returns, score)


def _first(metrics: polars.DataFrame, metric: str) -> Interval | None:
    """The metric at the first step that has it, over seeds."""
    _, values, seeds = over_seeds(metrics, metric)
    return mean_interval(values[:, 0]) if seeds else None


def format_interval(interval: Interval | None, digits: int) -> str:
    """'71.9 ± 32.9', or '-' for None."""
    if interval is None:
        return "-"
    spread = "" if interval.half_width is None else f" ± {interval.half_width:,.{digits}f}"
    return f"{interval.mean:,.{digits}f}{spread}"


def format_returns(interval: Interval | None) -> str:
    """'2,743 ± 368', or '0.78 ± 0.08' where rewards are sparse."""
    return format_interval(interval, 0 if interval is None else return_digits(interval.mean))


def return_digits(value: float) -> int:
    """Decimals with which a return is printed."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
