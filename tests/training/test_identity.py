"""What is said of a run that goes on for longer, or for less, than it began with. Nothing is trained."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.files import read_json
from itrpo.results.run_folder import RunFolder
from itrpo.training.configure import make_setup
from itrpo.training.identity import begin_or_continue

DATA = {
    "observations": np.zeros((9, 3)),
    "actions": np.linspace(-0.9, 0.9, 9)[:, None],
    "rewards": np.zeros(9),
    "terminals": np.zeros(9, bool),
    "timeouts": np.arange(9) == 8,
}


def config(algorithm: str, steps: int, **fields) -> RunConfig:
    data = DataConfig("arrays", "none", None, False, 1.0, 0.0, (-1.0,), (1.0,))
    setup = make_setup(algorithm, preset="source", fields=fields)
    return RunConfig(data, train=TrainConfig(steps, 2, 0, None), evaluation=EvalConfig(1, 1), **setup.constants())


def begin(folder: RunFolder, config: RunConfig) -> tuple[dict, str]:
    """-> lengths, and what was said."""
    folder.path.mkdir(exist_ok=True)
    said = io.StringIO()
    return begin_or_continue(folder, config, load_dataset(DATA), Console(file=said, width=80)), said.getvalue()


def test_what_keeps_its_length_is_said_with_what_a_fresh_run_has(tmp_path):
    folder = RunFolder(tmp_path / "itrpo")  # whose fit of pi_beta is as long as the run
    assert begin(folder, config("itrpo", 5_000)) == ({"behavior_steps": 5_000, "begun_steps": 5_000}, "")
    lengths, said = begin(folder, config("itrpo", 50_000))
    assert lengths["behavior_steps"] == 5_000
    assert "began as one of 5,000 steps" in said
    assert "steps of pi_beta's fit 5,000 (not 50,000)" in said
    assert "another --out" in said
    folder = RunFolder(tmp_path / "iql")  # whose cosine ends with the run
    begin(folder, config("iql", 5_000))
    assert "schedule_steps 5,000 (not 20,000)" in begin(folder, config("iql", 20_000))[1]


def test_what_does_not_depend_on_the_length_is_no_news(tmp_path):
    given = replace(config("itrpo", 10), train=TrainConfig(10, 2, 0, 100))  # --behavior-steps 100
    for name, first in (("td3_bc", config("td3_bc", 10)), ("itrpo", given)):
        begin(RunFolder(tmp_path / name), first)
        longer = replace(first, train=replace(first.train, steps=20))
        assert begin(RunFolder(tmp_path / name), longer)[1] == ""
    begin(RunFolder(tmp_path / "iql"), config("iql", 10, schedule_steps=7))
    assert begin(RunFolder(tmp_path / "iql"), config("iql", 20, schedule_steps=7))[1] == ""


def test_every_command_is_recorded_with_the_length_that_it_asked_for(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    for steps in (10, 20):
        monkeypatch.setattr(sys, "argv", ["itrpo", "train", "--steps", str(steps)])
        begin(folder, config("td3_bc", steps))
    commands = read_json(folder.path / "provenance.json")["commands"]
    assert [(it["argv"][-1], it["train.steps"], it["train.seeds"]) for it in commands] == [("10", 10, 2), ("20", 20, 2)]


@pytest.mark.parametrize(("steps", "seeds", "flag"), [(19, 2, "--steps 20"), (20, 1, "--seeds 2")])
def test_less_than_is_done_is_refused_and_the_folder_is_as_it_was(tmp_path, steps, seeds, flag):
    folder, whole = RunFolder(tmp_path / "run"), config("td3_bc", 20)
    begin(folder, whole)
    folder.save("train", 20, {"count": np.zeros(2)}, {"seeds": 2})
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"already; ask for {flag} or more, or choose another --out"):
        begin(folder, replace(whole, train=replace(whole.train, steps=steps, seeds=seeds)))
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    begin(folder, whole)
