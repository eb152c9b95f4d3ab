"""How far each run of a plan is, read from its folder or from a packed file; plan.json, which says what belongs to a
sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from itrpo import files
from itrpo.config import EvalConfig, differences, to_json
from itrpo.errors import InputError, StorageError
from itrpo.evaluation.environments import is_maze
from itrpo.options import lengths
from itrpo.results.frames import PLAN_FILE, read_results, run_hash
from itrpo.results.schema import Status
from itrpo.results.store import CONFIG, PROVENANCE, STATUS, read_status
from itrpo.sweep.plan import Plan, PlannedRun
from itrpo.training.configure import AlgorithmSetup, inside_bounds

IN_DATA = ("normalize_observations", "reward_scale", "reward_shift")


class State(NamedTuple):
    """`done` of `work`: gradient steps x seeds."""

    name: Literal["to do", "unfinished", "finished", "diverged"]
    done: int = 0
    work: int = 0
    message: str = ""
    hash: str | None = None  # identity of the run, once it has begun


def state_of(run: PlannedRun, out: Path) -> State:
    """Raises InputError if the folder has a run of another configuration or on other data."""
    folder = out / run.folder
    length = lengths(run.options, False)  # steps and seeds; how it is evaluated depends on the environment
    work = length.steps * length.seeds
    if not (folder / CONFIG).exists():
        return State("to do", 0, work)
    check_same(run, folder)
    if not (folder / STATUS).exists():
        return State("unfinished", 0, work)
    status = read_status(folder)
    diverged = next((it for it in (status, *parts(folder)) if it.state == "diverged"), None)
    if diverged is not None:
        return State("diverged", status.step * status.seeds, work, diverged.message, status.run)
    enough = status.step >= length.steps and status.seeds >= length.seeds
    done = min(status.step, length.steps) * min(status.seeds, length.seeds)
    return State("finished" if status.state == "finished" and enough else "unfinished", done, work, "", status.run)


def parts(folder: Path) -> list[Status]:
    """Of the seeds that are being added to a finished run."""
    return [read_status(path.parent) for path in folder.glob(f"adding_seeds_*/{STATUS}")]


def check_same(run: PlannedRun, folder: Path) -> None:
    """Raises InputError if what is trained in the folder is not what the plan says, but for its length and seeds."""
    try:
        recorded = files.read_json(folder / CONFIG)["config"]
    except (StorageError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no run of this version of itrpo ({error}); choose another --out") from error
    changed = changes(run, recorded)
    if changed:
        raise InputError(
            f"{folder} was trained with another configuration than the plan has now ({'; '.join(changed)}); choose "
            "another --out, or another label for this arm"
        )
    about = folder / PROVENANCE
    if about.exists() and not same_file(run, files.read_json(about)):
        raise InputError(f"{folder} was trained on another version of {run.dataset} (SHA-256 differs)")


def changes(run: PlannedRun, recorded: dict[str, Any]) -> list[str]:
    """What the plan says now and a recorded configuration does not, but for length and seeds. Whether actions were
    clipped, the data decide, which nobody has read yet.
    """
    return min((changes_of(run, it, recorded) for it in (run.setup, inside_bounds(run.setup))), key=len)


def changes_of(run: PlannedRun, setup: AlgorithmSetup, recorded: dict[str, Any]) -> list[str]:
    env = run.options.env or recorded["data"]["env"]
    length, stack = lengths(run.options, is_maze(env)), None if run.options.stack == 1 else run.options.stack
    given = {name: getattr(run.options, name) for name in IN_DATA if getattr(run.options, name) is not None}
    wanted: dict[str, Any] = {
        **{name: to_json(value) for name, value in setup.constants().items()},
        "evaluation": to_json(EvalConfig(length.eval_every, length.eval_episodes)),
        "train": {"seed": run.options.seed, "behavior_steps": run.options.behavior_steps},
        "data": {"env": env, "task": run.options.task, "stack": stack, "holdout": run.options.holdout or None, **given},
    }
    found = {name: recorded.get(name) for name in wanted}
    found |= {name: {key: recorded[name].get(key) for key in wanted[name]} for name in ("train", "data")}
    return differences(found, wanted)


def same_file(run: PlannedRun, provenance: dict[str, Any]) -> bool:
    """Whether a run was trained on what the plan's dataset is now, if that is a file; else its name stands for it."""
    path = Path(run.dataset).expanduser()
    return not path.is_file() or provenance.get("dataset_sha256") == sha256(path.resolve())


def packed_states(runs: Sequence[PlannedRun], packed: Sequence[Path]) -> dict[str, State]:
    """By folder: runs that files of `itrpo runs pack` already hold with all steps and seeds that the plan wants.

    What tells a run is what it was trained with and on, not what it is called. Raises InputError, StorageError.
    """
    if not packed:
        return {}
    known: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for about in read_results(packed).runs.iter_rows(named=True):
        if about["state"] in ("finished", "diverged"):
            known.setdefault((about["dataset"], about["algorithm"]), []).append(about)
    states = dict[str, State]()
    for run in runs:
        length = lengths(run.options, False)
        for about in known.get((run.folder.split("/")[0], run.algorithm), ()):
            whole = about["step"] >= length.steps or about["state"] == "diverged"
            same_data = same_file(run, json.loads(about["provenance"]))
            if whole and about["seeds"] >= length.seeds and same_data and not changes(run, json.loads(about["config"])):
                work = length.steps * length.seeds
                states[run.folder] = State(about["state"], work, work, about["message"] or "packed", run_hash(about))
    return states


@lru_cache
def sha256(path: Path) -> str:
    return files.file_sha256(path)


def check_folder(plan: Plan, out: Path) -> None:
    """Raises InputError if `out` holds another sweep."""
    path = out / PLAN_FILE
    if not path.exists():
        return
    recorded = files.read_json(path)
    for name, value in (("name", plan.name), ("scale", plan.scale)):
        if recorded.get(name) != value:
            held = recorded.get(name)
            raise InputError(f"{out} holds a sweep of {name} {held!r}, not {value!r}; choose another --out")


def write_plan(plan: Plan, out: Path, states: dict[str, State]) -> None:
    """What a report needs to know of the sweep. Raises StorageError."""
    first = {run.label: run for run in reversed(plan.runs)}
    record = {
        "name": plan.name,
        "title": plan.title,
        "scale": plan.scale,
        "arms": {
            label: {
                "algorithm": arm.algorithm,
                "preset": first[label].setup.preset,
                "fields": {name: to_json(value) for name, value in first[label].fields.items()},
                "title": arm.title,
            }
            for label, arm in plan.arms.items()
        },
        "runs": [
            {
                "label": run.label,
                "dataset": run.folder.split("/")[0],
                "hash": states[run.folder].hash,
                "folder": run.folder,
            }
            for run in plan.runs
        ],
    }
    files.write_json(out / PLAN_FILE, record)
