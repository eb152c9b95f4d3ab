"""Any HDF5 file as a table for a column map: its arrays by their paths, or, where it has a group for each episode, the
arrays in these, one episode after the other.

Groups of episodes are those of one name and a number, at the root or one group below: `data/demo_0`, `data/demo_1`, ...
(robomimic), `traj_0`, ... (ManiSkill), `episode_0`, ... (Minari). Their arrays go by their paths within: `obs/object`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.data.column_map import Table, array_table
from itrpo.data.formats.hostile import check_chunks, check_storage, datasets_below, refuse_links
from itrpo.data.layout import NUMERIC
from itrpo.errors import InputError

if TYPE_CHECKING:
    import h5py


def table(file: h5py.File, where: str, env_id: str | None, about: Mapping[str, Any]) -> Table:
    """Raises InputError if a link is anywhere in the file."""
    refuse_links(file, where)
    episodes = _episodes(file)
    arrays = datasets_below(episodes[0] if episodes else file, where)
    names = [name for name, array in arrays.items() if array.dtype.kind in NUMERIC and array.shape]
    if not episodes:
        found = array_table(names, lambda name: _values(arrays[name], name, where), where)
        return found._replace(env_id=env_id, about=about)

    def lengths(name: str) -> np.ndarray:
        return np.array([len(_array(episode, name, where)) for episode in episodes])

    def load(name: str) -> np.ndarray:
        parts = [_values(_array(episode, name, where), f"{_name(episode)}/{name}", where) for episode in episodes]
        for episode, part in zip(episodes, parts, strict=True):
            if part.shape[1:] != parts[0].shape[1:]:
                shapes = f"{list(part.shape[1:])} in {_name(episode)}, but {list(parts[0].shape[1:])} in the first"
                raise InputError(f"{where}: a row of {name!r} has shape {shapes} episode")
        return np.concatenate(parts)

    return array_table(names, load, where)._replace(env_id=env_id, about=about, lengths=lengths)


def _episodes(file: h5py.File) -> list[h5py.Group]:
    """The groups of all episodes, in the order of their numbers; none if the file has one array for all."""
    import h5py

    largest: list[h5py.Group] = []
    for parent in (file, *(child for child in file.values() if isinstance(child, h5py.Group))):
        numbered: dict[str, dict[int, str]] = {}
        for name in map(str, parent):
            match = re.fullmatch(r"(.*?)(\d{1,12})", name)
            if match:
                numbered.setdefault(match[1], {})[int(match[2])] = name
        for members in numbered.values():
            entries = [parent[members[number]] for number in sorted(members)]
            groups = [entry for entry in entries if isinstance(entry, h5py.Group) and len(entry)]
            if len(entries) == len(groups) > len(largest):
                largest = groups
    return largest


def _name(episode: h5py.Group) -> str:
    return str(episode.name)[1:]


def _array(episode: h5py.Group, name: str, where: str) -> h5py.Dataset:
    import h5py

    array = episode.get(name)
    if not isinstance(array, h5py.Dataset) or not array.shape or array.dtype.kind not in NUMERIC:
        raise InputError(f"{where}: no array of numbers {name!r} in {_name(episode)!r}, but there is in others")
    return array


def _values(array: h5py.Dataset, name: str, where: str) -> np.ndarray:
    check_storage(name, array.id, where)
    check_chunks(name, array, where)
    if array.ndim > 3 or (array.ndim > 2 and array.dtype == np.uint8):
        raise InputError(
            f"{where}: {name!r} has shape {list(array.shape)} and type {array.dtype}: an image, it seems, and itrpo"
            f" learns from vectors; leave it out: --exclude {name.rpartition('/')[2]} (exclude=... in Python)"
        )
    return array[()]
