"""Many runs as two polars frames: what reports and statistics read. And the file that keeps them without their folders.

`pack` writes one Parquet file (zstd) with a row per run, its measurements in list columns: any reader of Parquet reads
it. Values are float32 there; texts that repeat are stored once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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

    `runs`, a row per run: run (the hash of its configuration; of a run of another length than one with the same hash,
    its length after that), plan (null outside of a sweep), label (the arm's; else
    the algorithm), algorithm, preset, dataset, task, kind ("d4rl", "generated", ...), env_id, seeds, step (how far it
    is), steps, eval_every, eval_episodes, state, message, config and provenance (JSON), dataset_score, dataset_return,
    train_seconds, behavior, alpha, tau; null where a run has no such thing.
    `rows`: run, seed, step, metric, value: see docs/metrics.md.
    """

    runs: polars.DataFrame
    rows: polars.DataFrame


def read_results(paths: Sequence[Path | str], console: Console | None = None) -> Results:
    """The runs in folders, at any depth, and in packed files.

    What is there twice, a folder and a packed copy of it say, counts once: of one arm of one plan the run that is
    further, and outside of plans of runs with one configuration, as many steps and as many seeds. A run that two plans
    share has a row for each. A last line that a kill cut short is left out, and said on `console`. Raises InputError
    for a path without runs, StorageError naming a damaged file.
    """
    import polars

    found: dict[Length, tuple[dict[str, Any], polars.DataFrame]] = {}
    arms: dict[tuple[Any, ...], Length] = {}  # in the order in which they are found
    for path in map(Path, paths):
        empty = True
        for about, rows in read_path(path, console):
            empty = False
            length = Length(run_hash(about), about["steps"], about["seeds"])
            if length not in found or about["step"] > found[length][0]["step"]:
                found[length] = about, rows
            arm = (about["plan"], about["label"], length.run if about["plan"] is not None else length)
            if arm not in arms or progress(found[length][0]) > progress(found[arms[arm]][0]):
                arms[arm] = length
        if empty and path.is_dir() and any(store.run_folders(path)):
            raise InputError(
                f"{path}: its runs are of another kind (as `itrpo finetune`), which reports and packed files do not"
                " hold; `itrpo runs list` shows them"
            )
        if empty:
            raise InputError(f"{path}: no run of itrpo is in it; name a folder of runs, or a file of `itrpo runs pack`")
    names = dict[Length, str]()
    for length in sorted(set(arms.values()), key=lambda it: (it.run, *progress(found[it][0])), reverse=True):
        taken = length.run in names.values()  # by one that is further
        names[length] = f"{length.run}{OTHER_LENGTH}{length.steps}x{length.seeds}" if taken else length.run
    abouts = [
        found[length][0] | {"plan": plan, "label": label, "run": names[length]}
        for (plan, label, _), length in arms.items()
    ]
    runs = polars.DataFrame(abouts, schema=runs_schema())
    own = [found[length][1].with_columns(run=polars.lit(name)) for length, name in names.items()]
    rows = polars.concat([polars.DataFrame(schema=rows_schema()), *own])
    return Results(runs.sort("dataset", "label", "run"), rows)


OTHER_LENGTH = "-"  # after a configuration's hash: of another length than the run that is called by the hash alone


class Length(NamedTuple):
    run: str  # the hash of a configuration
    steps: int
    seeds: int


def run_hash(about: Mapping[str, Any]) -> str:
    return about["run"].partition(OTHER_LENGTH)[0]


def progress(about: Mapping[str, Any]) -> tuple[int, int, int]:
    return about["step"], about["seeds"], about["steps"]


def number_lost(old: Results, new: Results) -> int:
    """Of the runs in `old` how many are not in `new`, where one with more steps and seeds stands for a shorter one."""
    reached: dict[str, list[tuple[int, int]]] = {}
    for it in new.runs.iter_rows(named=True):
        reached.setdefault(run_hash(it), []).append((it["step"], it["seeds"]))
    return sum(
        not any(step >= it["step"] and seeds >= it["seeds"] for step, seeds in reached.get(run_hash(it), ()))
        for it in old.runs.unique("run").iter_rows(named=True)
    )


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
    plan, label = plan_and_label(folder)
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


def plan_and_label(folder: Path) -> tuple[str | None, str | None]:
    """What the plan.json of a sweep says of a run in OUT/DATASET/LABEL/, by its folder: its hash stands there only once
    it has ended. Nothing of one that is in the plan no longer. Raises StorageError if it is damaged.
    """
    path = folder.resolve().parent.parent / PLAN_FILE
    if not path.exists():
        return None, None
    plan = files.read_json(path)
    here = folder.resolve().parts[-2:]
    try:
        label = next((it["label"] for it in plan["runs"] if PurePath(it["folder"]).parts[-2:] == here), None)
        return (None, None) if label is None else (plan["name"], label)
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
