"""The folder of a run while it runs: whose it is, who holds it, what is written into it, and what "continue" means.

What the files hold is in `schema`; who only reads them needs `store`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.config import differences
from itrpo.console import say
from itrpo.errors import InputError, StorageError
from itrpo.results import checkpoint, store
from itrpo.results.provenance import machine, provenance
from itrpo.results.schema import Row, Status, row_to_json

if TYPE_CHECKING:
    from rich.console import Console

LOCK = ".lock"
CHECKPOINT_SECONDS = 120.0  # between two checkpoints, at the longest
FEW = 6  # differences from the run that a folder belongs to are named


def field_of(config: Any, name: str) -> Any:
    """{"train": {"steps": 3}}, "train.steps" -> 3"""
    for part in name.split("."):
        config = config[part]
    return config


class Checkpoint(NamedTuple):
    """A whole one, as it was read."""

    phase: str
    step: int
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def lock(self) -> Generator[None]:
        """Makes the folder and holds it for this process, which does not make it again if somebody deletes it.

        Raises InputError if another process holds it.
        """
        refusal = f"another process is training in {self.path}; wait for it, or choose another --out"
        with files.lock(self.path / LOCK, refusal), files.never_made_again(self.path):
            try:
                yield
            finally:
                if self.was_deleted():
                    files.remove_rest(self.path, LOCK)

    def was_deleted(self) -> bool:
        """Whether the folder of a run has neither a configuration nor a status: seeds to be added have that alone."""
        return not any((self.path / name).exists() for name in (store.CONFIG, store.STATUS))

    def require(self) -> None:
        """Raises StorageError if the folder was deleted since the run began: writing on would leave a part of one."""
        if not self.was_deleted():
            files.looked_at(self.path)
        else:
            raise StorageError(f"{self.path} was deleted while its run went on; the same command begins it anew")

    # --- identity --------------------------------------------------------------------------------------------------

    def begin_or_continue(
        self,
        kind: str,
        config: Any,
        console: Console,
        *,
        reader: str,
        free: Sequence[str],
        least: Mapping[str, int] | None = None,
        lasting: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Begins a run: writes provenance.json, then config.json. Or checks that the folder's own fit this run.

        `kind` is the key of the configuration (of JSON's own types) in config.json. `free` are the fields that a run
        may change when it continues, each with its command line in provenance.json; those in `least`, what the folder
        has already, not to less. `lasting` is what a run keeps as it was when it began, whatever is given later; it is
        returned as recorded. `about` goes into provenance.json; a run whose "dataset_sha256" is another one is
        refused. `reader` is the command that still reads a run whose checkpoints are of another version of itrpo.
        Raises InputError for a folder of anything else, and leaves it as it is.
        """
        lasting, about = dict(lasting or {}), dict(about or {})
        path, provenance_path = self.path / store.CONFIG, self.path / store.PROVENANCE
        command = {"argv": sys.argv} | {name: field_of(config, name) for name in free}
        if not path.exists():
            # a run that was killed as it began leaves one of these
            own = (LOCK, provenance_path.name, f".{provenance_path.name}.*.tmp", f".{path.name}.*.tmp")
            if not all(any(present.match(name) for name in own) for present in self.path.iterdir()):
                raise InputError(f"{self.path} holds other files and no config.json of a run; choose another --out")
            files.write_json(provenance_path, provenance() | about | {"resumed_on": [], "commands": [command]})
            files.write_json(path, {kind: config, "version": checkpoint.VERSION} | lasting)
            return lasting
        recorded = files.read_json(path)
        if kind not in recorded:
            raise InputError(f"{self.path} belongs to a run of another kind; choose another --out")
        version = recorded.get("version", 1)
        if version != checkpoint.VERSION:
            raise InputError(
                f"{self.path} was begun by {'an earlier' if version < checkpoint.VERSION else 'a later'} version of "
                f"itrpo, whose checkpoints this one does not continue; train anew in another --out (`{reader} "
                f"{self.path}` still works)"
            )
        began = files.read_json(provenance_path)
        changed = differences(recorded[kind], config)
        changed = [line for line in changed if not line.startswith(tuple(f"{name}:" for name in free))]
        changed = [line for line in changed if line.startswith("algorithm:")] or changed  # the rest follows from it
        other_data = began.get("dataset_sha256") != about.get("dataset_sha256")
        if changed and not (other_data and all(line.startswith("data.") for line in changed)):
            more = f"; and {len(changed) - FEW} more" if len(changed) > FEW else ""
            raise InputError(
                f"{self.path} belongs to another run ({'; '.join(changed[:FEW])}{more}); choose another --out, or the "
                "flags of that run"
            )
        if other_data:
            name, before = about["dataset"]["name"], began.get("dataset", {}).get("name")
            what = f"another version of {name}" if name == before else f"{before}, and not on {name}"
            raise InputError(f"{self.path} was trained on {what} (SHA-256 differs); choose another --out")
        for name, done in (least or {}).items():
            if field_of(config, name) < done:
                flag = name.rpartition(".")[2]
                raise InputError(
                    f"{self.path} has {done:,} {flag} already; ask for --{flag} {done} or more, or choose another --out"
                )
        here, resumed_on = machine(), began["resumed_on"]
        moved = differences(began["machine"], here)
        if moved:
            listed = "; ".join(moved)
            say(console, f"this run began on another machine ({listed}): it continues, but not to the same bits")
            resumed_on = [*resumed_on, here]
        commands = [*began.get("commands", []), command]
        files.write_json(provenance_path, began | {"resumed_on": resumed_on, "commands": commands})
        files.remove_temporaries(self.path)
        files.remove_temporaries(self.checkpoints)
        files.write_json(path, recorded | {kind: config})
        return {name: recorded[name] for name in lasting}

    # --- rows and status -------------------------------------------------------------------------------------------

    def append_metrics(self, rows: Iterable[Row]) -> None:
        """Adds rows to metrics.jsonl and waits until they are on the disk. Raises StorageError if that fails."""
        files.append(self.path / store.METRICS, "".join(map(row_to_json, rows)).encode())

    def drop_metrics_after(self, step: int) -> None:
        """Drops the rows of metrics.jsonl past `step`, and a line that a kill cut short: the run resumes there."""
        self.keep_metrics(lambda row: row.step <= step)

    def keep_metrics(self, wanted: Callable[[Row], bool]) -> None:
        """Drops all other rows of metrics.jsonl, where there are any yet."""
        path = self.path / store.METRICS
        if path.exists():
            files.write(path, "".join(row_to_json(row) for row in store.read_rows(path) if wanted(row)).encode())

    def append_timing(self, record: Mapping[str, Any]) -> None:
        """Adds one wall-clock record (seconds, steps per second, ...) to timing.jsonl. It is never cut."""
        files.append(self.path / store.TIMING, files.json_line(record))

    def write_status(self, status: Status) -> None:
        files.write_json(self.path / store.STATUS, status._asdict())

    def save_evaluation(self, about: Mapping[str, Any]) -> Path:
        """Writes what was measured of the policies later, in `evaluations`. Raises StorageError."""
        env, names = str(about["env_id"]).replace("/", "-"), ("step", "episodes", "seed")
        path = self.path / store.EVALUATIONS / f"{env}_{'_'.join(f'{name}{about[name]}' for name in names)}.json"
        files.write_json(path, about)
        return path

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def save(self, phase: str, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes a checkpoint of a pytree of arrays. Raises StorageError; then earlier ones are intact."""
        checkpoint.save(self.checkpoints, phase, step, state, dict(meta))

    def reached(self) -> dict[str, Any]:
        """What the newest checkpoint says of itself: phase, step, seeds; empty if there is none that can be read."""
        found = checkpoint.sorted_checkpoints(self.checkpoints)[:1]
        try:
            return files.read_json(found[0] / "meta.json") if found else {}
        except StorageError:
            return {}

    def newest(self, console: Console) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there is none yet. Raises StorageError if all are damaged."""
        found = checkpoint.sorted_checkpoints(self.checkpoints)
        for path in found:
            try:
                arrays, meta = checkpoint.load(path)
            except ValueError as error:
                say(console, f"checkpoint {path} is damaged ({error}); falling back to the one before it")
                continue
            say(console, f"resuming {meta['phase']} at step {meta['step']:,}")
            return Checkpoint(meta["phase"], meta["step"], arrays)
        if found:
            raise StorageError(f"every checkpoint in {self.checkpoints} is damaged; delete {self.path} to train anew")
        return None

    def restored(self, saved: Checkpoint, shapes: Any) -> Any:
        """What was saved, in the structure of `shapes`. Raises StorageError if it isn't this version's state."""
        try:
            return checkpoint.unflatten(shapes, saved.arrays)
        except ValueError as error:
            raise StorageError(
                f"the checkpoint in {self.path} is of another version of itrpo: {error}; train anew in another --out"
            ) from error
