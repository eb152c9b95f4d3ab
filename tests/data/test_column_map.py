from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from itrpo.data.column_map import parse_columns, select
from itrpo.data.load import load_dataset, read_episodes
from itrpo.errors import InputError

# three runs of a valve: rows 0-3 trip (a terminal), 4-6 and 7-9 are cut by the clock
LOG: dict[str, Any] = {
    "run": ["a"] * 4 + ["b"] * 3 + ["c"] * 3,
    "temp": [float(20 + row) for row in range(10)],
    "pressure": [row / 8 for row in range(10)],
    "valve": [-0.5, 0.25, 0.5, 1.0, 0.0, -1.0, 0.125, 0.0, 0.5, 0.75],
    "gain": list(range(10)),
    "tripped": [row == 3 for row in range(10)],
    "note": ["-"] * 10,
}
MAP = {
    "observations": ["temp", "pressure"],
    "actions": "valve",
    "rewards": "gain",
    "terminals": "tripped",
    "episode": "run",
}


def write_csv(folder: Path, log: dict[str, Any]) -> Path:
    polars.DataFrame(log).write_csv(folder / "log.csv")
    return folder / "log.csv"


def write_parquet(folder: Path, log: dict[str, Any]) -> Path:
    polars.DataFrame(log).write_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def write_npz(folder: Path, log: dict[str, Any]) -> Path:
    np.savez(folder / "log.npz", **{name: np.array(values) for name, values in log.items()})
    return folder / "log.npz"


FILES = [write_csv, write_parquet, write_npz]
Writer = Callable[[Path, dict[str, Any]], Path]


@pytest.mark.parametrize("write", [*FILES, None])
def test_a_log_under_its_own_names(tmp_path: Path, write: Writer | None) -> None:
    source = {name: np.array(values) for name, values in LOG.items()} if write is None else write(tmp_path, LOG)
    dataset = load_dataset(source, columns=MAP)
    rows = [0, 1, 2, 3, 4, 5, 7, 8]  # rows 6 and 9 were cut: their successors are unknown
    assert dataset.transitions.observation.tolist() == [[20 + row, row / 8] for row in rows]
    assert dataset.transitions.next_observation[:, 0].tolist() == [21 + row for row in rows]
    assert dataset.transitions.action[:, 0].tolist() == [LOG["valve"][row] for row in rows]
    assert dataset.transitions.continues.tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert dataset.episode_returns.tolist() == [6, 15, 24]
    assert (dataset.num_terminals, dataset.num_timeouts) == (1, 2)
    assert dataset.source.recipe["columns"]["observations"] == ["temp", "pressure"]
    assert dataset.source.kind == ("arrays" if write is None else tmp_path.joinpath(source).suffix[1:])


def test_words_of_the_command_line_and_a_toml_file_are_the_same_map(tmp_path: Path) -> None:
    words = ["observations=temp,pressure", "action=valve", "reward=gain", "terminals=tripped", "episode=run"]
    (tmp_path / "map.toml").write_text(
        'observations = ["temp", "pressure"]\nactions = "valve"\nreward = "gain"\nterminal = "tripped"\n'
        'episode = ["run"]'
    )
    mapped = {field: [names] if isinstance(names, str) else names for field, names in MAP.items()}
    assert parse_columns(words) == parse_columns([str(tmp_path / "map.toml")]) == mapped


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["observations"], "no such file"),
        (["observations=a", "b"], r"takes FIELD=COLUMN\[,COLUMN\.\.\.\], .*; not 'b'"),
        (["observatons=a"], r"unknown field 'observatons' \(did you mean 'observations'\?\)"),
        (["observations=a", "observation=b"], "'observations' is given twice"),
        (["rewards="], "not 'rewards='"),
    ],
)
def test_words_that_are_no_map(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_columns(words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("observations = ", "not a TOML file"),
        ("rewards = 3", "must be a name or a list of names"),
        ("[a]\nb=1", "field 'a'|must be"),
    ],
)
def test_toml_files_that_are_no_map(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "map.toml").write_text(content)
    with pytest.raises(InputError, match=message):
        parse_columns([str(tmp_path / "map.toml")])


def test_patterns_take_columns_in_the_order_of_the_file() -> None:
    names = ["obs_b", "act", "obs_a", "obs_10", "obs[0]", "r", "end", "cut"]
    columns = {"observations": "obs_*", "actions": "act", "rewards": "r", "terminals": "end", "timeouts": "cut"}
    assert select(names, columns, "log")["observations"] == ["obs_b", "obs_a", "obs_10"]
    assert select(names, columns | {"observations": "obs_10,obs[0]"}, "log")["observations"] == ["obs_10", "obs[0]"]


def test_next_observations_in_another_order_are_refused() -> None:
    names = ["obs_a", "obs_b", "act", "r", "end", "next_b", "next_a"]
    columns = {"observations": "obs_*", "actions": "act", "rewards": "r", "terminals": "end"}
    with pytest.raises(InputError, match="come in different orders"):
        select(names, columns | {"next_observations": "next_*"}, "log")
    select(names, columns | {"next_observations": "next_a,next_b"}, "log")


def test_numbered_columns_under_our_own_names_need_no_map(tmp_path: Path) -> None:
    log = {f"observations_{index}": [float(index), index + 0.5] for index in (0, 2, 10, 1)}
    log |= {"actions": [0.0, 0.5], "rewards": [1.0, 2.0], "terminals": [0, 0], "timeouts": [0, 1], "other": [1, 2]}
    assert read_episodes(write_csv(tmp_path, log)).observations.tolist() == [[0, 1, 2, 10], [0.5, 1.5, 2.5, 10.5]]


@pytest.mark.parametrize("write", FILES)
def test_next_observations_may_replace_everything_about_ends(tmp_path: Path, write: Writer) -> None:
    log = {name: LOG[name] for name in ("temp", "valve", "gain", "tripped")}
    log["then"] = [21.0, 22.0, 23.0, 99.0, 25.0, 26.0, 77.0, 28.0, 29.0, 30.0]
    columns = {"observations": "temp", "actions": "valve", "rewards": "gain", "terminals": "tripped"}
    dataset = load_dataset(write(tmp_path, log), columns=columns | {"next_observations": "then"})
    assert dataset.transitions.next_observation[:, 0].tolist() == log["then"]
    assert (dataset.num_timeouts, dataset.episode_lengths.tolist()) == (1, [4, 3])


def test_lists_in_parquet_and_axes_in_arrays_stand_beside_plain_columns(tmp_path: Path) -> None:
    log = {"pos": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "speed": [7, 8, 9], "a": [[0.5], [0.25], [0.0]], "r": [0, 1, 2]}
    columns = {
        "observations": ["speed", "pos"],
        "actions": "a",
        "rewards": "r",
        "terminals": "none",
        "timeouts": "none",
    }
    expected = [[7, 1, 2], [8, 3, 4], [9, 5, 6]]
    fixed = polars.DataFrame(log, schema_overrides={"pos": polars.Array(polars.Float32, 2)})
    fixed.write_parquet(tmp_path / "fixed.parquet")
    sources = [write_parquet(tmp_path, log), tmp_path / "fixed.parquet", write_npz(tmp_path, log)]
    for source in sources:
        episodes = read_episodes(source, columns=columns)
        assert episodes.observations.tolist() == expected
        assert episodes.actions.tolist() == [[0.5], [0.25], [0]]
        assert not episodes.terminals.any() | episodes.timeouts.any()


def test_log_probs_are_read(tmp_path: Path) -> None:
    log = LOG | {"logp": [-1.5] * 10}
    for source in (write_csv(tmp_path, log), {name: np.array(values) for name, values in log.items()}):
        read = read_episodes(source, columns=MAP | {"log_probs": "logp"}).behavior_log_probs
        assert read is not None
        assert read.tolist() == [-1.5] * 10


@pytest.mark.parametrize("flags", [["True", " false"], ["TRUE", "0"], ["1", "FALSE "], ["1.0", "0.0"]])
def test_flags_as_text(tmp_path: Path, flags: list[str]) -> None:
    path = write_csv(tmp_path, LOG | {"tripped": [flags[row != 3] for row in range(10)]})
    assert np.flatnonzero(read_episodes(path, columns=MAP).terminals).tolist() == [3]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    polars.DataFrame(LOG).write_csv(tmp_path / "log.csv", separator=separator)
    assert read_episodes(tmp_path / "log.csv", columns=MAP).observations[1].tolist() == [21, 0.125]


def test_text_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    path = write_csv(tmp_path, {("Füllstand" if name == "temp" else name): values for name, values in LOG.items()})
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    with pytest.raises(InputError, match=r"no column 'Füllstand'.*it is not UTF-8 text"):
        read_episodes(path, columns=MAP | {"observations": ["Füllstand"]})


def test_numbers_in_text_become_the_nearest_float32(tmp_path: Path) -> None:
    """The first lies just above the middle of two float32 numbers, and would be rounded down on a detour by float64."""
    texts = [
        "1.00000005960464477539062500000000000001",
        "0.1",
        "-0.0",
        "1e-45",
        "1e30",
        "16777217",
        "-3",
        "2",
        "7",
        "8",
    ]
    values = read_episodes(write_csv(tmp_path, LOG | {"temp": texts}), columns=MAP).observations[:, 0]
    assert values[1:].tobytes() == np.array([float(text) for text in texts[1:]], np.float32).tobytes()
    assert values[0] == np.nextafter(np.float32(1), np.float32(2))


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": (
        {"pressure": [None if row in (4, 7) else 1.0 for row in range(10)]},
        {},
        r"column 'pressure' is empty in 2 of 10 rows \(first: rows 4, 7",
    ),
    "text": (
        {"pressure": ["n/a" if row == 8 else "1.0" for row in range(10)]},
        {},
        r"column 'pressure' must hold numbers, but 1 of 10 rows are something else, such as 'n/a' \(first: row 8",
    ),
    "decimal comma": ({"temp": ["1,5"] * 10}, {}, "write the decimal point as a point"),
    "missing episode": ({"run": [None] + ["a"] * 9}, {}, "column 'run' is empty in 1 of 10 rows"),
    "returning episode": (
        {"run": list("aabbaaccbb")},
        {},
        r"'run' comes back to a value that it had before, in 2 places \(first: rows 4, 8\)",
    ),
    "flag": ({"tripped": [0, 1, 2, 1, 0, 0, 0, 0, 0, 3]}, {}, r"'tripped' must be 0 or 1, but 2 of 10 .*row 2 = 2"),
    "no such column": ({}, {"actions": "valv"}, r"no column 'valv' \(did you mean 'valve'\?\)"),
    "no such pattern": ({}, {"observations": "obs_*"}, r"no column 'obs_\*'.*its columns: run, temp"),
    "twice": ({}, {"observations": ["temp", "temp"]}, "takes the column 'temp' twice"),
    "two rewards": ({}, {"rewards": "gain,temp"}, r"'rewards' takes one column, not 2 \(gain, temp\)"),
    "no field": ({}, {"reward_s": "gain"}, r"unknown field 'reward_s' \(did you mean 'rewards'\?\)"),
    "empty": ({}, {"observations": []}, "no column is given for 'observations'"),
}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{},9", "line 5 has {more} cells, and the header {cells}"),
        ("{},", None),
        ('"{first}"{rest}', None),
    ],
    ids=["one more", "an empty one more", "in quotes"],
)
def test_a_line_with_more_cells_than_the_header_is_refused(line: str, words: str | None, tmp_path: Path) -> None:
    """As decimal commas make them: the first columns alone would be read, and be wrong."""
    path = write_csv(tmp_path, LOG)
    lines = path.read_text().splitlines()
    first, _, rest = lines[4].partition(",")
    lines[4] = line.format(lines[4], first=first, rest="," + rest)
    path.write_text("\n".join(lines) + "\n")
    cells = lines[0].count(",") + 1
    if words is None:
        assert len(read_episodes(path, columns=MAP).rewards) == 10
        return
    with pytest.raises(InputError, match=re.escape(words.format(more=cells + 1, cells=cells))):
        read_episodes(path, columns=MAP)


def test_an_empty_cell_too_many_does_no_harm_where_the_last_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("o,a,run,r\n1,0.5,a,1\n2,-0.5,a,2,\n3,0.5,b,3\n4,0.5,b,4\n")
    columns = {"observations": "o", "actions": "a", "rewards": "r", "terminals": "none", "episode": "run"}
    assert read_episodes(path, columns=columns).rewards.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("write", [write_csv, write_parquet])
@pytest.mark.parametrize("fault", WRONG)
def test_faults_name_the_column_the_row_and_the_fix(tmp_path: Path, write: Writer, fault: str) -> None:
    log, columns, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        read_episodes(write(tmp_path, LOG | log), columns=MAP | columns)


def test_lines_of_a_text_file_are_named_too(tmp_path: Path) -> None:
    path = write_csv(tmp_path, LOG | {"pressure": ["n/a" if row == 8 else "1.0" for row in range(10)]})
    assert path.read_text().splitlines()[10 - 1].split(",")[2] == "n/a"
    with pytest.raises(InputError, match=r"row 8, line 10 of the file\)"):
        read_episodes(path, columns=MAP)


@pytest.mark.parametrize("write", FILES)
def test_a_map_must_say_what_is_what(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, LOG)
    if path.suffix != ".npz":
        with pytest.raises(InputError, match=r"no column for observations, .*its columns: run, temp.*--columns obs"):
            read_episodes(path)
    for dropped, message in [
        ("rewards", "no column for rewards"),
        ("terminals", "terminals=none if no episode ends by itself"),
        ("episode", "nothing says where episodes end. Add episode=COLUMN"),
    ]:
        with pytest.raises(InputError, match=message):
            read_episodes(path, columns={field: names for field, names in MAP.items() if field != dropped})


def test_uneven_lists_and_missing_numbers_in_lists(tmp_path: Path) -> None:
    columns = {"observations": "s", "actions": "a", "rewards": "a", "terminals": "none", "timeouts": "none"}
    for lists, message in [
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], "unequal lengths: 2 numbers in row 0, 1 in row 1"),
        ([[1.0, 2.0], [3.0, None], [4.0, 5.0]], r"'s' is empty in 1 of 3 rows \(first: row 1\)"),
        ([["a"], ["b"], ["c"]], r"column 's' holds List\(String\)"),
    ]:
        with pytest.raises(InputError, match=message):
            read_episodes(write_parquet(tmp_path, {"s": lists, "a": [0.0, 0.5, 1.0]}), columns=columns)


def test_a_time_is_no_number(tmp_path: Path) -> None:
    log = LOG | {"temp": polars.Series(range(10)).cast(polars.Datetime)}
    with pytest.raises(InputError, match=r"column 'temp' holds Datetime.*must hold numbers"):
        read_episodes(write_parquet(tmp_path, log), columns=MAP)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    np.savez(tmp_path / "log.npz", **LOG | {"temp": np.array([Payload()] * 10, dtype=object)})
    with pytest.raises(InputError, match="'temp' can't be read"):
        read_episodes(tmp_path / "log.npz", columns=MAP)
    assert not marker.exists()


@pytest.mark.parametrize("write", FILES)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_truncated_files(tmp_path: Path, write: Writer, share: float) -> None:
    path = write(tmp_path, LOG)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:
        read = read_episodes(path, columns=MAP)
    except InputError:
        return
    assert path.suffix == ".csv"  # a text that was cut at the end of a line is a shorter text
    assert len(read.rewards) < 10


@pytest.mark.parametrize("write", FILES)
def test_damaged_bytes(tmp_path: Path, write: Writer) -> None:
    """Whatever bytes are changed to: an error of ours, or a dataset."""
    path = write(tmp_path, LOG)
    sound, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(40):
        damaged = bytearray(sound)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_episodes(path, columns=MAP)
        except InputError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet"])
def test_missing_files(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: no such file"):
        load_dataset(name)


@pytest.mark.parametrize("text", ["a" + ".a" * 50_000 + " = 1", "observations = " + "[" * 100_000])
def test_a_map_that_is_endlessly_deep_is_no_map(tmp_path: Path, text: str) -> None:
    """The first would take gigabytes, the second ends in a RecursionError."""
    path = tmp_path / "deep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="not a TOML file"):
        parse_columns([str(path)])


def test_a_table_of_vectors_without_a_row_says_so(tmp_path: Path) -> None:
    vectors = {name: polars.Series([], dtype=polars.Array(polars.Float64, 2)) for name in ("observations", "actions")}
    numbers = {name: polars.Series([], dtype=polars.Float64) for name in ("rewards", "terminals", "timeouts")}
    polars.DataFrame(vectors | numbers).write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(InputError, match=r"empty\.parquet"):
        load_dataset(tmp_path / "empty.parquet")
