"""Reading the files of a run folder (see `schema`), also while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrpo.errors import InputError, StorageError
from itrpo.files import read_json
from itrpo.results.schema import Row, Status, row_from_json

if TYPE_CHECKING:
    import polars

METRICS, TIMING, STATUS = "metrics.jsonl", "timing.jsonl", "status.json"
CONFIG, PROVENANCE = "config.json", "provenance.json"
EVALUATIONS = "evaluations"  # folder of what `itrpo evaluate` measured


def run_folders(root: Path | str) -> Iterator[Path]:
    """Folders of runs, `root` itself too, at any depth and in the order of their paths. Nothing inside a run is one."""
    for folder, below, names in os.walk(root):
        if STATUS in names:
            below.clear()
            yield Path(folder)
        below.sort()


def read_metrics(run_dir: Path | str) -> polars.DataFrame:
    """All rows of a run as columns run, seed, step, metric, value; empty if nothing was measured yet.

    A last line that a kill cut short is left out. Raises InputError for what is no run's folder, StorageError naming
    the line if any other is damaged.
    """
    import polars

    path = Path(run_dir) / METRICS
    if not any((Path(run_dir) / name).exists() for name in (METRICS, STATUS, CONFIG)):
        raise InputError(f"{run_dir} is no run: it has no {METRICS}; `itrpo runs list` shows where runs are")
    rows = read_rows(path) if path.exists() else []
    types = {"run": polars.String, "seed": polars.Int64, "step": polars.Int64, "metric": polars.String}
    return polars.DataFrame(rows, schema=types | {"value": polars.Float64}, orient="row")


def read_timing(run_dir: Path | str) -> list[dict[str, Any]]:
    """The records of timing.jsonl, one for each step: a resumed run times a stretch again, and the last time counts.

    None if there is no such file. A torn last line is left out. Raises StorageError if any other is damaged.
    """
    path = Path(run_dir) / TIMING
    try:
        records = [json.loads(line) for line in whole_lines(path)] if path.exists() else []
        return list({it["step"]: it for it in records}.values())
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: a line is no record of timing ({error})") from error


def read_provenance(run_dir: Path | str) -> dict[str, Any]:
    """What a run was made from and with. Raises StorageError if it can't be read."""
    return read_json(Path(run_dir) / PROVENANCE)


def read_status(run_dir: Path | str) -> Status:
    """The run's status.json. Raises StorageError if it can't be read."""
    path = Path(run_dir) / STATUS
    try:
        return Status(**read_json(path))
    except TypeError as error:
        raise StorageError(f"{path}: not the status of a run ({error})") from error


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a metrics file, as in `read_metrics`."""
    rows = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            rows.append(row_from_json(line))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StorageError(f"{path}, line {number}: not a row of metrics ({error!r})") from error
    return rows


def whole_lines(path: Path | str) -> list[bytes]:
    """Lines without their ends, and without a last one that a kill cut short."""
    try:
        return Path(path).read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise StorageError(f"can't read {path}: {error}") from error
