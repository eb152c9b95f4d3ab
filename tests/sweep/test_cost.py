"""What a plan will take."""

from __future__ import annotations

from pathlib import Path

import pytest

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
