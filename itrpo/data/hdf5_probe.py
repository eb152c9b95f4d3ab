"""Opens every part of an HDF5 file, in a process of its own: libhdf5 can crash, or never come back, on a damaged one.

HDFGroup/hdf5 issue 1707 is such a case: a text attribute whose heap is damaged is read for ever. What is tried here is
all that lies around the rows: headers, attributes, indices of chunks. Rows themselves are copied or decompressed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CPU_SECONDS = 30  # a sound file takes milliseconds; time that a slow disk takes does not count


def survives(path: Path, cpu_seconds: int = CPU_SECONDS) -> bool:
    """Whether libhdf5 gets through the file in this time, with or without errors of its own."""
    if not sys.executable or getattr(sys, "frozen", False):  # inside another program: there is no interpreter to start
        return True
    command = [sys.executable, "-P", __file__, str(path.resolve()), str(cpu_seconds)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode >= 0


def open_everything(path: str) -> None:
    """Reads all of the file but its rows."""
    import h5py

    def look(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            item.id.get_storage_size()
            if item.chunks:
                item.id.get_num_chunks()
        if isinstance(item, h5py.HLObject):
            dict(item.attrs)

    with h5py.File(path, "r") as file:
        look("", file)
        file.visititems(look)


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
    open_everything(sys.argv[1])
