"""`itrpo.compare`: several algorithms on one dataset, with the same seeds, steps and evaluations, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo import registry
from itrpo.console import make_console
from itrpo.data.sources import Source, label, parts
from itrpo.errors import DivergenceError, InputError
from itrpo.options import RunOptions
from itrpo.report.comparison import write_comparison
from itrpo.training.configure import check_options, complete, make_config
from itrpo.training.run import run
from itrpo.training.train import read
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def compare(
    dataset: Dataset | Source,
    algorithms: Sequence[str] | None = None,
    options: RunOptions = RunOptions(),
    *,
    presets: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
) -> Path:
    """Trains each algorithm into OUT/NAME and writes OUT/comparison.md; returns its path. The same call continues it.

    `algorithms` defaults to all; `fields` sets fields of single ones, {"itrpo": {"alpha": 6.0}}, and `presets` presets,
    {"itrpo": "paper"}. Models of pi_beta with the same constants are fitted once and shared. A run that diverges is
    reported as such, and the others go on.
    Raises InputError before any long work, StorageError if the disk refuses.
    """
    if isinstance(algorithms, str):
        raise InputError(f"algorithms must be a list of names, such as [{algorithms!r}], got {algorithms!r}")
    names = registry.algorithm_names() if algorithms is None else list(dict.fromkeys(algorithms))
    fields, presets = fields or {}, presets or {}
    for name in {**fields, **presets}:
        if name not in names:
            raise InputError(f"fields were given for {name!r}{registry.nearest(name, names)}, which is not compared")
    options = check_options(options, dataset)
    setups = [
        make_config(
            name,
            preset=presets.get(name, options.preset),
            behavior=options.behavior,
            fields=fields.get(name),
            task=options.task,
            scale=options.scale,
        )
        for name in names
    ]  # before any data is read: every mistake in names and values
    console = console or make_console()
    data = read(dataset, options, console)
    folder = comparison_folder(dataset, options)
    for setup in setups:
        console.rule(setup.algorithm)
        out = folder / registry.folder_name(setup.algorithm)
        try:
            run(complete(setup, options, data), data, out, console, options.track)
        except DivergenceError as error:
            console.print(f"{setup.algorithm}: {error}")
        write_comparison(folder, names)  # after each, so that an interrupted comparison shows what it has
    return folder / "comparison.md"


def comparison_folder(dataset: Any, options: RunOptions) -> Path:
    """Where a comparison goes."""
    if options.out is not None:
        return Path(options.out)
    name = dataset.name if isinstance(dataset, Dataset) else label(parts(dataset))
    return Path("runs") / f"compare-{Path(name).name}"
