from __future__ import annotations

import json
import math
import os

import pytest

from itrpo.errors import InputError, StorageError
from itrpo.results import store
from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Row, Status

ROWS = [Row("abc", seed, step, "return", 10.0 * step + seed) for step in (0, 5, 10) for seed in (0, 1)]


def test_rows_come_back_as_they_were(tmp_path):
    RunFolder(tmp_path).append_metrics(ROWS[:2])
    RunFolder(tmp_path).append_metrics(ROWS[2:])
    assert [Row(*row) for row in store.read_metrics(tmp_path).rows()] == ROWS


def test_a_folder_that_is_no_run_is_not_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="is no run: it has no metrics"):
        store.read_metrics(tmp_path / "typo")
    RunFolder(tmp_path).write_status(Status("x", "iql", "p", None, 2, 1, 0, 20, "unfinished"))
    assert len(store.read_metrics(tmp_path)) == 0


def test_values_keep_every_bit_and_files_are_strict_json(tmp_path):
    values = [0.1 + 0.2, 1e-320, math.nan, math.inf, -math.inf]
    RunFolder(tmp_path).append_metrics([Row("abc", 0, i, "loss", value) for i, value in enumerate(values)])
    read = store.read_metrics(tmp_path)["value"].to_list()
    assert read[:2] == values[:2]
    assert math.isnan(read[2])
    assert read[3:] == values[3:]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / store.METRICS).read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert lines[2] == {"run": "abc", "seed": 0, "step": 2, "metric": "loss", "value": None, "text": "NaN"}


@pytest.mark.parametrize("torn_bytes", [1, 7, 40])
def test_a_line_cut_short_by_a_kill_is_dropped_and_the_next_append_is_whole(tmp_path, torn_bytes):
    RunFolder(tmp_path).append_metrics(ROWS)
    path = tmp_path / store.METRICS
    os.truncate(path, path.stat().st_size - torn_bytes)
    assert [Row(*row) for row in store.read_metrics(tmp_path).rows()] == ROWS[:-1]
    RunFolder(tmp_path).append_metrics(ROWS[-1:])
    assert [Row(*row) for row in store.read_metrics(tmp_path).rows()] == ROWS


def test_resuming_drops_later_rows_and_gives_the_bytes_of_an_uninterrupted_run(tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for run in (whole, resumed):
        RunFolder(run).append_metrics(ROWS)
    with (resumed / store.METRICS).open("ab") as file:
        file.write(b'{"run": "abc", "se')
    RunFolder(resumed).drop_metrics_after(5)
    assert store.read_metrics(resumed)["step"].max() == 5
    RunFolder(resumed).append_metrics(ROWS[4:])
    assert (resumed / store.METRICS).read_bytes() == (whole / store.METRICS).read_bytes()


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    RunFolder(tmp_path).append_metrics(ROWS)
    path = tmp_path / store.METRICS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    with pytest.raises(StorageError, match=r"metrics\.jsonl, line 2"):
        store.read_metrics(tmp_path)
    path.write_text(lines[0] + '\n{"run": "abc"}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl, line 2"):
        store.read_metrics(tmp_path)


def test_status_round_trip_and_damage(tmp_path):
    status = Status("abc", "itrpo", "hopper-demo", "Hopper-v4", 4, 10, 10, 500, 1000, "stopped")
    RunFolder(tmp_path).write_status(status)
    assert store.read_status(tmp_path) == status
    (tmp_path / "status.json").write_text('{"run": "abc"}')
    with pytest.raises(StorageError, match=r"status\.json"):
        store.read_status(tmp_path)


def test_lines_that_are_endlessly_deep_are_named(tmp_path):
    """JSON that nests so far ends Python's reader in a RecursionError."""
    for name, read in (("metrics.jsonl", store.read_metrics), ("timing.jsonl", store.read_timing)):
        (tmp_path / name).write_text("[" * 100_000 + "\n")
        with pytest.raises(StorageError, match=name):
            read(tmp_path)
