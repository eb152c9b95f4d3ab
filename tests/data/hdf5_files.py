"""Small HDF5 files whose every value is known: observation [i, -i], action [i / 100], reward 10 + i in row i."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

# three episodes: rows 0-2 end in a terminal, 3-6 in a timeout, 7-8 are still open at the end of the file
TERMINALS = [0, 0, 1, 0, 0, 0, 0, 0, 0]
TIMEOUTS = [0, 0, 0, 0, 0, 0, 1, 0, 0]


def columns(terminals: list[int] = TERMINALS, timeouts: list[int] = TIMEOUTS) -> dict[str, np.ndarray]:
    rows = np.arange(len(terminals), dtype=np.float32)
    return {
        "observations": np.stack([rows, -rows], axis=1),
        "actions": rows[:, None] / np.float32(100),
        "rewards": 10 + rows,
        "terminals": np.array(terminals, dtype=bool),
        "timeouts": np.array(timeouts, dtype=bool),
    }


def write(path: Path, arrays: dict[str, np.ndarray], **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(key, data=values)
        file.attrs.update(attributes)
    return path
