"""OGBench's single-task sets by name, like `ogbench:cube-single-play-singletask-task2-v0` (arXiv:2410.20092).

Its files serve every task of an environment, so they hold no rewards: these follow from the simulator's states in the
file, by the package's own rule. A trajectory goes on after the task is solved, but nothing is learned across that row.
"""

from __future__ import annotations

import contextlib
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itrpo import files
from itrpo.data.formats import npz
from itrpo.data.layout import Contents, to_episodes
from itrpo.errors import InputError
from itrpo.types import Attributes, DataSource, Episodes

PREFIX = "ogbench:"
NAME = re.compile(r"(?P<env>\w+(-[\w]+)*?)-(?P<kind>[a-z]+)-singletask(?P<task>-task[1-5])?-v0")
STATES = ("qpos", "button_states")
COLUMNS = ("observations", "actions", "terminals", *STATES)


class Name(NamedTuple):
    env_id: str  # of the task's environment
    file: str  # of the set that serves all its tasks


def parse(name: str) -> Name:
    """The parts of a name, without the prefix. Raises InputError where it is none of a single task."""
    found = NAME.fullmatch(name)
    if found is None or name.startswith(("visual-", "powderworld-")):
        raise InputError(
            f"{PREFIX}{name}: the sets that go by name are those of single tasks with vectors as observations, such as "
            f"{PREFIX}antmaze-large-navigate-singletask-v0 or {PREFIX}cube-single-play-singletask-task2-v0"
        )
    env, kind, task = found["env"], found["kind"], found["task"] or ""
    return Name(f"{env}-singletask{task}-v0", f"{env}-{kind}-v0")


def find(name: str) -> Path:
    """The set's file, downloaded by the ogbench package where it keeps its own if it isn't there yet.

    No hash of these files is published: a run's provenance has that of the file it read. Raises InputError, with what
    to do, if it can't be had.
    """
    file = parse(name).file
    path = Path.home() / ".ogbench" / "data" / f"{file}.npz"
    if path.is_file():
        return path
    try:
        from ogbench.utils import download_datasets  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        raise InputError(f"{PREFIX}{name} needs the ogbench package: pip install 'itrpo[ogbench]'") from None
    elsewhere = f"or put {file}.npz there from a machine with a network: {path}"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            download_datasets([file])
    except Exception as error:  # whatever the server or the network come up with
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{PREFIX}{name}: {path} is not there, and downloading it failed ({type(error).__name__}: {reason}); try "
            f"again, {elsewhere}"
        ) from error
    return path


def read_contents(name: str) -> Contents:
    """The rows of a single task. Raises InputError if they can't be had or read, or without the package."""
    from itrpo.evaluation.environments import build_env
    from itrpo.evaluation.ogbench import rewards_of

    env_id, path = parse(name).env_id, find(name)
    columns = npz.read_arrays(path, COLUMNS)
    last = columns["terminals"].reshape(-1) != 0  # the state that a trajectory ends in; nothing was done there
    last[-1] = True
    rows = np.flatnonzero(~last)
    if not len(rows):
        raise InputError(f"{path}: it has no row that another follows")
    env = build_env(env_id)
    try:
        states = {key: columns[key][rows] for key in STATES if key in columns}
        rewards, solved = rewards_of(env, states)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{path}: its states ({', '.join(STATES)}) are not those of {env_id} ({type(error).__name__}: {error})"
        ) from error
    finally:
        env.close()
    observations, bounds = columns["observations"], (1.0,) * columns["actions"].shape[1]
    kept = {
        "observations": observations[rows],
        "actions": columns["actions"][rows],
        "rewards": rewards,
        "terminals": solved,
        "timeouts": last[rows + 1] & ~solved,
        "next_observations": observations[rows + 1],
    }
    return Contents(kept, env_id, Attributes(action_low=tuple(-it for it in bounds), action_high=bounds))


def read(name: str) -> Episodes:
    """As `read_contents`, for training."""
    contents, path = read_contents(name), find(name)
    recipe = {"rewards": f"those of {contents.env_id}, by ogbench {version('ogbench')}"}
    source = DataSource(name, "ogbench", str(path.resolve()), files.file_sha256(path), recipe=recipe)
    return to_episodes(contents.columns, str(path), source, contents.env_id, contents.attributes)
