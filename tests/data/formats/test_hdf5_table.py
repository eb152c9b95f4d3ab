"""Column maps where a file keeps episodes by themselves, or one observation more than actions for each."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from itrpo.cli import read_command
from itrpo.data.convert import convert
from itrpo.data.formats import hostile
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from tests.data.formats.test_minari import episode, write_folder

LENGTHS = (3, 2, 4)  # of demo_0, demo_2, demo_10: numbers, not texts, put them in order
MAP = {"observations": "obs/*", "actions": "actions", "rewards": "rewards", "terminals": "dones"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "survives", lambda *_: True)  # tested in test_hdf5; a process takes long


def demonstrations(path: Path, more: int = 0) -> Path:
    """robomimic's layout; with `more` = 1 ManiSkill's, which has the last observation too. Position in episode e, at
    step t: 100 e + t."""
    with h5py.File(path, "w") as file:
        for index, (number, steps) in enumerate(zip((0, 2, 10), LENGTHS, strict=True)):
            demo = file.create_group(f"data/demo_{number}")
            position = 100 * index + np.arange(steps + more, dtype=np.float64)
            demo["obs/object"] = np.stack([position, -position], axis=1)
            demo["obs/speed"] = position / 2
            demo["actions"] = np.full((steps, 2), 0.5)
            demo["rewards"] = np.arange(steps) == steps - 1
            demo["dones"] = (np.arange(steps) == steps - 1).astype(np.int64) * (index < 2)
            demo["states"] = np.zeros((steps, 5))
        file["mask/train"] = np.array([b"demo_0"])
    return path


def test_robomimics_layout_with_a_map(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "low_dim.hdf5")
    dataset = load_dataset(path, columns=MAP)
    rows = [0, 1, 2, 100, 101, 200, 201, 202]  # the last of demo_10 is cut, without a successor
    assert dataset.transitions.observation.tolist() == [[row, -row, row / 2] for row in rows]
    assert dataset.transitions.continues.tolist() == [1, 1, 0, 1, 0, 1, 1, 1]
    assert (dataset.num_terminals, dataset.num_timeouts) == (2, 1)
    assert dataset.attributes.observation_names == ("obs/object[0]", "obs/object[1]", "obs/speed")
    made = load_dataset(convert(path, tmp_path / "flat.hdf5", columns=MAP).path)
    for mine, its in zip(made.transitions, dataset.transitions, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_the_message_that_misses_a_key_names_a_map_that_works(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "low_dim.hdf5")
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    said = str(caught.value).split("--columns ")[1].split(" (")[0]
    assert said.startswith("'observations=obs/*' ")  # a shell would look for files
    words = shlex.split(said)
    assert words == ["observations=obs/*", "actions=actions", "rewards=rewards", "terminals=dones"]
    assert len(load_dataset(path, columns=dict(word.split("=") for word in words))) == 8


def test_one_observation_more_than_actions_in_each_episode(tmp_path: Path) -> None:
    dataset = load_dataset(demonstrations(tmp_path / "a.h5", more=1), columns=MAP)
    assert dataset.transitions.observation[:, 0].tolist() == [0, 1, 2, 100, 101, 200, 201, 202, 203]
    assert dataset.transitions.next_observation[:, 0].tolist() == [1, 2, 3, 101, 102, 201, 202, 203, 204]


def test_an_episode_of_uneven_columns_is_named(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"]
        file["data/demo_2/actions"] = np.zeros((3, 2))
    with pytest.raises(InputError, match=r"episode 1 has 2 rewards but 3 rows of 'actions'"):
        load_dataset(path, columns=MAP)
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"]
    with pytest.raises(InputError, match="no array of numbers 'actions' in 'data/demo_2'"):
        load_dataset(path, columns=MAP)


def test_a_flat_file_under_its_own_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["log/state"], file["log/u"] = np.arange(8.0).reshape(4, 2), np.zeros((4, 1))
        file["log/r"], file["log/trip"], file["run"] = np.ones(4), [0, 1, 0, 0], [1, 1, 2, 2]
        file.attrs["env_id"] = "Own-v0"
    named = {"observations": "log/state", "actions": "log/u", "rewards": "log/r"}
    dataset = load_dataset(tmp_path / "a.hdf5", columns=named | {"terminals": "log/trip", "episode": "run"})
    assert (dataset.env_id, dataset.transitions.observation[:, 0].tolist()) == ("Own-v0", [0, 2, 4])
    with pytest.raises(InputError, match=r"no column 'log/v' .did you mean 'log/u'"):
        load_dataset(tmp_path / "a.hdf5", columns=named | {"actions": "log/v"})


def test_imitations_trajectories() -> None:
    """`obs` has a row more for each trajectory, `terminal` one flag, `indices` say where all but the first start."""
    starts = {"obs": np.array([0.0, 1, 2, 3, 10, 11, 12])[:, None], "acts": np.full((5, 1), 0.5)}
    starts |= {"rews": np.arange(5.0), "terminal": np.array([True, False]), "indices": np.array([3])}
    named = {"observations": "obs", "actions": "acts", "rewards": "rews", "terminals": "terminal", "episode": "indices"}
    expected = load_dataset(starts, columns=named).transitions
    assert expected.observation[:, 0].tolist() == [0, 1, 2, 10, 11]
    assert expected.next_observation[:, 0].tolist() == [1, 2, 3, 11, 12]
    assert expected.continues.tolist() == [1, 1, 0, 1, 1]
    for marks in ([0, 3], [3, 5]):  # all starts; all ends
        again = load_dataset(starts | {"indices": np.array(marks)}, columns=named).transitions
        np.testing.assert_array_equal(again.next_observation, expected.next_observation)
    flags = {"done": np.array([0, 0, 1, 0, 0]), "cut": np.array([0, 0, 0, 0, 1])}
    named = {key: it for key, it in named.items() if key != "episode"} | {"terminals": "done", "timeouts": "cut"}
    again = load_dataset(starts | flags, columns=named).transitions
    np.testing.assert_array_equal(again.next_observation, expected.next_observation)


@pytest.mark.parametrize("marks", [[3, 3], [3, 9], [1.5]])
def test_marks_that_are_no_rows(marks: list[float]) -> None:
    arrays = {"o": np.zeros((5, 1)), "a": np.zeros((5, 1)), "r": np.zeros(5), "m": np.array(marks)}
    named = {"observations": "o", "actions": "a", "rewards": "r", "terminals": "none", "episode": "m"}
    with pytest.raises(InputError, match="'m' must hold one value per step, or the rows at which"):
        load_dataset(arrays, columns=named)


def test_a_part_of_a_dict_observation_that_can_not_be_used_is_left_out(tmp_path: Path) -> None:
    def with_image(number: int, steps: int) -> dict[str, Any]:
        rows = episode(number, steps)
        vector = rows.pop("observations")
        return rows | {"observations/vector": vector, "observations/image": np.zeros((steps + 1, 4, 4, 3), np.uint8)}

    folder = write_folder(tmp_path / "set-v0", [with_image(0, 3), with_image(1, 2)])
    with pytest.raises(InputError, match=r"leave this part out: --exclude image"):
        load_dataset(folder)
    with pytest.raises(InputError, match=r"an image, it seems.*--exclude image"):
        load_dataset(folder, columns={"observations": "observations/*"})
    dataset = load_dataset(folder, exclude="image")
    same = load_dataset(folder, columns={"exclude": "image"})
    np.testing.assert_array_equal(same.transitions.observation, dataset.transitions.observation)
    assert (same.source.recipe, read_command("datasets info", [str(folder), "--exclude", "image"]).options.exclude) == (
        dataset.source.recipe,
        ("image",),
    )
    whole = load_dataset(write_folder(tmp_path / "vector-v0", [episode(0, 3), episode(1, 2)]))
    for mine, its in zip(dataset.transitions, whole.transitions, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert dataset.attributes.observation_names == ("observations/vector",)


def test_discrete_actions_of_minari_are_called_so(tmp_path: Path) -> None:
    space = {"action_space": json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 4})}
    folder = write_folder(tmp_path / "set-v0", [episode(0, 3) | {"actions": np.array([0, 1, 2])}], **space)
    assert load_dataset(folder).num_actions == 4
    parts = {"actions/0": np.zeros((3, 1)), "actions/1": np.zeros((3, 1))}
    several = {name: values for name, values in episode(0, 3).items() if name != "actions"} | parts
    with pytest.raises(InputError, match="a group instead of an array"):
        load_dataset(write_folder(tmp_path / "tuple-v0", [several]))


def test_a_missing_key_is_not_taken_for_another_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", obs=np.zeros((3, 1)), actions=np.zeros((3, 1)), rewards=np.zeros(3), dones=np.zeros(3))
    with pytest.raises(InputError) as caught:
        load_dataset(tmp_path / "a.npz")
    assert "did you mean 'actions'" not in str(caught.value)
    assert "observations=obs actions=actions rewards=rewards terminals=dones episode=COLUMN" in str(caught.value)
