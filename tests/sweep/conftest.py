"""Two small datasets of random rows, a plan of small networks, and `itrpo sweep` as other tools call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PLAN = """
name: small
datasets: [{one}, {two}]
arms:
  itrpo: {{title: iTRPO}}
  brac: {{algorithm: brac_v, fields: {{lambda: itrpo}}}}
options: {{steps: 800, seeds: 2, eval_every: 40, env: none, behavior_steps: 20, preset: quick}}
datasets_options:
  "*": {{fields: {{itrpo: {small}, brac_v: {small}}}}}
"""
SMALL = "{policy_hidden: [8], critic_hidden: [8], behavior_hidden: [8], batch_size: 16}"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(
            folder / f"{name}.npz",
            observations=rng.normal(size=(200, 3)),
            actions=rng.uniform(-0.9, 0.9, (200, 1)),
            rewards=rng.normal(size=200),
            terminals=np.zeros(200, bool),
            timeouts=np.arange(200) % 10 == 9,
        )
    return folder / "one.npz", folder / "two.npz"


@pytest.fixture
def write_plan(data: tuple[Path, Path], tmp_path: Path) -> Callable[..., Path]:
    """A file with the plan, some of its words replaced by others."""

    def write(*changes: tuple[str, str]) -> Path:
        text = PLAN.format(one=data[0], two=data[1], small=SMALL)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write


def sweep(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "itrpo.cli", "sweep", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
