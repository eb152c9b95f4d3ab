"""What a dataset says of its columns beside their values: bounds, names and units, under the same keys in every format.

HDF5: attributes of the file. NPZ files and mappings: arrays. Parquet: metadata of the file, as JSON. Minari:
`metadata.json` and, for bounds, its spaces. CSV has no place for them: they are in a file beside it, named as in CSV on
the Web (W3C): `log.csv-metadata.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from itrpo import files
from itrpo.data.layout import Column
from itrpo.errors import InputError, StorageError
from itrpo.registry import nearest
from itrpo.types import Attributes

BOUNDLESS = 1e9  # actions "within" such bounds aren't scaled by them
MAX_BESIDE = 1 << 20  # bytes
KEYS = Attributes._fields
SUBJECTS = {"observation": "observations", "action": "actions"}  # beginning of a key -> the column that it speaks of


def parse(given: Mapping[str, Any], columns: Mapping[str, Column], where: str) -> Attributes:
    """The attributes among what a file says. One number may stand for all dimensions.

    Raises InputError for those that are not one number or text for each dimension, and for bounds that are none.
    """
    found: dict[str, Any] = {}
    for key in KEYS:
        value = given.get(key)
        if value is None:
            continue
        beginning, _, kind = key.partition("_")
        if key == "num_actions":
            found[key] = _count(value, where)
            continue
        if beginning not in SUBJECTS:
            found[key] = str(value) if key == "minari" else bool(value)
            continue
        size = (*columns[SUBJECTS[beginning]].shape, 1)[1]
        plain = _numbers(value, size) if kind in ("low", "high") else _texts(value, size)
        if plain is None:
            what = "numbers (or one for all)" if kind in ("low", "high") else "texts"
            raise InputError(
                f"{where}: the attribute {key!r} must be {size} {what}, one for each column of"
                f" {SUBJECTS[beginning]!r}, not {str(value)[:100]}; change or delete it"
            )
        found[key] = plain
    low, number = found.get("action_low"), found.get("num_actions")
    if low is not None and number is not None:
        found.setdefault("action_high", tuple(it + number - 1 for it in low))  # of choices the first says the last
    for beginning in SUBJECTS:
        low, high = (found.get(f"{beginning}_{end}") for end in ("low", "high"))
        if (low is None) != (high is None):
            there, gone = ("low", "high") if high is None else ("high", "low")
            raise InputError(f"{where}: there is '{beginning}_{there}', but no '{beginning}_{gone}'; add or delete one")
        if low is not None and high is not None and not (np.asarray(low) < np.asarray(high)).all():
            raise InputError(f"{where}: '{beginning}_low' {list(low)} must be below '{beginning}_high' {list(high)}")
    return Attributes(**found)


def action_bounds(attributes: Attributes) -> tuple[Any, Any]:
    """The bounds of actions, or two None where an action has none."""
    low, high = attributes.action_low, attributes.action_high
    if low is None or high is None or max(map(abs, (*low, *high))) >= BOUNDLESS:
        return None, None
    return low, high


def given(attributes: Attributes) -> dict[str, Any]:
    """The attributes that say something, by their keys."""
    return {key: value for key, value in attributes._asdict().items() if value is not None and value is not False}


def for_policy(attributes: Attributes) -> dict[str, Any]:
    """What a policy's file says of the numbers that it takes and gives, as JSON without infinities. The bounds of its
    actions are what it was trained with, and arrays of that file.
    """
    kept = {key: it for key, it in given(attributes).items() if key.endswith(("_names", "_units"))}
    for key in ("observation_low", "observation_high"):
        bounds = getattr(attributes, key)
        if bounds is not None:
            kept[key] = [bound if np.isfinite(bound) else None for bound in bounds]
    return kept


def to_texts(attributes: Attributes) -> dict[str, str]:
    """Key -> JSON, for formats whose attributes are texts."""
    return {key: json.dumps(value) for key, value in given(attributes).items()}


def from_texts(texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """What `to_texts` wrote, among other texts. Raises InputError for what is not JSON."""
    values: dict[str, Any] = {}
    for key in KEYS:
        try:
            if key in texts:
                values[key] = json.loads(texts[key])
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: the attribute {key!r} must be JSON, not {texts[key][:100]!r}") from error
    return values


def beside(path: Path) -> Path:
    """The file with what a CSV file has no place for."""
    return path.with_name(f"{path.name}-metadata.json")


def write_beside(path: Path, env_id: str | None, attributes: Attributes) -> Path | None:
    """Writes what there is to say beside a CSV file, and returns where. Raises StorageError."""
    said = ({} if env_id is None else {"env_id": env_id}) | given(attributes)
    if not said:
        return None
    files.write_json(beside(path), {"@context": "http://www.w3.org/ns/csvw", "url": path.name, "itrpo": said})
    return beside(path)


def read_beside(path: Path) -> dict[str, Any]:
    """What stands beside a CSV file, `env_id` with it; nothing where there is no such file, or one of other programs
    alone. Raises InputError if it can't be read.
    """
    place = beside(path)
    if not place.exists():
        return {}
    advice = "mend it, or move it away to use the CSV file without it"
    try:
        if place.stat().st_size > MAX_BESIDE:
            raise InputError(f"{place}: more than {MAX_BESIDE:,} bytes to describe columns; {advice}")
        content = files.read_json(place)
    except (StorageError, OSError) as error:
        raise InputError(f"{error}; {advice}") from error
    said = content.get("itrpo", {}) if isinstance(content, dict) else None
    if not isinstance(said, dict):
        raise InputError(f'{place}: it must be {{"itrpo": {{"action_low": ...}}}}, a mapping in a mapping; {advice}')
    env_id = said.get("env_id")
    if env_id is not None and not isinstance(env_id, str):
        raise InputError(f"{place}: 'env_id' must be one string, like 'Hopper-v4'; {advice}")
    for key in said:
        if key not in ("env_id", *KEYS):
            raise InputError(f"{place}: unknown key {key!r}{nearest(key, ('env_id', *KEYS))} in 'itrpo'; {advice}")
    return said


def _count(value: Any, where: str) -> int:
    number = np.asarray(value)
    if number.shape not in ((), (1,)) or number.dtype.kind not in "iu" or number.item() < 2:
        raise InputError(
            f"{where}: the attribute 'num_actions' must be a whole number from 2 on, how many choices an action has,"
            f" not {str(value)[:100]}; change or delete it"
        )
    return int(number.item())


def _numbers(value: Any, size: int) -> tuple[float, ...] | None:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    if numbers.shape not in ((), (1,), (size,)) or np.isnan(numbers).any():
        return None
    return tuple(np.broadcast_to(numbers, (size,)).tolist())


def _texts(value: Any, size: int) -> tuple[str, ...] | None:
    if isinstance(value, str | bytes) or np.ndim(value) == 0:
        value = [value.item() if isinstance(value, np.ndarray) else value]
    texts = [it.decode("utf-8", "replace") if isinstance(it, bytes) else it for it in value]
    if len(texts) != size or not all(isinstance(text, str) for text in texts):
        return None
    return tuple(map(str, texts))
