from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from itrpo.data.formats import FORMATS
from itrpo.data.formats.hostile import check_stored_size
from itrpo.errors import InputError

LOOK = """
import sys
import itrpo.data.formats
import itrpo.data.load
print(*sorted({"h5py", "polars", "minari"} & set(sys.modules)))
"""


def test_looking_at_the_table_imports_no_library_of_a_format() -> None:
    shown = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True).stdout
    assert shown.split() == []
    assert list(FORMATS) == [".hdf5", ".h5", ".npz", ".parquet", ".csv"]


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_a_column_may_be_as_large_as_its_bytes_could_expand_to(dtype: type) -> None:
    size = np.dtype(dtype).itemsize
    check_stored_size("rewards", (1100 * 64 // size,), np.dtype(dtype), 64, "a.hdf5")
    with pytest.raises(InputError, match=r"'rewards' declares .* but only 64 bytes are stored"):
        check_stored_size("rewards", (1100 * 64 // size + 1,), np.dtype(dtype), 64, "a.hdf5")
    with pytest.raises(InputError, match=r"has shape \[-1, 3\]; the file is damaged"):
        check_stored_size("rewards", (-1, 3), np.dtype(dtype), 64, "a.hdf5")
