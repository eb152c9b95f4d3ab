"""Pages that name code or tests name what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOTTED = re.compile(r"`([a-z_]\w*(?:\.\w+)+)`")
TEST = re.compile(r"`(tests/[\w/]+)(\.py)?(?:::(\w+))?(?:\.\.\.)?`")


def found(dotted: str) -> object | None:
    """What `part.module.name` names below `itrpo`, or None."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(["itrpo", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name, None)
        return value
    return None


def unknown_names(page: str) -> list[str]:
    """Functions that a table's third column names and that aren't there; `a.f`, `g` is a.f and a.g."""
    missing = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) != 4 or not DOTTED.search(cells[2]):
            continue
        module = ""
        for name in re.findall(r"`([\w.]+)`", cells[2]):
            if "." in name:
                module = name.rpartition(".")[0]
            dotted = name if "." in name else f"{module}.{name}"
            if found(dotted) is None:
                missing.append(dotted)
    return missing


def unknown_tests(page: str) -> list[str]:
    missing = []
    for path, ending, name in TEST.findall(page):
        file = REPOSITORY / f"{path}{ending}"
        if not file.exists() or (name and name not in file.read_text("utf-8")):
            missing.append(f"{path}{ending}::{name}")
    return missing


EQUATIONS = (REPOSITORY / "docs" / "equations.md").read_text("utf-8")


def test_every_equation_names_a_function_and_a_test_that_are_there():
    assert unknown_names(EQUATIONS) == []
    assert unknown_tests(EQUATIONS) == []


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("| Eq. 1 | target | `ops.td.bellman_goal` | x |", ["ops.td.bellman_goal"]),
        ("| Eq. 1 | target | `ops.td.bellman_target`, `bellman_goal` | x |", ["ops.td.bellman_goal"]),
        ("| Eq. 1 | target | `ops.tables.bellman` | x |", ["ops.tables.bellman"]),
        ("| Eq. 1 | target | `ops.td.bellman_target`, `regularised_value` | x |", []),
    ],
)
def test_a_name_that_is_not_there_is_noticed(line: str, missing: list[str]):
    assert unknown_names(line) == missing


def test_a_test_that_is_not_there_is_noticed():
    assert unknown_tests("`tests/ops/test_tables.py`") == ["tests/ops/test_tables.py::"]
    assert unknown_tests("`tests/ops/test_td.py::test_none_of_that`") == ["tests/ops/test_td.py::test_none_of_that"]
