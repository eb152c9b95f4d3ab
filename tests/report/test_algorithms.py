from __future__ import annotations

import io

import pytest
from rich.console import Console

from itrpo import registry
from itrpo.report.algorithms import print_algorithm, print_algorithms, reward_formula
from itrpo.types import RewardRule


def printed(function, *arguments) -> str:
    console = Console(file=io.StringIO(), width=240)
    function(*arguments, console)
    return console.file.getvalue()


def test_fields_rules_and_constants_by_task_of_one_algorithm():
    text = printed(print_algorithm, "iql")
    assert "--expectile" in text
    assert "1000 / (largest - smallest return) * r" in text
    assert "r - 1" in text
    antmaze = next(line for line in text.splitlines() if "antmaze-*" in line)
    assert "--expectile 0.9" in antmaze
    assert "configs/antmaze_config.py" in antmaze


def test_what_is_to_be_known_of_a_preset():
    lines = [line for line in printed(print_algorithm, "itrpo").splitlines() if line.startswith("preset ")]
    assert [line.split(":")[0] for line in lines] == ["preset paper"]
    assert "--log-ratio-low -1" in lines[0]


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_flag_of_every_algorithm_has_a_meaning(name):
    text = printed(print_algorithm, name)
    rows = [[it.strip() for it in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│ --")]
    rows = [row for row in rows if len(row) > 3]  # the last tables have no meanings
    assert rows
    assert [row[0] for row in rows if not row[-1]] == []


def test_all_algorithms_are_listed():
    text = printed(print_algorithms)
    assert all(f"│ {name} " in text for name in registry.ALGORITHMS)


def test_a_broken_plug_in_is_a_line_among_the_others(monkeypatch):
    monkeypatch.setattr(registry, "installed_algorithms", lambda: {"broken": "no_such_module:X"})
    text = printed(print_algorithms)
    assert "No module named 'no_such_module'" in " ".join(text.split())
    assert all(f"│ {name} " in text for name in ("broken", *registry.ALGORITHMS))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (RewardRule(), "as they are"),
        (RewardRule(shift=5.0), "r + 5"),
        (RewardRule(scale=4.0, shift=-0.5), "4 * r - 0.5"),
        (RewardRule(by_return_range=True), "1000 / (largest - smallest return) * r"),
    ],
)
def test_reward_rules_in_words(rule, words):
    assert reward_formula(rule) == words
