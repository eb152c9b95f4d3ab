from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.memory import ALIGNMENT, BLOCK, blocks, empty_rows


@pytest.mark.parametrize("rows", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_cover_every_row_once(rows: int) -> None:
    covered = np.zeros(rows, int)
    for block in blocks(rows):
        covered[block] += 1
        assert 0 < block.stop - block.start <= BLOCK
    assert (covered == 1).all()


@pytest.mark.parametrize("shape", [(1,), (7, 3), (100_000, 17)])
def test_empty_rows_begin_where_jax_wants_them_to(shape: tuple[int, ...]) -> None:
    for _ in range(5):
        rows = empty_rows(*shape)
        assert (rows.shape, rows.dtype) == (shape, np.float32)
        assert rows.flags.c_contiguous
        assert rows.ctypes.data % ALIGNMENT == 0
