"""`itrpo.train`: one algorithm on one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo.config import RunConfig
from itrpo.console import make_console
from itrpo.data.load import load_dataset
from itrpo.data.sources import Source
from itrpo.options import RunOptions, reading
from itrpo.training.configure import check_options, complete, make_setup
from itrpo.training.run import Run, run, train_together, usual_folder
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def train(
    dataset: Dataset | Source,
    algorithm: str = "itrpo",
    options: RunOptions = RunOptions(),
    *,
    fields: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Run:
    """Trains policies on a dataset and evaluates them as they learn; continues `options.out` if it has begun.

    `algorithm` is a name, or MODULE:ENTRY of an `AlgorithmEntry` of your own. `fields` sets the algorithm's own, e.g.
    {"alpha": 0.9, "tau": 0.5}.
    Raises InputError before any long work, DivergenceError if a run blows up, StorageError if the disk refuses.
    """
    console = console or make_console()
    return run(*prepare(dataset, algorithm, options, fields, console), console, options.track)


def prepare(
    dataset: Any, algorithm: str, options: RunOptions, fields: Mapping[str, Any] | None, console: Console
) -> tuple[RunConfig, Dataset, Path]:
    """What trains, on what, and into which folder. Raises as `train`, and trains nothing."""
    options = check_options(options, dataset)
    setup = make_setup(algorithm, options, fields)  # before any data is read
    data = read(dataset, options, console)
    config = complete(setup, options, data)
    return config, data, usual_folder(config) if options.out is None else Path(options.out)


def train_grid(
    dataset: str,
    algorithm: str,
    options: RunOptions,
    fields: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    console: Console,
) -> None:
    """One run for each of `fields`, as `train` does them, as one program: they differ in numbers alone.

    A run that diverges says so in its folder, and the others go on. Raises as `train`.
    """
    options = check_options(options, dataset)
    setups = [make_setup(algorithm, options, own) for own in fields]
    data = read(dataset, options, console)
    train_together(
        [(complete(setup, options, data), out) for setup, out in zip(setups, folders, strict=True)], data, console
    )


def read(dataset: Any, options: RunOptions, console: Console | None) -> Dataset:
    """The dataset, read as the options say unless it has been read already."""
    if isinstance(dataset, Dataset):
        return dataset
    holdout = options.holdout or 0.0
    return load_dataset(dataset, stack=options.stack or 1, holdout=holdout, console=console, **reading(options))
