"""Hammers on itrpo with real processes, disks, files and servers, and says what broke: `make soak`.

    python -m benchmarks.soak                       all groups: an hour
    python -m benchmarks.soak --short               minutes
    python -m benchmarks.soak kills --only sweep --seed 3

A line for each case goes to `--out`/soak.jsonl, at once, and a table to the console at the end. What failed is printed
with the seed that repeats it. What was found with it, and mended: docs/reliability.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.soak.log import Log, table

Group = Literal["kills", "files", "disk", "numbers", "time", "downloads"]
GROUPS: tuple[Group, ...] = ("kills", "files", "disk", "numbers", "time", "downloads")


def soak(
    groups: Annotated[tuple[Group, ...], tyro.conf.Positional] = GROUPS,
    short: bool = False,
    seed: int = 0,
    only: str = "",
    out: Path = Path("build/soak"),
) -> int:
    """Hammer on itrpo. `only`: cases whose names contain it. -> 1 if something broke."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "soak.jsonl", seed)
    for group in groups:
        began = time.monotonic()
        run_group(group, log, out / group, short, only)
        print(f"{group}: {time.monotonic() - began:,.0f} s", flush=True)
    print(table(log.rows))
    return 0 if log.rows and all(row["ok"] for row in log.rows) else 1


def run_group(group: Group, log: Log, place: Path, short: bool, only: str) -> None:
    from benchmarks.soak import disk, downloads, files, kills, long, numbers

    match group:
        case "kills":
            kills.run(log, place, 20 if short else 100, only)
        case "files":
            files.run(log, place, 2_000 if short else 11_000, only)
        case "disk":
            disk.run(log, place, 1 if short else 5, only)
        case "numbers":
            numbers.run(log, place, 1 if short else 3, only)
        case "time":
            long.run(log, place, short, only)
        case "downloads":
            downloads.run(log, place, only)


if __name__ == "__main__":
    sys.exit(tyro.cli(soak))
