from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars
import pytest

from itrpo.cli import main
from itrpo.data.column_map import parse_columns
from itrpo.data.convert import convert, read_contents
from itrpo.data.formats import hostile
from itrpo.data.health import check_dataset
from itrpo.data.load import load_dataset
from itrpo.errors import InputError, StorageError
from itrpo.report.datasets import describe
from tests.data.hdf5_files import columns, write

SAID: dict[str, Any] = {
    "action_low": [0.0],
    "action_high": [100.0],
    "observation_low": [-np.inf, 0.1],
    "observation_high": [np.inf, 7.0],
    "action_names": ["valve"],
    "observation_names": ["temperature", "Druck größer 0"],
    "action_units": ["%"],
    "observation_units": ["°C", "bar"],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "survives", lambda *_: True)  # tested in test_hdf5; a process takes long


def logged() -> dict[str, np.ndarray]:
    return columns() | {"actions": np.linspace(0, 90, 9)[:, None]}


def own_file(path: Path) -> Path:
    """As a user writes them."""
    if path.suffix == ".npz":
        np.savez(path, **logged(), **SAID)
        return path
    write(path, logged())
    with h5py.File(path, "a") as file:
        file.attrs.update(SAID)
    return path


@pytest.mark.parametrize("source", ["a.hdf5", "a.npz"])
@pytest.mark.parametrize("target", ["b.hdf5", "b.npz", "b.parquet", "b.csv", "b-v0"])
def test_what_is_said_of_columns_travels_through_every_format(tmp_path: Path, source: str, target: str) -> None:
    there = convert(own_file(tmp_path / source), tmp_path / target)
    assert not any("left out" in note for note in there.notes)
    back = convert(there.path, tmp_path / "back.hdf5")
    for path in (there.path, back.path):
        found = read_contents(path).attributes
        assert {key: list(getattr(found, key)) for key in SAID} == SAID
        dataset = load_dataset(path)
        assert dataset.transitions.action[0] == -1  # scaled by the bounds
        assert dataset.attributes == found
        assert describe(dataset)["observations"] == "temperature °C, Druck größer 0 bar"
    assert check_dataset(back.path).action_names == ("action 0 (valve)",)


def test_an_environment_without_bounds_says_that_there_are_none() -> None:
    """Minari writes Box(-inf, inf) like this: they are no bounds, and no first choice either."""
    values = logged() | {"actions": np.linspace(-0.9, 0.8, 9)[:, None]}
    dataset = load_dataset(values | {"action_low": np.array([-np.inf]), "action_high": np.array([np.inf])})
    assert (dataset.bounds, dataset.num_actions) == ("assumed", None)


def test_a_mapping_may_say_it_too() -> None:
    dataset = load_dataset(logged() | {key: np.array(value) for key, value in SAID.items()})
    assert dataset.attributes.action_names == ("valve",)
    assert (dataset.action_low, dataset.action_high) == ([0], [100])
    assert load_dataset(logged() | {"action_low": np.array(-50), "action_high": np.array(150)}).action_low == [-50]
    given = load_dataset(logged() | {"action_low": np.array(-50), "action_high": np.array(150)}, action_low=-1)
    assert (given.action_low, given.action_high) == ([-1], [150])


def test_what_a_csv_file_has_no_place_for_is_beside_it(tmp_path: Path) -> None:
    made = convert(own_file(tmp_path / "a.hdf5"), tmp_path / "b.csv", env="Own-v0").path
    beside = json.loads((tmp_path / "b.csv-metadata.json").read_text())
    assert beside["url"] == "b.csv"  # as CSV on the Web has it
    assert beside["itrpo"]["env_id"] == "Own-v0"
    one, other = (load_dataset(path, env="none") for path in (tmp_path / "a.hdf5", made))
    assert other.attributes == one.attributes
    assert (other.action_low, other.action_high, other.bounds) == ([0], [100], "declared")
    made.unlink()
    with pytest.raises(InputError, match=r"b\.csv-metadata\.json: exists already, and is read with b\.csv"):
        convert(tmp_path / "a.hdf5", made)


def test_a_csv_file_that_can_not_be_written_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = own_file(tmp_path / "a.npz")
    with monkeypatch.context() as patch:
        patch.setattr(polars.DataFrame, "write_csv", full)
        with pytest.raises(StorageError, match="No space left"):
            convert(source, tmp_path / "b.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert load_dataset(convert(tmp_path / "a.npz", tmp_path / "b.csv").path).action_high == [100]


def test_patterns_of_csv_files_read_what_is_beside_each(tmp_path: Path) -> None:
    for name in "ab":
        convert(own_file(tmp_path / f"{name}.npz"), tmp_path / f"{name}.csv")
    dataset = load_dataset(str(tmp_path / "*.csv"))
    assert (dataset.action_high, dataset.attributes.action_names) == ([100], ("valve",))


def test_bounds_may_be_given_where_a_file_is_converted(tmp_path: Path) -> None:
    """Both, or one beside the file's own; one alone is none."""
    np.savez(tmp_path / "log.npz", **logged())
    words = ["datasets", "convert", str(tmp_path / "log.npz")]
    assert main([*words, str(tmp_path / "b.csv"), "--action-low", "0", "--action-high", "100"]) == 0
    assert (load_dataset(tmp_path / "b.csv").action_low, load_dataset(tmp_path / "b.csv").action_high) == ([0], [100])
    made = convert(tmp_path / "b.csv", tmp_path / "c.npz", action_high=[200]).path
    assert (load_dataset(made).action_low, load_dataset(made).action_high) == ([0], [200])
    with pytest.raises(InputError, match="the bounds given: there is 'action_low', but no 'action_high'"):
        convert(tmp_path / "log.npz", tmp_path / "d.npz", action_low=0)
    assert not (tmp_path / "d.npz").exists()


def test_where_actions_are_out_of_range_the_environment_is_asked_first() -> None:
    """For its sizes: another environment is the first thing to mend; then for its bounds."""
    log = columns() | {"observations": np.zeros((9, 3)), "actions": np.linspace(-1.9, 1.9, 9)[:, None]}
    with pytest.raises(InputError, match="its observations have 3 numbers and those of Hopper-v4 have 11"):
        load_dataset(log, env="Hopper-v4")
    with pytest.raises(InputError, match="Pendulum-v1 takes actions from -2 to 2: --action-low -2 --action-high 2"):
        load_dataset(log, env="Pendulum-v1")
    with pytest.raises(InputError, match=r"the data's own extremes are --action-low -1\.9 --action-high 1\.9"):
        load_dataset(log)


def test_infinite_bounds_go_through_a_csv_file(tmp_path: Path) -> None:
    """JSON has no infinity."""
    bounds = {"observation_low": np.array([-np.inf, 0]), "observation_high": np.array([np.inf, 9])}
    np.savez(tmp_path / "a.npz", **columns(), **bounds)
    found = load_dataset(convert(tmp_path / "a.npz", tmp_path / "b.csv").path).attributes
    assert (found.observation_low, found.observation_high) == ((-np.inf, 0), (np.inf, 9))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't read .*log.csv-metadata.json: .*mend it, or move it away"),
        ("[" * 100_000, "can't read .*log.csv-metadata.json"),
        ('{"itrpo": 3}', "log.csv-metadata.json: it must be"),
        ('{"itrpo": {"env_id": 3}}', "log.csv-metadata.json: 'env_id' must be one string"),
        ('{"itrpo": {"action_hihg": [1]}}', r"unknown key 'action_hihg' \(did you mean 'action_high'\?\) in 'itrpo'"),
        (
            '{"itrpo": {"action_low": [1, 2], "action_high": 3}}',
            "log.csv-metadata.json: the attribute 'action_low' must",
        ),
        (" " * (1 << 21), "log.csv-metadata.json: more than 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_beside_a_csv_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    np.savez(tmp_path / "a.npz", **columns())
    path = convert(tmp_path / "a.npz", tmp_path / "log.csv").path
    beside = tmp_path / "log.csv-metadata.json"
    beside.write_text(
        '{"@context": "http://www.w3.org/ns/csvw", "tableSchema": {}}'
    )  # another program's: nothing of ours
    assert load_dataset(path).env_id is None
    beside.write_text(content)
    with pytest.raises(InputError, match=message):
        load_dataset(path)


def test_several_csv_files_must_say_the_same(tmp_path: Path) -> None:
    paths = [convert(own_file(tmp_path / f"{name}.npz"), tmp_path / f"{name}.csv").path for name in "ab"]
    assert load_dataset(paths).action_high == [100]
    (tmp_path / "b.csv-metadata.json").unlink()
    with pytest.raises(InputError, match=r"b\.csv: its attributes are \{\}; those of .*a\.csv"):
        load_dataset(paths)


@pytest.mark.parametrize("through", ["b.hdf5", "b.npz", "b.parquet"])
def test_a_minari_dataset_comes_back_with_its_spaces_and_its_origin(tmp_path: Path, through: str) -> None:
    convert(own_file(tmp_path / "a.npz"), tmp_path / "first-v0", env="Own-v0")
    metadata = tmp_path / "first-v0" / "data" / "metadata.json"
    theirs = json.loads(metadata.read_text())
    del theirs["itrpo"]["attributes"], theirs["itrpo"]["env_id"]  # as others write it
    theirs |= {"author": ["A. N. Other"], "env_spec": json.dumps({"id": "Own-v0", "kwargs": {"wind": 3}})}
    metadata.write_text(json.dumps(theirs))
    back = convert(convert(tmp_path / "first-v0", tmp_path / through).path, tmp_path / "second-v0").path
    ours = json.loads((back / "data" / "metadata.json").read_text())
    for key in ("action_space", "observation_space", "author", "env_spec"):
        assert ours[key] == theirs[key], key
    assert json.loads(ours["action_space"])["high"] == [100]
    assert load_dataset(back).env_id == "Own-v0"


def test_a_column_map_gives_names_and_units(tmp_path: Path) -> None:
    log = {"t": [1.0, 2, 3], "p": [[0.0, 1.0]] * 3, "v": [0.5] * 3, "r": [1.0] * 3}
    polars.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    mapped = {"observations": ["t", "p"], "actions": "v", "rewards": "r", "terminals": "none", "timeouts": "none"}
    mapped |= {"observation_units": ["°C", "bar", "bar"], "action_units": "%"}
    made = convert(tmp_path / "log.parquet", tmp_path / "log.hdf5", columns=mapped).path
    found = load_dataset(made).attributes
    assert (found.observation_names, found.action_names) == (("t", "p[0]", "p[1]"), ("v",))
    assert (found.observation_units, found.action_units) == (("°C", "bar", "bar"), ("%",))


def test_a_column_map_gives_bounds(tmp_path: Path) -> None:
    """Its user says them once: in the map's file, in words or in Python."""
    (tmp_path / "log.csv").write_text("t,v,r\n" + "".join(f"{row},{20 * row},1\n" for row in range(5)))
    words = ["observations=t", "actions=v", "rewards=r", "terminals=none", "timeouts=none"]
    words += ["action_low=0", "action_high=100"]
    lines = 'observations = "t"\nactions = "v"\nrewards = "r"\nterminals = "none"\ntimeouts = "none"\n'
    (tmp_path / "map.toml").write_text(lines + "action_low = 0\naction_high = [100]\n")
    maps: list[Any] = [parse_columns(words), parse_columns([str(tmp_path / "map.toml")])]
    maps.append({**maps[0], "action_low": 0, "action_high": 100.0})
    for given in maps:
        dataset = load_dataset(tmp_path / "log.csv", columns=given)
        np.testing.assert_allclose(dataset.transitions.action[:, 0], [-1, -0.6, -0.2, 0.2], rtol=1e-6)
        assert (dataset.bounds, dataset.action_high.tolist()) == ("declared", [100])
        assert dataset.source.recipe["columns"]["action_low"] == ["0"]
    made = convert(tmp_path / "log.csv", tmp_path / "log.hdf5", columns=maps[1]).path
    assert read_contents(made).attributes.action_high == (100,)
    (tmp_path / "map.toml").write_text(lines + 'action_low = false\naction_high = "x"\n')
    with pytest.raises(InputError, match="'action_high' must be 1 numbers"):
        load_dataset(tmp_path / "log.csv", columns=parse_columns([str(tmp_path / "map.toml")]))


@pytest.mark.parametrize("ending", [".hdf5", ".npz", ".parquet"])
def test_d4rls_view_travels_too(tmp_path: Path, ending: str) -> None:
    made = write(tmp_path / "a.hdf5", columns([0, 0, 1], [0, 0, 0]), recipe='{"versions": {"itrpo": "0.1"}}')
    assert len(load_dataset(made)) == len(load_dataset(convert(made, tmp_path / f"b{ending}").path)) == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"action_names": ["a", "b"]}, r"the arrays: the attribute 'action_names' must be 1 texts.*'actions'"),
        ({"action_names": [3]}, "must be 1 texts"),
        ({"observation_low": [0, 0, 0], "observation_high": 1}, "must be 2 numbers"),
        ({"action_low": "low", "action_high": 1}, "must be 1 numbers"),
        ({"action_low": np.nan, "action_high": 1}, "must be 1 numbers"),
        ({"action_low": 0}, "there is 'action_low', but no 'action_high'"),
        ({"action_low": 1, "action_high": 1}, "must be below"),
    ],
)
def test_attributes_that_can_not_be(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(columns() | {key: np.array(value) for key, value in said.items()})


def test_text_in_parquet_that_is_no_json(tmp_path: Path) -> None:
    path = convert(own_file(tmp_path / "a.npz"), tmp_path / "b.parquet").path
    polars.read_parquet(path).write_parquet(path, metadata={"action_names": "valve"})
    with pytest.raises(InputError, match=r"b.parquet: the attribute 'action_names' must be JSON, not 'valve'"):
        load_dataset(path)
