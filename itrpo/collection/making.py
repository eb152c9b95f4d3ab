"""How datasets are made: a plan's tasks in several processes, then one HDF5 file with the keys of D4RL's v2 files.

Finished tasks are kept in `FILE.parts/` until the dataset is whole. So an interrupted run goes on from there, and
memory holds the rows of a few tasks, however large the dataset is.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.collection.workers import Job, run_jobs
from itrpo.console import say
from itrpo.errors import InputError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

MAX_WORKERS = 8
LINES_IN_A_LOG = 10  # of progress, where the console is no terminal


class Part(NamedTuple):
    """A run of rows. Its tasks are independent of each other, and their rows follow one another in the file."""

    tasks: tuple[Any, ...]  # tuples that survive JSON
    # The part stops at the last end of an episode up to row `end` of the file; a plan's last part is cut right there,
    # in the middle of an episode, as D4RL's files are. None keeps every row.
    end: int | None = None


@dataclass(frozen=True)
class Plan:
    """Everything a dataset's rows follow from, apart from the versions of the simulator and of NumPy."""

    env_id: str
    collect: str  # dotted name of a function (task, on_progress) -> {key in the file: rows}
    parts: tuple[Part, ...]
    steps: int  # about how many the tasks do
    recipe: Mapping[str, Any]  # the file's attribute of this name: how it was made, for people and programs
    extra: Mapping[str, Any]  # key -> value of what the file holds beside its rows
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the file's other attributes


def make(plan: Plan, path: Path, workers: int = 0, console: Console | None = None) -> None:
    """Makes the dataset in `workers` processes (0: one per core, at most 8) and writes it to `path`.

    The file appears whole or not at all. Neither the number of processes nor interruptions change its bytes. A file of
    the same recipe that is there already stays. Raises InputError if another file is there, StorageError if it can't
    be written.
    """
    from itrpo.console import silent_console

    console = console or silent_console()
    folder = path.with_name(path.name + ".parts")
    identity = json.dumps({"env_id": plan.env_id, "collect": plan.collect, "parts": plan.parts, "recipe": plan.recipe})
    try:
        files.check_may_write(path.parent, "")  # before the work
        files.make_folder(path.parent)
        with _parts_folder(folder, identity, console):
            if path.exists():
                _check_same(path, plan)
                return
            tasks = [task for part in plan.parts for task in part.tasks]
            jobs = [Job(plan.collect, task, str(folder / f"{index:05}.npz")) for index, task in enumerate(tasks)]
            done = sum(len(_read(Path(job.path), "rewards")) for job in jobs if os.path.exists(job.path))
            try:
                with _progress(f"Making {path.stem}", done, plan.steps, console) as advance:
                    run_jobs(jobs, workers or min(files.available_cores(), MAX_WORKERS), advance)
            except KeyboardInterrupt:
                finished = sum(os.path.exists(job.path) for job in jobs)
                kept = f"{finished} of {len(jobs)} parts are in {folder}: the same command goes on from there"
                raise KeyboardInterrupt(f"interrupted; {kept if finished else 'no part was finished'}") from None
            _write(path, plan, [Path(job.path) for job in jobs], folder)
    except OSError as error:
        failure = error if isinstance(error, StorageError) else files.cannot_write(path, error)
        raise StorageError(f"{failure}; set ITRPO_CACHE (or --out) to a folder with room to write") from error


def versions() -> dict[str, str]:
    """Of the packages that a made dataset's bytes depend on."""
    from importlib.metadata import version

    import itrpo

    return {"itrpo": itrpo.__version__} | {name: version(name) for name in ("gymnasium", "mujoco", "numpy")}


@contextlib.contextmanager
def _parts_folder(folder: Path, identity: str, console: Console) -> Generator[None]:
    """The folder, held by one process at a time, with nothing in it but finished tasks of this very plan.

    It is removed when the dataset is whole, and when no task was finished.
    """
    lock_file, plan = folder.with_name(folder.name + ".lock"), folder / "plan.json"
    held_elsewhere = f"Another process is making {folder.stem}; waiting for it."
    with files.lock(lock_file, held_elsewhere, wait=lambda: say(console, held_elsewhere)):
        try:
            files.make_folder(folder)
            # a process that was killed at its very start leaves nothing but the plan's temporary file
            found = [entry for entry in folder.iterdir() if not entry.match(".plan.json.*.tmp")]
            if found and not plan.exists():
                raise InputError(f"{folder}: the folder for unfinished work has other files in it; move it away")
            files.remove_temporaries(folder)
            if found and plan.read_text() != identity:  # another recipe, or other versions
                for entry in found:
                    entry.unlink(missing_ok=True)
            if not plan.exists():
                files.write(plan, identity.encode())
            try:
                yield
                shutil.rmtree(folder)
            finally:
                if not list(folder.glob("*.npz")):
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock_file.unlink(missing_ok=True)  # who waits for it notices, and locks a new one


@contextlib.contextmanager
def _progress(title: str, done: int, total: int, console: Console) -> Generator[Callable[[int], None]]:
    """Yields `advance(steps)`, for any thread."""
    from itrpo.console import LiveLine

    lock, printed = threading.Lock(), done * LINES_IN_A_LOG // total
    with LiveLine(console, title, total, seeds=1, start=done) as line:

        def advance(steps: int) -> None:
            nonlocal done, printed
            with lock:
                done += steps
                tenth = done * LINES_IN_A_LOG // total
                line.update(min(done, total), {}, evaluated=tenth != printed)
                printed = tenth

        yield advance


def _write(path: Path, plan: Plan, task_files: list[Path], folder: Path) -> None:
    """Writes the HDF5 file from the tasks' files, one column of one task at a time."""
    import h5py

    counts = _rows_kept(plan, task_files)
    kept = [(file, count) for file, count in zip(task_files, counts, strict=True) if count]
    with files.replacing(path, folder) as file:
        disk = _Disk(file.fileno(), "r+b", closefd=False)
        with h5py.File(disk, "w") as hdf5:
            for name, shape, kind in _columns(task_files[0]):
                column = hdf5.create_dataset(name, (sum(counts), *shape), kind)
                start = 0
                for part, count in kept:
                    column[start : start + count] = _read(part, name)[:count]
                    start += count
                    disk.check()
            for name, value in plan.extra.items():
                hdf5[name] = value
            hdf5.attrs["env_id"] = plan.env_id
            hdf5.attrs.update(plan.said)
            hdf5.attrs["recipe"] = json.dumps(plan.recipe)
        disk.check()


def _rows_kept(plan: Plan, task_files: list[Path]) -> list[int]:
    """How many rows of each task's file go into the dataset."""
    counts: list[int] = []
    remaining = iter(task_files)
    for index, part in enumerate(plan.parts):
        ends = [
            _read(file, "terminals") | _read(file, "timeouts") for _, file in zip(part.tasks, remaining, strict=False)
        ]
        together = np.concatenate([np.zeros(0, bool), *ends])
        rows = len(together) if part.end is None else min(len(together), part.end - sum(counts))
        if index < len(plan.parts) - 1:
            rows = int(np.flatnonzero(together[:rows])[-1]) + 1 if together[:rows].any() else 0
        for one in ends:
            counts.append(min(rows, len(one)))
            rows -= counts[-1]
    return counts


class _Disk(io.FileIO):
    """A file that h5py writes into. HDF5 does not survive a full disk, so the error is kept here and raised later."""

    error: OSError | None = None

    def check(self) -> None:
        """Raises what went wrong since the file was opened."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        with self._kept():
            while rest:
                rest = rest[super().write(rest) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            super().truncate(size)
        return size or 0

    @contextlib.contextmanager
    def _kept(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def _columns(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype]]:
    """Name, shape of a row, and type of each column of a task's file, in its order."""
    with np.load(path, allow_pickle=False) as file:
        return [(name, file[name].shape[1:], file[name].dtype) for name in file.files]


def _read(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file[name]


def _check_same(path: Path, plan: Plan) -> None:
    """Raises InputError unless the file was made by this plan."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            recipe = file.attrs.get("recipe")
    except OSError:
        recipe = None
    if recipe != json.dumps(plan.recipe):
        raise InputError(f"{path}: there is another file of this name; delete it, or choose another --out")
