"""`metadata.json` of a Minari folder: what it says, and what is written into it.

Nothing that it names (entry points of environments) is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo.data import attributes
from itrpo.data.layout import Contents
from itrpo.data.minari_ids import METADATA, data_folder
from itrpo.errors import InputError
from itrpo.evaluation.environments import as_reference, env_spec_json, time_limit
from itrpo.types import Attributes, Reference

VERSION = "0.5.0"  # of the layout that `itrpo.data.formats.minari` writes; every later minari reads it
MAX_METADATA = 1 << 24  # bytes; Minari's own are kilobytes
ORIGIN = (
    "env_spec",
    "eval_env_spec",
    "description",
    "algorithm_name",
    "author",
    "author_email",
    "code_permalink",
    "requirements",
    "ref_min_score",
    "ref_max_score",
    "num_episodes_average_score",
)
OF_THE_ENVIRONMENT = ("env_spec", "eval_env_spec", "ref_min_score", "ref_max_score", "num_episodes_average_score")


class Record(NamedTuple):
    """What `metadata.json` says, as far as it matters here."""

    dataset_id: str
    env_id: str | None
    total_episodes: int | None
    final_observations: str | None  # "recorded", "repeated"; None: not written by itrpo
    dtypes: Mapping[str, str]  # of flags that were not bool
    spaces: Mapping[str, Any]  # "action", "observation" -> the serialized space, a JSON object
    attributes: Mapping[str, Any] | None  # as itrpo wrote them; None: it didn't
    origin: str | None  # JSON: where the data came from
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
    spaces = {name: _json(metadata.get(f"{name}_space")) for name in ("action", "observation")}
    origin = {key: metadata[key] for key in ORIGIN if metadata.get(key) is not None}
    attributes = own.get("attributes")
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
        spaces=spaces,
        attributes=attributes if isinstance(attributes, dict) else None,
        origin=json.dumps(origin) if origin else None,
        about=about,
    )


def about(record: Record, parts: Sequence[str]) -> dict[str, Any]:
    """Attributes of the columns, to be parsed. `parts`: which entries of a Dict space make up the observation."""
    if record.attributes is not None:
        return dict(record.attributes)
    found: dict[str, Any] = {}
    action = record.spaces.get("action")
    if isinstance(action, dict) and action.get("type") == "Discrete":
        first, number = int(action.get("start") or 0), int(action["n"])
        found |= {"num_actions": number, "action_low": first, "action_high": first + number - 1}
    for name, space in record.spaces.items():
        spaces = space.get("subspaces") if isinstance(space, dict) else None
        chosen = [spaces.get(part) for part in parts] if isinstance(spaces, dict) else [space]
        bounds = [_bounds(each) for each in chosen]
        for end, each in zip(("low", "high"), zip(*bounds, strict=True), strict=True):
            if all(part is not None for part in each):
                found[f"{name}_{end}"] = [value for part in each for value in part or ()]
        low, high = (found.get(f"{name}_{end}") for end in ("low", "high"))
        if low is not None and high is not None and (np.isinf(low).all() and np.isinf(high).all()):
            del found[f"{name}_low"], found[f"{name}_high"]
    if record.origin is not None:
        found["minari"] = record.origin
    return found


class References(NamedTuple):
    known: Reference | None  # the returns that score 0 and 100
    note: str = ""  # why references that are there are not used


NO_REFERENCES = References(None)


def references(said: str | None, env_id: str | None) -> References:
    """`ref_min_score` and `ref_max_score` of the Minari dataset that `said` (`Attributes.minari`) is from: the score of
    `minari.get_normalized_score`. They are means of returns in its environment, with its options and its clock, so they
    say nothing of any other.
    """
    try:
        origin = json.loads(said or "{}")
        given = origin.get("ref_min_score"), origin.get("ref_max_score")
        spec = json.loads(origin.get("eval_env_spec") or origin.get("env_spec") or "{}")
        theirs, steps = spec.get("id"), spec.get("max_episode_steps")
        options = {**(spec.get("kwargs") or {})}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return NO_REFERENCES  # somebody else's attribute of the same name
    if None in given or env_id is None:
        return NO_REFERENCES
    low, high = (str(it)[:40] for it in given)
    known, unused = as_reference(given), f"the dataset's references ({low}, {high}) are not used: "
    if known is None:
        return References(None, f"{unused}they must be two finite numbers, the smaller one first")
    if theirs != env_id.rpartition(":")[2]:
        return References(None, f"{unused}they are those of {theirs or 'no environment'}, not of {env_id}")
    options.pop("render_mode", None)
    if options or spec.get("additional_wrappers"):
        return References(None, f"{unused}they are those of {env_id} with options, which are not applied")
    clock = time_limit(env_id)
    if clock is not None and isinstance(steps, int) and steps != clock:
        return References(None, f"{unused}they are of {steps:,} steps an episode, and {env_id} is played for {clock:,}")
    return References(known)


def _json(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str) else None


def _bounds(space: Any) -> tuple[list[float] | None, list[float] | None]:
    """The bounds of a serialized Box of one axis, two None if it is none or they are none."""
    if not isinstance(space, dict) or space.get("type") != "Box":
        return None, None
    try:
        low, high = (np.asarray(space.get(key), np.float64) for key in ("low", "high"))
    except (TypeError, ValueError) as error:
        raise InputError(f"not Minari's metadata: bounds of a space that are no numbers ({error})") from error
    if low.ndim != 1 or low.shape != high.shape or not (low < high).all():
        return None, None
    return low.tolist(), high.tolist()


def metadata_of(contents: Contents, dataset_id: str, episodes: int, flags: Mapping[str, np.ndarray]) -> dict[str, Any]:
    columns, said = contents.columns, contents.attributes
    recorded = "next_observations" in columns
    final = "are the recorded ones" if recorded else "are unknown: each repeats the observation before it"
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": episodes,
        "total_steps": len(columns["rewards"]),
        "observation_space": json.dumps(_box(columns["observations"], said.observation_low, said.observation_high)),
        "action_space": json.dumps(_action_space(columns["actions"], said)),
        "description": f"Converted by itrpo. The last observations of episodes {final}.",
        "itrpo": {
            "attributes": attributes.given(said),
            "env_id": contents.env_id,
            "final_observations": "recorded" if recorded else "repeated",
            "dtypes": {name: columns[name].dtype.str for name in flags if columns[name].dtype != bool},
        },
    }
    env_spec = env_spec_json(contents.env_id) if contents.env_id is not None else None
    if env_spec is not None:
        metadata["env_spec"] = env_spec
    origin = _origin(contents)
    description = " ".join(filter(None, (origin.get("description"), metadata["description"])))
    return metadata | origin | {"description": description}


def _origin(contents: Contents) -> dict[str, Any]:
    """What the Minari dataset that the data came from says; of its environments nothing if another is written down."""
    try:
        origin = json.loads(contents.attributes.minari or "{}")
        kept = {key: origin[key] for key in ORIGIN if key in origin}
        specs = [json.loads(kept[key]) for key in ("eval_env_spec", "env_spec") if key in kept]
    except (ValueError, TypeError, RecursionError):
        return {}  # somebody else's attribute of the same name
    if not specs or not isinstance(specs[0], dict) or specs[0].get("id") != contents.env_id:
        kept = {key: value for key, value in kept.items() if key not in OF_THE_ENVIRONMENT}
    return kept


def _action_space(actions: np.ndarray, said: Attributes) -> dict[str, Any]:
    """A Discrete space where actions are one whole number each, [N]: Minari has no place for choices as [N, 1]."""
    if actions.ndim == 1:
        first = 0 if said.action_low is None else int(said.action_low[0])
        number = said.num_actions or int(actions.max()) - first + 1
        return {"type": "Discrete", "dtype": "int64", "start": first, "n": number}
    return _box(actions, said.action_low, said.action_high, unit=True)


def _box(
    values: np.ndarray, lows: Sequence[float] | None, highs: Sequence[float] | None, unit: bool = False
) -> dict[str, Any]:
    """A Box space as Minari writes it: with these bounds, else [-1, 1] where `unit` and the values keep to it."""
    kind, size = values.dtype.kind, values.shape[1]
    low, high = {"f": (-math.inf, math.inf), "b": (False, True)}.get(kind, (0, 0))
    if kind in "iu":
        low, high = (int(bound) for bound in (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max))
    elif kind == "f" and unit and (np.abs(values) <= 1 + 1e-6).all():
        low, high = -1.0, 1.0
    bounds = {"low": list(lows or [low] * size), "high": list(highs or [high] * size)}
    return {"type": "Box", "dtype": str(values.dtype), "shape": [size], **bounds}
