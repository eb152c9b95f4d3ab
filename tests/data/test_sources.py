"""Several files as one dataset, and what Python users hand over: frames, lists of mappings."""

from __future__ import annotations

import copy
import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from itrpo.cli import main
from itrpo.data.convert import convert
from itrpo.data.health import check_dataset
from itrpo.data.layout import MINIMUM
from itrpo.data.load import load_dataset, read_episodes
from itrpo.data.sources import label, matching
from itrpo.errors import InputError
from itrpo.options import READING
from tests.data.hdf5_files import columns as hdf5_columns
from tests.data.hdf5_files import write as write_hdf5
from tests.data.test_column_map import LOG, MAP, write_csv

FRAME = polars.DataFrame(LOG)
WORDS = ["observations=temp,pressure", "actions=valve", "rewards=gain", "terminals=tripped", "episode=run"]


def folder(tmp_path: Path, *slices: slice, ending: str = "parquet") -> list[Path]:
    """LOG cut into files: log_1, log_2, ..., in that order."""
    paths = [tmp_path / f"log_{index}.{ending}" for index in range(1, len(slices) + 1)]
    for path, rows in zip(paths, slices, strict=True):
        part = FRAME[rows]
        part.write_parquet(path) if ending == "parquet" else part.write_csv(path)
    return paths


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_episode_goes_on_in_the_next_file_where_its_column_says_so(tmp_path: Path, ending: str):
    """Cut within run b: as from one file, bit for bit."""
    paths = folder(tmp_path, slice(0, 5), slice(5, 10), ending=ending)
    whole, parts = load_dataset(write_csv(tmp_path / "..", LOG), columns=MAP), load_dataset(paths, columns=MAP)
    for one, other in zip(whole.transitions, parts.transitions, strict=True):
        np.testing.assert_array_equal(one, other)
    assert parts.episode_lengths.tolist() == [4, 3, 3]
    assert parts.source.recipe["changes"] == ["episodes that go on in the next file, as 'run' says: 1"]


def test_the_end_of_a_file_ends_an_episode_without_such_a_column(tmp_path: Path):
    own = {field: it for field, it in MAP.items() if field != "episode"} | {"timeouts": "none"}
    episodes = read_episodes(folder(tmp_path, slice(0, 4), slice(4, 6), slice(6, 10)), columns=own)
    assert np.flatnonzero(episodes.terminals).tolist() == [3]  # which ends the first file: no timeout there
    assert np.flatnonzero(episodes.timeouts).tolist() == [5, 9]


def test_a_pattern_is_its_files_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("log_10", "log_2", "log_1"):
        (tmp_path / f"{name}.csv").touch()
    for pattern in (tmp_path / "*.csv", str(tmp_path / "**" / "log_*")):
        assert [Path(it).stem for it in matching(pattern)] == ["log_1", "log_2", "log_10"]
    (tmp_path / "log[1].csv").touch()
    assert matching(tmp_path / "log[1].csv") == [str(tmp_path / "log[1].csv")]  # a file's own name
    with pytest.raises(InputError, match="no file fits this pattern"):
        matching(tmp_path / "*.npz")
    assert (label(["logs/day_1.csv", "x", "y"]), label(["a.b/c.csv"]), label([{}])) == ("day_1+2", "c", "arrays")


def test_where_several_files_came_from(tmp_path: Path):
    paths = folder(tmp_path, slice(0, 4), slice(4, 10))
    source = load_dataset(str(tmp_path / "*.parquet"), columns=MAP).source
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert [it["sha256"] for it in source.recipe["files"]] == hashes
    assert source.sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert (source.name, source.kind, source.path) == ("log_1+1", "parquet", None)
    assert load_dataset(paths[::-1], columns=MAP).source.sha256 != source.sha256  # their order is part of it


def test_files_of_other_formats_too(tmp_path: Path):
    """Each one's end is the end of an episode: what follows is another one's reset."""
    values = hdf5_columns()
    paths = [write_hdf5(tmp_path / name, values, env_id="Own-v0") for name in ("a.hdf5", "b.hdf5")]
    one, both = read_episodes(paths[0]), read_episodes(paths)
    assert both.observations.tolist() == one.observations.tolist() * 2
    assert (both.env_id, both.source.name, both.source.kind) == ("Own-v0", "a+1", "several")
    last = len(one.rewards) - 1
    assert both.timeouts[last] == both.timeouts[-1] == (not one.terminals[-1])
    assert both.timeouts[:last].tolist() == one.timeouts[:-1].tolist()
    done = convert(paths, tmp_path / "both.npz")
    np.testing.assert_array_equal(read_episodes(done.path).rewards, both.rewards)
    np.testing.assert_array_equal(read_episodes(done.path).timeouts, both.timeouts)


def test_files_that_do_not_go_together_are_named(tmp_path: Path):
    values = hdf5_columns()
    paths = [write_hdf5(tmp_path / "a.hdf5", values), write_hdf5(tmp_path / "b.hdf5", values, env_id="Own-v0")]
    with pytest.raises(InputError, match=r"b\.hdf5: env_id: Own-v0, but None in .*a\.hdf5"):
        read_episodes(paths)
    log, *_ = folder(tmp_path, slice(0, 10))
    FRAME.drop("pressure").write_parquet(tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"c\.parquet: no column 'pressure'"):
        read_episodes([log, tmp_path / "c.parquet"], columns=MAP)
    with pytest.raises(InputError, match=r"its columns for 'observations' are temp; those of .*: temp, pressure"):
        read_episodes([log, tmp_path / "c.parquet"], columns=MAP | {"observations": "[tp]*[pe]"})
    with pytest.raises(InputError, match="no such file"):
        read_episodes([log, tmp_path / "gone.parquet"], columns=MAP)
    with pytest.raises(InputError, match=r"a\.hdf5|a: --max-gap: for .csv and .parquet files and frames alone"):
        load_dataset(paths[0], max_gap=5)


def test_one_message_names_every_column_of_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("s,u,a,r\n1,,0,x\n,2,0,1\n")
    columns = ["observations=s,u", "actions=a", "rewards=r", "terminals=none", "timeouts=none"]
    assert main(["datasets", "check", str(tmp_path / "a.csv"), "--columns", *columns]) == 2
    error = capsys.readouterr().err
    assert "3 columns can't be used as they are" in error
    assert all(it in error for it in ("column 's' is empty", "'u' is empty", "'r' must hold numbers", "such as 'x'"))
    assert main(["datasets", "check", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--columns", *columns]) == 2
    error = capsys.readouterr().err
    assert error.count("a.csv: column") == error.count("b.csv: column") == 3


@pytest.mark.parametrize("make", [FRAME.clone, FRAME.lazy, FRAME.to_dicts, lambda: Table(LOG)])
def test_frames_and_rows_are_the_arrays_that_they_hold(make: Any):
    arrays = {name: np.array(values) for name, values in LOG.items()}
    expected, found = load_dataset(arrays, columns=MAP), load_dataset(make(), columns=MAP)
    for one, other in zip(expected.transitions, found.transitions, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found.source.kind, found.source.sha256) == ("arrays", expected.source.sha256)


class Table:
    """What is asked of a frame that isn't polars': pandas' has it."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns, self._columns = list(columns), columns

    def __getitem__(self, name: str) -> Any:
        return np.array(self._columns[name])

    def to_numpy(self) -> np.ndarray:
        raise AssertionError("columns are read one by one")


def test_pandas_frames_with_what_pandas_holds_for_missing_values():
    pandas = pytest.importorskip("pandas")  # no dependency, not even of the tests
    frame = pandas.DataFrame(LOG)
    expected = load_dataset(FRAME, columns=MAP)
    typed = frame.convert_dtypes().astype({"run": "category"})
    for given in (frame, typed):
        found = load_dataset(given, columns=MAP)
        np.testing.assert_array_equal(found.transitions.observation, expected.transitions.observation)
    typed.loc[1, "temp"] = pandas.NA
    with pytest.raises(InputError, match=r"column 'temp' is empty in 1 of 10 rows \(first: row 1\)"):
        load_dataset(typed, columns=MAP)
    typed["when"] = pandas.date_range("2026-01-01", periods=10, freq="min", tz="Europe/Berlin")
    filled = load_dataset(typed, columns=MAP | {"time": "when"}, fill="interpolate")
    np.testing.assert_array_equal(filled.transitions.observation, expected.transitions.observation)


def test_a_list_of_episodes():
    episodes: list[dict[str, Any]] = []
    for rows, end in ((3, 0), (2, 1), (4, 0)):
        arrays = {"observations": np.full((rows, 2), rows), "actions": np.zeros((rows, 1)), "rewards": np.ones(rows)}
        episodes.append(arrays | {"terminals": np.eye(rows)[-1] * end})
    read = read_episodes(episodes)
    assert np.flatnonzero(read.timeouts).tolist() == [2, 8]
    assert np.flatnonzero(read.terminals).tolist() == [4]
    assert load_dataset(episodes).episode_returns.tolist() == [3, 2, 4]
    longer = [it | {"observations": np.arange(2.0 * len(it["rewards"]) + 2).reshape(-1, 2)} for it in episodes]
    split = load_dataset(longer)  # with what followed the last action, as `imitation`'s trajectories
    assert split.transitions.next_observation[:, 0].tolist() == [2, 4, 6, 2, 4, 2, 4, 6, 8]
    assert (split.episode_returns.tolist(), split.transitions.continues.tolist()[4]) == ([3, 2, 4], 0)
    lone = [{**episodes[0], "actions": np.ones((3, 1), np.float32)}]
    load_dataset(lone, action_low=0, action_high=4)
    assert lone[0]["actions"].tolist() == [[1], [1], [1]]  # the user's arrays stay as they are
    own = [{"o": it["observations"], "a": it["actions"], "r": it["rewards"], "d": it["terminals"]} for it in episodes]
    mapped = read_episodes(own, columns={"observations": "o", "actions": "a", "rewards": "r", "terminals": "d"})
    np.testing.assert_array_equal(mapped.timeouts, read.timeouts)


def test_an_episode_of_one_step():
    """It is a transition if it is terminal, or if what followed is there."""
    one = {"observations": np.ones((1, 2)), "actions": np.zeros((1, 1)), "rewards": np.ones(1), "terminals": np.ones(1)}
    two = {key: np.concatenate([it, it * 2]) for key, it in one.items()} | {"terminals": np.array([0, 1])}
    dataset = load_dataset([one, two, one])
    assert dataset.episode_lengths.tolist() == [1, 2, 1]
    assert dataset.transitions.continues.tolist() == [0, 1, 0, 0]
    cut = one | {"observations": np.array([[1.0, 1], [5, 5]]), "terminals": np.zeros(1)}
    assert load_dataset([cut, cut]).transitions.next_observation[-1].tolist() == [5, 5]
    own = [{key[0]: it for key, it in part.items()} for part in (one, two)]
    mapped = load_dataset(own, columns={"observations": "o", "actions": "a", "rewards": "r", "terminals": "t"})
    assert mapped.episode_lengths.tolist() == [1, 2]
    with pytest.raises(InputError, match="the list: 1 rows; a transition needs at least 2"):
        load_dataset([one])
    with pytest.raises(InputError, match="item 1 of the list: 0 rows; an episode needs at least 1"):
        load_dataset([two, {key: it[:0] for key, it in one.items()}])
    with pytest.raises(InputError, match="1 rows; a transition needs at least 2"):
        load_dataset(one | {"timeouts": np.zeros(1)})


def test_names_that_are_numbers():
    """pandas numbers the columns of an array; a map may name them so."""
    arrays = {str(at): values for at, values in enumerate(np.random.default_rng(0).normal(size=(3, 8)).clip(-1, 1))}
    frame = Table({int(at): it for at, it in arrays.items()})
    said: Any = {"observations": [0], "actions": 1, "rewards": np.int64(2), "terminals": "none", "timeouts": "none"}
    np.testing.assert_array_equal(load_dataset(frame, columns=said).transitions.reward, arrays["2"][:-1].astype("f4"))
    said |= {"observations": "*", "exclude": [0]}
    assert load_dataset(frame, columns=said).spec.observation_dim == 2


def test_a_named_index_is_a_column():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(LOG | {"when": range(0, 600, 60)})
    expected = load_dataset(frame, columns=MAP | {"time": "when"})
    for index in ("when", ["run", "when"]):
        found = load_dataset(frame.set_index(index), columns=MAP | {"time": "when"})
        np.testing.assert_array_equal(found.transitions.observation, expected.transitions.observation)
    both = frame.set_index("when", drop=False)  # the same column twice, as pandas keeps it
    assert len(load_dataset(both, columns=MAP | {"time": "when"}).transitions.reward) == len(
        expected.transitions.reward
    )


@pytest.mark.parametrize("column", ["run", "time"])
def test_an_empty_cell_that_no_rule_fills_is_told_what_helps(tmp_path: Path, column: str):
    lines = ["s,a,r,run,time", "1,0.5,1,a,1", "2,0.25,1,a,2", "3,0.5,1,a,3"]
    lines[2] = lines[2].replace(",a,2", ",,2" if column == "run" else ",a,")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    said = {"observations": "s", "actions": "a", "rewards": "r", "terminals": "none", "episode": "run", "time": "time"}
    with pytest.raises(
        InputError, match=f"column '{column}' is empty in 1 of 3 .* no --fill fills it: write the value"
    ):
        load_dataset(tmp_path / "log.csv", columns=said, fill="previous")


def test_what_is_wrong_with_one_of_many_episodes_names_it():
    good = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "rewards": np.ones(4)}
    good["terminals"] = np.eye(4)[-1]
    for wrong, words in (
        ({"actions": np.zeros((3, 1))}, r"item 2 of the list: the columns have unequal lengths"),
        ({"observations": np.zeros((4, 5))}, r"item 2 of the list: observations: \[5\], but \[2\] in item 0"),
        ({"rewards": ["a"] * 4}, r"item 2 of the list: 'rewards' has type"),
        (
            {"terminals": True},
            r"item 2 of the list: 'terminals' is True, one flag for the episode; give one for each step",
        ),
        ({"rewards": 1.0}, r"item 2 of the list: 'rewards' has shape \[\]"),
    ):
        with pytest.raises(InputError, match=words):
            load_dataset([good, good, good | wrong])
    without = {key: values for key, values in good.items() if key != "terminals"}
    with pytest.raises(InputError, match=r"item 1 of the list: no key 'terminals';.* terminals=none") as refused:
        load_dataset([good, without])
    assert "timeouts" not in str(refused.value)  # where an episode ends is known
    assert "episode=" not in str(refused.value)


def test_a_table_with_an_episode_in_each_row(tmp_path: Path):
    """Its columns hold lists with a value for each step; flags may be one for the episode."""
    rows: list[dict[str, Any]] = []
    for steps in (4, 6, 3):
        values = np.arange(steps * 2.0).reshape(steps, 2) + steps
        rows.append({"observations": values.tolist(), "actions": (values[:, :1] / 99).tolist(), "id": steps})
        rows[-1] |= {"rewards": values[:, 1].tolist(), "terminals": [False] * (steps - 1) + [True]}
    polars.DataFrame(rows).write_parquet(tmp_path / "episodes.parquet")
    flat = polars.DataFrame(rows).explode("observations", "actions", "rewards", "terminals")
    expected = load_dataset(flat, columns={it: it for it in MINIMUM} | {"episode": "id"})
    done = convert(tmp_path / "episodes.parquet", tmp_path / "steps.npz")
    longer = [row | {"observations": [*row["observations"], [0, 0]], "terminals": True} for row in rows]
    for given in (tmp_path / "episodes.parquet", polars.DataFrame(rows), done.path, polars.DataFrame(longer)):
        found = load_dataset(given)
        np.testing.assert_array_equal(found.transitions.observation, expected.transitions.observation)
        np.testing.assert_array_equal(found.transitions.continues, expected.transitions.continues)
        np.testing.assert_array_equal(found.episode_returns, expected.episode_returns)
    shorter = polars.DataFrame([row | {"actions": row["actions"][1:]} for row in rows])
    with pytest.raises(InputError, match="episode 0 has 4 rewards but 3 rows of 'actions'"):
        load_dataset(shorter)
    with pytest.raises(InputError, match="a row is an episode here; several such tables"):
        load_dataset([shorter, shorter])


@pytest.mark.parametrize("source", [3, None, [], [[FRAME]], [3], np.zeros(3)])
def test_what_is_no_dataset(source: Any):
    with pytest.raises(InputError, match="a dataset must be a name, a path, a pattern"):
        load_dataset(source)


def test_every_command_reads_by_the_same_options():
    for function in (load_dataset, check_dataset):
        assert set(READING) <= set(inspect.signature(function).parameters)
    assert set(READING) - {"action_low", "action_high", "num_actions", "continuous_actions"} <= set(
        inspect.signature(convert).parameters
    )


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for day in (1, 2):
        rows = range(100)
        log = {
            "t": [f"2026-03-0{day} 00:{row // 60:02}:{row % 60:02}" for row in rows],
            "s": [row * 1.0 for row in rows],
        }
        log |= {"a": [0.5 - row / 100 for row in rows], "r": [row / 2 for row in rows]}
        polars.DataFrame(log | {"s": [None if row == 7 else float(row) for row in rows]}).write_parquet(
            tmp_path / f"d{day}.parquet"
        )
    words = ["--columns", "observations=s", "actions=a", "rewards=r", "terminals=none", "time=t"]
    rules = ["--max-gap", "30s", "--fill", "interpolate", "--period", "2s"]
    pattern = str(tmp_path / "d*.parquet")
    assert main(["datasets", "info", pattern, *words, *rules]) == 0
    said = capsys.readouterr().out
    assert all(it in said for it in ("d1+1", "d1.parquet, d2.parquet", "200 rows became 100, one per 2s"))
    assert main(["datasets", "check", str(tmp_path / "d1.parquet"), str(tmp_path / "d2.parquet"), *words, *rules]) == 0
    assert "200 rows became 100" in capsys.readouterr().out
    target = str(tmp_path / "all.hdf5")
    assert main(["datasets", "convert", pattern, target, *words, *rules]) == 0
    assert "note: 200 rows became 100" in capsys.readouterr().out
    expected = load_dataset(
        pattern,
        columns={"observations": "s", "actions": "a", "rewards": "r", "terminals": "none", "time": "t"},
        max_gap=30,
        fill="interpolate",
        period=2,
    )
    np.testing.assert_array_equal(load_dataset(target).transitions.observation, expected.transitions.observation)
    assert main(["datasets", "convert", pattern]) == 2
    assert "needs SOURCE and TARGET" in capsys.readouterr().err


def as_given(rows: int) -> dict[str, np.ndarray]:
    """Arrays that could be taken over as they are."""
    values = np.linspace(0, 2, 2 * rows, dtype=np.float32).reshape(rows, 2)
    flags = {"terminals": np.zeros(rows, bool), "timeouts": np.arange(rows) == rows - 1}
    return {"observations": values, "actions": values[:, :1] * 2 - 1, "rewards": values[:, 1].copy(), **flags}


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("kind", ["mapping", "episodes", "one episode", "frame", "steps"])
def test_what_a_user_holds_in_memory_is_never_changed(kind: str, following: bool):
    episodes = [as_given(rows) for rows in (4, 5, 6)]
    for it in episodes if following else ():
        it["next_observations"] = it["observations"] + np.float32(0.5)
    whole = {name: np.concatenate([it[name] for it in episodes]) for name in episodes[0]}
    frame = polars.DataFrame({name: list(it) if it.ndim > 1 else it for name, it in whole.items()})
    steps = [{name: it[row] for name, it in whole.items()} for row in range(15)]
    given: Any = {"mapping": whole, "episodes": episodes, "one episode": episodes[2:], "frame": frame, "steps": steps}
    before = copy.deepcopy(given[kind])
    assert load_dataset(given[kind], action_low=-1.0, action_high=3.0).transitions.action.max() < 1  # rescaled
    if kind == "frame":
        assert frame.equals(before)
    else:
        np.testing.assert_equal(given[kind], before)


def test_two_columns_of_one_name_are_refused_where_they_are_asked_for(tmp_path: Path):
    path = tmp_path / "log.csv"
    path.write_text("s,s,x,x,a,r\n" + "1,2,3,4,0.5,1\n" * 3)
    ends = {"actions": "a", "rewards": "r", "terminals": "none", "timeouts": "none"}
    with pytest.raises(InputError, match=r"log.csv: 2 columns are called 's'; give each a name of its own"):
        load_dataset(path, columns={"observations": "s", **ends})
    path.write_text("s,t,x,x,a,r\n" + "1,2,3,4,0.5,1\n" * 3)
    assert load_dataset(path, columns={"observations": "s,t", **ends}).transitions.observation.tolist()[0] == [1, 2]


def test_a_table_without_rows_is_one_message(tmp_path: Path):
    times = {"observations": "s", "actions": "a", "rewards": "r", "terminals": "none", "time": "t"}
    (tmp_path / "log.csv").write_text("t,s,a,r\n")
    for source in (
        tmp_path / "log.csv",
        FRAME.clear().rename({"temp": "t", "pressure": "s", "valve": "a", "gain": "r"}),
    ):
        with pytest.raises(InputError, match="0 rows; a transition needs at least 2"):
            load_dataset(source, columns=times, max_gap=5)


def test_a_dataset_is_a_line_in_a_notebook():
    assert len(repr(load_dataset(as_given(300), action_low=-1, action_high=3))) < 1500
