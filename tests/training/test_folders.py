"""Where a run goes that is told nowhere else, and a run in the place of its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import itrpo


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = np.arange(40) % 10 == 9
    return {
        "observations": rng.normal(size=(40, 2)),
        "actions": rng.uniform(-1, 1, (40, 1)),
        "rewards": rng.normal(size=40),
        "terminals": ends,
        "timeouts": np.zeros(40, bool),
    }


def test_other_arrays_go_into_another_folder_and_a_run_stands_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    options = itrpo.RunOptions(scale="smoke", steps=2, seeds=1, env="none", behavior_steps=2)
    first, second = (
        itrpo.train(arrays(seed), "bc", options, fields={"hidden": (4,)}, console=Console(quiet=True))
        for seed in (0, 1)
    )
    assert first.folder != second.folder
    exported = itrpo.export(first, "npz", tmp_path / "policy.npz", guards=itrpo.GuardOptions(guards=False))
    seen = np.zeros((1, 2), np.float32)
    np.testing.assert_array_equal(itrpo.load_policy(exported.paths[0])(seen), first.policy(seen))
    with pytest.raises(itrpo.InputError, match="was trained on all episodes"):
        itrpo.judge(first, console=Console(quiet=True))
