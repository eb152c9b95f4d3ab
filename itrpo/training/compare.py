"""Several algorithms on one dataset, with the same seeds, steps and evaluations: run folders, and a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo import registry
from itrpo.console import make_console
from itrpo.data.load import load_dataset
from itrpo.errors import DivergenceError, InputError
from itrpo.report.comparison import write_comparison
from itrpo.tasks import task_of
from itrpo.training.configure import Scale, make_config, train
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def compare(
    dataset: Dataset | str | os.PathLike[str],
    algorithms: Sequence[str] | None = None,
    *,
    preset: str = "matched",
    presets: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | os.PathLike[str],
    steps: int | None = None,
    seeds: int | None = None,
    scale: Scale = "paper",
    seed: int = 0,
    eval_every: int | None = None,
    eval_episodes: int | None = None,
    env: str | None = None,
    task: str | None = None,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    console: Console | None = None,
) -> Path:
    """Trains each algorithm into OUT/NAME and writes OUT/comparison.md; returns its path. The same call continues it.

    `algorithms` defaults to every registered one; `fields` sets fields of single ones, {"itrpo": {"alpha": 6.0}}, and
    `presets` presets, {"itrpo": "quick"}. The other arguments are those of `itrpo.train`. Models of pi_beta with the
    same constants are fitted once and shared. A run that diverges is reported as such, and the others go on.
    Raises InputError before any long work, StorageError if the disk refuses.
    """
    names = list(registry.ALGORITHMS) if algorithms is None else list(dict.fromkeys(algorithms))
    fields, presets = fields or {}, dict.fromkeys(names, preset) | dict(presets or {})
    for name in {**fields, **presets}:
        if name not in names:
            raise InputError(f"fields were given for {name!r}{registry.nearest(name, names)}, which is not compared")
    if task is None:
        task = task_of(dataset.name if isinstance(dataset, Dataset) else dataset)
    for name in names:  # before any data is read: every mistake in names and values
        make_config(name, preset=presets[name], fields=fields.get(name), task=task)
    console = console or make_console()
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, env=env, action_low=action_low, action_high=action_high, console=console)
    folder = Path(out)
    for name in names:
        console.rule(name)
        try:
            train(
                dataset,
                name,
                steps=steps,
                seeds=seeds,
                scale=scale,
                out=folder / name,
                preset=presets[name],
                fields=fields.get(name),
                seed=seed,
                eval_every=eval_every,
                eval_episodes=eval_episodes,
                env=env,
                task=task,
                console=console,
            )
        except DivergenceError as error:
            console.print(f"{name}: {error}")
        write_comparison(folder, names)  # after each, so that an interrupted comparison shows what it has
    return folder / "comparison.md"
