"""What the soak found: a line of JSON for each case, and the table of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Log:
    """`add` writes a line at once: what a soak that is itself killed has found stays."""

    path: Path
    seed: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, group: str, case: str, seed: Any, ok: bool, said: str = "", **figures: Any) -> None:
        """`seed` repeats the case with --only CASE --seed SEED."""
        row = {"group": group, "case": case, "seed": seed, "ok": ok, "said": said, **figures}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if not ok:
            print(f"FAILED {group} {case} --seed {seed}: {said}", flush=True)

    @contextmanager
    def case(self, group: str, case: str, seed: Any) -> Iterator[Callable[..., None]]:
        """Yields `done(ok, said, **figures)`; an error in the block is a failure of the case."""
        began, told = time.monotonic(), [False]

        def done(ok: bool, said: str = "", **figures: Any) -> None:
            told[0] = True
            self.add(group, case, seed, ok, said, seconds=round(time.monotonic() - began, 1), **figures)

        try:
            yield done
        except Exception as error:  # the soak goes on
            done(False, f"{type(error).__name__}: {error}")
        else:
            if not told[0]:
                done(False, "the case did not say how it ended")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what was done, how often, what failed."""
    lines = ["| Group | Case | Done | Failed | Figures |", "| --- | --- | --- | --- | --- |"]
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["group"], row["case"]), []).append(row)
    known = ("group", "case", "seed", "ok", "said")
    for (group, case), own in cases.items():
        totals: dict[str, float] = {}
        for row in own:
            for name, value in row.items():
                if name not in known and isinstance(value, int | float):
                    totals[name] = totals.get(name, 0) + value
        shown = ", ".join(f"{name.replace('_', ' ')} {value:,.10g}" for name, value in totals.items())
        failed = [str(row["seed"]) for row in own if not row["ok"]]
        mark = f"{len(failed)} (seeds {', '.join(failed[:8])})" if failed else "0"
        lines.append(f"| {group} | {case} | {len(own)} | {mark} | {shown} |")
    return "\n".join(lines)
