"""Minari datasets by id, like `D4RL/door/human-v2`: the folders they are kept in, and downloading them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

from itrpo.errors import InputError

PREFIX = "minari:"
METADATA = "metadata.json"
ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")


def data_folder(path: Path) -> Path | None:
    """The folder with Minari's two files if `path` is it or the folder above it, else None."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA).is_file()), None)


def dataset_folder(dataset_id: str) -> Path:
    """Where Minari keeps the dataset `dataset_id`, whether or not it is there: below $MINARI_DATASETS_PATH, or
    ~/.minari/datasets. Raises InputError if that is no Minari id.
    """
    if not ID.fullmatch(dataset_id):
        raise InputError(f"{PREFIX}{dataset_id}: a Minari id looks like NAME-v0 or GROUP/NAME-v0")
    return _root() / dataset_id


def find(dataset_id: str) -> Path:
    """The folder of the dataset `dataset_id`, downloaded by the minari package if it isn't there yet.

    Raises InputError, with what to do, if it can't be had.
    """
    folder = dataset_folder(dataset_id)
    if data_folder(folder) is not None:
        return folder
    missing = f"{PREFIX}{dataset_id}: not in {_root()}"
    elsewhere = (
        f"or run `minari download {dataset_id}` where there is a network and copy the folder to {folder}"
        " (MINARI_DATASETS_PATH names another root)"
    )
    try:
        import minari
    except ImportError:
        raise InputError(
            f"{missing}; to download it, pip install 'itrpo[minari]', {elsewhere}; reading a folder needs no package"
        ) from None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
    except ImportError as error:
        raise InputError(f"{missing}; to download it, pip install 'itrpo[minari]' ({error}), {elsewhere}") from error
    except Exception as error:  # whatever the server, the network or the package come up with
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{missing}, and downloading it failed ({type(error).__name__}: {reason}); try again, {elsewhere}"
        ) from error
    if data_folder(folder) is None:
        raise InputError(f"{missing}, though the minari package reports no error; {elsewhere}")
    return folder


def id_of(folder: Path) -> str:
    """The id of a folder that is to hold a dataset: its name, with the groups above it where Minari looks for it.
    Raises InputError if that is no Minari id.
    """
    within = folder.relative_to(_root()).as_posix() if folder.is_relative_to(_root()) else folder.name
    dataset_id = within if ID.fullmatch(within) else folder.name
    if not ID.fullmatch(dataset_id):
        raise InputError(f"{folder}: {dataset_id!r} is no Minari id; they look like NAME-v0 or GROUP/NAME-v0")
    return dataset_id


def _root() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").expanduser()
