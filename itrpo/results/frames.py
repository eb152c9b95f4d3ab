"""Many runs as two polars frames: what reports and statistics read. And the file that keeps them without their folders.

`pack` writes one Parquet file (zstd) with a row per run, its measurements in list columns: any reader of Parquet reads
it. Values are float32 there; texts that repeat are stored once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from itrpo import files
from itrpo.console import say
from itrpo.errors import InputError, StorageError
from itrpo.results import store

if TYPE_CHECKING:
    import polars
    from rich.console import Console

PLAN_FILE = "plan.json"  # beside the folders of a sweep's datasets
SUFFIX = ".parquet"
ROW = ("seed", "step", "metric", "value")
MEASURED = [f"measured_{name}" for name in ROW]  # list columns of a packed file


class Results(NamedTuple):
    """Runs and what they measured.

    `runs`, a row per run: run (the hash of its configuration), plan (null outside of a sweep), label (the arm's; else
    the algorithm), algorithm, preset, dataset, task, kind ("d4rl", "generated", ...), env_id, seeds, step (how far it
    is), steps, eval_every, eval_episodes, state, message, config and provenance (JSON), dataset_score, dataset_return,
    train_seconds, behavior, alpha, tau; null where a run has no such thing.
    `rows`: run, seed, step, metric, value: see docs/metrics.md.
    """

    runs: polars.DataFrame
    rows: polars.DataFrame


def read_results(paths: Sequence[Path | str], console: Console | None = None) -> Results:
    """The runs in folders, at any depth, and in packed files.

    Of runs with one hash the one that is further is kept, and what it measured; it has a row for each plan that it is
    an arm of. A last line that a kill cut short is left out, and said on `console`. Raises InputError for a path
    without runs, StorageError naming a damaged file.
    """
    import polars

    found: dict[str, tuple[tuple[int, int], dict[str, Any], polars.DataFrame]] = {}
    arms: dict[tuple[str | None, str, str], None] = {}  # (plan, label, run), in the order in which they are found
    for path in map(Path, paths):
        empty = True
        for about, rows in read_path(path, console):
            empty = False
            progress = (about["step"], about["seeds"])
            arms[about["plan"], about["label"], about["run"]] = None
            if about["run"] not in found or progress > found[about["run"]][0]:
                found[about["run"]] = (progress, about, rows)
        if empty:
            raise InputError(f"{path}: no run of itrpo is in it; name a folder of runs, or a file of `itrpo runs pack`")
    planned = {run for plan, _, run in arms if plan is not None}
    abouts = [
        found[run][1] | {"plan": plan, "label": label}
        for plan, label, run in arms
        if plan is not None or run not in planned
    ]
    runs = polars.DataFrame(abouts, schema=runs_schema())
    empty_rows = polars.DataFrame(schema=rows_schema())
    rows = polars.concat([empty_rows, *(rows for _, _, rows in found.values())])
    return Results(runs.sort("dataset", "label", "run"), rows)


def pack(results: Results, path: Path | str) -> None:
    """Writes a Parquet file whole or not at all. Folders of the machine are left out of the provenance: only the names
    of files stay. Raises InputError for a name that does not end in .parquet, StorageError if the disk refuses.
    """
    import polars

    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"--out {path}: the name of a packed file ends in {SUFFIX}")
    measured = (
        results.rows.sort("run", "metric", "seed", "step")
        .cast({"seed": polars.Int16, "step": polars.Int32, "value": polars.Float32})
        .group_by("run", maintain_order=True)
        .agg(polars.col(name).alias(column) for name, column in zip(ROW, MEASURED, strict=True))
    )
    private = polars.col("provenance").map_elements(without_folders, return_dtype=polars.String)
    table = results.runs.with_columns(private).join(measured, on="run", how="left", maintain_order="left")
    with files.replacing(path) as file:
        table.write_parquet(file, compression="zstd", compression_level=19, statistics=False)


# --- where runs are ------------------------------------------------------------------------------------------------


def read_path(path: Path, console: Console | None) -> Iterator[tuple[dict[str, Any], polars.DataFrame]]:
    """(row of `runs`, its rows) of each run in a packed file, or below a folder in the order of their paths."""
    if path.is_file():
        if not is_pack(path):
            raise InputError(f"{path}: not a file of `itrpo runs pack`")
        yield from read_pack(path)
    elif path.is_dir():
        for folder in store.run_folders(path):
            config = files.read_json(folder / store.CONFIG)
            if "config" in config:  # else a run of another kind, such as `itrpo sac`
                yield read_run(folder, config["config"], console)
        for packed in sorted(path.rglob(f"*{SUFFIX}")):
            if is_pack(packed):
                yield from read_pack(packed)
    else:
        raise InputError(f"{path}: no such file or folder")


def read_run(folder: Path, config: dict[str, Any], console: Console | None) -> tuple[dict[str, Any], polars.DataFrame]:
    """Raises StorageError naming the file that is damaged."""
    import polars

    status, provenance = store.read_status(folder), store.read_provenance(folder)
    path = folder / store.METRICS
    if console is not None and path.exists() and not path.read_bytes().endswith(b"\n"):
        say(console, f"{path}: a kill cut its last line short; it is left out")
    plan, label = plan_and_label(folder, status.run)
    try:
        own, dataset = config["algorithm_config"], provenance["dataset"]
        about = {
            "run": status.run,
            "plan": plan,
            "label": label or status.algorithm,
            "algorithm": status.algorithm,
            "preset": config["preset"],
            "dataset": status.dataset,
            "task": config["data"]["task"],
            "kind": dataset["source"]["kind"],
            "env_id": status.env_id,
            "seeds": status.seeds,
            "step": status.step,
            "steps": status.steps,
            "eval_every": config["evaluation"]["eval_every"],
            "eval_episodes": status.episodes,
            "state": status.state,
            "message": status.message,
            "config": json.dumps(config),
            "provenance": json.dumps(provenance),
            "dataset_score": dataset.get("score_mean"),
            "dataset_return": dataset.get("return_mean"),
            "train_seconds": train_seconds(store.read_timing(folder)),
            "behavior": config["behavior"],
            "alpha": number(own.get("alpha")),
            "tau": number(own.get("tau")),
        }
        polars.DataFrame([about], schema=runs_schema())  # says here of which run a number is none
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, polars.exceptions.PolarsError) as error:
        what = "config.json, provenance.json or status.json is not that of a run"
        raise StorageError(f"{folder}: {what} ({' '.join(repr(error).split())})") from error
    return about, store.read_metrics(folder)


def plan_and_label(folder: Path, run: str) -> tuple[str | None, str | None]:
    """What the plan.json of a sweep says of a run in OUT/DATASET/LABEL/. Raises StorageError if it is damaged."""
    path = folder.resolve().parent.parent / PLAN_FILE
    if not path.exists():
        return None, None
    plan = files.read_json(path)
    try:
        label = next((it["label"] for it in plan["runs"] if it["hash"] == run), None)
        return plan["name"], label or folder.resolve().name
    except (KeyError, TypeError) as error:
        raise StorageError(f"{path}: not the plan of a sweep ({error!r})") from error


def train_seconds(timing: Sequence[dict[str, Any]]) -> float | None:
    """Of the updates alone."""
    return sum(it["train_seconds"] for it in timing) if timing else None


def number(value: Any) -> float | None:
    """A field's number, also "inf"; None for a text, such as a rule's name."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


# --- packed files --------------------------------------------------------------------------------------------------


def runs_schema() -> dict[str, Any]:
    import polars

    integers = ("seeds", "step", "steps", "eval_every", "eval_episodes")
    numbers = ("dataset_score", "dataset_return", "train_seconds", "alpha", "tau")
    names = (
        *("run", "plan", "label", "algorithm", "preset", "dataset", "task", "kind", "env_id"),
        *(*integers, "state", "message", "config", "provenance"),
        *("dataset_score", "dataset_return", "train_seconds", "behavior", "alpha", "tau"),
    )
    types: dict[str, Any] = {**dict.fromkeys(integers, polars.Int64), **dict.fromkeys(numbers, polars.Float64)}
    return {name: types.get(name, polars.String) for name in names}


def rows_schema() -> dict[str, Any]:
    import polars

    return {
        "run": polars.String,
        "seed": polars.Int64,
        "step": polars.Int64,
        "metric": polars.String,
        "value": polars.Float64,
    }


def is_pack(path: Path) -> bool:
    """Whether a file has the columns of a pack. Raises StorageError if it ends in .parquet and can't be read."""
    import polars

    if path.suffix != SUFFIX:
        return False
    try:
        return {*runs_schema(), *MEASURED} <= set(polars.read_parquet_schema(path))
    except (OSError, polars.exceptions.PolarsError) as error:
        raise StorageError(f"can't read {path}: {error}") from error


def read_pack(path: Path) -> Iterator[tuple[dict[str, Any], polars.DataFrame]]:
    import polars

    try:
        table = polars.read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise StorageError(f"can't read {path}: {error}") from error
    for index, about in enumerate(table.select(list(runs_schema())).iter_rows(named=True)):
        own = table.slice(index, 1).select("run", *MEASURED).explode(MEASURED)
        named = (polars.col(column).alias(name) for column, name in zip(MEASURED, ROW, strict=True))
        measured = own.select("run", *named).drop_nulls("step")
        yield about, measured.cast(rows_schema())  # pyright: ignore[reportArgumentType]


def without_folders(provenance: str) -> str:
    """JSON with the absolute paths in it as the names of their files."""

    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shortened(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [shortened(inner) for inner in value]
        return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value

    return json.dumps(shortened(json.loads(provenance)))
