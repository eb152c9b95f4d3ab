"""What `itrpo datasets list` and `itrpo datasets info NAME` print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.console import say
from itrpo.data.behavior_policy import BehaviorPolicy, agreement, fits, read_policy
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.fit import Misfit
from itrpo.data.wording import listed
from itrpo.errors import InputError
from itrpo.evaluation.environments import logged_score, score_name
from itrpo.files import cache_dir, d4rl_path, generated_path
from itrpo.registry import GENERATED_DATASETS
from itrpo.types import Dataset, DiscreteSpec

if TYPE_CHECKING:
    from rich.console import Console


class DatasetRow(NamedTuple):
    """One dataset that goes by name."""

    name: str
    origin: str
    size: int | None  # bytes of the file; None: not made yet
    cached: bool


def dataset_rows() -> list[DatasetRow]:
    """Every dataset that goes by name, the generated ones first."""
    rows = []
    for name in GENERATED_DATASETS:
        path = generated_path(name)
        cached = path.exists()
        rows.append(DatasetRow(name, "made here", path.stat().st_size if cached else None, cached))
    for name, entry in D4RL_FILES.items():
        rows.append(DatasetRow(name, "D4RL", entry.size, d4rl_path(entry.file).exists()))
    return rows


def describe(dataset: Dataset, misfit: Misfit | None = None, unusable: str = "") -> dict[str, str]:
    """Label -> text for everything `itrpo datasets info` says about a dataset, in its order.

    `misfit`: how it and its environment do not fit, if they don't; `unusable`: why that can't be told here.
    """
    returns, lengths, source = dataset.episode_returns, dataset.episode_lengths, dataset.source
    facts = {
        "transitions": f"{len(dataset):,} of {dataset.num_rows:,} rows",
        "observations, actions": sizes_in_words(dataset),
        "terminals, timeouts": f"{dataset.num_terminals:,}, {dataset.num_timeouts:,}",
        "completed episodes": f"{len(returns):,}",
    }
    if len(returns):
        facts["episode length"] = f"{lengths.mean():,.0f} (from {lengths.min():,} to {lengths.max():,})"
        facts["return"] = _spread(returns)
        env_id = None if misfit is not None and misfit.of_sizes else dataset.env_id
        own = dataset.reference
        scores = None if env_id is None else logged_score(env_id, returns, own)
        if scores is not None:
            by = "" if own is None else f" (0 and 100: returns of {own[0]:,.6g} and {own[1]:,.6g})"
            facts[score_name(env_id, own)] = _spread(scores) + by
    for beginning in ("observation", "action"):
        names, units = (getattr(dataset.attributes, f"{beginning}_{it}") for it in ("names", "units"))
        if names or units:
            sizes = len(names or units)
            words = [
                " ".join(filter(None, it)) for it in zip(names or [""] * sizes, units or [""] * sizes, strict=True)
            ]
            facts[f"{beginning}s"] = ", ".join(words)
    facts["environment"] = dataset.env_id or "none known: name it with --env"
    if misfit is not None:
        facts["does not fit"] = str(misfit)
    if unusable:
        facts["unusable here"] = unusable
    if dataset.num_actions is not None:
        counts = np.bincount(dataset.transitions.action, minlength=dataset.num_actions)
        names = [f"{dataset.action_low[0] + i:.0f}" for i in range(len(counts))]
        facts["how often chosen"] = ", ".join(f"{it}: {count:,}" for it, count in zip(names, counts, strict=True))
    elif (dataset.action_low != -1).any() or (dataset.action_high != 1).any():
        facts["actions rescaled from"] = f"{dataset.action_low.tolist()} to {dataset.action_high.tolist()}"
    if dataset.notes:
        facts["note"] = "\n".join(dataset.notes)
    facts |= _policy_facts(dataset)
    facts["kind"] = source.kind
    known = {"file": source.path, "downloaded from": source.url, "SHA-256": source.sha256}
    facts |= {label: value for label, value in known.items() if value is not None}
    recipe = {
        key: value for key, value in source.recipe.items() if key not in ("changes", "float32")
    }  # are among the notes
    if "files" in recipe:
        facts["files"] = listed([Path(it["file"]).name for it in recipe.pop("files")])
    return facts | {f"recipe: {key}": _recipe_text(value) for key, value in recipe.items()}


def sizes_in_words(dataset: Dataset) -> str:
    size, actions = dataset.spec
    if dataset.num_actions is None:
        return f"{size}, {actions} dimensions"
    return f"{size} dimensions, {actions} choices ({dataset.bounds})"


def _policy_facts(dataset: Dataset) -> dict[str, str]:
    """What the file knows of the policy that acted: its network, the densities of its actions, and whether they fit."""
    log_probs, source = dataset.behavior_log_probs, dataset.source
    facts: dict[str, str] = {}
    if log_probs is not None:
        what = "log density of actions" if dataset.num_actions is None else "log probability of actions"
        facts[what] = f"{log_probs.mean():,.2f} on average, under the policy that acted"
    if isinstance(dataset.spec, DiscreteSpec):
        return facts
    try:
        policy = read_policy(source.path) if source.path and source.kind in ("d4rl", "hdf5", "generated") else None
    except InputError as error:
        return facts | {"policy that acted": f"in the file, but can't be used: {error}"}
    if policy is None:
        return facts
    rescaled = (dataset.action_low != -1).any() or (dataset.action_high != 1).any()
    if rescaled or not fits(policy, *dataset.spec):
        return facts | {"policy that acted": "in the file, but it is one for other observations or actions"}
    sizes = [dataset.spec.observation_dim, *(len(layer.bias) for layer in policy.hidden), dataset.spec.action_dim]
    facts["policy that acted"] = f"in the file: tanh-Gaussian, {'-'.join(map(str, sizes))}, {policy.nonlinearity}"
    if log_probs is not None:
        facts["its log densities"] = _agreement_text(policy, dataset, log_probs)
    return facts


def _agreement_text(policy: BehaviorPolicy, dataset: Dataset, log_probs: np.ndarray) -> str:
    found = agreement(policy, dataset.transitions.observation, dataset.transitions.action, log_probs)
    if found is None:
        return "can't be compared with the stored ones: every action is saturated"
    left_out = f"; {found.saturated:,} with saturated actions left out" if found.saturated else ""
    return (
        f"differ from the stored ones by {found.mean:.2g} on average, {found.largest:.2g} at most"
        f" ({found.rows:,} rows{left_out})"
    )


def print_dataset_list(console: Console) -> None:
    """Prints the names, sizes and state of all datasets that go by name."""
    from rich.table import Table

    table = Table(title="Datasets that go by name", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("in the cache", no_wrap=True)
    for row in dataset_rows():
        size = "-" if row.size is None else f"{row.size / 1e6:,.0f} MB"
        table.add_row(row.name, row.origin, size, "yes" if row.cached else "no")
    console.print(table)
    say(console, "made here: offline, from policies inside the package. D4RL: downloaded.")
    say(console, f"The cache is {cache_dir()}. Paths to files work as well.")


def print_facts(name: str, facts: Mapping[str, str], console: Console) -> None:
    """Prints what is known of the dataset `name`, label -> text, as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=name, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts.items():
        table.add_row(label, Text(text))
    console.print(table)


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():,.1f} ± {values.std():,.1f}, max {values.max():,.1f}"


def _recipe_text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_recipe_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        apart = "\n" if any(isinstance(item, dict) for item in value) else ", "
        return apart.join(_recipe_text(item) for item in value)
    return str(value)
