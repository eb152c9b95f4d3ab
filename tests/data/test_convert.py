from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import polars
import pytest

from itrpo.data.convert import convert, read_contents
from itrpo.data.formats import hostile
from itrpo.data.load import load_dataset
from itrpo.errors import InputError, StorageError
from tests.data.hdf5_files import columns, write

FORMATS = ["b.hdf5", "b.h5", "b.npz", "b.parquet", "b.csv", "b-v0", "minari:own/b-v0"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.setattr(hostile, "survives", lambda *_: True)  # tested in test_hdf5; a process takes long


def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(9, 2)) * 10.0 ** rng.integers(-40, 38, (9, 2))  # some are subnormal in float32
    return columns() | {
        "observations": hard.astype(np.float32),
        "infos/action_log_probs": rng.normal(size=9).astype(np.float32),
        "infos/qpos": rng.normal(size=(9, 3)).astype(np.float32),
    }


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("with_successors", [False, True])
def test_there_and_back(tmp_path: Path, target: str, with_successors: bool) -> None:
    expected = values()
    if with_successors:
        expected["next_observations"] = np.roll(expected["observations"], -1, axis=0) + np.float32(with_successors)
    source = write(tmp_path / "a.hdf5", expected, env_id="Hopper-v4")
    there = convert(source, target if ":" in target else tmp_path / target)
    assert (there.rows, there.episodes) == (9, 3)
    back = convert(target if ":" in target else there.path, tmp_path / "back.hdf5")
    with h5py.File(back.path) as file:
        for key, column in expected.items():
            assert (file[key].dtype, file[key][()].tobytes()) == (column.dtype, column.tobytes()), key
        assert file.attrs.get("env_id") == "Hopper-v4"
    one, other = load_dataset(source), load_dataset(back.path)
    for mine, its in zip(one.transitions, other.transitions, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("target", ["b.npz", "b.parquet", "b.csv", "b-v0"])
def test_a_converted_file_trains_as_the_source_does(tmp_path: Path, target: str) -> None:
    source = write(tmp_path / "a.hdf5", values(), env_id="Hopper-v4")
    one, other = load_dataset(source), load_dataset(convert(source, tmp_path / target).path)
    for mine, its in zip(one.transitions, other.transitions, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("target", ["b.hdf5", "b.npz", "b.parquet", "b-v0"])
def test_types_and_higher_axes_are_kept(tmp_path: Path, target: str) -> None:
    expected = values() | {
        "observations": np.arange(18).reshape(9, 2),
        "rewards": np.linspace(0, 1, 9),
        "infos/image": np.arange(9 * 6, dtype=np.uint8).reshape(9, 2, 3),
    }
    found = read_contents(convert(write(tmp_path / "a.hdf5", expected), tmp_path / target).path)
    for key, column in expected.items():
        read = found.columns[key]
        assert (read.dtype, read.shape, read.tobytes()) == (column.dtype, column.shape, column.tobytes()), key


def test_what_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", values(), env_id="Hopper-v4", recipe="{}")
    with h5py.File(path, "a") as file:
        file["metadata/algorithm"] = "SAC"
    assert convert(path, tmp_path / "b.npz").notes == ("left out: metadata/algorithm, recipe",)
    csv = convert(path, tmp_path / "b.csv").notes
    assert csv[0] == "left out: metadata/algorithm, recipe"
    assert csv[1] == "environment, bounds, names and units are in b.csv-metadata.json, beside it"
    assert convert(path, tmp_path / "b.h5").notes == ()


def test_a_log_of_ones_own_becomes_a_file_that_trains(tmp_path: Path) -> None:
    log = {
        "run": [1, 1, 1, 2, 2, 2],
        "temp": [1.0, 2, 3, 11, 12, 13],
        "valve": [0.5] * 6,
        "r": [1.0] * 6,
        "day": [3] * 6,
    }
    polars.DataFrame(log).write_csv(tmp_path / "log.csv")
    mapped = {"observations": "temp", "actions": "valve", "rewards": "r", "terminals": "none", "episode": "run"}
    made = convert(tmp_path / "log.csv", tmp_path / "log.hdf5", columns=mapped, env="Own-v0")
    assert made.notes == ("left out: day",)
    dataset = load_dataset(made.path)
    assert (dataset.env_id, dataset.num_timeouts) == ("Own-v0", 2)
    assert dataset.transitions.next_observation[:, 0].tolist() == [2, 3, 12, 13]


def test_notes_on_rows_that_d4rls_meaning_passes_over(tmp_path: Path) -> None:
    full = columns() | {"next_observations": columns()["observations"] + np.float32([1, -1])}
    np.savez(tmp_path / "a.npz", **full)
    assert len(load_dataset(tmp_path / "a.npz")) == 9
    note = convert(tmp_path / "a.npz", tmp_path / "b.hdf5").notes[0]
    assert "1 rows cut by the clock are no transitions" in note
    assert len(load_dataset(tmp_path / "b.hdf5")) == 7


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("a.hdf5", "exists already"),
        ("b.txt", "unknown file ending"),
        ("b", "'b' is no Minari id"),
        ("minari:b", "looks like"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, target: str, message: str) -> None:
    write(tmp_path / "a.hdf5", columns())
    before = (tmp_path / "a.hdf5").read_bytes()
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "a.hdf5", target if ":" in target else tmp_path / target)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.hdf5"]
    assert (tmp_path / "a.hdf5").read_bytes() == before


@pytest.mark.parametrize("target", ["b.hdf5", "b.npz", "b.parquet", "b.csv", "b-v0"])
def test_a_place_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    write(tmp_path / "a.hdf5", columns())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=f"can't write .*{target}"):
        convert(tmp_path / "a.hdf5", tmp_path / "file" / target)


@pytest.mark.parametrize("ending", [".hdf5", ".npz", ".parquet", ".csv"])
def test_sources_that_are_not_there(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / f"gone{ending}", tmp_path / "b.hdf5")


def test_links_in_a_source_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        file["infos/secret"] = h5py.ExternalLink("elsewhere.hdf5", "/rewards")
    with pytest.raises(InputError, match="'infos/secret' is a link"):
        convert(path, tmp_path / "b.hdf5")


def test_groups_within_themselves_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        group = file.create_group("infos")
        group["again"] = group
    with pytest.raises(InputError, match="too many groups within groups"):
        convert(path, tmp_path / "b.hdf5")
