"""An algorithm from outside, the one of docs/extending.md: it goes through everything that ours go through."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from itrpo import registry
from itrpo.cli import main
from itrpo.errors import InputError
from itrpo.policy import load_policy
from itrpo.results import checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SIZES = ["--seeds", "2", "--eval-every", "20", "--eval-episodes", "1", "--action-low", "-2", "--action-high", "2"]
SMALL = ["--policy-hidden", "8,8", "--critic-hidden", "8,8", "--batch-size", "16", "--temperature", "0.5"]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with crr.py, from which Python imports."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "crr.py").write_text(EXAMPLE)
    monkeypatch.syspath_prepend(folder)
    for name in ("crr", "broken", "evil"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def train(data: Path, out: Path, steps: int) -> None:
    words = ["train", str(data), "--algorithm", "crr:CRR", *SIZES, *SMALL, "--steps", str(steps), "--out", str(out)]
    assert main(words) == 0


def test_the_example_fits_on_a_screen():
    assert sum(bool(line) for line in EXAMPLE.splitlines()) <= 40
    assert max(map(len, EXAMPLE.splitlines())) <= 120


def test_it_trains_resumes_to_the_same_bits_and_exports(outside, pendulum, tmp_path, capsys):
    train(pendulum, tmp_path / "whole", 40)
    train(pendulum, tmp_path / "cut", 20)
    train(pendulum, tmp_path / "cut", 40)
    whole, cut = (
        checkpoint.load(checkpoint.sorted_checkpoints(tmp_path / name / "checkpoints")[0])[0]
        for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name], err_msg=name)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()
    config = json.loads((tmp_path / "cut" / "config.json").read_text())["config"]
    assert (config["algorithm"], config["algorithm_config"]["temperature"]) == ("crr:CRR", 0.5)
    action = load_policy(tmp_path / "cut" / "seed1" / "policy.npz")(np.zeros(3))
    assert action.shape == (1,)
    assert abs(action[0]) <= 2

    # Reading a folder imports nothing, whatever name stands in it.
    (outside / "evil.py").write_text("raise SystemExit('imported')")
    for path in (tmp_path / "cut" / "config.json", tmp_path / "cut" / "status.json"):
        path.write_text(path.read_text().replace("crr:CRR", "evil:ENTRY"))
    shutil.copytree(tmp_path / "cut", tmp_path / "runs" / "cut")
    capsys.readouterr()
    assert main(["runs", "list", "--root", str(tmp_path / "runs")]) == 0
    assert "evil" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "runs" / "cut"), "--episodes", "1"]) == 0
    assert "evil" not in sys.modules


def test_it_is_compared(outside, pendulum, tmp_path, capsys):
    fields = [word.replace("--", "--crr:CRR.") for word in SMALL]
    words = ["compare", str(pendulum), "--algorithms", "bc,crr:CRR", "--steps", "20", *SIZES, *fields]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out" / "crr-CRR" / "config.json").read_text())["config"]
    assert config["algorithm_config"]["temperature"] == 0.5
    assert "| crr:CRR |" in (tmp_path / "out" / "comparison.md").read_text()
    assert main(["compare", str(pendulum), "--algorithms", "crr:CRR", "--crr:CRR.temprature", "1"]) == 2
    assert "did you mean '--crr:CRR.temperature'?" in capsys.readouterr().err


def test_help_and_fields(outside, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--algorithm", "crr:CRR", "--help"])
    assert "--temperature" in capsys.readouterr().out
    assert main(["algorithms", "crr:CRR"]) == 0
    assert "of the advantage" in capsys.readouterr().out


def test_a_package_registers_it_by_name(outside, capsys):
    about = outside / "crr_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: crr-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[itrpo.algorithms]\ncrr = crr:CRR\nbc = evil:ENTRY\n")
    assert "crr" in registry.algorithm_names()
    assert registry.algorithm("crr").default_preset == "matched"
    assert registry.algorithm("bc") is registry.resolve(registry.ALGORITHMS["bc"])  # ours stays ours
    assert main(["algorithms"]) == 0
    assert " crr " in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean 'crr'"):
        registry.algorithm("cr")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing:CRR", "No module named 'missing'"),
        ("crr:CR", "it has: CRR"),
        ("crr:", "it has: CRR"),
        (":CRR", "can't be imported"),
        ("crr:Config", "is no AlgorithmEntry"),
        ("broken:CRR", "broken.py:2"),
    ],
)
def test_a_name_that_is_none_is_one_sentence(outside, name, words, capsys):
    (outside / "broken.py").write_text("import crr\nprint(undefined)\n")
    for command in (
        ["algorithms", name],
        ["train", "x.hdf5", "--algorithm", name],
        ["compare", "x", "--algorithms", name],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error
