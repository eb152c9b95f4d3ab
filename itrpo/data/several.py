"""Several files or mappings as one dataset: their rows one after the other, and an end of an episode after each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from itrpo.data.layout import FLAGS, REQUIRED, Contents, check_rows, left_out
from itrpo.errors import InputError
from itrpo.files import file_sha256
from itrpo.types import Attributes, DataSource, Episodes


def source_of(files: Sequence[Path], name: str, recipe: Mapping[str, Any]) -> DataSource:
    """Of files of one kind. The SHA-256 of several is that of their own, which stand in the recipe."""
    kind, hashes = files[0].suffix.lower()[1:], [file_sha256(path) for path in files]
    if len(files) == 1:
        return DataSource(files[0].stem, kind, str(files[0].resolve()), hashes[0], recipe=recipe)
    listed = [{"file": str(path.resolve()), "sha256": it} for path, it in zip(files, hashes, strict=True)]
    return DataSource(name, kind, sha256=_digest(hashes), recipe={**recipe, "files": listed})


def joined(parts: Sequence[Episodes], names: Sequence[str], name: str) -> Episodes:
    """One after the other. Raises InputError for parts that don't go together."""
    first = parts[0]
    for label, part in zip(names, parts, strict=True):
        _refuse_unlike(_shape(first), _shape(part), names[0], label)

    def together(key: str) -> Any:
        values = [getattr(part, key) for part in parts]
        return None if any(it is None for it in values) else np.concatenate(values)

    check_rows(sum(len(part.rewards) for part in parts), "the list")
    arrays = {
        key: together(key)
        for key in ("observations", "actions", "rewards", "terminals", "next_observations", "behavior_log_probs")
    }
    timeouts = np.concatenate([_closed(part.terminals, part.timeouts) for part in parts])
    listed = [{"file": part.source.path or part.source.name, "sha256": part.source.sha256} for part in parts]
    columns = {key: it for key, it in first.source.recipe.items() if key == "columns"}
    lost = [part.source.recipe.get("float32", {}) for part in parts]
    times = Counter(label for part in lost for label in part)  # in one part a column may only rest
    often = {label: it for part in lost[::-1] for label, it in part.items() if times[label] > len(parts) / 2}
    columns |= {"float32": often} if often else {}
    source = DataSource(
        name,
        "arrays" if first.source.kind == "arrays" else "several",
        sha256=_digest([str(part.source.sha256) for part in parts]),
        recipe={**columns, "files": listed} if first.source.path else columns,
    )
    said = first.attributes._replace(minari=None)
    return replace(first, **arrays, timeouts=timeouts, source=source, attributes=said)


def joined_contents(parts: Sequence[Contents], names: Sequence[str]) -> Contents:
    """As `joined`. Arrays that one part lacks, and what is not one row per step, are left out and noted."""
    first = parts[0]
    shared = [key for key in first.columns if all(key in part.columns for part in parts)]
    for label, part in zip(names, parts, strict=True):
        _refuse_unlike(
            {key: first.columns[key].shape[1:] for key in shared} | {"env_id": first.env_id, **_said(first.attributes)},
            {key: part.columns[key].shape[1:] for key in shared} | {"env_id": part.env_id, **_said(part.attributes)},
            names[0],
            label,
        )
    columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in shared}
    flags = [[part.columns[key].astype(bool) for key in FLAGS] for part in parts]
    columns["timeouts"] = np.concatenate([_closed(*it) for it in flags])
    lost = sorted({key for part in parts for key in part.columns} - set(shared) - set(REQUIRED))
    extras = ["attributes and arrays that are not per step"] if any(part.extras for part in parts) else []
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    said = first.attributes._replace(minari=None)
    return Contents(columns, first.env_id, said, notes=(*notes, *left_out([*lost, *extras])))


def _closed(terminals: np.ndarray, timeouts: np.ndarray) -> np.ndarray:
    """Timeouts, with one at the last row unless that is terminal."""
    closed = timeouts.copy()
    closed[-1] |= not terminals[-1]
    return closed


def _shape(part: Episodes) -> dict[str, Any]:
    """What must be the same in all parts."""
    return {
        "observations": part.observations.shape[1:],
        "actions": part.actions.shape[1:],
        "next_observations": "missing" if part.next_observations is None else "present",
        "env_id": part.env_id,
        **_said(part.attributes),
    }


def _said(attributes: Attributes) -> dict[str, Any]:
    """What must be the same: all but where a part came from."""
    return attributes._replace(minari=None)._asdict()


def _refuse_unlike(first: Mapping[str, Any], other: Mapping[str, Any], first_name: str, name: str) -> None:
    for key, value in other.items():
        if value != first[key]:
            theirs, ours = (list(it) if isinstance(it, tuple) else it for it in (first[key], value))
            raise InputError(f"{name}: {key}: {ours}, but {theirs} in {first_name}; one dataset must be of one kind")


def _digest(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
