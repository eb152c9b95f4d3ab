"""What a plan will take."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Status
from itrpo.sweep import cost
from itrpo.sweep.plan import read_plan


@pytest.mark.parametrize("algorithm", ["bc", "bc_discrete"])
def test_the_speed_of_an_algorithm_is_measured_on_actions_that_it_takes(tmp_path: Path, algorithm: str):
    path = tmp_path / "plan.yaml"
    options = "{steps: 10000, seeds: 2, env: none, preset: quick}"
    path.write_text(f"name: p\ntitle: P\ndatasets: [hopper-demo]\narms:\n  {algorithm}: {{}}\noptions: {options}\n")
    (run,) = read_plan(str(path)).runs
    seconds = cost.measure(run)
    assert seconds is not None, "its run failed"
    assert 0 < seconds < 1


def test_a_cache_that_is_damaged_or_can_not_be_written_stops_nothing(tmp_path: Path, monkeypatch):
    path = tmp_path / "plan.yaml"
    path.write_text("name: p\ntitle: P\ndatasets: [hopper-demo]\narms: {bc: {}}\noptions: {steps: 10000, env: none}\n")
    plan, quiet = read_plan(str(path)).runs, Console(quiet=True)
    monkeypatch.setattr(cost, "measure", lambda run: 0.25)
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path))
    kept = tmp_path / "sweep_speeds.json"
    for damage in ('{"truncated": 0.', None):
        if damage is not None:
            kept.write_text(damage)
        else:
            kept.unlink()
            kept.mkdir()  # nothing can be written there
        assert set(cost.measured_speeds(plan, {}, quiet).values()) == {0.25}


def test_what_a_seed_takes_is_known_while_others_are_added(tmp_path: Path):
    """0.1 seconds each: one alone, and four once the others have joined it; the status says four before they have."""
    folder = RunFolder(tmp_path)
    folder.write_status(Status("x", "iql", "p", None, 4, 1, 20, 20, "unfinished"))
    for seeds in (1, 4):
        seconds = {"train_seconds": 20 * 0.1 * seeds, "waited_seconds": 0.0}
        folder.append_timing({"step": 20, "seeds": seeds, "steps_per_second": 10 / seeds} | seconds)
        assert cost.seconds_per_step(tmp_path) == pytest.approx(0.1)
