"""What the ground floor promises: old content or new, never half; one holder of a lock."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from itrpo import files
from itrpo.errors import InputError, StorageError


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    files.write(path, b"old")
    with pytest.raises(KeyError), files.replacing(path) as file:  # noqa: PT012
        file.write(b"half of the new one")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]
    with files.replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run" / "checkpoint"
    with files.replacing_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
    with pytest.raises(KeyError), files.replacing_folder(path) as folder:  # noqa: PT012
        (folder / "b").write_text("2")
        raise KeyError
    assert (path / "inner" / "a").read_text() == "1"
    with files.replacing_folder(path) as folder:
        (folder / "c").write_text("3")
    assert [entry.name for entry in path.iterdir()] == ["c"]
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint"]


def test_a_folder_that_somebody_deletes_is_not_made_again(tmp_path):
    run = tmp_path / "run"
    writers = (
        lambda: files.write(run / "a.bin", b"1"),
        lambda: files.write(run / "deep" / "er" / "a.bin", b"1"),
        lambda: files.append(run / "lines", b"1\n"),
        lambda: files.append(run / "deep" / "lines", b"1\n"),
    )
    for write in writers:
        write()  # nobody holds it: it is made
        shutil.rmtree(run)
        files.make_folder(run)
        with files.never_made_again(run):
            write()
            shutil.rmtree(run)
            with pytest.raises(StorageError, match="run was deleted"):
                write()
            with pytest.raises(StorageError, match="run was deleted"), files.replacing_folder(run / "x" / "checkpoint"):
                pass
            assert not run.exists()
            files.write(tmp_path / "other" / "a.bin", b"1")
        write()


def test_a_disk_that_refuses_is_one_error_that_names_the_file(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for write in (
        lambda: files.write(blocked / "a", b""),
        lambda: files.append(blocked / "a", b"line\n"),
        lambda: files.make_folder(blocked / "a"),
    ):
        with pytest.raises(StorageError, match=f"{blocked}/a"):
            write()


@pytest.fixture
def without_rights():
    """Permissions of files count, for root too."""
    if os.getuid() == 0:
        os.setreuid(65534, -1)
    yield
    if os.geteuid() == 0:
        os.setreuid(0, 0)


def test_a_folder_without_permission_to_write_is_found_out_before_anything_is_made(without_rights):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # tmp_path lies in a folder that only this user may look into
        place = Path(name)
        place.chmod(0o777)
        files.check_may_write(place / "deep" / "in" / "it")
        assert not list(place.iterdir())
        (place / "file").write_text("")
        with pytest.raises(StorageError, match="file is a file; give another with --out"):
            files.check_may_write(place / "file" / "runs")
        (place / "link").symlink_to(place / "nothing")
        with pytest.raises(StorageError, match="link is a link to nothing"):
            files.check_may_write(place / "link")
        place.chmod(0o555)
        with pytest.raises(StorageError, match=f"no permission to write in {place}; give another with --out"):
            files.check_may_write(place / "deep" / "runs")
        place.chmod(0o777)


def test_a_killed_writer_leaves_only_a_temporary_file_which_the_next_removes(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from itrpo import files\n"
        "with files.replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    files.write(tmp_path / "a", b"old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_temporaries(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_appending_drops_a_line_that_a_kill_cut_short(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.append(path, b"one\ntwo\n")
    path.write_bytes(path.read_bytes() + b"thr")
    files.append(path, b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_json_is_strict_and_reads_back(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": float("nan"), "b": (1, float("-inf")), 3: None})
    text = path.read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "a": "NaN",
        "b": [1, "-Infinity"],
        "3": None,
    }
    assert files.read_json(path)["b"][0] == 1
    path.write_text("{")
    with pytest.raises(StorageError, match=r"a\.json"):
        files.read_json(path)


def test_a_lock_has_one_holder_and_is_free_once_that_process_is_killed(tmp_path):
    path = tmp_path / "folder" / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from itrpo import files\n"
        "with files.lock(Path(sys.argv[1]), 'busy'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="busy"), files.lock(path, "busy"):
        pytest.fail("two holders")
    waited: list[str] = []
    timer = threading.Timer(0.2, holder.kill)
    timer.start()
    with files.lock(path, "busy", wait=lambda: waited.append("waits")):
        assert waited == ["waits"]
        assert holder.wait() == -signal.SIGKILL
    holder.stdout.close()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    names = {files.temporary_name(tmp_path / "a") for _ in range(10)}
    assert len(names) == 10
    assert all(name.match(".a.*.tmp") for name in names)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    files.write_json(path, {"alpha": 0.9})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match=r"config\.json: No space left on device"):
        files.write_json(path, {"alpha": 0.1})
    assert json.loads(path.read_text()) == {"alpha": 0.9}
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_cores_are_those_that_this_process_may_use():
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            assert files.available_cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)
    assert 1 <= files.available_cores() <= (os.cpu_count() or 1)


def test_a_log_is_cut_to_what_is_known_of_and_grows_at_once(tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(b"0123456789")
    with files.open_log(path, 4) as log:
        assert path.read_bytes() == b"0123"
        files.add(log, b"abc")
        assert path.read_bytes() == b"0123abc"
    with files.open_log(path) as log:
        files.add(log, b"d")
    assert path.read_bytes() == b"0123abcd"


def test_a_disk_that_fills_up_in_the_middle_of_a_piece_is_an_error(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from itrpo import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "files.add(files.open_log(Path(sys.argv[1])), b'x' * 15)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True)
    assert "File too large" in done.stderr


# --- nobody writes another way ---------------------------------------------------------------------------------------

# calls that make, fill or move files, by the last part of their name; h5py, np.savez and savefig, which are given an
# open file or a place in a temporary folder, are not among them
WRITES = {
    *("write_text", "write_bytes", "touch", "mkdir", "makedirs", "mkfifo", "symlink_to", "hardlink_to", "symlink"),
    *("link", "rename", "renames", "fsync", "fdatasync", "mkstemp", "mkdtemp", "copyfile", "copyfileobj"),
    *("copytree", "move", "sendfile"),
}
LIBRARIES = {"fcntl", "tempfile", "filelock"}


def other_ways_to_write(source: str) -> list[str]:
    """Lines of a module that write a file by themselves."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{node.lineno}: import {name}" for name in names if name.partition(".")[0] in LIBRARIES]
        elif isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            name = whole.rpartition(".")[2]
            # Path.replace has one argument; str.replace has two, dataclasses.replace has keywords
            moves = whole in ("os.replace", "os.truncate") or (
                "." in whole and name == "replace" and len(node.args) == 1 and not node.keywords
            )
            if name in WRITES or moves or (name in ("open", "fdopen") and may_write(whole, node)):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def may_write(name: str, call: ast.Call) -> bool:
    """Whether an open() may be for writing: its mode or flags say so, or are not known."""
    if name == "os.open":
        return [ast.unparse(flags) for flags in call.args[1:]] != ["os.O_RDONLY"]
    if name not in ("open", "io.open", "os.fdopen") and call.args[:1] and not isinstance(call.args[0], ast.Constant):
        return False  # a method of another library, given what to open: zipfile's, h5py's, urllib's
    position = 1 if name in ("open", "io.open", "os.fdopen") else 0  # Path.open has the mode first
    modes = [*call.args[position : position + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    if not modes:
        return False
    return not isinstance(modes[0], ast.Constant) or bool(set(str(modes[0].value)) & set("wxa+"))


def test_files_are_written_here_and_nowhere_else():
    package = Path(files.__file__).parent
    found = [
        f"{path.relative_to(package)}:{line}"
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("files.py", "policy.py") or path.parent != package
        for line in other_ways_to_write(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'path.write_text("x")',
        'open(path, "w")',
        'open(path, mode="xb")',
        "open(path, mode)",
        'path.open("ab")',
        'path.open(mode="r+b")',
        "os.open(path, os.O_WRONLY)",
        "os.replace(a, b)",
        "part.replace(path)",
        "path.rename(other)",
        "os.fsync(file.fileno())",
        "import tempfile",
        "from fcntl import flock",
        "shutil.move(a, b)",
        "path.parent.mkdir(parents=True)",
        "os.truncate(path, 3)",
    ],
)
def test_each_other_way_is_noticed(line):
    assert len(other_ways_to_write(f"def f():\n    {line}")) == 1


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "rb")',
        "open(path)",
        'path.open("rb")',
        'name.replace("/", "-")',
        "dataclasses.replace(config, **changes)",
        "archive.open(member)",
        "os.open(path, os.O_RDONLY)",
        "import shutil",
    ],
)
def test_reading_is_not_writing(line):
    assert other_ways_to_write(line) == []
