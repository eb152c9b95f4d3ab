"""What `itrpo datasets list` and `itrpo datasets info NAME` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data.cache import cache_dir, d4rl_path, generated_path
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.evaluation.environments import normalized_score
from itrpo.registry import GENERATED_DATASETS
from itrpo.types import Dataset

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
        rows.append(DatasetRow(name, "made here, offline", path.stat().st_size if cached else None, cached))
    for name, entry in D4RL_FILES.items():
        rows.append(DatasetRow(name, "D4RL download", entry.size, d4rl_path(entry.file).exists()))
    return rows


def describe(dataset: Dataset) -> dict[str, str]:
    """Label -> text for everything `itrpo datasets info` says about a dataset, in its order."""
    returns, lengths, source = dataset.episode_returns, dataset.episode_lengths, dataset.source
    facts = {
        "transitions": f"{len(dataset):,} of {dataset.num_rows:,} rows",
        "observations, actions": f"{dataset.spec.observation_dim}, {dataset.spec.action_dim} dimensions",
        "terminals, timeouts": f"{dataset.num_terminals:,}, {dataset.num_timeouts:,}",
        "completed episodes": f"{len(returns):,}",
    }
    if len(returns):
        facts["episode length"] = f"{lengths.mean():,.0f} (from {lengths.min():,} to {lengths.max():,})"
        facts["return"] = _spread(returns)
        scores = normalized_score(dataset.env_id, returns) if dataset.env_id else None
        if scores is not None:
            facts["D4RL-normalised score"] = _spread(scores)
    facts["environment"] = dataset.env_id or "none known: name it with --env"
    if (dataset.action_low != -1).any() or (dataset.action_high != 1).any():
        facts["actions rescaled from"] = f"{dataset.action_low.tolist()} to {dataset.action_high.tolist()}"
    facts["kind"] = source.kind
    if source.path is not None:
        facts["file"] = source.path
    if source.url is not None:
        facts["downloaded from"] = source.url
    if source.sha256 is not None:
        facts["SHA-256"] = source.sha256
    for key, value in source.recipe.items():
        facts[f"recipe: {key}"] = _recipe_text(value)
    return facts


def print_dataset_list(console: Console) -> None:
    """Prints the names, sizes and state of all datasets that go by name."""
    from rich.table import Table

    table = Table(title="Datasets that go by name", title_justify="left", caption_justify="left")
    table.caption = f"Cache: {cache_dir()}. Paths to .hdf5, .h5 and .npz files work as well."
    table.add_column("name", no_wrap=True)
    table.add_column("origin")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("in the cache")
    for row in dataset_rows():
        size = "-" if row.size is None else f"{row.size / 1e6:,.0f} MB"
        table.add_row(row.name, row.origin, size, "yes" if row.cached else "no")
    console.print(table)


def print_dataset_info(dataset: Dataset, console: Console) -> None:
    """Prints `describe(dataset)` as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=dataset.name, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in describe(dataset).items():
        table.add_row(label, Text(text))
    console.print(table)


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():,.1f} ± {values.std():,.1f}, max {values.max():,.1f}"


def _recipe_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_recipe_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(_recipe_text(item) for item in value)
    return str(value)
