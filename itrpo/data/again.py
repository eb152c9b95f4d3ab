"""The dataset of a run, read once more as the run read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from itrpo.data.load import load_dataset
from itrpo.data.ogbench_names import PREFIX
from itrpo.data.series import Rules
from itrpo.errors import StorageError
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def source_again(about: Mapping[str, Any]) -> Any:
    """What names the data, of a run's provenance; None where they were arrays in memory."""
    try:
        source = about["dataset"]["source"]
        kind, name, path = (source[it] for it in ("kind", "name", "path"))
    except (KeyError, TypeError) as error:
        raise StorageError(f"provenance.json of the run is damaged: dataset.source has no {error}") from error
    if kind in ("d4rl", "generated"):
        return name
    if kind == "ogbench":  # its file holds no rewards
        return PREFIX + name
    return path or [it["file"] for it in (source.get("recipe") or {}).get("files", ())] or None


def load_again(source: Any, own: Mapping[str, Any], holdout: float = 0.0, console: Console | None = None) -> Dataset:
    """`source` with the columns, rules, bounds and history of `own`, the part `data` of a run's config.json."""
    return load_dataset(
        source,
        columns=own.get("columns"),
        env="none",
        action_low=own["action_low"],
        action_high=own["action_high"],
        num_actions=own.get("num_actions"),
        stack=own.get("stack") or 1,
        holdout=holdout,
        console=console,
        **{name: value for name, value in (own.get("rules") or {}).items() if name in Rules._fields},
    )
