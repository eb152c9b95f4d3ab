"""Processes that others started, found by a word of their command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROC = Path("/proc")


def running(word: str, parent: int | None = None) -> list[int]:
    """Ids of processes whose command line has `word` in it, or of those among the children of `parent`.

    From /proc where there is one, since small containers have no `pgrep`; macOS has it.
    """
    if not (PROC / "self" / "stat").exists():
        of = [] if parent is None else ["-P", str(parent)]
        found = subprocess.run(["pgrep", *of, "-f", word], capture_output=True, text=True)
        return list(map(int, found.stdout.split()))
    ids = [int(it.name) for it in PROC.iterdir() if it.name.isdigit()]
    return [it for it in ids if word in command_line(it) and (parent is None or parent_of(it) == parent)]


def command_line(pid: int) -> str:
    return text(pid, "cmdline").replace("\0", " ")


def parent_of(pid: int) -> int | None:
    """-> None if the process is gone."""
    after_the_name = text(pid, "stat").rpartition(")")[2].split()
    return int(after_the_name[1]) if after_the_name else None


def text(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:  # gone meanwhile
        return ""
