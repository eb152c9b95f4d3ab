"""The files of examples/ run, at a smaller size; three of them share one run, as their texts say."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from itrpo import files
from itrpo.collection import demo, making
from itrpo.ope.estimate import JudgeOptions
from itrpo.ope.fqe import FQE

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tank(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("examples") / "tank"
    example("own_arrays_to_policy").main(out, steps=30, seeds=1)
    return out


def test_every_example_is_short_says_what_it_is_and_is_run_here():
    sources = {path.stem: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    here = Path(__file__).read_text("utf-8")
    assert len(sources) >= 5
    for name, source in sources.items():
        assert len(source.splitlines()) <= 40, name
        assert source.startswith('"""'), name
        assert f'example("{name}").main(' in here or f'"{name}.py"' in here


@pytest.mark.slow
def test_own_arrays_become_a_policy_in_their_units(tank, capsys):
    log = example("own_arrays_to_policy").log()
    assert 0 <= log["actions"].min() < 0.1 < 0.9 < log["actions"].max() <= 1
    assert (tank / "seed0" / "policy.npz").exists()


@pytest.mark.slow
def test_it_is_deployed_by_two_files_without_itrpo(tank, tmp_path):
    """Copies of the example, of itrpo/policy.py and of the policy, where `import itrpo` and `import jax` fail."""
    shutil.copy(EXAMPLES / "deploy_with_numpy.py", tmp_path)
    shutil.copy(EXAMPLES.parent / "itrpo" / "policy.py", tmp_path)
    shutil.copy(tank / "seed0" / "policy.npz", tmp_path)
    code = """
import sys
sys.modules["itrpo"] = sys.modules["jax"] = None
sys.path.insert(0, ".")
import deploy_with_numpy
print(repr(float(deploy_with_numpy.main("policy.npz", minutes=5))))"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cost = example("deploy_with_numpy").main(tank / "seed0" / "policy.npz", minutes=5)
    assert float(done.stdout.splitlines()[-1]) == cost
    assert 0 < cost < 3


@pytest.mark.slow
def test_it_is_judged_on_the_episodes_that_were_held_out(tank, capsys):
    judgement = example("judge_offline").main(tank, JudgeOptions(folds=3, behavior_steps=10, fqe=FQE(steps=10)))
    assert (judgement.unseen, judgement.episodes) == ("--holdout 0.2 of tank", 40)
    assert judgement.rows == 40 * 59  # an episode that is cut has no successor of its last row
    assert "seed 0 by fqe" in capsys.readouterr().out


@pytest.fixture
def small_demo(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    shares = (demo.Share("hopper_sac_040k", 1), demo.Share("hopper_sac_100k", 2))
    making.make(demo.plan(shares, steps_per_slot=400), files.generated_path("hopper-demo"), workers=1)


@pytest.mark.slow
def test_a_name_becomes_a_score(small_demo, tmp_path, capsys):
    example("train_and_evaluate").main(tmp_path / "run", "smoke", episodes=2)
    assert "over 2 episodes" in capsys.readouterr().out


@pytest.mark.slow
def test_two_are_compared_on_the_same_seeds(small_demo, tmp_path):
    scores = example("compare_two").main(tmp_path / "two", "smoke")
    assert scores["algorithm"].to_list() == ["itrpo", "itrpo", "td3_bc", "td3_bc"]
    assert np.isfinite(scores["value"].to_numpy()).all()
