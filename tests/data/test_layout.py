from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars
import pytest

from itrpo.data.convert import convert
from itrpo.data.health import check_dataset
from itrpo.data.layout import check_layout, rounded, to_flags
from itrpo.data.load import load_dataset
from itrpo.errors import InputError


class Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.float32)


def headers(rows: int) -> dict[str, Header]:
    return {"observations": Header((rows, 17)), "actions": Header((rows, 6)), "rewards": Header((rows,))}


def test_more_transitions_than_memory_are_refused() -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bytes_per_row = 2 * (17 + 6) * 4
    check_layout(headers(installed // bytes_per_row), "a.hdf5")
    with pytest.raises(
        InputError, match=r"a\.hdf5: [\d,]+ rows become [\d.,]+ GB of transitions, and this machine has"
    ):
        check_layout(headers(installed // bytes_per_row + 1), "a.hdf5")


def test_booleans_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    """Neither HDF5 nor NPZ files check the byte of a boolean, and NumPy adds such ones up as they are."""
    flags = np.array([0, 1, 2], np.uint8).view(bool)
    with pytest.raises(InputError, match=r"'terminals' must be 0 or 1, but 1 of 3 rows are not \(first: row 2 = 2\)"):
        to_flags(flags, "terminals", "a.hdf5")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((9, 8, 8, 3), r"images and other arrays of several axes .*--exclude.* flatten them"),
        ((9,), r"\[:, None\] makes"),
    ],
)
def test_images_and_single_observations_are_told_what_helps(shape: tuple[int, ...], advice: str) -> None:
    with pytest.raises(InputError, match=rf"a\.npz: 'observations' has shape .* must be \[N, size\].*{advice}"):
        check_layout(headers(9) | {"observations": Header(shape)}, "a.npz")


COUNTER = 1e8 + 0.5 * np.arange(400)


def test_what_float32_keeps_of_a_column() -> None:
    """At 1e8 it has every eighth whole number; at 1e9 every 64th."""
    rng = np.random.default_rng(0)
    drift = 0.3 + 1e-9 * np.arange(400) + np.repeat([0.0, 0.3], 200)  # at rest, and in another place
    fine = 1e9 + rng.permutation(400) / 100
    sound = [rng.normal(size=400), 1013 + rng.normal(size=400), np.repeat([0.1 + 0.2, 0.3], 200), np.ones(400), drift]
    assert rounded(np.stack([COUNTER, fine, *sound], axis=1)) == {0: (26, 400), 1: (1, 400)}
    assert rounded(10**9 + np.arange(400)) == {0: (7, 400)}
    assert rounded(np.arange(400)) == rounded(COUNTER.astype(np.float32)) == rounded(np.zeros((0, 2))) == {}
    assert rounded(np.where(np.arange(400) == 7, np.nan, COUNTER))[0] == (26, 399)


@pytest.mark.parametrize("ending", ["arrays", "a.npz", "a.hdf5", "a.parquet", "a.csv", "a-v0"])
def test_values_that_float32_rounds_away_are_said(tmp_path: Path, ending: str) -> None:
    """However they come: `check` finds them, and `train` prints a note."""
    rng = np.random.default_rng(0)
    rows = {"observations": np.stack([COUNTER, rng.normal(size=400)], axis=1), "actions": rng.uniform(-1, 1, (400, 1))}
    rows |= {"rewards": 1e9 + rng.permutation(400) / 100, "terminals": np.zeros(400, bool)}
    rows |= {"timeouts": np.arange(400) % 40 == 39, "observation_names": np.array(["count", "x"])}
    source = rows
    if ending != "arrays":
        np.savez(tmp_path / "log.npz", **rows)
        source = convert(tmp_path / "log.npz", tmp_path / ending).path
        if ending == "a.csv":  # which keeps the values of float32 arrays alone
            frame = polars.DataFrame({"observations_0": COUNTER, "rewards": rows["rewards"]})
            polars.read_csv(source).with_columns(frame).write_csv(source)
    note = load_dataset(source).notes[0]
    (found,) = (it for it in check_dataset(source).findings if it.name == "float32")
    assert (found.severity, f"{found.what}; {found.advice}") == ("warning", note)
    assert "observation 0 (count): 26 of 400 values stay, rewards: 1 of 400 values stay; subtract a constant" in note
    shifted = rows | {"observations": rows["observations"] - [1e8, 0], "rewards": rows["rewards"] - 1e9}
    assert not any("float32" in it for it in load_dataset(shifted).notes)


def test_a_list_of_episodes_says_so_too() -> None:
    rng = np.random.default_rng(0)
    part = {"observations": COUNTER[:, None], "actions": rng.uniform(-1, 1, (400, 1)), "rewards": rng.normal(size=400)}
    part["terminals"] = np.zeros(400)
    assert "observation 0: 26 of 400 values stay;" in load_dataset([part, part]).notes[0]
