"""`metadata.json` of a Minari folder: what it says, and what is written into it.

Nothing that it names (entry points of environments) is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo.data.layout import Contents
from itrpo.data.minari_ids import METADATA, data_folder
from itrpo.errors import InputError
from itrpo.evaluation.environments import env_spec_json

VERSION = "0.5.0"  # of the layout that `itrpo.data.formats.minari` writes; every later minari reads it
MAX_METADATA = 1 << 24  # bytes; Minari's own are kilobytes
BOUNDLESS = 1e6  # actions "within" such bounds aren't scaled by them


class Record(NamedTuple):
    """What `metadata.json` says, as far as it matters here."""

    dataset_id: str
    env_id: str | None
    total_episodes: int | None
    final_observations: str | None  # "recorded", "repeated"; None: not written by itrpo
    dtypes: Mapping[str, str]  # of flags that were not bool
    action_low: np.ndarray | None
    action_high: np.ndarray | None
    about: Mapping[str, Any]  # for `datasets info`


def open_record(path: Path) -> tuple[Path, Record]:
    folder = data_folder(path)
    if folder is None:
        kind = "no such folder" if not path.exists() else f"no Minari dataset: it has no {METADATA}"
        raise InputError(f"{path}: {kind}")
    where = str(folder / METADATA)
    try:
        if (folder / METADATA).stat().st_size > MAX_METADATA:
            raise InputError(f"{where}: larger than any Minari metadata; the file is damaged")
        metadata = json.loads((folder / METADATA).read_text("utf-8"))
        if not isinstance(metadata, dict):
            raise ValueError("not a JSON object")
        return folder, _record(metadata, path)
    except (OSError, ValueError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not Minari's metadata ({error}); copy or download it again") from error


def _record(metadata: dict[str, Any], path: Path) -> Record:
    data_format = metadata.get("data_format", "hdf5")
    if data_format != "hdf5":
        raise InputError(
            f"{path}: stored in Minari's format {data_format!r}; itrpo reads 'hdf5': load it with the minari package"
            " and write it with minari.create_dataset_from_buffers(..., data_format='hdf5')"
        )
    own = metadata.get("itrpo")
    own = own if isinstance(own, dict) else {}
    env_id, options = own.get("env_id"), None
    for key in ("eval_env_spec", "env_spec"):
        if env_id is None and isinstance(metadata.get(key), str):
            spec = json.loads(metadata[key])
            if isinstance(spec, dict) and isinstance(spec.get("id"), str):
                env_id, options = spec["id"], spec.get("kwargs")
    dtypes = own.get("dtypes")
    low, high = _action_bounds(metadata.get("action_space"))
    described = ("description", "algorithm_name", "author", "code_permalink", "minari_version")
    about = {key: metadata[key] for key in described if isinstance(metadata.get(key), str | list)}
    if options:
        about["environment options (not applied)"] = options
    total = metadata.get("total_episodes")
    return Record(
        dataset_id=str(metadata.get("dataset_id") or (path.parent if path.name == "data" else path).name),
        env_id=env_id if isinstance(env_id, str) else None,
        total_episodes=total if isinstance(total, int) else None,
        final_observations=own.get("final_observations"),
        dtypes=dtypes if isinstance(dtypes, dict) else {},
        action_low=low,
        action_high=high,
        about=about,
    )


def _action_bounds(space: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The bounds [A] of a serialized Box, two None if they are no bounds."""
    described = json.loads(space) if isinstance(space, str) else None
    if not isinstance(described, dict) or described.get("type") != "Box":
        return None, None
    low, high = (np.asarray(described.get(key), np.float32) for key in ("low", "high"))
    if low.ndim != 1 or low.shape != high.shape or not ((low < high) & (low > -BOUNDLESS) & (high < BOUNDLESS)).all():
        return None, None
    return low, high


def metadata_of(contents: Contents, dataset_id: str, episodes: int, flags: Mapping[str, np.ndarray]) -> dict[str, Any]:
    columns = contents.columns
    recorded = "next_observations" in columns
    final = "are the recorded ones" if recorded else "are unknown: each repeats the observation before it"
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": episodes,
        "total_steps": len(columns["rewards"]),
        "observation_space": json.dumps(_box(columns["observations"], bounded=False)),
        "action_space": json.dumps(_box(columns["actions"], bounded=True)),
        "description": f"Converted by itrpo. The last observations of episodes {final}.",
        "itrpo": {
            "env_id": contents.env_id,
            "final_observations": "recorded" if recorded else "repeated",
            "dtypes": {name: columns[name].dtype.str for name in flags if columns[name].dtype != bool},
        },
    }
    env_spec = env_spec_json(contents.env_id) if contents.env_id is not None else None
    if env_spec is not None:
        metadata["env_spec"] = env_spec
    return metadata


def _box(values: np.ndarray, bounded: bool) -> dict[str, Any]:
    """A Box space as Minari writes it: [-1, 1] where `bounded` and the values keep to it, else without bounds."""
    kind, size = values.dtype.kind, values.shape[1]
    low, high = {"f": (-math.inf, math.inf), "b": (False, True)}.get(kind, (0, 0))
    if kind in "iu":
        low, high = (int(bound) for bound in (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max))
    elif kind == "f" and bounded and (np.abs(values) <= 1 + 1e-6).all():
        low, high = -1.0, 1.0
    return {"type": "Box", "dtype": str(values.dtype), "shape": [size], "low": [low] * size, "high": [high] * size}
