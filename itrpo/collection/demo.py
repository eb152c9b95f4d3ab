"""`hopper-demo`: a dataset that needs no network, made once per machine from policies inside the package.

The policies are acting policies of one SAC run of this project on Hopper-v4, saved after 40 to 360 thousand environment
steps. The name stands for one recipe: a changed recipe must get a new name, or cached files would no longer match it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.collection.rollout import Rows, Task, collect_all
from itrpo.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

POLICY_FOLDER = Path(__file__).parent / "policies"
MAX_WORKERS = 8
COLUMNS = {"qpos": "infos/qpos", "qvel": "infos/qvel", "action_log_probs": "infos/action_log_probs"}  # others: own name


@dataclass(frozen=True)
class Recipe:
    """Everything a dataset's rows follow from, apart from the versions of the simulator and of NumPy."""

    env_id: str
    seed: int
    steps_per_slot: int  # a slot is one environment with its own seed, rolled out until its last episode is complete
    slots: tuple[tuple[str, int], ...]  # (policy, number of slots), in the order of the rows


HOPPER_DEMO = Recipe(
    env_id="Hopper-v4",
    seed=0,
    steps_per_slot=10_000,
    slots=(
        ("hopper_sac_040k", 1),  # return of its episodes in the file: 414 ± 84
        ("hopper_sac_100k", 2),  # 687 ± 80
        ("hopper_sac_080k", 4),  # 1632 ± 862
        ("hopper_sac_140k", 5),  # 1436 ± 334
        ("hopper_sac_200k", 4),  # 2416 ± 919
        ("hopper_sac_360k", 4),  # 3257 ± 376
    ),
)


def make_hopper_demo(path: str | os.PathLike[str], console: Console | None = None) -> None:
    """Rolls `hopper-demo` out (about 200,000 steps, about a minute on two cores) and writes it to `path`.

    The file appears whole or not at all, and the number of processes does not change its bytes.
    Raises StorageError if it can't be written.
    """
    make_dataset(Path(path), HOPPER_DEMO, min(_available_cores(), MAX_WORKERS), console)


def make_dataset(path: Path, recipe: Recipe, workers: int, console: Console | None = None) -> None:
    """Rolls `recipe` out in `workers` processes and writes an HDF5 file with the keys of D4RL's v2 files."""
    tasks = [
        Task(recipe.env_id, str(_policy_path(policy)), recipe.steps_per_slot, (recipe.seed, index, slot))
        for index, (policy, slots) in enumerate(recipe.slots)
        for slot in range(slots)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # before the work: no permission is found out at once
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(13, "no permission to write", str(path.parent))
        _write(path, _roll_out(tasks, workers, f"Making {path.stem}", console), recipe)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}; set ITRPO_CACHE to a folder with room to write"
        ) from error


def _roll_out(tasks: list[Task], workers: int, title: str, console: Console | None) -> list[Rows]:
    if console is None:
        return collect_all(tasks, workers)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(title, total=sum(task.steps for task in tasks))
        return collect_all(tasks, workers, lambda steps: progress.advance(bar, steps))


def _write(path: Path, parts: list[Rows], recipe: Recipe) -> None:
    import h5py

    image = io.BytesIO()  # HDF5 does not survive a full disk; plain writing does
    with h5py.File(image, "w") as file:
        for field, columns in zip(Rows._fields, zip(*parts, strict=True), strict=True):
            file.create_dataset(COLUMNS.get(field, field), data=np.concatenate(columns))
        file.attrs["env_id"] = recipe.env_id
        file.attrs["recipe"] = json.dumps(_provenance(recipe))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(image.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _provenance(recipe: Recipe) -> dict[str, Any]:
    from importlib.metadata import version

    import itrpo

    return {
        "env_id": recipe.env_id,
        "seed": recipe.seed,
        "steps_per_slot": recipe.steps_per_slot,
        "actions": "sampled",
        "parts": [
            {"policy": policy, "slots": slots, "sha256": hashlib.sha256(_policy_path(policy).read_bytes()).hexdigest()}
            for policy, slots in recipe.slots
        ],
        "versions": {"itrpo": itrpo.__version__} | {name: version(name) for name in ("gymnasium", "mujoco", "numpy")},
    }


def _policy_path(policy: str) -> Path:
    return POLICY_FOLDER / f"{policy}.safetensors"


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
