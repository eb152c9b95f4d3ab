"""The command that turns runs into the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from itrpo.console import say

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Report:
    """Draw the paper's tables and figures from runs: one HTML file that needs no network, and CSV, LaTeX, SVG and PNG
    beside it.
    """

    runs: tuple[Path, ...]  # folders of runs at any depth, and files of `itrpo runs pack`
    out: Path  # folder for report.html, tables/ and figures/


def report(command: Report, console: Console) -> None:
    from itrpo.report.page.charts import import_vl_convert
    from itrpo.report.page.write import write_report
    from itrpo.results.frames import read_results

    import_vl_convert()  # missing: said before anything is read
    page = write_report(read_results(command.runs, console), command.out)
    say(console, f"{page}: {page.stat().st_size:,} bytes; tables/ and figures/ beside it")
