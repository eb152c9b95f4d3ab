"""Many runs side by side, from their folders alone: what differs between them, and what they reached."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple

from itrpo.config import shown
from itrpo.console import say
from itrpo.errors import InputError, StorageError
from itrpo.files import read_json, strict
from itrpo.report.aggregate import FinalScore, final_score, mean_interval, one_window
from itrpo.report.tables import algorithm_name, count, format_interval, format_returns
from itrpo.results.schema import Status
from itrpo.results.store import CONFIG, EVALUATIONS, read_metrics, read_status, run_folders

if TYPE_CHECKING:
    import polars
    from rich.console import Console

# of a configuration: what columns of their own say, or follows from them
SAID = ("algorithm", "data.dataset", "data.task", "train.steps", "train.seeds", "scaled_fields")
RESULTS = ("return", "score")
LONGEST = 60  # characters of a value in a list


class RunEntry(NamedTuple):
    """One run, or a folder whose files are damaged: then `problem` says how."""

    folder: Path
    name: str  # of the folder, from where one looks
    status: Status | None
    config: Mapping[str, Any]  # field -> value, as in config.json; empty if it can't be read
    finals: Mapping[str, FinalScore]  # of "return" and "score", as far as they were measured
    problem: str = ""


def list_runs(root: Path) -> list[RunEntry]:
    """The runs in a folder, at any depth, by path. Folders without a status.json are not runs."""
    return [read_entry(folder, name_in(folder, root)) for folder in run_folders(root)]


def name_in(folder: Path, root: Path) -> str:
    name = str(folder.relative_to(root))
    return folder.resolve().name if name == "." else name


def named_runs(paths: Sequence[Path]) -> list[RunEntry]:
    """The runs that are named, or lie below the folders that are. Raises InputError for a path without any."""
    found: dict[Path, RunEntry] = {}
    for path in paths:
        entries = [read_entry(folder, str(folder)) for folder in run_folders(path)]
        if not entries and path.is_file():
            raise InputError(f"{path}: a file; name folders of runs (`itrpo report` reads packed files, too)")
        if not entries:
            raise InputError(f"{path}: no run of itrpo is in it; `itrpo runs list --root DIR` shows where runs are")
        found |= {entry.folder.resolve(): entry for entry in entries}
    for entry in found.values():
        if entry.status is None:
            raise StorageError(f"{entry.folder}: {entry.problem}")
    return list(found.values())


def read_entry(folder: Path, name: str) -> RunEntry:
    try:
        metrics, status = read_metrics(folder), read_status(folder)
        path = folder / CONFIG
        found = read_json(path) if path.exists() else {}
        config = flat(found.get("config") or found.get("finetune") or {})
    except StorageError as error:
        return RunEntry(folder, name, None, {}, {}, f"damaged: {error}")
    return RunEntry(folder, name, status, config, finals_of(metrics))


def finals_of(metrics: polars.DataFrame, last: int | None = None) -> dict[str, FinalScore]:
    found = {name: final_score(metrics, name, last) for name in RESULTS}
    return {name: final for name, final in found.items() if final is not None}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"seed": 0}} -> {"train.seed": 0}"""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def short(field: str) -> str:
    """algorithm_config.backbone.alpha -> alpha, as on the command line."""
    last = field.rpartition(".")[2]
    if field.startswith(("data.columns.", "data.parent.")):
        return field.removeprefix("data.")
    return f"behavior_{last}" if field.startswith("behavior_config.") else last


def differing(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each run, the fields in which it differs from runs that it can be compared with: constants of the same
    algorithm and preset, what is done to the same data, and for the rest all.
    """

    def group(config: Mapping[str, Any], field: str) -> tuple[Any, ...]:
        own = (config.get("algorithm"), config.get("preset"), "data.dataset" in config)  # else a fine-tuning
        if field.startswith(("algorithm_config.", "behavior")):
            return own
        if field.startswith("data.") and field != "data.env":
            return (*own, config.get("data.dataset"))
        return own[2:]

    groups: dict[tuple[Any, ...], dict[str, set[str]]] = {}  # of runs that can be compared: field -> their values
    fields = dict.fromkeys(field for config in configs for field in config if not left_unsaid(field))
    for config in configs:
        for field in fields:
            values = groups.setdefault(group(config, field), {}).setdefault(field, set())
            values.add(json.dumps(config.get(field)))  # rules that nobody gave are not there, or null
    return [
        {short(field): config.get(field) for field in fields if len(groups[group(config, field)][field]) > 1}
        for config in configs
    ]


def left_unsaid(field: str) -> bool:
    """Of a run that goes on from another, its name says all."""
    return field in SAID or (field.startswith("data.parent.") and field != "data.parent.run")


def labels(entries: Sequence[RunEntry]) -> list[str]:
    """Names that tell runs apart: algorithm and what differs, and the folder's where that is not enough."""
    configs = (
        {name: it for name, it in entry.config.items() if not name.startswith("evaluation.")} for entry in entries
    )
    fields = differing(list(configs))
    names = [
        ", ".join([algorithm_name(entry.status.algorithm if entry.status else "?"), *in_words(own)])
        for entry, own in zip(entries, fields, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({entry.folder.resolve().name})"
        for name, entry in zip(names, entries, strict=True)
    ]


def in_words(fields: Mapping[str, Any]) -> list[str]:
    """Long lists are cut off: `itrpo runs diff` has them whole."""
    texts = ((name, shown(value)) for name, value in fields.items())
    return [f"{name} {text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'}" for name, text in texts]


def result_json(final: FinalScore | None) -> dict[str, Any] | None:
    if final is None:
        return None
    interval = mean_interval(final.per_seed)
    return {
        "mean": interval.mean,
        "half_width": interval.half_width,
        "per_seed": final.per_seed.tolist(),
        "evaluations": final.evaluations,
    }


def print_json(value: Any, console: Console) -> None:
    """Strict JSON, on lines as long as they are."""
    say(console, json.dumps(strict(value), indent=1, allow_nan=False))


# --- itrpo runs list -----------------------------------------------------------------------------------------------


def print_runs(root: Path, console: Console, as_json: bool = False) -> None:
    entries = list_runs(root)
    differ = differing([entry.config for entry in entries])
    if as_json:
        print_json([entry_json(entry, own) for entry, own in zip(entries, differ, strict=True)], console)
        return
    from rich.table import Table
    from rich.text import Text

    if not entries:
        console.print(Text(f"No runs in {root}."))
        return
    good = [entry.status for entry in entries if entry.status is not None]
    with_score = any("score" in entry.finals for entry in entries)
    windows = {final.evaluations for entry in entries for final in entry.finals.values()}
    table = Table("run")
    same = list[str]()
    columns = {
        "algorithm": [algorithm_name(it.algorithm) for it in good],
        "dataset": [it.dataset for it in good],
        "seeds": [str(it.seeds) for it in good],
    }
    for name, values in columns.items():
        if len(set(values)) == 1 and len(entries) > 1:
            same.append(f"{name} {values[0]}")
        else:
            table.add_column(name)
    table.add_column("steps", justify="right")
    table.add_column("return", justify="right")
    if with_score:
        table.add_column("score", justify="right")
    if len(windows) > 1:
        table.add_column("of last", justify="right")
    table.add_column("state")
    if any(differ):
        table.add_column("differs in")
    for entry, own in zip(entries, differ, strict=True):
        status = entry.status
        if status is None:
            table.add_row(Text(entry.name, overflow="fold"), Text(entry.problem))
            continue
        about = {
            "algorithm": algorithm_name(status.algorithm),
            "dataset": status.dataset,
            "seeds": str(status.seeds),
            "steps": f"{status.step:,}" if status.step == status.steps else f"{status.step:,}/{status.steps:,}",
            "return": format_returns(interval_of(entry, "return")),
            "score": format_interval(interval_of(entry, "score"), 1),
            "of last": str(next((final.evaluations for final in entry.finals.values()), "")),
            "state": f"{status.state}: {shorten(status.message, 60)}" if status.message else status.state,
            "differs in": ", ".join(in_words(own)),
        }
        cells = [about[str(column.header)] for column in table.columns[1:]]
        table.add_row(*(Text(cell, overflow="fold") for cell in (entry.name, *cells)))
    console.print(table)
    if same:
        console.print(Text(f"All have {', '.join(same)}."))
    if windows:
        score = " and score" if with_score else ""
        of = "evaluations, so many as stand there" if len(windows) > 1 else count(windows.pop(), "evaluation")
        console.print(Text(f"Return{score}: mean of the last {of}, ± 95% interval over seeds, or (each of few seeds)."))


def interval_of(entry: RunEntry, name: str) -> Any:
    return mean_interval(entry.finals[name].per_seed) if name in entry.finals else None


def entry_json(entry: RunEntry, differs: Mapping[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"folder": str(entry.folder)}
    if entry.status is None:
        return about | {"problem": entry.problem}
    results = {name: result_json(entry.finals.get(name)) for name in RESULTS}
    return about | entry.status._asdict() | results | {"differs": dict(differs)}


# --- itrpo runs show, itrpo runs diff ------------------------------------------------------------------------------


def about_run(entry: RunEntry) -> dict[str, Any]:
    """All that the folder of a run says of it, but for rows."""
    recorded, provenance = (read_json(entry.folder / f"{name}.json") for name in ("config", "provenance"))
    evaluations = sorted((entry.folder / EVALUATIONS).glob("*.json"))
    return entry_json(entry, {}) | {
        "begun_steps": recorded.get("begun_steps"),
        "behavior_steps": recorded.get("behavior_steps"),
        "config": recorded.get("config") or recorded.get("finetune"),
        "provenance": provenance,
        "evaluations": {path.name: read_json(path) for path in evaluations},
        "policies": [str(path) for path in sorted(entry.folder.glob("seed*/policy.npz"))],
    }


def print_run(folder: Path, console: Console, as_json: bool = False) -> None:
    """Raises InputError if it is no run."""
    (entry,) = one_run(folder)
    about = about_run(entry)
    if as_json:
        print_json(about, console)
        return
    from rich.table import Table
    from rich.text import Text

    config, provenance = about["config"] or {}, about["provenance"]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    steps = f"{about['step']:,} of {about['steps']:,} steps"
    begun = about["begun_steps"]
    extended = f", begun as {begun:,}" if begun not in (None, about["steps"]) else ""
    lines = {
        "run": f"{about['run']}, {about['state']} {about['message']}".strip(),
        "algorithm": ", preset ".join([algorithm_name(about["algorithm"]), *filter(None, [config.get("preset")])]),
        "dataset": f"{about['dataset']}, SHA-256 {str(provenance.get('dataset_sha256'))[:12]}...",
        "environment": about["env_id"] or "none",
        "length": f"{steps}{extended}, {count(about['seeds'], 'seed')}",
    }
    for name in RESULTS:
        if name in entry.finals:
            final = entry.finals[name]
            each = ", ".join(f"{value:,.6g}" for value in final.per_seed)
            lines[name] = f"{each} (each seed's mean of the last {count(final.evaluations, 'evaluation')})"
    for number, (name, result) in enumerate(about["evaluations"].items(), start=1):
        each = ", ".join(f"{it:,.6g}" for it in result["return"]["per_seed"])
        lines[f"evaluated {number}"] = f"return {each} ({EVALUATIONS}/{name})"
    finetuning = "algorithm" not in config
    constants = {
        name: value
        for name, value in entry.config.items()
        if (finetuning or name.startswith(("algorithm_config.", "behavior_config.", "data.", "evaluation.")))
        and name != "data.env"
        and not left_unsaid(name)
    }
    lines["constants"] = ", ".join(in_words({short(name): value for name, value in constants.items()}))
    lines["versions"] = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    lines["machine"] = ", ".join(f"{it}" for it in [provenance.get("platform"), *provenance.get("devices", [])])
    git = provenance.get("git")
    if git:
        lines["git"] = git["commit"] + (" with changes" if git["dirty"] else "")
    for number, command in enumerate(provenance.get("commands", []), start=1):
        lines[f"command {number}"] = shlex.join(map(str, command["argv"]))
    if about["policies"]:
        lines["policies"] = f"{entry.folder}/seedK/policy.npz, {len(about['policies'])} of them"
    for name, text in lines.items():
        table.add_row(Text(name, "bold"), Text(text, overflow="fold"))
    console.print(table)


def one_run(folder: Path) -> list[RunEntry]:
    found = named_runs([folder])
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} runs; name one of them: `itrpo runs list --root {folder}`")
    return found


def print_differences(folders: Sequence[Path], console: Console, as_json: bool = False) -> None:
    """Fields of configuration and provenance in which runs differ, and what each reached. Raises InputError."""
    entries = named_runs(folders)
    if len(entries) < 2:
        raise InputError(f"{folders[0]} is one run; name two or more")
    columns = [compared_fields(entry) for entry in entries]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = {name: [column.get(name) for column in columns] for name in names}
    rows = {name: values for name, values in rows.items() if any(value != values[0] for value in values[1:])}
    frames = [read_metrics(entry.folder) for entry in entries]
    last = one_window(frames)
    finals = [finals_of(frame, last) for frame in frames]
    if as_json:
        print_json(
            {
                "runs": [str(entry.folder) for entry in entries],
                "differs": rows,
                **{name: [result_json(own.get(name)) for own in finals] for name in RESULTS},
            },
            console,
        )
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("field")
    for entry in entries:
        table.add_column(Text(entry.name), overflow="fold")
    for name, values in rows.items():
        table.add_row(Text(name, overflow="fold"), *(Text("-" if it is None else shown(it)) for it in values))
    table.add_section()
    intervals = [{name: mean_interval(final.per_seed) for name, final in own.items()} for own in finals]
    for name in RESULTS:
        if any(name in own for own in intervals):
            cells = [
                format_returns(own.get(name)) if name == "return" else format_interval(own.get(name), 1)
                for own in intervals
            ]
            table.add_row(name, *cells)
    if table.row_count:
        console.print(table)
    if not rows:
        say(console, "No difference in constants, data, versions or machine.")
    if last:
        say(console, f"Results: means of the last {count(last, 'evaluation')} of each.")


def compared_fields(entry: RunEntry) -> dict[str, Any]:
    """Of the configuration, and of what else a run's numbers follow from."""
    recorded, provenance = (read_json(entry.folder / f"{name}.json") for name in ("config", "provenance"))
    kept = {name: recorded[name] for name in ("begun_steps", "behavior_steps") if name in recorded}
    about = {name: provenance.get(name) for name in ("dataset_sha256", "python", "platform", "git", "machine")}
    versions = {"versions": provenance.get("versions", {})}
    return {**entry.config, **flat(kept), **flat(about), **flat(versions)}
