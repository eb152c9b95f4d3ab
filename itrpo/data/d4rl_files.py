"""The files of D4RL that go by name: 18 MuJoCo and 6 AntMaze files of v2, 12 Adroit files of v1 and 3 of the kitchen
(data: CC BY 4.0, arXiv:2004.07219).

Names and addresses: D4RL's `infos.py`. Sizes and SHA-256: TensorFlow Datasets, `d4rl_*/checksums.tsv`; episode counts:
its catalogue, one more than the completed episodes where a file ends mid-episode. Its checksums of Relocate were not to
be had, and it has no kitchen: what is known of these is from public records of downloads from D4RL's server, of
relocate-cloned by two people (one of whom has the mirror's too, with the same result; 8 other files in the same record
have TensorFlow Datasets' hashes), of the kitchen by one. No hash of relocate-human and relocate-expert is known.
D4RL's data were logged in Gym's `-v2` environments, whose rewards gymnasium's `-v4` keep (`-v5` does not). Adroit's are
from DAPG's environments, which gymnasium-robotics ported (itrpo.evaluation.adroit); the kitchen's from human
demonstrations, for itrpo.evaluation.kitchen.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

# tried in this order; {folder} and {file} are filled in from `d4rl_files.csv`
MIRRORS = (
    "http://rail.eecs.berkeley.edu/datasets/offline_rl/{folder}/{file}",
    "https://huggingface.co/datasets/imone/D4RL/resolve/main/{file}",
)


class D4RLFile(NamedTuple):
    """One file. A file of another size or hash is not the published one, whatever its name. None: not known."""

    folder: str  # on the official server
    file: str
    size: int | None  # bytes
    sha256: str | None
    env_id: str  # gymnasium id for evaluation; the mazes are itrpo.evaluation.mazes
    episodes: int | None


def _number(text: str) -> int | None:
    return int(text) if text else None


_HEADER, *_ROWS = csv.reader((Path(__file__).parent / "d4rl_files.csv").read_text("utf-8").splitlines())
D4RL_FILES = {
    name: D4RLFile(folder, file, _number(size), sha256 or None, env_id, _number(episodes))
    for name, folder, file, size, sha256, env_id, episodes in _ROWS
}
