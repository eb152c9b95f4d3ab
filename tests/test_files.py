"""What the ground floor promises: old content or new, never half; one holder of a lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

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
