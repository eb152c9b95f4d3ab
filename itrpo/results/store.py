"""The files of a run folder (see `schema`): append-only rows, atomic JSON, and where a result came from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from itrpo.errors import StorageError
from itrpo.results.schema import Row, Status, row_from_json, row_to_json, strict

if TYPE_CHECKING:
    import polars

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
_PACKAGES = ("itrpo", "jax", "jaxlib", "equinox", "optax", "gymnasium", "mujoco", "numpy")


def append_metrics(run_dir: Path, rows: Iterable[Row]) -> None:
    """Append rows to metrics.jsonl and wait until they are on the disk. Raises StorageError if that fails."""
    _append(run_dir / METRICS, (row_to_json(row) for row in rows))


def append_timing(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Append one wall-clock record (seconds, steps per second, ...) to timing.jsonl. It is never truncated."""
    _append(run_dir / TIMING, [strict(dict(record))])


def read_timing(run_dir: Path) -> list[dict[str, Any]]:
    """The records of timing.jsonl in their order; none if there is no such file. A torn last line is left out."""
    path = run_dir / TIMING
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def truncate_after(run_dir: Path, step: int) -> None:
    """Drop the rows of metrics.jsonl past `step`, and a line that a kill cut short; called when a run resumes there."""
    path = run_dir / METRICS
    if path.exists():
        kept = "".join(_line(row_to_json(row)) for row in _read_rows(path) if row.step <= step)
        write_atomic(path, kept.encode())


def read_metrics(run_dir: Path) -> polars.DataFrame:
    """All rows of a run as columns run, seed, step, metric, value; empty if nothing was measured yet.

    A last line that a kill cut short is left out. Raises StorageError naming the line if any other is damaged.
    """
    import polars

    path = run_dir / METRICS
    rows = _read_rows(path) if path.exists() else []
    types = {"run": polars.String, "seed": polars.Int64, "step": polars.Int64, "metric": polars.String}
    return polars.DataFrame(rows, schema=types | {"value": polars.Float64}, orient="row")


def write_status(run_dir: Path, status: Status) -> None:
    """Write status.json, atomically."""
    write_json_atomic(run_dir / "status.json", status._asdict())


def read_status(run_dir: Path) -> Status:
    """The run's status.json. Raises StorageError if it can't be read."""
    path = run_dir / "status.json"
    try:
        return Status(**read_json(path))
    except TypeError as error:
        raise StorageError(f"{path}: not the status of a run ({error})") from error


def write_json_atomic(path: Path, value: Any) -> None:
    """Write strict, indented JSON so that a reader sees the old file or the new one. Raises StorageError."""
    write_atomic(path, (json.dumps(strict(value), indent=2, allow_nan=False) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises StorageError naming the file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"can't read {path}: {error}") from error


def provenance() -> dict[str, Any]:
    """Versions, machine, devices, git state of an itrpo checkout, and the command line. Starts JAX."""
    import jax

    checkout = Path(__file__).resolve().parents[2]
    return {
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "git": _git(checkout) if (checkout / ".git").exists() else None,
        "argv": sys.argv,
    }


def available_cores() -> int:
    """Cores this process may use, which is how many threads XLA starts unless PJRT_NPROC says otherwise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(checkout: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"}, or None where git is missing or refuses."""

    def answer(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"commit": answer("rev-parse", "HEAD"), "dirty": bool(answer("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, allow_nan=False) + "\n"


def _append(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(_line(fields) for fields in objects)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            _drop_torn_line(file)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror or error}") from error


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut off what follows the last newline: a kill stopped its writing halfway."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)


def _read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file, without a last line that a kill cut short."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StorageError(f"can't read {path}: {error}") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):  # the last piece is empty, or cut short
        try:
            rows.append(row_from_json(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path}, line {number}: not a row of metrics ({error!r})") from error
    return rows
