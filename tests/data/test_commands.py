"""`itrpo datasets check` and `itrpo datasets convert`, as a person types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest

from itrpo.cli import main
from itrpo.data.load import load_dataset
from tests.data.hdf5_files import columns, write
from tests.data.health.sound_log import SOUND

MAP = ["observations=x_*", "actions=a_0,a_1", "reward=r", "terminals=tripped", "episode=run"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    ends = SOUND["terminals"] | SOUND["timeouts"]
    values = {f"x_{index}": SOUND["observations"][:, index] for index in range(3)}
    values |= {f"a_{index}": SOUND["actions"][:, index] for index in range(2)}
    values |= {"r": SOUND["rewards"], "tripped": SOUND["terminals"], "run": np.cumsum(np.roll(ends, 1))}
    polars.DataFrame(values).write_csv(tmp_path / "log.csv")
    return tmp_path / "log.csv"


def test_a_log_is_checked_converted_and_trains(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "log.png"
    assert main(["datasets", "check", str(log), "--columns", *MAP, "--picture", str(picture)]) == 0
    assert "Nothing unusual was found." in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")

    assert (
        main(["datasets", "convert", str(log), str(tmp_path / "log.hdf5"), "--columns", *MAP, "--env", "Own-v0"]) == 0
    )
    episodes = (SOUND["terminals"] | SOUND["timeouts"]).sum()
    assert f"log.hdf5: 12,000 rows, {episodes} episodes" in capsys.readouterr().out
    dataset = load_dataset(tmp_path / "log.hdf5")
    assert dataset.env_id == "Own-v0"
    np.testing.assert_array_equal(dataset.transitions.observation[:50], SOUND["observations"][:50])

    (tmp_path / "map.toml").write_text(
        'observations = "x_*"\nactions = ["a_0", "a_1"]\nrewards = "r"\nterminals = "tripped"\nepisode = "run"\n'
    )
    assert main(["datasets", "info", str(log), "--columns", str(tmp_path / "map.toml")]) == 0
    assert "12,000 rows" in capsys.readouterr().out


def test_errors_are_status_1_and_bad_input_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.hdf5", columns() | {"actions": np.linspace(0, 3, 9)[:, None]})
    assert main(["datasets", "check", str(path), "--env", "none"]) == 1
    printed = capsys.readouterr().out
    assert "action-range" in printed
    assert "--action-high 3" in printed
    assert main(["datasets", "check", str(path), "--action-low", "-4", "--action-high", "4"]) == 0
    assert main(["datasets", "check", str(tmp_path / "gone.hdf5")]) == 2
    assert main(["datasets", "check", str(path), "--columns", "observations=a"]) == 2
    assert "no column 'a'; its columns: actions, " in capsys.readouterr().err


def test_a_target_that_exists_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.hdf5", columns()))
    assert main(["datasets", "convert", path, path]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["datasets", "convert", path, str(tmp_path / "own-v0")]) == 0
    assert "note: the source does not know the last observation" in capsys.readouterr().out
