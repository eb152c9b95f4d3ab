"""What the ground floor promises: old content or new, never half; one holder of a lock; nobody writes another way."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from itrpo import files
from itrpo.errors import InputError, StorageError

PACKAGE = Path(files.__file__).parent


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
    assert all(str(os.getpid()) in name.name for name in names)


# --- nobody writes another way -------------------------------------------------------------------------------------

ALONE = {"files.py", "policy.py"}  # the latter stands alone, to be copied
CALLS = {"replace", "rename", "fsync", "flock", "mkstemp", "write_text", "write_bytes", "NamedTemporaryFile"}


def other_ways(source: str) -> list[str]:
    """Calls and imports that write, move or lock files by hand."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [
                f"line {node.lineno}: imports {name}" for name in names if name in ("fcntl", "tempfile", "filelock")
            ]
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        is_text = (
            name == "replace" and len(node.args) != 1
        )  # of str and datetime; Path.replace and os.replace take paths
        on_os = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "os"
        if name in CALLS and (on_os or not is_text) and not (name == "replace" and node.keywords):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
        if name == "open" and any(text[:1] in "wx" and set(text) <= set("wxrabt+") for text in texts if text):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_files_are_written_through_here_alone():
    found = {
        str(path.relative_to(PACKAGE)): other_ways(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if path.name not in ALONE
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from tempfile import mkstemp",
        "os.replace(a, b)",
        "path.replace(target)",
        "path.write_text('x')",
        "open(path, 'w')",
        "path.open('wb')",
        "os.fsync(3)",
    ],
)
def test_each_other_way_is_noticed(source):
    assert other_ways(source)


@pytest.mark.parametrize(
    "source", ["name.replace('a', 'b')", "open(path)", "path.open('rb')", "replace(config, steps=3)"]
)
def test_what_is_no_writing_is_not(source):
    assert other_ways(source) == []
