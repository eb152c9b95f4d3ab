"""The guides run as printed, block by block in one folder, with a smaller dataset and fewer steps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from itrpo import cli, files
from itrpo.collection import demo, making
from itrpo.ope.judgement import read
from tests.test_docs import written_out

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
BLOCK = re.compile(r"```(sh|python|toml|c)\n(.*?)```", re.DOTALL)
FILES = {"toml": "plant.toml", "c": "main.c"}  # what the blocks of these languages are called in the text


def play(text: str, smaller: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs all blocks of a text, words replaced by `smaller`. -> the commands of itrpo that ran."""
    for word, other in smaller.items():
        assert word in text, f"no page has {word!r} any more"
        text = text.replace(word, other)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    ran: list[str] = []
    names: dict[str, object] = {}
    for language, block in BLOCK.findall(text):
        if language == "python":
            exec(block, names)  # our own guide
            continue
        if language in FILES:
            (folder / FILES[language]).write_text(block)
            continue
        for line in written_out(block).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["itrpo"]:
                helped = words[-1] == "--help"
                with pytest.raises(SystemExit) if helped else nullcontext():
                    assert cli.main(words[1:]) == 0, line
                ran.append(" ".join(words[1:]))
            elif words:
                subprocess.run(["bash", "-euc", line], check=True)
    return ran


@pytest.mark.slow
def test_from_a_d4rl_name_to_a_score(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    shares = (demo.Share("hopper_sac_040k", 1), demo.Share("hopper_sac_100k", 2))
    making.make(demo.plan(shares, steps_per_slot=400), files.generated_path("hopper-demo"), workers=1)
    smaller = {
        "--scale laptop": "--scale smoke",
        "bc,iql,td3_bc,itrpo": "td3_bc,itrpo",
        "itrpo train hopper-medium-v2 --algorithm itrpo --dry-run": "itrpo train --help",  # compiled once is enough
        "itrpo sweep table2 --dry-run": "itrpo sweep --help",  # it would measure every algorithm
        "--episodes 20": "--episodes 2",
        "hopper-medium-v2": "hopper-demo",
    }
    ran = play((GUIDES / "d4rl_score.md").read_text("utf-8"), smaller, tmp_path, monkeypatch)
    assert len(ran) == 11
    assert (tmp_path / "report" / "report.html").exists()
    assert (tmp_path / "hopper-medium.parquet").exists()
    assert (tmp_path / "curves.png").exists()
    assert "return" in capsys.readouterr().out


@pytest.mark.slow
def test_from_a_plants_log_to_an_industrial_pc(monkeypatch, tmp_path, capfd):
    """The judge, who has the log alone, is right about what the house then shows."""
    shutil.copy(GUIDES / "heating.py", tmp_path)
    smaller = {
        "--steps 3000": "--steps 1000",
        "itrpo judge runs/itrpo runs/bc": "itrpo judge runs/itrpo --steps 1500 --folds 4",
    }
    ran = play((GUIDES / "plant_to_pc.md").read_text("utf-8"), smaller, tmp_path, monkeypatch)
    assert [line.split()[0] for line in ran] == ["datasets", "datasets", "train", "train", "judge", "export"]
    told = capfd.readouterr().out
    assert "57,120 rows became 11,424, one per 5m" in told  # 40 days of 1,440 minutes less 8 hours without the recorder
    assert "values filled (previous): outside 12" in told  # of 6 days, in 12 minutes 2 decisions
    assert "% (a value was missing)" in told  # by the C program
    cost = {name: float(value) for name, value in re.findall(r"^(\S+): mean cost per minute ([\d.]+)$", told, re.M)}
    assert (tmp_path / "runs" / "itrpo" / "judgement.html").exists()
    judged = read(tmp_path / "runs" / "itrpo")
    for seed in (0, 1):
        gain = judged.policies[seed].estimates[0].against_log
        assert gain.value > 0  # of four folds an interval says nothing
        assert cost[f"runs/itrpo/seed{seed}/policy.npz"] < cost["operator"] / 3
