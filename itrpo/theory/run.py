"""`itrpo theory`: check the statements, print a table for each, draw the figures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from itrpo.console import say
from itrpo.errors import InputError
from itrpo.registry import nearest
from itrpo.theory import (
    assumption1,
    clip,
    corollary1,
    definition1,
    error_averaging,
    fixed_point,
    lemma1,
    table1,
    theorem1,
    theorem2,
)
from itrpo.theory.checks import Row
from itrpo.theory.instances import draw_batches

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# name -> (what it says, its check, which stands beside its mathematics)
STATEMENTS = {
    "definition1": ("the KL-entropy-regularised operator and its greedy policy", definition1.check),
    "theorem1": ("shaping the reward is a trust region: Eq. 5 equals the two-KL scheme", theorem1.check),
    "lemma1": ("the scheme averages Q' and solves an entropy-regularised MDP", lemma1.check),
    "table1": ("the regularisers that BRAC, Munchausen VI and iTRPO imply, identified from their runs", table1.check),
    "corollary1": ("the lower bound on the return, and how much of its constant is needed", corollary1.check),
    "assumption1": ("concentrability c(t) computed exactly, and what it leaves out", assumption1.check),
    "theorem2": ("the error bound as printed and corrected, against the exact gap", theorem2.check),
    "error_averaging": (
        "what the moving average E_k does to single, independent and constant errors",
        error_averaging.check,
    ),
    "fixed_point": ("iTRPO(alpha, tau) and BRAC(alpha(1-tau)) share their fixed point", fixed_point.check_fixed_point),
    "advantage_learning": (
        "the shaping is advantage learning: action gaps grow by 1/(1-tau)",
        fixed_point.check_advantage_learning,
    ),
    "clip": ("with the author's clip: a trust region around a lifted policy, and a milder tail", clip.check),
}


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
    for name in STATEMENTS if statement == "all" else (statement,):
        description, check = STATEMENTS[name]
        began = time.perf_counter()
        rows = check(batches, seed)
        failures += sum(not row.as_expected for row in rows)
        console.print(_table(f"{name}: {description} ({time.perf_counter() - began:.1f} s)", rows))
    if out is not None:
        from itrpo.theory.figures import write_figures

        for path in write_figures(out, seed):
            say(console, f"wrote {path}")
    verdict = f"{failures} rows are not as proven" if failures else "every statement does what docs/theory.md proves"
    say(console, f"{verdict}; seed {seed}, {instances} instances, {time.perf_counter() - started:.1f} s")
    say(
        console, "'no: n' counts the instances that violate the claim. *: observed, not proven. at: the worst instance,"
    )
    say(console, f"again by itrpo.theory.instances.draw(seed={seed}, index=at).")
    return 1 if failures else 0


def _table(title: str, rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=True
    )
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
