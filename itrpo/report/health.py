"""What `itrpo datasets check SOURCE` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from itrpo.data.wording import first_rows
from itrpo.report.datasets import print_facts

if TYPE_CHECKING:
    from rich.console import Console

    from itrpo.data.health import Health


def print_health(health: Health, console: Console) -> None:
    """Prints the facts, every finding with its rows and what to do, and the sum of it."""
    from rich.table import Table
    from rich.text import Text

    print_facts(health.name, health.facts, console)
    styles = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
    listing = Table.grid(padding=(0, 2))
    listing.add_column(no_wrap=True)
    listing.add_column(overflow="fold")
    for finding in health.findings:
        text = Text(f"{finding.what}", style="bold")
        text.append(f"  [{finding.name}]", style="not bold dim")
        listing.add_row(Text(finding.severity, style=styles[finding.severity]), text)
        if finding.rows:
            named = first_rows(np.array(finding.rows))
            more = f", ... ({finding.count:,} rows)" if finding.count > len(finding.rows) else ""
            listing.add_row("", Text(f"{named}{more}"))
        listing.add_row("", Text(f"-> {finding.advice}"))
    console.print()
    if health.findings:
        console.print(listing)
        console.print()
    numbers = [(health.number(severity), severity) for severity in styles]
    summary = ", ".join(f"{number} {severity}{'s' if number != 1 else ''}" for number, severity in numbers if number)
    console.print(Text(summary or "Nothing unusual was found."))
