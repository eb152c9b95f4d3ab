"""A cheap part of `make soak`, which is in benchmarks/soak and takes an hour."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.soak import kills, numbers
from benchmarks.soak.files import run as read_malformed_files
from benchmarks.soak.log import Log


def test_malformed_maps_end_in_one_sentence(tmp_path: Path) -> None:
    log = Log(tmp_path / "soak.jsonl", seed=3)
    read_malformed_files(log, tmp_path / "files", 20, "toml")
    assert [(row["case"], row["ok"], row["inputs"]) for row in log.rows] == [("toml", True, 23)], log.rows


@pytest.mark.slow
def test_malformed_files_of_every_format_end_in_one_sentence(tmp_path: Path) -> None:
    log = Log(tmp_path / "soak.jsonl", seed=3)
    read_malformed_files(log, tmp_path / "files", 550)
    assert all(row["ok"] for row in log.rows), log.rows
    assert sum(row["inputs"] for row in log.rows) >= 550


@pytest.mark.slow
def test_a_bad_number_in_any_quantity_is_named(tmp_path: Path) -> None:
    log = Log(tmp_path / "soak.jsonl", seed=3)
    numbers.run(log, tmp_path / "numbers", 1, "td3_bc")
    assert [row["ok"] for row in log.rows] == [True], log.rows
    assert log.rows[0]["named"] > 20


@pytest.mark.slow
def test_kills_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))  # a killed process leaves its list of fonts
    log = Log(tmp_path / "soak.jsonl", seed=3)
    kills.run(log, tmp_path / "kills", 3, "TD3")
    assert all(row["ok"] for row in log.rows), log.rows
    assert sum(row.get("kills", 0) for row in log.rows) >= 3


READER = """
import sys
import subprocess
import sys
import time
from pathlib import Path
from itrpo.data.formats import table
from itrpo.errors import InputError
print("up", flush=True)
while True:
    try:
        with table.opened(Path(sys.argv[1])) as opened:
            opened.expect(["x"])
    except (InputError, KeyError):
        pass
"""


def test_a_log_that_another_program_cuts_while_it_is_read_kills_nobody(tmp_path: Path) -> None:
    """Mapped into memory, it would: the process ended by SIGBUS after some dozens of cuts."""
    log, content = tmp_path / "log.csv", b"x,y\n" + b"1.5,2.5\n" * 5_000
    log.write_bytes(content)
    reader = subprocess.Popen([sys.executable, "-c", READER, str(log)], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    reader.stdout.readline()
    with log.open("r+b", buffering=0) as file:
        for _ in range(1_000):
            file.truncate(0)
            file.seek(0)
            file.write(content)
            time.sleep(0.002)  # in which it is whole
    alive = reader.poll() is None
    reader.kill()
    reader.communicate()
    assert alive, reader.returncode
