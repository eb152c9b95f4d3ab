from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from itrpo.data.behavior_policy import read_policy
from itrpo.data.formats import hdf5, hdf5_probe
from itrpo.errors import InputError
from itrpo.types import Episodes
from tests.data.hdf5_files import TERMINALS, columns, write


def read(path: Path) -> Episodes:
    """As `hdf5.read`, but libhdf5 is not tried in a process of its own first, which takes a third of a second."""
    return hdf5.read(path, probe=False)


def test_every_value_of_a_file_comes_back(tmp_path: Path) -> None:
    arrays = columns() | {"infos/action_log_probs": np.linspace(-3, 1, 9), "next_observations": np.zeros((9, 2))}
    path = write(tmp_path / "own.hdf5", arrays, env_id="Hopper-v4", recipe='{"seed": 7}')
    episodes = read(path)
    for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(episodes, key), arrays[key])
    np.testing.assert_array_equal(episodes.behavior_log_probs, np.linspace(-3, 1, 9, dtype=np.float32))
    assert episodes.next_observations is None  # D4RL's own view leaves them aside too
    assert episodes.env_id == "Hopper-v4"
    assert (episodes.source.name, episodes.source.kind, dict(episodes.source.recipe)) == ("own", "hdf5", {"seed": 7})
    assert episodes.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_float64_replay_files_are_read_as_float32(tmp_path: Path) -> None:
    arrays = columns()
    arrays["observations"] = np.full((9, 2), 0.1)
    arrays["rewards"] = np.full(9, 1 / 3)
    episodes = read(write(tmp_path / "replay.hdf5", arrays))
    assert {values.dtype for values in (episodes.observations, episodes.rewards)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(episodes.observations, np.float32(0.1))
    np.testing.assert_array_equal(episodes.rewards, np.float32(1 / 3))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_flags_may_be_numbers(tmp_path: Path, kind: type) -> None:
    arrays = columns()
    arrays["terminals"] = arrays["terminals"].astype(kind)
    assert read(write(tmp_path / "a.hdf5", arrays)).terminals.tolist() == [bool(flag) for flag in TERMINALS]


def test_columns_of_one_number_may_have_an_axis_for_it(tmp_path: Path) -> None:
    """As the replay buffers that D4RL's replay files were cut from: rewards [N, 1]."""
    arrays = columns() | {"infos/action_log_probs": np.linspace(-3, 1, 9)}
    wide = {key: values[:, None] if values.ndim == 1 else values for key, values in arrays.items()}
    episodes, expected = read(write(tmp_path / "wide.hdf5", wide)), read(write(tmp_path / "flat.hdf5", arrays))
    for key in ("rewards", "terminals", "timeouts", "behavior_log_probs"):
        assert getattr(episodes, key).shape == (9,)
        np.testing.assert_array_equal(getattr(episodes, key), getattr(expected, key))


def test_the_layout_of_antmaze_files(tmp_path: Path) -> None:
    """29 + 8 numbers, a goal per row, no next_observations; timeouts come 1001 rows after a start."""
    rows = np.random.default_rng(0)
    arrays = {
        "observations": rows.normal(size=(9, 29)).astype(np.float32),
        "actions": rows.uniform(-1, 1, (9, 8)).astype(np.float32),
        "rewards": np.float32(TERMINALS),
        "terminals": np.float32(TERMINALS),
        "timeouts": np.array([0, 0, 0, 0, 0, 0, 1, 0, 0], bool),
        "infos/goal": np.zeros((9, 2), np.float32),
        "infos/qpos": np.zeros((9, 15), np.float32),
        "infos/qvel": np.zeros((9, 14), np.float32),
    }
    path = write(tmp_path / "maze.hdf5", arrays)
    episodes = read(path)
    for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(episodes, key), arrays[key])
    assert (episodes.next_observations, episodes.behavior_log_probs) == (None, None)
    assert read_policy(path) is None


@pytest.mark.parametrize("wrong", [2.0, -1.0, np.nan])
def test_flags_other_than_0_and_1_are_refused(tmp_path: Path, wrong: float) -> None:
    arrays = columns()
    arrays["terminals"] = arrays["terminals"].astype(np.float32)
    arrays["terminals"][4] = wrong
    with pytest.raises(InputError, match=r"'terminals' must be 0 or 1, but 1 of 9 rows are not \(first: row 4"):
        read(write(tmp_path / "a.hdf5", arrays))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.hdf5: no such file"):
        read(tmp_path / "gone.hdf5")


@pytest.mark.parametrize("content", [b"", b"an error page, not a dataset" * 100])
def test_a_file_that_is_not_hdf5(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an HDF5 file"):
        read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.hdf5", columns([0] * 5000, [0] * 5000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="truncated or damaged"):
        read(path)


def test_a_damaged_compressed_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", data=np.arange(9.0), compression="gzip", chunks=(9,))
        place = file["rewards"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        read(path)


def test_wrong_key_names_the_nearest_and_lists_all(tmp_path: Path) -> None:
    arrays = columns()
    arrays["observation"] = arrays.pop("observations")
    with pytest.raises(
        InputError, match=r"no key 'observations' \(did you mean 'observation'\?\); it has: actions, obs"
    ):
        read(write(tmp_path / "a.hdf5", arrays))


def test_missing_timeouts_says_what_to_add(tmp_path: Path) -> None:
    arrays = columns()
    del arrays["timeouts"]
    with pytest.raises(InputError, match="add a 'timeouts' column"):
        read(write(tmp_path / "a.hdf5", arrays))


def test_unequal_lengths(tmp_path: Path) -> None:
    arrays = columns()
    arrays["rewards"] = arrays["rewards"][:-1]
    with pytest.raises(InputError, match=r"unequal lengths \(observations 9, actions 9, rewards 8,"):
        read(write(tmp_path / "a.hdf5", arrays))


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("observations", np.zeros(9), r"'observations' has shape \[9\]; it must be \[N, size\]"),
        ("rewards", np.zeros((9, 2)), r"'rewards' has shape \[9, 2\]; it must be \[N\]"),
        ("rewards", np.float32(1), r"'rewards' has shape \[\]; it must be \[N\]"),
        ("rewards", np.zeros(9, [("a", float)]), "must hold plain numbers"),
        ("terminals", np.array([b"no"] * 9), "must hold plain numbers"),
        ("actions", np.zeros((9, 0)), "rows are empty"),
        ("actions", np.array([[b"left"]] * 9), "must hold plain numbers"),
        ("actions", np.zeros((9, 1), complex), "must hold plain numbers"),
    ],
)
def test_wrong_shapes_and_types(tmp_path: Path, key: str, values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "a.hdf5", columns() | {key: values}))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(tmp_path: Path, rows: int) -> None:
    with pytest.raises(InputError, match=f"{rows} rows; a transition needs at least 2"):
        read(write(tmp_path / "a.hdf5", columns([0] * rows, [0] * rows)))


@pytest.mark.parametrize("link", [h5py.SoftLink("/elsewhere"), h5py.ExternalLink("other.hdf5", "/rewards")])
def test_links_are_refused(tmp_path: Path, link: h5py.SoftLink | h5py.ExternalLink) -> None:
    write(tmp_path / "other.hdf5", columns())
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        file["elsewhere"] = np.zeros(9)
        del file["rewards"]
        file["rewards"] = link
    with pytest.raises(InputError, match="'rewards' is a link"):
        read(path)


@pytest.mark.parametrize("key", ["infos", "infos/action_log_probs"])
def test_linked_log_probs_are_refused(tmp_path: Path, key: str) -> None:
    write(tmp_path / "other.hdf5", columns() | {"infos/action_log_probs": np.zeros(9)})
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        file[key] = h5py.ExternalLink("other.hdf5", key)
    with pytest.raises(InputError, match=f"'{key}' is a link"):
        read(path)


def test_virtual_and_external_storage_are_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "other.hdf5", columns())
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"x" * 36)
    for kind in ("virtual", "external"):
        path = write(tmp_path / f"{kind}.hdf5", columns())
        with h5py.File(path, "a") as file:
            del file["rewards"]
            if kind == "virtual":
                layout = h5py.VirtualLayout((9,), np.float32)
                layout[:] = h5py.VirtualSource(other, "rewards", (9,))
                file.create_virtual_dataset("rewards", layout)
            else:
                file.create_dataset("rewards", (9,), np.float32, external=[(str(secret), 0, 36)])
        with pytest.raises(InputError, match="keeps its rows in another file"):
            read(path)


def test_declared_but_unstored_rows_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    path = tmp_path / "huge.hdf5"
    rows = 2**45
    with h5py.File(path, "w") as file:
        for key, width in (("observations", (11,)), ("actions", (3,)), ("rewards", ()), ("terminals", ())):
            file.create_dataset(key, (rows, *width), np.float32, chunks=True)
        file.create_dataset("timeouts", (rows,), bool, chunks=True)
    assert path.stat().st_size < 1e5
    with pytest.raises(InputError, match="only 0 bytes are stored"):
        read(path)


def test_highly_compressed_flags_are_not_mistaken_for_unstored_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns([0] * 500_000, [0] * 500_000))
    with h5py.File(path, "a") as file:
        del file["timeouts"]
        file.create_dataset("timeouts", data=np.zeros(500_000, bool), compression="gzip", compression_opts=9)
        assert file["timeouts"].id.get_storage_size() < 2_000
    assert not read(path).timeouts.any()


def test_rows_that_were_never_written_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns([0] * 100, [0] * 100))
    with h5py.File(path, "a") as file:
        del file["rewards"]
        rewards = file.create_dataset("rewards", (100,), np.float32, chunks=(10,))
        rewards[:70] = 1
    with pytest.raises(
        InputError, match=r"'rewards' declares shape \[100\], which takes 10 chunks, but 7 were written"
    ):
        read(path)
    with h5py.File(path, "a") as file:
        file["rewards"][70:] = 1
    assert read(path).rewards.sum() == 100


@pytest.mark.parametrize("value", [4, np.zeros(3), ["Hopper-v4"], h5py.Empty("f")])
def test_env_id_must_be_one_string(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = value
    with pytest.raises(InputError, match="attribute 'env_id' must be one string"):
        read(path)


@pytest.mark.parametrize("value", [4, np.zeros(3), "not JSON", "[1]", "[" * 100_000, "1" * 5000, np.bytes_(b"\xff")])
def test_an_attribute_that_is_no_recipe_of_ours_is_ignored(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    with h5py.File(path, "a") as file:
        if isinstance(value, str) and len(value) > 60_000:  # more than fits into an attribute of the oldest format
            file.attrs.create("recipe", value, dtype=h5py.string_dtype())
        else:
            file.attrs["recipe"] = value
        file.attrs["env_id"] = np.bytes_(b"Hopper-v4")
    episodes = read(path)
    assert (dict(episodes.source.recipe), episodes.env_id) == ({}, "Hopper-v4")


def test_a_file_that_libhdf5_never_comes_back_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.hdf5", columns(), env_id="Hopper-v4")
    assert hdf5_probe.survives(path)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL") + 16
    content[heap : heap + 16] = bytes(16)  # an entry of the heap of texts that says it is empty: HDFGroup/hdf5 #1707
    path.write_bytes(content)
    monkeypatch.setattr(hdf5_probe, "CPU_SECONDS", 1)
    with pytest.raises(InputError, match="the HDF5 library crashes or hangs on it"):
        hdf5.read(path)


def test_a_damaged_file_that_libhdf5_notices_itself_is_no_reason_for_the_probe_to_complain(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns())
    path.write_bytes(path.read_bytes()[:-100])
    assert hdf5_probe.survives(path)
