from __future__ import annotations

import re

from itrpo.data.d4rl_files import D4RL_FILES, MIRRORS


def test_every_entry_is_complete_and_its_own() -> None:
    assert len(D4RL_FILES) == 18 + 6 + 12 + 3
    known = {name: entry for name, entry in D4RL_FILES.items() if entry.sha256 is not None}
    assert D4RL_FILES.keys() - known.keys() == {"relocate-human-v1", "relocate-expert-v1"}
    assert len({entry.sha256 for entry in known.values()}) == len(known)
    assert len({entry.file for entry in D4RL_FILES.values()}) == len(D4RL_FILES)
    for name, entry in known.items():
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256 or ""), name
        assert (5e5 if "-human-" in name or "kitchen" in name else 50e6) < (entry.size or 0) < 600e6, name


def test_adroit_names_follow_from_the_files() -> None:
    for name, entry in D4RL_FILES.items():
        if entry.folder == "hand_dapg_v1":
            assert entry.file == f"{name}.hdf5"
            assert entry.env_id == f"AdroitHand{name.partition('-')[0].capitalize()}-v1"


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
