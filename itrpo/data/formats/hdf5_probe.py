"""Opens every part of an HDF5 file, in a process of its own: libhdf5 can crash, or never come back, on a damaged one.

HDFGroup/hdf5 issue 1707 is such a case: a text attribute whose heap is damaged is read for ever. What is tried here is
all that lies around the rows: headers, attributes, indices of chunks. Rows themselves are copied or decompressed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

CPU_SECONDS = 20  # for one object of the file: a sound one takes a millisecond. Waiting for the disk does not count


def survives(path: Path) -> bool:
    """Whether libhdf5 gets through the file, with or without errors of its own."""
    if not sys.executable or getattr(sys, "frozen", False):  # inside another program: there is no interpreter to start
        return True
    command = [sys.executable, "-P", __file__, str(path.resolve()), str(CPU_SECONDS)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode >= 0


def open_everything(path: str, cpu_seconds: float) -> None:
    """Reads all of the file but its rows. The process ends if one object takes more than `cpu_seconds`."""
    import h5py

    def look(_: str, item: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        if isinstance(item, h5py.Dataset):
            item.id.get_storage_size()
            if item.chunks:
                item.id.get_num_chunks()
        if isinstance(item, h5py.HLObject):
            dict(item.attrs)

    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    with h5py.File(path, "r") as file:
        look("", file)
        file.visititems(look)


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    open_everything(sys.argv[1], float(sys.argv[2]))
