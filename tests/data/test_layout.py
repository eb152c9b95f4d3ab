from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from itrpo.data.layout import check_layout, to_flags
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
