"""Files that nobody would write on purpose. Each ends in InputError, or in exactly the dataset that its bytes say.

Three kinds: HDF5 files of columns drawn at random, judged by an independent reading of the rules in docs/datasets.md;
good HDF5 files with damaged bytes; good NPZ files with damaged bytes. Damaged files are read in a process of their own,
which tells a crash or a hang from an error. The slow tests draw many more of each.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itrpo.data.formats import hdf5, hdf5_probe, hostile
from itrpo.data.layout import LOG_PROBS
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.types import Dataset
from tests.data.hdf5_files import columns

ROWS = 12
CPU_SECONDS = 5  # for one small file; more is a hang
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(few, max_examples=5_000)


# --- columns of any kind ---------------------------------------------------------------------------------------------

NUMBERS = ("<f2", "<f4", "<f8", ">f4", ">f8", "g", "?", "i1", "<i4", ">i8", "u1", "<u2")
NO_NUMBERS = ("c8", "S3", "V4", "text", "compound", "array", "reference", "ragged")
WIDTHS = {"observations": 3, "actions": 2, "rewards": 0, "terminals": 0, "timeouts": 0, LOG_PROBS: 0}


class Column(NamedTuple):
    """How one key is written. Most often as it should be."""

    kind: str  # "good", or what is odd about it
    dtype: str
    axes: str  # "flat" [N], "one" [N, 1], "wide" [N, size]
    rows: int
    value: float | None  # put into one place
    storage: dict[str, Any]


def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """`usual` in most draws."""
    return st.integers(0, 29).flatmap(lambda it: st.sampled_from(others) if it == 13 else st.just(usual))


@st.composite
def column(draw: st.DrawFn, key: str) -> Column:
    storage: dict[str, Any] = draw(
        st.sampled_from(
            (
                {},
                {"chunks": (5,)},
                {"compression": "gzip"},
                {"shuffle": True, "compression": "lzf"},
                {"fletcher32": True},
            )
        )
    )
    optional = key == LOG_PROBS
    kind = draw(
        often("good", "missing", "group", "soft link", "external link", "virtual", "null", "unwritten", "scalar")
    )
    return Column(
        "missing" if optional and draw(st.booleans()) else kind,
        draw(st.sampled_from(NO_NUMBERS if draw(st.integers(0, 29)) == 13 else NUMBERS)),
        draw(often("wide", "flat", "three") if WIDTHS[key] else often("flat", "one", "wide")),
        draw(often(ROWS, 0, 1, ROWS - 1, ROWS + 1)),
        draw(often(None, 2.0, -1.0, np.nan, np.inf, 1e300)),
        storage,
    )


files = st.fixed_dictionaries({key: column(key) for key in WIDTHS})
attributes = often("Hopper-v4", None, np.bytes_("Hopper-v4"), 3, np.zeros(2), ["Hopper-v4"], "")


def values_of(key: str, it: Column) -> np.ndarray:
    """Numbers that every type of NUMBERS holds exactly, but for `it.value` where the type can't."""
    shapes = {"flat": (), "one": (1,), "wide": (max(2, WIDTHS[key]),), "three": (2, 2)}
    shape = (it.rows, *shapes[it.axes])
    flags = key in ("terminals", "timeouts")
    values = np.random.default_rng(len(key)).integers(0, 2, shape) * (1.0 if flags or key == "actions" else 3.0)
    if flags and it.rows:
        values[0] = 0  # else every row may be cut by the clock
    values = values.astype(np.float64)
    if it.value is not None and values.size:
        values.flat[-1] = it.value
    with np.errstate(all="ignore"):
        return values.astype(it.dtype) if it.dtype in NUMBERS else values


def write_column(file: h5py.File, key: str, it: Column, other: Path) -> None:
    values = values_of(key, it)
    if it.kind == "missing":
        return
    if it.kind == "group":
        file.create_group(key)
    elif it.kind == "soft link":
        file[key] = h5py.SoftLink("/elsewhere")
    elif it.kind == "external link":
        file[key] = h5py.ExternalLink(str(other), key)
    elif it.kind == "null":
        file[key] = h5py.Empty(np.float32)
    elif it.kind == "scalar":
        file[key] = np.float32(0)
    elif it.kind == "virtual":
        layout = h5py.VirtualLayout(values.shape, np.float32)
        layout[:] = h5py.VirtualSource(other, key, values.shape)
        file.create_virtual_dataset(key, layout)
    elif it.kind == "unwritten":
        file.create_dataset(key, (2**45, *values.shape[1:]), np.float32, chunks=True)
    elif it.dtype in NUMBERS:
        storage = {} if 0 in values.shape else dict(it.storage)
        if "chunks" in storage:
            storage["chunks"] = (min(5, len(values)), *values.shape[1:])
        file.create_dataset(key, data=values, **storage)
    else:
        write_no_numbers(file, key, it.dtype, values)


def write_no_numbers(file: h5py.File, key: str, dtype: str, values: np.ndarray) -> None:
    if dtype == "text":
        file.create_dataset(key, values.shape, h5py.string_dtype())
    elif dtype == "compound":
        file[key] = np.zeros(values.shape, [("a", np.float32), ("b", np.int8)])
    elif dtype == "array":
        file.create_dataset(key, values.shape, np.dtype((np.float32, (2,))))
    elif dtype == "reference":
        file.create_dataset(key, values.shape, h5py.ref_dtype)
    elif dtype == "ragged":
        file.create_dataset(key, values.shape, h5py.vlen_dtype(np.float32))
    else:
        file[key] = np.zeros(values.shape, dtype)


def expected_of(drawn: dict[str, Column], env_id: Any) -> dict[str, np.ndarray] | None:
    """The rows as float32, if the rules allow them; written without a look at the package."""
    present = {key: it for key, it in drawn.items() if it.kind != "missing"}
    if set(WIDTHS) - set(present) - {LOG_PROBS} or any(it.kind != "good" for it in present.values()):
        return None
    if env_id is not None and not isinstance(env_id, str | bytes):
        return None
    rows: dict[str, np.ndarray] = {}
    for key, it in present.items():
        if it.dtype not in NUMBERS or it.rows != drawn["observations"].rows or it.rows < 2:
            return None
        if it.axes != "wide" if WIDTHS[key] else it.axes not in ("flat", "one"):
            return None
        with np.errstate(all="ignore"):
            rows[key] = values_of(key, it).astype(np.float32)
        if not WIDTHS[key]:
            rows[key] = rows[key].reshape(-1)
    if any(not np.isin(rows[key], (0, 1)).all() for key in ("terminals", "timeouts")):
        return None
    if not all(np.isfinite(rows[key]).all() for key in ("observations", "actions", "rewards")):
        return None
    return None if np.abs(rows["actions"]).max() > 1 else rows


def assert_transitions(dataset: Dataset, rows: dict[str, np.ndarray]) -> None:
    last = len(rows["rewards"]) - 1
    kept = [i for i in range(last + 1) if rows["terminals"][i] or (i < last and not rows["timeouts"][i])]
    transitions = dataset.transitions
    for i, mine in enumerate(kept):
        np.testing.assert_array_equal(transitions.observation[i], rows["observations"][mine])
        np.testing.assert_array_equal(transitions.action[i], rows["actions"][mine])
        np.testing.assert_array_equal(transitions.next_observation[i], rows["observations"][min(mine + 1, last)])
        assert transitions.reward[i] == rows["rewards"][mine]
        assert transitions.continues[i] == 1 - rows["terminals"][mine]
    assert len(dataset) == len(kept)
    log_probs = rows.get(LOG_PROBS)
    if log_probs is None:
        assert dataset.behavior_log_probs is None
    else:
        np.testing.assert_array_equal(dataset.behavior_log_probs, log_probs[kept])


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "survives", lambda path: True)


def check_columns(folder: Path, drawn: dict[str, Column], env_id: Any) -> bool:
    """-> whether it was a good file."""
    actions = drawn["actions"]
    if actions.axes == "flat" and actions.dtype in NUMBERS and np.dtype(actions.dtype).kind in "iu":
        return False  # choices: test_choices.py
    other, path = folder / "other.hdf5", folder / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, it in drawn.items():
            write_column(file, key, it, other)
        if env_id is not None:
            file.attrs["env_id"] = env_id
    rows = expected_of(drawn, env_id)
    if rows is None:
        with pytest.raises(InputError, match=r"a\.hdf5: "):
            load_dataset(path)
        return False
    assert_transitions(load_dataset(path), rows)
    return True


@few
@given(files, attributes)
def test_columns_of_any_kind(
    tmp_path_factory: pytest.TempPathFactory, no_probe: None, drawn: dict[str, Column], env_id: Any
) -> None:
    check_columns(tmp_path_factory.getbasetemp(), drawn, env_id)


@pytest.mark.slow
@many
@given(files, attributes)
def test_columns_of_any_kind_many(
    tmp_path_factory: pytest.TempPathFactory, no_probe: None, drawn: dict[str, Column], env_id: Any
) -> None:
    check_columns(tmp_path_factory.getbasetemp(), drawn, env_id)


# --- damaged bytes ---------------------------------------------------------------------------------------------------

READER = """
import signal
import sys
import numpy as np
from itrpo.data.formats import hostile
from itrpo.data.load import load_dataset
from itrpo.errors import InputError

hostile.survives = lambda path: True
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))  # CPU time, after which the process ends
    try:
        dataset = load_dataset(line.strip())
        np.savez(line.strip() + ".read.npz", **dataset.transitions._asdict())
        print("read", flush=True)
    except InputError as error:
        print("refused", flush=True)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "), flush=True)
"""


@dataclass
class Reader:
    """A process that reads files, and is started anew if one of them ends it."""

    process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> str:
        """'read', 'refused', the name of another error, or 'crash or hang'."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", READER, str(CPU_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            self.close()
        return answer or "crash or hang"

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.close()


def good_rows() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return columns([0] * 39 + [1] + [0] * 60, [0] * 79 + [1] + [0] * 20) | {
        "observations": random.normal(size=(100, 3)),
        "actions": random.uniform(-1, 1, (100, 2)),
        "infos/action_log_probs": random.normal(size=100),
    }


@cache
def good_hdf5() -> list[bytes]:
    """The same rows stored in several ways."""
    contents: list[bytes] = []
    for version in ("earliest", "latest"):
        for storage in ({}, {"chunks": True, "compression": "gzip"}, {"chunks": True, "fletcher32": True}):
            image = io.BytesIO()
            with h5py.File(image, "w", libver=version) as file:
                for key, values in good_rows().items():
                    file.create_dataset(key, data=values, **storage)
                file["metadata/policy/fc0/weight"] = np.zeros((4, 3))
                file.attrs["env_id"], file.attrs["recipe"] = "Hopper-v4", json.dumps({"seed": 1})
            contents.append(image.getvalue())
    return contents


@cache
def good_npz() -> list[bytes]:
    """The same rows with and without compression."""
    contents: list[bytes] = []
    for save in (np.savez, np.savez_compressed):
        image = io.BytesIO()
        save(image, **good_rows(), env_id=np.array("Hopper-v4"))
        contents.append(image.getvalue())
    return contents


share = st.floats(0.0, 1, exclude_max=True)
lengths = st.sampled_from([1, 2, 4, 8, 64, 512])
damages = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), share),
        st.tuples(st.just("set"), share, st.integers(0, 255)),
        st.tuples(st.just("fill"), share, lengths, st.sampled_from([0, 255])),
        st.tuples(st.just("number"), share, st.sampled_from([0, 1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1])),
        st.tuples(st.just("swap"), share, share, lengths),
        st.tuples(st.just("repeat"), share, lengths),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, damage: list[tuple[Any, ...]]) -> bytes:
    """Places are shares of the file, half of them within its first 4 kB, where headers are."""
    data = bytearray(content)

    def place(of_file: float) -> int:
        length = max(1, len(data))
        return int(2 * of_file * min(4096, length)) if of_file < 0.5 else int((2 * of_file - 1) * length)

    for what, *how in damage:
        at = min(place(how[0]), max(0, len(data) - 1))
        if what == "cut":
            del data[int(how[0] * len(data)) :]
        elif what == "set" and data:
            data[at] = how[1]
        elif what == "fill":
            data[at : at + how[1]] = bytes([how[2]]) * len(data[at : at + how[1]])
        elif what == "number":
            data[at // 8 * 8 : at // 8 * 8 + 8] = how[1].to_bytes(8, "little")
        elif what == "swap":
            other, length = min(place(how[1]), max(0, len(data) - 1)), how[2]
            one, two = data[at : at + length], data[other : other + length]
            data[other : other + length], data[at : at + length] = one, two
        else:
            data[at:at] = data[at : at + how[1]]
    return bytes(data)


def check_hdf5(reader: Reader, path: Path, content: bytes) -> None:
    """Values and types carry no checksum in HDF5's oldest format, so numbers may have changed, but not which belong
    together."""
    path.write_bytes(content)
    answer = reader.read(path)
    if answer == "crash or hang":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hdf5_probe, "CPU_SECONDS", 2)
            with pytest.raises(InputError, match="the HDF5 library crashes or hangs on it"):
                hdf5.read(path)
        return
    assert answer in ("read", "refused")
    if answer == "read":
        with np.load(f"{path}.read.npz") as read:
            rows = len(read["reward"])
            assert rows <= 99
            assert read["observation"].shape == read["next_observation"].shape == (rows, 3)
            assert read["action"].shape == read["next_action"].shape == (rows, 2)
            assert all(np.isfinite(values).all() for values in read.values())
            assert np.abs(read["action"]).max() <= 1 + 1e-6


def check_npz(reader: Reader, path: Path, content: bytes) -> None:
    """Archives carry checksums: nothing may have changed."""
    path.write_bytes(content)
    answer = reader.read(path)
    assert answer in ("read", "refused")
    if answer == "read":
        expected = load_dataset(good_rows()).transitions._asdict()
        with np.load(f"{path}.read.npz") as read:
            for name, values in expected.items():
                np.testing.assert_array_equal(read[name], values)


@few
@given(st.integers(0, 5), damages)
def test_damaged_hdf5_files(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, which: int, damage: list[tuple[Any, ...]]
) -> None:
    check_hdf5(reader, tmp_path_factory.getbasetemp() / "damaged.hdf5", damaged(good_hdf5()[which], damage))


@pytest.mark.slow
@many
@given(st.integers(0, 5), damages)
def test_damaged_hdf5_files_many(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, which: int, damage: list[tuple[Any, ...]]
) -> None:
    check_hdf5(reader, tmp_path_factory.getbasetemp() / "damaged.hdf5", damaged(good_hdf5()[which], damage))


@few
@given(st.integers(0, 1), damages)
def test_damaged_npz_files(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, which: int, damage: list[tuple[Any, ...]]
) -> None:
    check_npz(reader, tmp_path_factory.getbasetemp() / "damaged.npz", damaged(good_npz()[which], damage))


@pytest.mark.slow
@many
@given(st.integers(0, 1), damages)
def test_damaged_npz_files_many(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, which: int, damage: list[tuple[Any, ...]]
) -> None:
    check_npz(reader, tmp_path_factory.getbasetemp() / "damaged.npz", damaged(good_npz()[which], damage))


def test_a_file_cut_anywhere_is_refused(reader: Reader, tmp_path: Path) -> None:
    for content in good_hdf5():
        for end in np.linspace(0, len(content) - 1, 15).astype(int):
            (tmp_path / "cut.hdf5").write_bytes(content[:end])
            assert reader.read(tmp_path / "cut.hdf5") == "refused"


def test_undamaged_files_are_read(reader: Reader, tmp_path: Path) -> None:
    expected = load_dataset(good_rows()).transitions._asdict()
    for ending, contents in ((".hdf5", good_hdf5()), (".npz", good_npz())):
        for content in contents:
            path = tmp_path / f"a{ending}"
            path.write_bytes(content)
            assert reader.read(path) == "read"
            with np.load(f"{path}.read.npz") as read:
                for name, values in expected.items():
                    np.testing.assert_array_equal(read[name], values)
