"""What fine-tuning did, as a table: before, after, and what it cost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from itrpo.console import say
from itrpo.evaluation.environments import score_name
from itrpo.online.finetune import Finetuned
from itrpo.results.store import read_status

if TYPE_CHECKING:
    from rich.console import Console


def print_finetuned(done: Finetuned, console: Console) -> None:
    """A row for each seed."""
    from rich.table import Table

    scored = all("score" in curve[-1] for curve in done.curves)
    table = Table(title=f"{done.folder}, after {done.curves[0][-1]['step']:,} steps of each seed", title_justify="left")
    table.add_column("seed", justify="right")
    status = read_status(done.folder)
    kinds = [("return", "return")] + [("score", score_name(status.env_id, status.reference))] * scored
    for _, name in kinds:
        table.add_column(f"{name} before", justify="right")
        table.add_column("after", justify="right")
    table.add_column("of episodes while learning", justify="right")
    if scored:
        table.add_column("regret", justify="right")
    for index, curve in enumerate(done.curves):
        first, last = curve[0], curve[-1]
        cells = [f"{row[kind]:,.1f}" for kind, _ in kinds for row in (first, last)]
        cells.append(f"{last['online_return']:,.1f}" if "online_return" in last else "")
        table.add_row(str(index), *cells, *([f"{last['regret']:.3f}"] if scored else []))
    console.print(table)
    episodes = "before and after: means over the episodes of one evaluation"
    say(console, f"{episodes}; regret: mean of 1 - score/100 over the evaluations on the way" if scored else episodes)
