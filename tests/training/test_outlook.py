"""What is said before a run. One measurement, of tiny networks."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from itrpo.cli import main
from itrpo.console import silent_console
from itrpo.errors import InputError
from itrpo.evaluation.beside import Evaluations
from itrpo.options import RunOptions
from itrpo.results import trackers
from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Status
from itrpo.training import outlook
from itrpo.training.compare import prepare
from itrpo.training.outlook import LONG, Expected, confirm, look_ahead, print_outlook
from itrpo.training.session import Own, Session, ready

BOUNDS = ["--action-low", "-2", "--action-high", "2"]
TINY = ["--policy-hidden", "8,8", "--critic-hidden", "8,8", "--batch-size", "8"]


def test_a_dry_run_measures_and_writes_nothing(pendulum, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outlook, "MEASURED_SECONDS", 0.05)
    out = tmp_path / "run"
    words = ["train", str(pendulum), *BOUNDS, *TINY, "--algorithm", "td3_bc", "--steps", "1000000", "--seeds", "2"]
    assert main([*words, "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in ("dataset    pendulum: 995 rows", "algorithm  TD3+BC, preset source, on ", "2 seeds x 1,000,000 steps"):
        assert part in said
    assert f"run folder {out}; the policies in it: seedK/policy.npz" in said
    assert "steps/s" in said
    assert "1 run of 2 seeds x 1,000,000 steps into" in said
    assert not out.exists()


def test_a_dry_run_says_first_what_does_not_fit(pendulum, capsys):
    wide = ["--action-low", "-8", "--action-high", "8", "--steps", "20", "--dry-run", "--algorithm", "td3_bc"]
    assert main(["train", str(pendulum), *wide]) == 0
    said = capsys.readouterr().out
    assert said.index("warning: ") < said.index("algorithm  TD3+BC")
    assert "Pendulum-v1 takes actions from -2 to 2, but the bounds given are from -8 to 8" in said
    assert main(["train", str(pendulum), *wide, "--env", "Hopper-v3"]) == 2
    assert "dataset" not in capsys.readouterr().out


def test_a_log_that_prefers_nothing_is_told(tmp_path, capsys):
    columns = {
        "observations": np.eye(40),
        "actions": np.linspace(-0.9, 0.9, 40)[:, None],
        "timeouts": np.arange(40) == 39,
    }
    for name, reward, ends in (("none", 0.0, False), ("alive", 1.0, True)):  # to survive may be all
        terminals = np.arange(40) == (20 if ends else -1)
        np.savez(tmp_path / f"{name}.npz", **columns, rewards=np.full(40, reward), terminals=terminals)
        assert main(["train", str(tmp_path / f"{name}.npz"), "--env", "none", "--scale", "smoke", "--dry-run"]) == 0
        assert ("every reward is 0, and no episode ends" in capsys.readouterr().out) is not ends


def test_every_part_of_training_is_measured(pendulum, tmp_path, monkeypatch):
    """COMBO fits its model in the first sixth of the steps, and these are several times faster than the others."""
    monkeypatch.setattr(outlook, "MEASURED_SECONDS", 0.0)
    options = RunOptions(preset="quick", steps=6_000, seeds=1, out=tmp_path, action_low=-2.0, action_high=2.0)
    work = prepare(str(pendulum), ["td3_bc"], options, None, None, silent_console())
    config, seen = work.runs[0][0], list[int]()
    own = (Own(RunFolder(tmp_path), config, ""),)
    session = Session(own, range(1), work.dataset, *ready(config, work.dataset), Evaluations(), silent_console(), [])

    def update(state, batch, key, step):
        jax.debug.callback(lambda step: seen.append(int(step)), step)
        return state, {"loss": jnp.mean(state)}

    assert outlook.seconds_per_step(session, update, jnp.zeros((1, 3)), 8) > 0
    jax.effects_barrier()
    assert {step // 1_000 for step in seen} == set(range(6))


def test_what_is_done_is_not_measured_again(pendulum, tmp_path, monkeypatch):
    """Of 4,000 steps 3,000 are done by the first run, and all by the second."""
    monkeypatch.setattr(outlook, "measured", lambda config, dataset: (50.0, 0.01))
    options = RunOptions(preset="quick", steps=4_000, seeds=2, out=tmp_path, action_low=-2.0, action_high=2.0)
    work = prepare(str(pendulum), ["itrpo", "brac_v", "td3_bc"], options, None, None, silent_console())
    fresh = look_ahead(work.runs, work.dataset, silent_console())
    assert [each.seconds for each in fresh] == pytest.approx([90, 40, 90])  # brac_v has the fit of itrpo
    for name, done in (("itrpo", 3_000), ("brac_v", 4_000)):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).write_status(Status("x", name, "p", None, 2, 1, done, 4_000, "stopped"))
    begun = look_ahead(work.runs, work.dataset, silent_console())
    assert [each.seconds for each in begun] == pytest.approx([10, 0, 90])
    enough = look_ahead(work.runs, work.dataset, silent_console(), enough=5.0)
    assert [each.seconds for each in enough] == [pytest.approx(10), 0, None]
    console = Console(file=io.StringIO(), width=200)
    assert print_outlook(enough, tmp_path, console) == pytest.approx(10)
    said = console.file.getvalue()
    for part in ("about 0:10 at 100 steps/s, from step 3,000", "finished", "not measured", "3 runs of 2 seeds x 4,000"):
        assert part in said
    assert "at least 0:10" in said


def test_short_runs_are_over_before_they_are_measured(pendulum, tmp_path):
    options = RunOptions(scale="smoke", out=tmp_path, action_low=-2.0, action_high=2.0)
    work = prepare(str(pendulum), ["td3_bc"], options, None, None, silent_console())
    (only,) = look_ahead(work.runs, work.dataset, silent_console())
    assert only == Expected(work.runs[0][0], 0, None, None)


def test_weeks_are_not_begun_by_mistake(pendulum, tmp_path, monkeypatch, capsys):
    """Without a terminal it takes a flag, on one a yes."""
    confirm(LONG, silent_console())
    monkeypatch.setattr(outlook, "measured", lambda config, dataset: (0.0, 2.0))
    for words in (["compare", "--algorithms", "itrpo,bc"], ["train", "--algorithm", "bc"]):
        command = [words[0], str(pendulum), *words[1:], *BOUNDS, "--out", str(tmp_path / "out")]
        assert main(command) == 2
        assert "this would take 23 days 3 h here, or longer: give --yes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer, trains in (("n", False), ("", False), ("y", True)):
        console = Console(file=io.StringIO(), force_terminal=True, color_system=None)
        monkeypatch.setattr("builtins.input", lambda *_, answer=answer: answer)
        if trains:
            confirm(2 * LONG, console)
        else:
            with pytest.raises(InputError, match="nothing was trained"):
                confirm(2 * LONG, console)
        assert "14 days 0 h" in console.file.getvalue()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_written(pendulum, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    words = ["train", str(pendulum), *BOUNDS, *TINY, "--scale", "smoke", "--out", str(tmp_path / "run")]
    assert main([*words, "--track", "wandb"]) == 2
    assert "--track wandb needs `pip install itrpo[wandb]`" in capsys.readouterr().err
    assert not Path(tmp_path / "run").exists()
