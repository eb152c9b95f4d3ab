from __future__ import annotations

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from itrpo.data.load import dataset_names, load_dataset
from itrpo.files import d4rl_path
from itrpo.report.datasets import dataset_rows, describe, print_dataset_list, print_facts
from tests.data.hdf5_files import columns, write
from tests.data.policy_files import network, sampled, write_policy


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
    assert facts["D4RL score"] == "2.0 ± 0.4, max 2.4"
    assert facts["file"] == str(path.resolve())
    assert facts["recipe: seed"] == "7"
    shown = io.StringIO()
    print_facts(dataset.name, describe(dataset), Console(file=shown, width=200))
    for text in facts.values():
        assert text in shown.getvalue()


def test_info_without_episodes_or_environment() -> None:
    values = columns([0] * 9, [0] * 9)
    values["actions"] = values["actions"] * 2
    facts = describe(load_dataset(values, action_high=3))
    assert facts["completed episodes"] == "0"
    assert facts["environment"] == "none known: name it with --env"
    assert facts["actions rescaled from"] == "[-1.0] to [3.0]"
    assert not {"return", "D4RL score", "file"} & set(facts)


def rows_of_the_policy() -> dict[str, np.ndarray]:
    observations, actions, densities = sampled(network(low=-1.0, high=0.0), 100)
    return columns([0] * 100, [0] * 100) | {
        "observations": observations,
        "actions": actions,
        "infos/action_log_probs": densities,
    }


def test_info_says_whether_stored_densities_are_those_of_the_policy_in_the_file(tmp_path: Path) -> None:
    rows = rows_of_the_policy()
    path = write_policy(tmp_path / "a.hdf5", network(), rows)
    with h5py.File(path, "a") as file:
        file["metadata/policy/log_std_low"], file["metadata/policy/log_std_high"] = -1.0, 0.0
    facts = describe(load_dataset(path))
    mean = rows["infos/action_log_probs"][:-1].mean()
    assert facts["log density of actions"] == f"{mean:,.2f} on average, under the policy that acted"
    assert facts["policy that acted"] == "in the file: tanh-Gaussian, 2-5-4-3, relu"
    found = re.fullmatch(
        r"differ from the stored ones by (\S+) on average, (\S+) at most \((\d+) rows(; (\d+) with .* left out)?\)",
        facts["its log densities"],
    )
    assert found is not None
    assert float(found[1]) < 1e-3
    assert int(found[3]) + int(found[5] or 0) == 99
    with h5py.File(path, "a") as file:
        file["metadata/policy/last_fc/bias"][:] += 0.5
    found = re.match(
        r"differ from the stored ones by (\S+) on average", describe(load_dataset(path))["its log densities"]
    )
    assert found is not None
    assert float(found[1]) > 0.1


def test_info_says_why_a_policy_in_the_file_is_of_no_use(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.hdf5", network())  # of 3 actions, beside rows with 1
    expected = "in the file, but it is one for other observations or actions"
    assert describe(load_dataset(path))["policy that acted"] == expected
    path = write_policy(tmp_path / "b.hdf5", network(), rows_of_the_policy())
    assert describe(load_dataset(path, action_low=-2, action_high=2))["policy that acted"] == expected
    with h5py.File(path, "a") as file:
        del file["metadata/policy/last_fc"]
    facts = describe(load_dataset(path))
    assert facts["policy that acted"].startswith("in the file, but can't be used: ")
    assert "no key 'last_fc'" in facts["policy that acted"]
    assert "its log densities" not in facts


def test_info_of_a_file_without_densities(tmp_path: Path) -> None:
    facts = describe(load_dataset(write(tmp_path / "a.hdf5", columns())))
    assert not {"log density of actions", "policy that acted", "its log densities"} & set(facts)


def test_the_list_fits_into_80_columns() -> None:
    shown = io.StringIO()
    print_dataset_list(Console(file=shown, width=80))
    lines = shown.getvalue().splitlines()
    names = dataset_names()
    assert len(lines) == len(names) + 7  # title, borders, heads, two lines below: no row is broken
    assert all(any(f" {name} " in line for line in lines) for name in names)
