"""`itrpo.train`: one algorithm on one dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo import files
from itrpo.config import RunConfig
from itrpo.console import make_console
from itrpo.data.load import load_dataset
from itrpo.data.sources import Source
from itrpo.options import RunOptions, reading
from itrpo.training import continuing
from itrpo.training.configure import check_options, complete, setup_from
from itrpo.training.run import Run, run, train_together, usual_folder
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def train(
    dataset: Dataset | Source,
    algorithm: str = "itrpo",
    options: RunOptions | None = None,
    *,
    fields: Mapping[str, Any] | None = None,
    continue_from: str | os.PathLike[str] | None = None,
    console: Console | None = None,
) -> Run:
    """Trains policies on a dataset and evaluates them as they learn; continues `options.out` if it has begun.

    `algorithm` is a name, or MODULE:ENTRY of an `AlgorithmEntry` of your own. `options` None: `RunOptions()`, a run at
    the paper's scale. `fields` sets the algorithm's own, e.g. {"alpha": 0.9, "tau": 0.5}. `continue_from` is the folder
    of a finished run of the same algorithm, whose networks and constants this new run begins with:
    `itrpo.training.continuing`. `console` None: progress goes to standard output.
    Returns the finished run: its folder, the returns of its seeds, its policies.
    Raises InputError before any long work, DivergenceError if a run blows up, StorageError if the disk refuses.
    """
    options = RunOptions() if options is None else options
    console = console or make_console()
    parent = None if continue_from is None else Path(continue_from)
    config, data, folder = prepare(dataset, algorithm, options, fields, console, parent)
    return run(config, data, folder, console, options.track, parent)


def prepare(
    dataset: Any,
    algorithm: str,
    options: RunOptions,
    fields: Mapping[str, Any] | None,
    console: Console,
    parent: Path | None = None,
    dry_run: bool = False,
) -> tuple[RunConfig, Dataset, Path]:
    """What trains, on what, and into which folder; with `dry_run` nothing need be written there. Raises as `train`, and
    trains nothing.
    """
    options = check_options(options, dataset)
    if not dry_run:
        files.check_may_write(Path("runs" if options.out is None else options.out))
    old = None if parent is None else continuing.read_parent(parent, algorithm)
    if old is None or parent is None:
        setup = setup_from(algorithm, options, fields)  # before any data is read
    else:
        options = continuing.options_for(old, options, parent, isinstance(dataset, Dataset))
        setup = continuing.setup_for(old, fields or {})
    data = read(dataset, options, console)
    config = complete(setup, options, data)
    if old is not None and parent is not None:
        config = continuing.continued(old, parent, config, data)
    return config, data, usual_folder(config, data) if options.out is None else Path(options.out)


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
    setups = [setup_from(algorithm, options, own) for own in fields]
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
