"""Run folders of itrpo 0.1.0 as it was before checkpoints had a version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

import itrpo
from itrpo.errors import InputError

OPTIONS = {"steps": 2, "seeds": 1, "eval_every": 2, "eval_episodes": 1, "action_low": -2.0, "action_high": 2.0}


@pytest.fixture
def old(pendulum: Path, tmp_path: Path) -> Path:
    """A finished run, with config.json and checkpoints as that version wrote them: other fields, and no version."""
    folder = tmp_path / "old"
    itrpo.train(pendulum, "bc", itrpo.RunOptions(**OPTIONS, out=folder), console=Console(quiet=True))
    path = folder / "config.json"
    recorded = json.loads(path.read_text())
    assert recorded.pop("version") == 4
    recorded["config"]["algorithm_config"] = {"backbone": recorded["config"]["algorithm_config"]}
    recorded["config"]["train"]["divergence_limit"] = "inf"
    path.write_text(json.dumps(recorded, indent=2))
    for meta in folder.glob("checkpoints/*/meta.json"):
        written = json.loads(meta.read_text())
        assert set(written) == {"run", "dataset_sha256", "phase", "step", "seeds", "sha256"}
        del written["seeds"]
        meta.write_text(json.dumps(written))
    return folder


def test_it_does_not_continue_and_still_evaluates(old, pendulum):
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as refused:
        itrpo.train(pendulum, "bc", itrpo.RunOptions(**OPTIONS | {"steps": 4}, out=old), console=Console(quiet=True))
    assert str(refused.value) == (
        f"{old} was begun by an earlier version of itrpo, whose checkpoints this one does not continue; train anew in "
        f"another --out (`itrpo evaluate {old}` still works)"
    )
    assert itrpo.evaluate(old, episodes=1).returns.shape == (1, 1)
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
