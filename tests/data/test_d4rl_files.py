from __future__ import annotations

import re

from itrpo.data.d4rl_files import D4RL_FILES, MIRRORS


def test_every_entry_is_complete_and_its_own() -> None:
    assert len(D4RL_FILES) == 18 + 6 + 9
    assert len({entry.sha256 for entry in D4RL_FILES.values()}) == len(D4RL_FILES)
    assert len({entry.file for entry in D4RL_FILES.values()}) == len(D4RL_FILES)
    for name, entry in D4RL_FILES.items():
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256), name
        assert (1e6 if "-human-" in name else 50e6) < entry.size < 600e6, name


def test_mujoco_names_follow_from_the_files() -> None:
    kinds = {"random", "medium", "medium-replay", "medium-expert", "expert", "full-replay"}
    for env_id in ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4"):
        names = {name for name, entry in D4RL_FILES.items() if entry.env_id == env_id}
        prefix = env_id.removesuffix("-v4").lower()
        assert names == {f"{prefix}-{kind}-v2" for kind in kinds}
        for name in names:
            assert (
                D4RL_FILES[name].file
                == f"{prefix}_{name.removeprefix(prefix + '-').removesuffix('-v2').replace('-', '_')}-v2.hdf5"
            )


def test_addresses() -> None:
    addresses = [
        template.format(folder=entry.folder, file=entry.file)
        for entry in (D4RL_FILES["hopper-medium-replay-v2"], D4RL_FILES["antmaze-large-play-v2"])
        for template in MIRRORS
    ]
    maze = "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5"
    official, mirror = "http://rail.eecs.berkeley.edu/datasets/offline_rl", "https://huggingface.co/datasets/imone/D4RL"
    assert addresses == [
        f"{official}/gym_mujoco_v2/hopper_medium_replay-v2.hdf5",
        f"{mirror}/resolve/main/hopper_medium_replay-v2.hdf5",
        f"{official}/ant_maze_v2/{maze}",
        f"{mirror}/resolve/main/{maze}",
    ]
