"""`itrpo.compare`: several algorithms on one dataset, with the same seeds, steps and evaluations, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from itrpo import files, registry
from itrpo.config import RunConfig
from itrpo.console import make_console, say
from itrpo.data.sources import Source
from itrpo.errors import DivergenceError, InputError
from itrpo.options import RunOptions
from itrpo.report.comparison import write_comparison
from itrpo.training.configure import check_options, complete, setup_from
from itrpo.training.outlook import look_ahead, print_outlook
from itrpo.training.run import name_in_folder, run
from itrpo.training.train import read
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def compare(
    dataset: Dataset | Source,
    algorithms: Sequence[str] | None = None,
    options: RunOptions | None = None,
    *,
    presets: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
) -> Path:
    """Says how long it takes, trains each algorithm into OUT/NAME, and writes OUT/comparison.md; returns its path.

    The same call continues it.

    `algorithms` defaults to all that take the dataset's kind of actions; `fields` sets fields of single ones, {"itrpo":
    {"alpha": 6.0}}, and `presets` presets, {"itrpo": "paper"}. Models of pi_beta with the same constants are fitted
    once and shared. A run that diverges is reported as such, and the others go on. `options` None: `RunOptions()`, runs
    at the paper's scale. `console` None: progress goes to standard output.
    Raises InputError before any long work, StorageError if the disk refuses.
    """
    options = RunOptions() if options is None else options
    console = console or make_console()
    work = prepare(dataset, algorithms, options, presets, fields, console)
    print_outlook(look_ahead(work.runs, work.dataset, console), work.folder, console)
    return train_each(work, console)


class Comparison(NamedTuple):
    """What is to be trained."""

    runs: Sequence[tuple[RunConfig, Path]]
    dataset: Dataset
    folder: Path
    track: Sequence[str]


def prepare(
    dataset: Any,
    algorithms: Sequence[str] | None,
    options: RunOptions,
    presets: Mapping[str, str] | None,
    fields: Mapping[str, Mapping[str, Any]] | None,
    console: Console,
    dry_run: bool = False,
) -> Comparison:
    """What `compare` would train; with `dry_run` nothing need be written. Raises as it does, and trains nothing."""
    if isinstance(algorithms, str):
        raise InputError(f"algorithms must be a list of names, such as [{algorithms!r}], got {algorithms!r}")
    named = None if algorithms is None else list(dict.fromkeys(algorithms))
    if named == []:
        raise InputError("algorithms is empty: name at least one, or leave it out to compare all")
    names = named or registry.algorithm_names()
    fields, presets = fields or {}, presets or {}
    for name in {**fields, **presets}:
        if name not in names:
            raise InputError(f"fields were given for {name!r}{registry.nearest(name, names)}, which is not compared")
    options = check_options(options, dataset)
    setups = [
        setup_from(name, replace(options, preset=presets.get(name, options.preset)), fields.get(name)) for name in names
    ]  # before any data is read: every mistake in names and values
    if not dry_run:
        files.check_may_write(Path("runs" if options.out is None else options.out))
    data = read(dataset, options, console)
    folder = Path("runs") / f"compare-{name_in_folder(data)}" if options.out is None else Path(options.out)
    chosen = [it for it in setups if named is not None or registry.algorithm(it.algorithm).actions == data.kind]
    configs = [complete(setup, options, data) for setup in chosen]
    return Comparison(
        [(config, folder / registry.folder_name(config.algorithm)) for config in configs], data, folder, options.track
    )


def train_each(work: Comparison, console: Console) -> Path:
    """-> the table, which is written after each run: an interrupted comparison shows what it has."""
    names = [config.algorithm for config, _ in work.runs]
    for number, (config, out) in enumerate(work.runs, start=1):
        console.rule(f"{config.algorithm}, {number} of {len(names)}")
        try:
            run(config, work.dataset, out, console, work.track)
        except DivergenceError as error:
            say(console, f"{config.algorithm}: {error}")
        write_comparison(work.folder, names)
    return work.folder / "comparison.md"
