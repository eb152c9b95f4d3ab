"""The command that checks the paper's statements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from itrpo.cli.flags import Word
from itrpo.ranges import Count, Seed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Theory:
    """Check the paper's statements on exact finite MDPs."""

    statement: Annotated[str, Word("STATEMENT")] = "all"  # all, or one statement by name
    instances: Count = 1000  # random MDPs per statement
    seed: Seed = 0  # of the instances
    out: Path | None = None  # folder for figures [none]


def theory(command: Theory, console: Console) -> int:
    from itrpo.theory.run import run_theory

    return run_theory(command.statement, command.instances, command.seed, command.out, console)
