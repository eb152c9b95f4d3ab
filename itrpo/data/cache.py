"""Where files that itrpo fetches or makes are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$ITRPO_CACHE`, else `$XDG_CACHE_HOME/itrpo`, else `~/.cache/itrpo`. Not created here."""
    if chosen := os.environ.get("ITRPO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "itrpo"


def d4rl_path(file: str) -> Path:
    """Where a D4RL file of this name is kept, whether or not it is there yet."""
    return cache_dir() / "d4rl" / file


def generated_path(name: str) -> Path:
    """Where the generated dataset `name` is kept, whether or not it is there yet."""
    return cache_dir() / "generated" / f"{name}.hdf5"
