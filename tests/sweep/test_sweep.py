"""Sweeps through the command line, on small real runs: what is skipped, resumed, tried again and reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itrpo.cli import main
from itrpo.console import silent_console
from itrpo.results.frames import pack, read_results
from itrpo.results.run_folder import RunFolder
from itrpo.results.store import read_status
from itrpo.sweep import cost
from itrpo.sweep.local import Ended
from itrpo.sweep.plan import read_plan
from itrpo.sweep.run import begin
from itrpo.sweep.run import sweep as sweep_runs
from tests.processes import running
from tests.sweep.conftest import sweep


def metrics(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*/metrics.jsonl"))}


def timing(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*/timing.jsonl"))}


def until(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A sweep, of one of its datasets, that nobody interrupted."""
    from tests.sweep.conftest import PLAN, SMALL

    out = tmp_path_factory.mktemp("whole") / "out"
    path = out.parent / "small.yaml"
    path.write_text(PLAN.format(one=data[0], two=data[1], small=SMALL))
    assert main(["sweep", str(path), "--out", str(out), "--only", "one"]) == 0
    return out


def test_runs_and_plan_are_there(whole):
    assert len(metrics(whole)) == 2
    plan = json.loads((whole / "plan.json").read_text())
    assert plan["arms"]["itrpo"]["title"] == "iTRPO"
    assert plan["arms"]["brac"]["algorithm"] == "brac_v"
    assert plan["arms"]["brac"]["preset"] == "quick"
    assert "can run away" not in (whole / "one" / "itrpo.log").read_text()  # what the preset `paper` says
    assert [run["hash"] for run in plan["runs"][2:]] == [None, None]  # those of the other dataset
    for run in plan["runs"][:2]:
        status = read_status(whole / run["folder"])
        assert (status.state, status.step, status.seeds, status.run) == ("finished", 800, 2, run["hash"])


def test_the_same_line_again_trains_nothing(whole, write_plan, capsys):
    before = timing(whole)
    assert main(["sweep", str(write_plan()), "--out", str(whole), "--only", "one"]) == 0
    assert "2 runs: 2 finished" in capsys.readouterr().out
    assert timing(whole) == before


def test_a_plan_knows_its_runs_on_clipped_actions(data, write_plan, tmp_path, capsys):
    """Their edges follow from the data, which a plan has not read; an edge that the plan gives is another run."""
    rows = dict(np.load(data[0]))
    np.savez(tmp_path / "clipped.npz", **rows | {"actions": (1.5 * rows["actions"]).clip(-1, 1)})
    shorter = ("steps: 800", "steps: 40"), (str(data[0]), str(tmp_path / "clipped.npz")), (f", {data[1]}", "")
    words = ["--out", str(tmp_path / "out"), "--only", "*/itrpo"]
    assert main(["sweep", str(write_plan(*shorter)), *words]) == 0
    config = json.loads((tmp_path / "out" / "clipped" / "itrpo" / "config.json").read_text())["config"]
    assert config["algorithm_config"]["backbone"]["action_edge"] == 0.05
    assert main(["sweep", str(write_plan(*shorter)), *words]) == 0
    assert "1 run: 1 finished" in capsys.readouterr().out
    own = "{policy_hidden: [8], action_edge: 0.02, "
    assert main(["sweep", str(write_plan(*shorter, ("{itrpo: {policy_hidden: [8], ", f"{{itrpo: {own}"))), *words]) == 2
    assert "action_edge: 0.05 -> 0.02" in " ".join(capsys.readouterr().err.split())


def test_weeks_are_not_begun_by_mistake(write_plan, tmp_path, monkeypatch, capsys):
    """What is finished costs nothing; a day each for two runs of 800 steps and 2 seeds."""
    monkeypatch.setattr(cost, "measured_speeds", lambda todo, own, console: {cost.kind_of(it): 400.0 for it in todo})
    started = list[int]()
    monkeypatch.setattr("itrpo.sweep.run.sweep", lambda work, executor, jobs, *rest: started.append(jobs) or [])
    words = ["sweep", str(write_plan()), "--out", str(tmp_path / "out"), "--only", "one"]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "this would take 14 days 19 h here, or longer: give --yes to train all the same, or less:" in said
    assert not started
    assert main([*words, "--dry-run"]) == 0
    assert main([*words, "--yes"]) == main([*words, "--jobs", "3"]) == 0
    assert started == [1, 3]


def test_a_run_that_somebody_else_stops_twice_is_not_done(write_plan, tmp_path):
    """As a scheduler does. The first time it is tried again."""
    started = list[str]()

    class Stopping:
        def __init__(self) -> None:
            self.over = list[Ended]()

        def start(self, folder: str, task: Any, log: Path) -> None:
            started.append(folder)
            self.over.append(Ended(folder, "stopped", "stopped at step 3 of train"))

        def ended(self) -> list[Ended]:
            over, self.over = self.over, []
            return over

        def stop(self, at_once: bool) -> None: ...

        def close(self) -> None: ...

    work = begin(read_plan(str(write_plan())), tmp_path / "out", ("one",), silent_console())
    failed = sweep_runs(work, Stopping(), 1, silent_console())
    assert [(it.folder, it.outcome) for it in failed] == [("one/itrpo", "stopped"), ("one/brac", "stopped")]
    assert started == ["one/itrpo", "one/brac"] * 2


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_that_train_makes(whole, data, tmp_path):
    small = ["--policy-hidden", "8", "--critic-hidden", "8", "--behavior-hidden", "8", "--batch-size", "16"]
    lengths = ["--steps", "800", "--seeds", "2", "--eval-every", "40", "--behavior-steps", "20", "--env", "none"]
    out = tmp_path / "run"
    assert main(["train", str(data[0]), *lengths, *small, "--preset", "quick", "--out", str(out)]) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "one" / "itrpo" / "metrics.jsonl").read_bytes()


def test_ctrl_c_and_a_kill_lose_nothing_and_leave_nobody_behind(whole, write_plan, tmp_path):
    out = tmp_path / "out"
    words = (write_plan(), "--out", out, "--only", "one")
    process = sweep(*words)
    until(lambda: (out / "one" / "itrpo" / "status.json").exists(), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    assert read_status(out / "one" / "itrpo").state == "stopped"
    process = sweep(*words)
    until(lambda: (out / "one" / "brac" / "status.json").exists(), process)
    (worker,) = running("itrpo.sweep.worker", process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{worker}/stat") and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "it trains on by itself"
        time.sleep(0.05)
    assert read_status(out / "one" / "brac").state == "stopped"
    with RunFolder(out / "one" / "brac").lock():
        pass
    assert main(["sweep", *map(str, words)]) == 0
    assert metrics(out) == metrics(whole)


@pytest.mark.slow
def test_one_failure_stops_nobody(write_plan, data, tmp_path, capsys):
    """Data that can't be read, constants that diverge, and a run that is killed: each is reported, the others go on."""
    broken, out = tmp_path / "broken.npz", tmp_path / "out"
    rows = dict(np.load(data[0]))
    rows["rewards"][7] = np.nan
    np.savez(broken, **rows)
    wild = "brac: {algorithm: brac_v, fields: {critic_learning_rate: 1.0e+18}}"
    path = write_plan(("brac: {algorithm: brac_v, fields: {lambda: itrpo}}", wild), (str(data[1]), str(broken)))
    text = path.read_text().replace(f"[{data[0]}, {broken}]", f"[{broken}, {data[0]}]")
    path.write_text(text.replace("seeds: 2", "seeds: 1"))
    process = sweep(path, "--out", out)
    until(lambda: (out / "one" / "itrpo" / "status.json").exists(), process)
    os.kill(running("itrpo.sweep.worker", process.pid)[0], signal.SIGKILL)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "one/itrpo failed" in printed
    assert "killed by SIGKILL (out of memory?); once more at the end" in printed
    assert "one/itrpo finished" in printed
    assert printed.count("one/brac diverged after") == 1
    assert printed.count("broken/itrpo failed after") == 2  # tried once more
    assert "1 NaN" in printed
    assert {it: read_status(out / "one" / it).state for it in ("itrpo", "brac")} == {
        "itrpo": "finished",
        "brac": "diverged",
    }
    assert main(["sweep", str(path), "--out", str(out), "--only", "one"]) == 1  # what diverged is said again
    printed = capsys.readouterr().out
    assert "1 finished, 1 diverged, 0 to do" in printed
    assert "one/brac diverged: training diverged" in printed


@pytest.mark.slow
def test_seeds_that_are_added_later_are_trained_beside_the_others(whole, write_plan, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    path = write_plan(("seeds: 2", "seeds: 3"))
    assert main(["sweep", str(path), "--out", str(out), "--only", "one/itrpo", "--dry-run"]) == 0
    assert "1 to do with 800 steps x seeds" in capsys.readouterr().out
    assert main(["sweep", str(path), "--out", str(out), "--only", "one/itrpo"]) == 0
    old, new = ((folder / "one" / "itrpo" / "metrics.jsonl").read_text().splitlines() for folder in (whole, out))
    assert sorted(line for line in new if json.loads(line)["seed"] < 2) == sorted(old)
    assert {json.loads(line)["seed"] for line in new} == {0, 1, 2}


def test_the_folder_of_another_plan_or_configuration_is_refused(whole, write_plan, capsys):
    before = timing(whole)
    assert main(["sweep", str(write_plan(("name: small", "name: other"))), "--out", str(whole)]) == 2
    assert "holds a sweep of name 'small', not 'other'" in capsys.readouterr().err
    change = ("fields: {lambda: itrpo}", "fields: {alpha: 0.25}")
    assert main(["sweep", str(write_plan(change)), "--out", str(whole)]) == 2
    assert "algorithm_config.alpha: " in capsys.readouterr().err
    assert timing(whole) == before


def test_a_dry_run_lists_every_run_and_writes_nothing(write_plan, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sweep", "--dry-run", str(write_plan()), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}/{arm}" in printed for name in ("one", "two") for arm in ("itrpo", "brac"))
    assert "4 to do with 6,400 steps x seeds" in printed
    assert not out.exists()


def test_runs_that_a_packed_file_holds_are_not_trained_again(whole, data, write_plan, tmp_path, capsys):
    """Whatever they are called there; not with other constants, more seeds, or other rows."""
    packed, out = tmp_path / "rows.parquet", tmp_path / "out"
    pack(read_results([whole]), packed)

    def left(*changes: tuple[str, str]) -> str:
        words = ["sweep", str(write_plan(*changes)), "--out", str(out), "--only", "one", "--packed", str(packed)]
        assert main([*words, "--dry-run"]) == 0
        return capsys.readouterr().out.rpartition("2 runs: ")[2].partition(" with")[0]

    assert left().startswith("2 finished, 0 diverged, 0 to do")
    assert left(("brac:", "control:")).startswith("2 finished, 0 diverged, 0 to do")
    assert left(("lambda: itrpo", "alpha: 0.25")) == "1 finished, 0 diverged, 1 to do"
    assert left(("seeds: 2", "seeds: 3")) == "0 finished, 0 diverged, 2 to do"
    assert left(("steps: 800", "steps: 840")) == "0 finished, 0 diverged, 2 to do"
    other = tmp_path / "one.npz"
    other.write_bytes(data[1].read_bytes())
    assert left((str(data[0]), str(other))) == "0 finished, 0 diverged, 2 to do"
