from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from itrpo.data.cache import d4rl_path
from itrpo.data.load import dataset_names, load_dataset
from itrpo.data.tables import dataset_rows, describe, print_dataset_info, print_dataset_list
from tests.data.hdf5_files import columns, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))


def test_the_list_has_every_name_and_knows_what_is_cached() -> None:
    assert not any(row.cached for row in dataset_rows())
    path = d4rl_path("hopper_medium-v2.hdf5")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert [row.name for row in dataset_rows()] == dataset_names()
    assert [row.name for row in dataset_rows() if row.cached] == ["hopper-medium-v2"]
    shown = io.StringIO()
    print_dataset_list(Console(file=shown, width=100))
    line = next(line for line in shown.getvalue().splitlines() if "hopper-medium-v2" in line)
    assert "153 MB" in line
    assert "yes" in line


def test_info_says_what_the_rows_say(tmp_path: Path) -> None:
    path = write(tmp_path / "own.hdf5", columns(), env_id="Hopper-v4", recipe='{"seed": 7, "parts": [{"policy": "a"}]}')
    dataset = load_dataset(path)
    facts = describe(dataset)
    assert facts["transitions"] == "7 of 9 rows"
    assert facts["observations, actions"] == "2, 1 dimensions"
    assert facts["terminals, timeouts"] == "1, 1"
    assert facts["completed episodes"] == "2"
    assert facts["episode length"] == "4 (from 3 to 4)"
    assert facts["return"] == "45.5 ± 12.5, max 58.0"  # 33 and 58
    # (R + 20.272305) / (3234.3 + 20.272305): 1.637, 2.405
    assert facts["D4RL-normalised score"] == "2.0 ± 0.4, max 2.4"
    assert facts["file"] == str(path.resolve())
    assert facts["recipe: seed"] == "7"
    shown = io.StringIO()
    print_dataset_info(dataset, Console(file=shown, width=200))
    for text in facts.values():
        assert text in shown.getvalue()


def test_info_without_episodes_or_environment() -> None:
    values = columns([0] * 9, [0] * 9)
    values["actions"] = values["actions"] * 2
    facts = describe(load_dataset(values, action_high=3))
    assert facts["completed episodes"] == "0"
    assert facts["environment"] == "none known: name it with --env"
    assert facts["actions rescaled from"] == "[-1.0] to [3.0]"
    assert not {"return", "D4RL-normalised score", "file"} & set(facts)
