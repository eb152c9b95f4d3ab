"""`itrpo theory`: check the statements, print a table for each, draw the figures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from itrpo.errors import InputError
from itrpo.registry import nearest
from itrpo.theory import statements
from itrpo.theory.instances import draw_batches
from itrpo.theory.statements import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

DESCRIPTIONS = {statement.name: statement.description for statement in statements.STATEMENTS}
STATEMENTS = tuple(DESCRIPTIONS)


def run_theory(
    statement: str = "all",
    instances: int = 1000,
    seed: int = 0,
    out: Path | None = None,
    console: Console | None = None,
) -> int:
    """Print one table per statement, write the figures to `out` if given. 1 if a statement does not do what it must.

    Raises InputError for an unknown statement or instances < 1.
    """
    if statement != "all" and statement not in STATEMENTS:
        known = ", ".join(("all", *STATEMENTS))
        raise InputError(f"unknown statement {statement!r}{nearest(statement, ('all', *STATEMENTS))}; known: {known}")
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder for the figures")
    if console is None:
        from rich.console import Console

        console = Console()
    started = time.perf_counter()
    batches = draw_batches(seed, instances)
    failures = 0
    for chosen in statements.STATEMENTS:
        if statement not in ("all", chosen.name):
            continue
        began = time.perf_counter()
        rows = chosen.check(batches, seed)
        failures += sum(not row.as_expected for row in rows)
        console.print(_table(chosen, rows, time.perf_counter() - began))
    if out is not None:
        from itrpo.theory.figures import write_figures

        for path in write_figures(out, seed):
            console.print(f"wrote {path}", soft_wrap=True)
    verdict = (
        "every statement does what docs/theory.md proves" if not failures else f"{failures} rows are not as proven"
    )
    console.print(f"{verdict}; seed {seed}, {instances} instances, {time.perf_counter() - started:.1f} s")
    console.print(
        "'no: n' counts the instances that violate the claim. *: observed, not proven. at: the worst instance,"
    )
    console.print(f"again by itrpo.theory.instances.draw(seed={seed}, index=at).")
    return 1 if failures else 0


def _table(statement: statements.Statement, rows: list[Row], seconds: float) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{statement.name}: {statement.description} ({seconds:.1f} s)", style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("claim", overflow="fold", ratio=1)
    table.add_column("instances", justify="right")
    table.add_column("holds", no_wrap=True)
    table.add_column("worst", no_wrap=True)
    table.add_column("at", justify="right")
    for row in rows:
        at = "-" if row.instance is None else str(row.instance)
        worst = Text(f"{row.worst:.3g} {row.measure}")
        table.add_row(Text(row.claim), str(row.instances), _verdict(row), worst, at)
    return table


def _verdict(row: Row) -> Text:
    from rich.text import Text

    if row.violations is None:
        return Text("*")
    answer = f"no: {row.violations}" if row.violations else "yes"
    if not row.as_expected:
        return Text(f"{answer} (!)", style="bold red")
    return Text(answer + {"holds": "", "fails": " (known)", "observed": " *"}[row.expected])
