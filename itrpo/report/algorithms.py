"""What `itrpo algorithms` prints: the registry, the presets, the fields."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from itrpo import registry
from itrpo.config import descriptions, leaves, shown
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.tasks import read_blocks

if TYPE_CHECKING:
    from rich.console import Console

    from itrpo.types import Preset, RewardRule


def print_algorithms(console: Console) -> None:
    """One line per algorithm: its name, presets, models of pi_beta, and the first line of its file."""
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "what it is", "presets (default first)", "pi_beta")
    for name in registry.algorithm_names():
        try:
            entry = registry.algorithm(name)
        except InputError as error:  # an installed package's, and broken: the others are as good as ever
            table.add_row(name, Text(str(error)), "", "")
            continue
        presets = [entry.default_preset, *(preset for preset in entry.presets if preset != entry.default_preset)]
        first_line = (inspect.getdoc(inspect.getmodule(entry.config)) or "").split("\n")[0]
        table.add_row(name, first_line, ", ".join(presets), ", ".join(entry.behaviors))
    console.print(table)
    say(console, "`itrpo algorithms NAME` shows the fields of one, and their values in each preset.")


def print_algorithm(name: str, console: Console) -> None:
    """The fields of one algorithm and of the model of pi_beta that it fits: value per preset, and meaning; then what
    the presets do to the data and what is to be known of them, and the constants that differ by task."""
    entry = registry.algorithm(name)
    say(console, (inspect.getdoc(inspect.getmodule(entry.config)) or "").split("\n")[0])
    presets = {it: entry.presets[it].config for it in entry.presets}
    print_fields(f"{name}: flags of `itrpo train`", presets, "", console)
    if entry.behaviors:
        behaviors: dict[str, Any] = {}
        for preset, values in entry.presets.items():
            if values.behavior is not None:
                model = registry.lookup(values.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
                behaviors[preset] = values.behavior_config or model.config()
        if behaviors:
            print_fields("its model of pi_beta", behaviors, "behavior-", console)
    print_data_rules(entry.presets, console)
    for preset, values in entry.presets.items():
        if values.note:
            say(console, f"preset {preset}: {values.note}")
    print_task_constants(entry.presets, console)


def print_data_rules(presets: Mapping[str, Preset], console: Console) -> None:
    """What each preset does to observations and rewards, and over how many steps its source trains and fits."""
    from rich.table import Table

    table = Table("the data, by preset", *presets)
    rows = {
        "observations": [normalized(it.normalize_observations) for it in presets.values()],
        "observations, AntMaze": [normalized(it.antmaze_normalize_observations) for it in presets.values()],
        "rewards": [reward_formula(it.rewards) for it in presets.values()],
        "rewards, AntMaze": [reward_formula(it.antmaze_rewards) for it in presets.values()],
        "steps in the source": [f"{it.steps:,}" for it in presets.values()],
    }
    if any(it.behavior for it in presets.values()):
        rows["and of the fit of pi_beta"] = [f"{it.behavior_steps:,}" if it.behavior else "" for it in presets.values()]
    for what, values in rows.items():
        table.add_row(what, *values)
    console.print(table)


def print_task_constants(presets: Mapping[str, Preset], console: Console) -> None:
    """Constants that differ by task, with their sources; nothing where there are none."""
    from rich.table import Table

    for file in dict.fromkeys(it.tasks for it in presets.values() if it.tasks):
        used = ", ".join(name for name, it in presets.items() if it.tasks == file)
        table = Table("tasks", "constants", title=f"by task (preset {used})", title_justify="left")
        table.add_column("source", overflow="fold")
        for block in read_blocks(file):
            values = "\n".join(f"--{name.replace('_', '-')} {shown(it)}" for name, it in block["fields"].items())
            table.add_row(", ".join(block["tasks"]), values, block["source"])
        console.print(table)


def normalized(it: bool) -> str:
    return "normalised" if it else "as they are"


def reward_formula(rule: RewardRule) -> str:
    """'1000 / (largest - smallest return) * r - 1', or 'as they are'."""
    factors = ["1000 / (largest - smallest return)"] if rule.by_return_range else []
    factors += [f"{rule.scale:g}"] if rule.scale != 1.0 else []
    shift = f" {'-' if rule.shift < 0 else '+'} {abs(rule.shift):g}" if rule.shift else ""
    return " * ".join([*factors, "r"]) + shift if factors or shift else "as they are"


def print_fields(title: str, configs: dict[str, Any], prefix: str, console: Console) -> None:
    """configs: preset -> Config, all of one class."""
    from rich.table import Table
    from rich.text import Text

    table = Table("flag", *configs, "meaning", title=title, title_justify="left")
    described = descriptions(type(next(iter(configs.values()))))
    values = {preset: {name: value for name, _, value in leaves(config)} for preset, config in configs.items()}
    for name, meaning in described.items():
        flag = f"--{prefix}{name.replace('_', '-')}"
        cells = [*(shown(values[preset][name]) for preset in configs), meaning]
        table.add_row(flag, *(Text(cell) for cell in cells))  # brackets in a comment are no markup
    console.print(table)
