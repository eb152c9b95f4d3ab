"""The maker, with tasks whose rows are known beforehand: episodes of given lengths, each row numbered."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from itrpo.collection import making
from itrpo.collection.making import Part, Plan, make
from itrpo.collection.workers import Job, run_job
from itrpo.errors import InputError, StorageError

ROOT = Path(__file__).parents[2]


def collect(task: Any, on_progress: Any) -> dict[str, np.ndarray]:
    """(first number, lengths of the episodes; the odd ones end by the clock; 0 waits until it is killed)"""
    first, lengths = task
    if 0 in lengths:
        time.sleep(60)
    ends = np.cumsum(lengths) - 1
    total = int(ends[-1]) + 1
    on_progress(total)
    flags = np.zeros((2, total), bool)
    for index, end in enumerate(ends):
        flags[index % 2, end] = True
    numbers = np.arange(first, first + total)
    return {
        "observations": np.repeat(numbers[:, None], 3, axis=1).astype(np.float32),
        "rewards": numbers.astype(np.float32),
        "terminals": flags[0],
        "timeouts": flags[1],
        "infos/qpos": numbers[:, None] / 3,
    }


def plan(*parts: Part) -> Plan:
    return Plan("Known-v0", "tests.collection.test_making:collect", parts, 100, {"name": "known"}, {"metadata/a": 1})


WHOLE = plan(Part(((0, (3, 4)), (100, (5,)))), Part(((200, (2, 2)),)))


def numbers(path: Path) -> list[int]:
    with h5py.File(path) as file:
        return file["rewards"][:].astype(int).tolist()  # type: ignore[index, no-any-return]


def made(tmp_path: Path, *parts: Part) -> list[int]:
    make(plan(*parts), tmp_path / "made.h5", workers=1)
    return numbers(tmp_path / "made.h5")


def test_all_rows_in_the_order_of_the_tasks_with_types_and_attributes(tmp_path: Path) -> None:
    expected = [*range(7), *range(100, 105), *range(200, 204)]
    path = tmp_path / "made.h5"
    make(WHOLE, path, workers=2)
    assert numbers(path) == expected
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"env_id": "Known-v0", "recipe": '{"name": "known"}'}
        assert file["metadata/a"][()] == 1  # type: ignore[index]
        for name, kind, shape in (
            ("observations", np.float32, (16, 3)),
            ("terminals", np.bool_, (16,)),
            ("infos/qpos", np.float64, (16, 1)),
        ):
            assert (file[name].dtype, file[name].shape) == (kind, shape)  # type: ignore[union-attr]
        np.testing.assert_array_equal(file["infos/qpos"][:, 0], np.array(expected) / 3)  # type: ignore[index]
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.h5"]


def test_the_last_part_is_cut_at_its_row_in_the_middle_of_an_episode(tmp_path: Path) -> None:
    assert made(tmp_path, Part(((0, (3, 4)), (100, (5,))), end=9)) == [*range(7), 100, 101]


def test_other_parts_end_with_an_episode_and_the_next_one_begins_there(tmp_path: Path) -> None:
    """Episodes of 3, 4 and 5 rows, up to row 11: 7 rows. The next part has the 4 rows that are missing, and its own."""
    first, second = Part(((0, (3, 4)), (100, (5,))), end=11), Part(((200, (10, 10)),), end=20)
    assert made(tmp_path, first, second) == [*range(7), *range(200, 213)]


def test_a_part_that_no_episode_fits_into_is_left_out(tmp_path: Path) -> None:
    assert made(tmp_path, Part(((0, (5,)),), end=4), Part(((100, (9,)),), end=6)) == [*range(100, 106)]


def test_a_part_without_tasks_has_no_rows(tmp_path: Path) -> None:
    assert made(tmp_path, Part((), end=0), Part(((100, (9,)),), end=3)) == [100, 101, 102]


def test_an_episode_that_ends_at_the_row_belongs_to_the_part(tmp_path: Path) -> None:
    assert made(tmp_path, Part(((0, (5, 5)),), end=5), Part(((100, (9,)),), end=6)) == [*range(5), 100]


def test_a_killed_run_goes_on_from_its_finished_tasks(tmp_path: Path) -> None:
    """The third task sleeps until the run is killed. The parts of the first two are then given another number each,
    which the dataset shows only if they are not done again."""
    path, parts = tmp_path / "made.h5", tmp_path / "made.h5.parts"
    slow = plan(Part(((0, (3, 4)), (100, (5,)), (200, (0, 2)))))
    script = "from pathlib import Path\nfrom tests.collection.test_making import *\n"
    script += f"make(plan({slow.parts[0]!r}), Path({str(path)!r}), workers=2)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    for part in sorted(parts.glob("*.npz")):
        with np.load(part) as file:
            columns = dict(file)
        np.savez(part, **columns | {"rewards": columns["rewards"] + 1000})
    (parts / "00002.npz").unlink(missing_ok=True)
    quick = {"collect": "tests.collection.test_making:collect_without_sleep"}
    identity = (parts / "plan.json").read_text().replace(slow.collect, quick["collect"])
    (parts / "plan.json").write_text(identity)
    make(replace(slow, **quick), path, workers=2)
    assert numbers(path) == [*range(1000, 1007), *range(1100, 1105), 200, 201]
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.h5"]


def collect_without_sleep(task: Any, on_progress: Any) -> dict[str, np.ndarray]:
    first, lengths = task
    return collect((first, [length for length in lengths if length]), on_progress)


def test_an_interruption_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 parts.*the same command goes on"):
        make(replace(WHOLE, collect="tests.collection.test_making:collect_then_interrupt"), tmp_path / "made.h5", 1)


def collect_then_interrupt(task: Any, on_progress: Any) -> dict[str, np.ndarray]:
    if task[0] == 100:
        raise KeyboardInterrupt
    return collect(task, on_progress)


def test_parts_of_another_plan_are_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    parts = tmp_path / "made.h5.parts"
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    (parts / "00000.npz").write_bytes(b"rows of another dataset")
    (parts / ".00001.npz.x.tmp").write_bytes(b"unfinished")
    (parts / ".plan.json.y.tmp").write_bytes(b"")
    make(WHOLE, path, workers=1)
    assert len(numbers(path)) == 16
    assert not parts.exists()


def test_a_run_killed_before_it_wrote_its_plan_is_no_obstacle(tmp_path: Path) -> None:
    parts = tmp_path / "made.h5.parts"
    parts.mkdir()
    (parts / ".plan.json.y.tmp").write_bytes(b"")
    make(WHOLE, tmp_path / "made.h5", workers=1)
    assert not parts.exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    parts = tmp_path / "made.h5.parts"
    parts.mkdir()
    (parts / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="has other files in it"):
        make(WHOLE, tmp_path / "made.h5", workers=1)
    assert [entry.name for entry in parts.iterdir()] == ["thesis.tex"]


def test_a_file_of_the_same_recipe_stays_and_any_other_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    make(WHOLE, path, workers=1)
    before = path.stat().st_mtime_ns
    make(WHOLE, path, workers=1)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another file of this name; delete it"):
        make(replace(WHOLE, recipe={"name": "other"}), path, workers=1)
    path.write_text("notes")
    with pytest.raises(InputError, match="another file of this name; delete it"):
        make(WHOLE, path, workers=1)
    assert path.read_text() == "notes"


def test_two_at_once_do_the_work_once(tmp_path: Path) -> None:
    """The second waits for the first and then finds its file."""
    path = tmp_path / "made.h5"
    script = "from pathlib import Path\nfrom tests.collection.test_making import *\n"
    script += f"make(WHOLE, Path({str(path)!r}), workers=1)"
    processes = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.h5"]


def test_those_who_wait_for_one_that_fails_do_the_work_one_after_the_other(tmp_path: Path) -> None:
    """The first is stopped with nothing finished, so it removes folder and lock under those who wait for it."""
    path, parts = tmp_path / "made.h5", tmp_path / "made.h5.parts"
    script = "import signal, sys\nfrom pathlib import Path\nfrom itrpo.console import make_console\n"
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests in the background have it ignored
    script += "from tests.collection.test_making import *\n"
    script += f"make(replace(WHOLE, collect=sys.argv[1]), Path({str(path)!r}), 1, make_console())"

    def start(collect: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, f"tests.collection.test_making:{collect}"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start("collect_nothing")
    deadline = time.monotonic() + 60
    while not (parts / "plan.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    others = [start("collect"), start("collect")]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "Another process is making made.h5; waiting for it.\n"
    first.send_signal(signal.SIGINT)
    assert "no part was finished" in first.communicate(timeout=60)[1]
    finished = [other.communicate(timeout=60) for other in others]
    assert [other.returncode for other in others] == [0, 0], finished
    assert sum("Making made" in out for out, _ in finished) == 1  # the other one found the file
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.h5"]


def collect_nothing(task: Any, on_progress: Any) -> dict[str, np.ndarray]:
    time.sleep(60)
    return {}


def test_a_worker_that_outlives_its_program_leaves_nothing(tmp_path: Path) -> None:
    """Its program was killed, and another one made the dataset and removed the folder meanwhile."""
    job = Job("tests.collection.test_making:collect", (0, (3,)), str(tmp_path / "made.h5.parts" / "00000.npz"))
    with pytest.raises(StorageError, match="unfinished work is gone"):
        run_job(job, lambda steps: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["/bin/false", "/no-such-program"])
def test_without_working_processes_the_tasks_are_done_here(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", program)
    make(WHOLE, tmp_path / "made.h5", workers=2)
    assert len(numbers(tmp_path / "made.h5")) == 16


def test_an_error_in_a_worker_comes_up_here_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="no_such_function"):
        make(replace(WHOLE, collect="itrpo.collection.rollout:no_such_function"), tmp_path / "made.h5", workers=2)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"set ITRPO_CACHE \(or --out\)"):
        make(WHOLE, tmp_path / "file" / "made.h5", workers=1)


@pytest.mark.parametrize(("limit", "left"), [(500, []), (3_000, ["made.h5.parts"])])
def test_a_full_disk_is_a_storage_error(limit: int, left: list[str], tmp_path: Path) -> None:
    """The first limit is met by the first part, the second one by the dataset: its finished parts stay."""
    script = f"""
import resource
from pathlib import Path
from itrpo.errors import StorageError
from tests.collection.test_making import *
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))  # bytes that a file may have
try:
    make(WHOLE, Path({str(tmp_path / "made.h5")!r}), 1)
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "File too large; set ITRPO_CACHE" in done.stdout
    assert "made.h5" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry.name for entry in tmp_path.iterdir()] == left
    make(WHOLE, tmp_path / "made.h5", workers=1)
    assert len(numbers(tmp_path / "made.h5")) == 16


def test_a_log_file_gets_ten_lines_with_speed_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from itrpo.console import make_console

    with making._progress("Making known", 0, 1000, make_console()) as advance:
        for _ in range(100):
            advance(10)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("Making known 500/1,000  ")
    assert "steps/s" in lines[4]
    assert "left" in lines[4]
