from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from itrpo.data.formats import npz
from itrpo.data.health import check_dataset
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from tests.data.hdf5_files import columns


def savez(path: Path, values: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **values)
    return path


def test_npz_and_mapping_give_the_same_rows(tmp_path: Path) -> None:
    values = columns() | {"env_id": np.array("Hopper-v4"), "infos/goal": np.zeros(3)}
    from_file = npz.read(savez(tmp_path / "own.npz", values))
    from_memory = npz.read_mapping(values)
    for episodes in (from_file, from_memory):
        for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
            np.testing.assert_array_equal(getattr(episodes, key), values[key])
        assert episodes.env_id == "Hopper-v4"
    assert (from_file.source.name, from_file.source.kind) == ("own", "npz")
    assert (from_memory.source.name, from_memory.source.kind) == ("arrays", "arrays")


def test_the_hash_of_arrays_follows_every_value() -> None:
    changed = columns()
    changed["rewards"][8] += 1
    hashes = [npz.read_mapping(values).source.sha256 for values in (columns(), columns(), changed)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.npz: no such file"):
        npz.read(tmp_path / "gone.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    values = columns()
    values["rewards"] = np.array([Payload()] * 9, dtype=object)
    with pytest.raises(InputError, match=r"'rewards'.*object"):
        npz.read(savez(tmp_path / "a.npz", values))
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = savez(tmp_path / "a.npz", columns())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="not a readable NPZ file"):
        npz.read(path)


def test_damaged_bytes_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **columns())
    content = bytearray(path.read_bytes())
    place = content.index(np.float32([10, 11, 12, 13]).tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable NPZ file.*CRC"):
        npz.read(path)


def test_a_lone_npy_file_under_the_name_of_an_npz(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros((9, 2)))
    with pytest.raises(InputError, match="not a readable NPZ file"):
        npz.read(tmp_path / "a.npz")


def test_declared_but_absent_rows_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    path = savez(tmp_path / "a.npz", columns())
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**45, 11)})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "huge.npz", "w") as target:
        for name in source.namelist():
            target.writestr(name, huge.getvalue() if name == "observations.npy" else source.read(name))
    with pytest.raises(InputError, match="'observations' declares"):
        npz.read(tmp_path / "huge.npz")


def test_wrong_key_names_the_nearest() -> None:
    values = columns()
    values["acts"] = values.pop("actions")
    with pytest.raises(InputError, match=r"no key 'actions' \(did you mean 'acts'\?\)"):
        npz.read_mapping(values)


def test_a_misspelt_optional_key_is_not_ignored() -> None:
    with pytest.raises(InputError, match="unknown key 'next_observation': rename it to 'next_observations'"):
        npz.read_mapping(columns() | {"next_observation": np.zeros((9, 2))})


def test_neither_timeouts_nor_next_observations() -> None:
    values = columns()
    del values["timeouts"]
    with pytest.raises(InputError, match=r"add 'timeouts'.*or 'next_observations'.* was cut$"):
        npz.read_mapping(values)
    with pytest.raises(InputError, match=r"rename 'timeout' to it if that is what it means$"):
        npz.read_mapping(values | {"timeout": np.zeros(9)})


def test_next_observations_of_another_size() -> None:
    with pytest.raises(InputError, match=r"'observations' has shape \[9, 2\] but 'next_observations' \[9, 3\]"):
        npz.read_mapping(columns() | {"next_observations": np.zeros((9, 3))})


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(InputError, match="'rewards' is not an array"):
        npz.read_mapping(columns() | {"rewards": [[1, 2], [3]]})  # type: ignore[dict-item]


@pytest.mark.parametrize("env_id", [np.array(["Hopper-v4"]), np.array(4)])
def test_env_id_must_be_a_string(env_id: np.ndarray) -> None:
    with pytest.raises(InputError, match="'env_id' must be one string"):
        npz.read_mapping(columns() | {"env_id": env_id})


def test_a_mask_is_a_missing_value() -> None:
    """NaN, which training refuses and `check` reports; where a type has none, it is an error that names the field."""
    values = {key: it.copy() for key, it in columns().items()}
    rows = np.arange(len(values["rewards"])) == 2
    rewards = np.ma.array(values["rewards"], mask=rows)
    assert np.flatnonzero(np.isnan(npz.read_mapping(values | {"rewards": rewards}).rewards)).tolist() == [2]
    with pytest.raises(InputError, match="'rewards' holds 1 NaN"):
        load_dataset(values | {"rewards": rewards})
    assert "not-finite" in {it.name for it in check_dataset(values | {"rewards": rewards}).findings}
    with pytest.raises(InputError, match=r"^the arrays: 'terminals' is masked in 1 places, and bool has no place"):
        npz.read_mapping(values | {"terminals": np.ma.array(values["terminals"], mask=rows)})
    whole = np.ma.array(values["rewards"], mask=False)
    assert npz.read_mapping(values | {"rewards": whole}).source.sha256 == npz.read_mapping(values).source.sha256
    filled = load_dataset(values | {"rewards": rewards}, fill="previous")
    assert "values filled (previous): rewards 1" in filled.notes
