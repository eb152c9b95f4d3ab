"""The Python of docs/judging.md runs as printed, on a small log and with few steps."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from itrpo.ope import estimate, fqe

PAGE = (Path(__file__).parents[2] / "docs" / "judging.md").read_text("utf-8")


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    rng, rows = np.random.default_rng(0), 60
    timeouts = np.arange(rows) % 6 == 5
    columns = {"observations": (rows, 4), "actions": (rows, 3), "rewards": rows}
    np.savez(
        tmp_path / "log.npz",
        **{name: rng.uniform(-0.9, 0.9, shape) for name, shape in columns.items()},
        terminals=np.zeros(rows, bool),
        timeouts=timeouts,
    )
    few = estimate.JudgeOptions(folds=2, fqe=fqe.FQE(steps=20, hidden=(8,)))
    monkeypatch.setattr(estimate, "judge_candidates", partial(estimate.judge_candidates, options=few))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    block = block.replace("hopper-demo", str(tmp_path / "log.npz")).replace(
        "fit_behavior(known)", "fit_behavior(known, 20)"
    )
    names: dict = {}
    exec(block, names)  # our own page
    assert "Against(value=" in capsys.readouterr().out
    assert [it.name for it in names["judged"]] == ["still", "log"]


@pytest.mark.parametrize("name", ["FEW_EPISODES", "SMALL_SAMPLE", "UNSEEN", "BIAS", "STILL"])
def test_what_the_page_says_of_reasons_is_so(name):
    said = {
        "FEW_EPISODES": "fewer than 20",
        "SMALL_SAMPLE": "Below 10 there is no interval",
        "UNSEEN": "more than 10% of its actions",
        "BIAS": "by more than 10% and more than noise",
        "STILL": "more than its spread and 2%",
    }
    value = getattr(estimate, name)
    number = f"{value:g}" if value >= 1 else f"{value:.0%}"
    assert number in said[name]
    assert said[name] in PAGE
