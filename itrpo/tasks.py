"""Constants that differ by task, as a source gives them, from `itrpo/algorithms/tasks/NAME.toml`:

[[constants]]
tasks = ["hopper-medium", "antmaze-*"]     # names without a version; * stands for anything
source = "where these values are written"  # or why they are ours
fields = { bc_weight = 0.01 }              # differences from the preset, by the names of the algorithm's fields
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

VERSION = re.compile(r"-(v\d+|itrpo\d+)$")


class TaskConstants(NamedTuple):
    fields: dict[str, Any]
    sources: tuple[str, ...]  # of the blocks that matched
    file: str | None


def task_of(dataset: str | os.PathLike[str] | Mapping[str, Any]) -> str | None:
    """hopper-medium for hopper-medium-v2, hopper-medium-itrpo1 and a path to hopper_medium-v2.hdf5; else None."""
    if isinstance(dataset, Mapping):
        return None
    name = Path(os.fspath(dataset)).name
    name = name.removesuffix("".join(Path(name).suffixes[-1:])).replace("_", "-")
    return VERSION.sub("", name) if VERSION.search(name) else None


def task_constants(file: str | None, task: str | None) -> TaskConstants:
    """What a preset's file says of a task; later blocks win. Without a file, or a block that fits: nothing."""
    found: dict[str, Any] = {}
    sources: list[str] = []
    if file is None or task is None:
        return TaskConstants(found, (), file)
    for block in read_blocks(file):
        if any(fnmatchcase(task, pattern) for pattern in block["tasks"]):
            found |= {
                name: tuple(value) if isinstance(value, list) else value for name, value in block["fields"].items()
            }
            sources.append(block["source"])
    return TaskConstants(found, tuple(sources), file)


def read_blocks(file: str) -> list[dict[str, Any]]:
    """All blocks of itrpo/algorithms/tasks/FILE.toml."""
    text = (files("itrpo") / "algorithms" / "tasks" / f"{file}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["constants"]
