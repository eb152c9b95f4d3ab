"""What `itrpo algorithms` prints: the registry, the presets, the fields."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from itrpo import registry
from itrpo.config import leaves, to_json

if TYPE_CHECKING:
    from rich.console import Console


def print_algorithms(console: Console) -> None:
    """One line per algorithm: its name, presets, models of pi_beta, and the first line of its file."""
    from rich.table import Table

    table = Table("name", "what it is", "presets (default first)", "pi_beta")
    for name in sorted(registry.ALGORITHMS):
        entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
        presets = [entry.default_preset, *(it for it in entry.presets if it != entry.default_preset)]
        first_line = (inspect.getdoc(inspect.getmodule(entry.config)) or "").split("\n")[0]
        table.add_row(name, first_line, ", ".join(presets), ", ".join(entry.behaviors))
    console.print(table)
    console.print("`itrpo algorithms NAME` shows the fields of one, and their values in each preset.")


def print_algorithm(name: str, console: Console) -> None:
    """The fields of one algorithm and of the model of pi_beta that it fits: value per preset, and meaning."""
    entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
    console.print((inspect.getdoc(inspect.getmodule(entry.config)) or "").split("\n")[0], markup=False)
    presets = {it: entry.presets[it].config for it in entry.presets}
    print_fields(f"{name}: flags of `itrpo train`", presets, "", console)
    if entry.behaviors:
        behaviors: dict[str, Any] = {}
        for preset, values in entry.presets.items():
            model = registry.lookup(values.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
            behaviors[preset] = values.behavior_config or model.config()
        print_fields("its model of pi_beta", behaviors, "behavior-", console)


def print_fields(title: str, configs: dict[str, Any], prefix: str, console: Console) -> None:
    """configs: preset -> Config, all of one class."""
    from rich.table import Table

    table = Table("flag", *configs, "meaning", title=title, title_justify="left")
    described = comments(next(iter(configs.values())))
    values = {preset: {name: value for name, _, value in leaves(config)} for preset, config in configs.items()}
    for name, meaning in described.items():
        flag = f"--{prefix}{name.replace('_', '-')}"
        table.add_row(flag, *(shown(values[preset][name]) for preset in configs), meaning)
    console.print(table)


def shown(value: Any) -> str:
    """A field's value as one would type it."""
    if isinstance(value, tuple):
        return ",".join(str(it) for it in value)
    return str(to_json(value)).lower() if isinstance(value, bool) else str(to_json(value))


def comments(config: Any) -> dict[str, str]:
    """Field -> the comment behind it in the source, for all leaves of a config, in their order."""
    found: dict[str, str] = {}
    source = inspect.getsource(type(config))
    for line in source.splitlines():
        match = re.match(r"\s+(\w+): [^#]*?(?:#\s*(.*))?$", line)
        if match and match[1] in vars(config):
            value = getattr(config, match[1])
            found |= comments(value) if hasattr(value, "__dataclass_fields__") else {match[1]: match[2] or ""}
    return found
