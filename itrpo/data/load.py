"""From whatever names a dataset to transitions that training can read, with every check on the values on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data import arrays, cache, d4rl
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.episodes import episode_statistics, to_transitions
from itrpo.errors import InputError
from itrpo.registry import GENERATED_DATASETS, READERS, nearest, resolve
from itrpo.types import Dataset, Episodes

if TYPE_CHECKING:
    from rich.console import Console

ROUNDING = 1e-6  # an action may exceed 1 by this much: float32 rounding in the file, or in our rescaling


def load_dataset(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    *,
    env: str | None = None,
    action_low: float | Sequence[float] | np.ndarray | None = None,
    action_high: float | Sequence[float] | np.ndarray | None = None,
    console: Console | None = None,
) -> Dataset:
    """Reads and checks a dataset.

    `source` is a name (`hopper-demo`, `hopper-medium-v2`; downloaded or generated into the cache on first use), a path
    to an .hdf5, .h5 or .npz file, or a mapping of arrays (see `itrpo.data.arrays`).
    `env` is the gymnasium id to evaluate in: None takes what the file or the name says, "none" means no evaluation.
    `action_low` and `action_high`, numbers or one per action dimension, are the raw actions that become -1 and +1;
    without them actions must lie in [-1, 1] already. Nothing is ever clipped.
    `console` shows progress of downloads and roll-outs; None is silent.

    Raises InputError if the source is unknown or can't be used as it is, with what to do about it.
    """
    episodes = read_episodes(source, console)
    where = episodes.source.path or "the arrays"
    _check_finite(episodes, where)
    low, high = _action_bounds(action_low, action_high, episodes.actions.shape[1])
    rescaled = action_low is not None or action_high is not None
    if rescaled:
        episodes = replace(episodes, actions=((episodes.actions - low) / (high - low) * 2 - 1).astype(np.float32))
    _check_actions(episodes, where, rescaled)
    returns, lengths = episode_statistics(episodes)
    return Dataset(
        name=episodes.source.name,
        transitions=to_transitions(episodes),
        env_id=episodes.env_id if env is None else None if env.lower() == "none" else env,
        action_low=low,
        action_high=high,
        episode_returns=returns,
        episode_lengths=lengths,
        num_rows=len(episodes.rewards),
        num_terminals=int(episodes.terminals.sum()),
        num_timeouts=int(episodes.timeouts.sum()),
        source=episodes.source,
    )


def read_episodes(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray], console: Console | None = None
) -> Episodes:
    """The raw rows behind `source`, as `load_dataset` takes it, before any check on their values."""
    if isinstance(source, Mapping):
        return arrays.from_mapping(source)
    name = os.fspath(source)
    if name in D4RL_FILES:
        return _read_d4rl(name, console)
    if name in GENERATED_DATASETS:
        return _read_generated(name, console)
    path = Path(name).expanduser()
    reader = READERS.get(path.suffix.lower())
    if reader is not None:
        return resolve(reader).read(path)
    if path.exists() or len(path.parts) > 1:
        kind = "no such file" if not path.exists() else "a folder" if path.is_dir() else "unknown file ending"
        raise InputError(f"{path}: {kind}; a dataset is a file ending in {', '.join(READERS)}")
    raise InputError(
        f"unknown dataset {name!r}{nearest(name, dataset_names())}; `itrpo datasets list` shows all names,"
        f" and a path to a file ({', '.join(READERS)}) works too"
    )


def dataset_names() -> list[str]:
    """Every dataset that goes by name."""
    return [*GENERATED_DATASETS, *D4RL_FILES]


def _read_d4rl(name: str, console: Console | None) -> Episodes:
    from itrpo.data.download import download_url, fetch

    path = fetch(name, console)
    episodes = d4rl.read(path, sha256=D4RL_FILES[name].sha256)
    source = replace(episodes.source, name=name, kind="d4rl", url=download_url(path))
    return replace(episodes, env_id=D4RL_FILES[name].env_id, source=source)


def _read_generated(name: str, console: Console | None) -> Episodes:
    path = cache.generated_path(name)
    if not path.exists():
        resolve(GENERATED_DATASETS[name])(path, console)
    episodes = d4rl.read(path)
    return replace(episodes, source=replace(episodes.source, name=name, kind="generated"))


def _check_finite(episodes: Episodes, where: str) -> None:
    for key in ("observations", "actions", "rewards", "next_observations"):
        values = getattr(episodes, key)
        if values is None:
            continue
        finite = np.isfinite(values)
        if finite.all():
            continue
        rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
        nan = int(np.isnan(values).sum())
        infinite = int(finite.size - finite.sum()) - nan
        raise InputError(
            f"{where}: {key!r} holds {nan:,} NaN and {infinite:,} infinite values (as float32), in {len(rows):,} of"
            f" {len(values):,} rows (first: {_first(rows)}); remove those episodes or mend the values"
        )


def _action_bounds(low: Any, high: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both bounds as float32 [A]; -1 and +1 where none is given."""
    bounds = []
    for name, value, default in (("low", low, -1.0), ("high", high, 1.0)):
        flag = f"action_{name} (--action-{name})"
        try:
            bound = np.asarray(default if value is None else value, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"{flag} must be a number, or one number per action dimension, not {value!r}") from None
        if bound.shape not in ((), (1,), (size,)):
            raise InputError(f"{flag} has shape {list(bound.shape)}, but actions have {size} dimensions")
        if not np.isfinite(bound).all():
            raise InputError(f"{flag} must be finite, not {value!r}")
        bounds.append(np.broadcast_to(bound, (size,)).copy())
    if (bounds[0] >= bounds[1]).any():
        raise InputError(
            f"action_low (--action-low) {bounds[0].tolist()} must be below"
            f" action_high (--action-high) {bounds[1].tolist()}"
        )
    return bounds[0], bounds[1]


def _check_actions(episodes: Episodes, where: str, rescaled: bool) -> None:
    actions = episodes.actions
    rows = np.flatnonzero((np.abs(actions) > 1 + ROUNDING).any(axis=1))
    if not rows.size:
        return
    after = " after rescaling" if rescaled else ""
    advice = (
        "widen --action-low and --action-high (action_low and action_high in Python)"
        if rescaled
        else "give the environment's bounds with --action-low and --action-high (action_low and action_high in Python),"
        " which rescale to [-1, 1]"
    )
    raise InputError(
        f"{where}: {len(rows):,} of {len(actions):,} rows have 'actions' outside [-1, 1]{after}: they range from"
        f" {actions.min():.6g} to {actions.max():.6g} (first: {_first(rows)}); {advice}"
    )


def _first(rows: np.ndarray) -> str:
    listed = ", ".join(str(row) for row in rows[:5])
    return f"row {listed}" if len(rows) == 1 else f"rows {listed}{', ...' if len(rows) > 5 else ''}"
