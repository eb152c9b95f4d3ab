"""Environments as users bring them: of their own module, of another scale than the log, faulty at once or later."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import itrpo
from itrpo.cli import main
from itrpo.data.fit import misfit
from itrpo.evaluation import environments
from itrpo.evaluation.environments import spaces_of
from itrpo.files import read_json
from itrpo.policy import load_policy
from itrpo.results import checkpoint
from itrpo.results.store import read_metrics, read_status
from itrpo.types import SpaceSpec
from tests.data.formats.test_minari import BOX, write_folder
from tests.own_envs import FAULT

OWN = "tests.own_envs:Mine-v0"
BOUNDS = ["--action-low", "-2", "--action-high", "2"]
SMALL = ["--algorithm", "bc", "--preset", "quick", "--hidden", "4,4", "--seeds", "1"]
SMALL += ["--steps", "20", "--eval-every", "10", "--eval-episodes", "2"]


def write_log(path: Path, largest: float = 2.0, **more: str) -> Path:
    """Four episodes of five steps, with two observations and one action, as `Mine` has them."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, 1)).astype(np.float32)
    actions *= largest / np.abs(actions).max()
    np.savez(
        path,
        observations=rng.normal(size=(20, 2)).astype(np.float32),
        actions=actions,
        rewards=actions[:, 0],
        terminals=np.zeros(20, bool),
        timeouts=np.arange(20) % 5 == 4,
        **{name: np.array(value) for name, value in more.items()},
    )
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("data") / "log.npz")


def train(log: Path, out: Path, *more: str) -> int:
    return main(["train", str(log), *SMALL, "--out", str(out), *more])


@pytest.fixture(scope="module")
def finished(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is evaluated beside training, in a process that imports the module too."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(log, out, "--env", OWN, *BOUNDS) == 0
    return out


# --- an environment of one's own ---------------------------------------------------------------------------------


def test_it_is_trained_evaluated_and_named_again_by_who_evaluates(finished, capsys, monkeypatch):
    assert read_json(finished / "config.json")["config"]["data"]["env"] == OWN
    metrics = read_metrics(finished)
    lengths = metrics.filter(metrics["metric"] == "episode_length")["value"].to_list()
    assert lengths == [5.0, 5.0]
    assert main(["evaluate", str(finished), "--env", OWN, "--episodes", "2"]) == 0
    assert f"{OWN}, policies after 20 gradient" in capsys.readouterr().out
    monkeypatch.setattr(environments, "_ALLOWED", set())  # as another process would find the folder
    assert main(["evaluate", str(finished)]) == 2
    assert f"only if you name it yourself: itrpo evaluate {finished} --env {OWN}" in capsys.readouterr().err


def test_references_of_a_minari_set_make_the_score(tmp_path, capsys):
    """-1 to 3: D4RL knows nothing of `Mine`. In another environment they say nothing."""
    said = {"env_spec": json.dumps({"id": "Mine-v0"}), "ref_min_score": -1.0, "ref_max_score": 3.0}
    data, out = tmp_path / "mine-v0", tmp_path / "run"
    steps = {
        "observations": np.random.default_rng(0).normal(size=(6, 2)),
        "actions": np.linspace(-2, 2, 5)[:, None].astype(np.float32),
        "rewards": np.linspace(-2, 2, 5),
        "terminations": np.zeros(5, bool),
        "truncations": np.arange(5) == 4,
    }
    write_folder(data, [steps] * 4, action_space=json.dumps(BOX | {"low": [-2.0], "high": [2.0]}), **said)
    assert train(data, out, "--env", OWN) == 0
    rows = read_metrics(out)
    returns, scores = (rows.filter(rows["metric"] == it)["value"].to_numpy() for it in ("return", "score"))
    np.testing.assert_allclose(scores, 25 * (returns + 1), rtol=1e-12)
    assert len(scores) == 2
    assert read_json(out / "provenance.json")["dataset"]["reference"] == [-1, 3]
    assert load_policy(out / "seed0" / "policy.npz").metadata["reference"] == [-1, 3]
    found = itrpo.evaluate(out, env=OWN, episodes=2)
    np.testing.assert_allclose(found.scores, 25 * (found.returns + 1), rtol=1e-12)
    assert itrpo.evaluate(out, env="tests.own_envs:Other-v0", episodes=2).scores is None
    assert main(["datasets", "info", str(data), "--env", OWN]) == 0
    printed = capsys.readouterr().out
    assert "0 and 100: returns of -1 and 3" in re.sub(r"[│\s]+", " ", printed)  # lines of a table's cell
    assert "D4RL" not in printed


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("no_such_module:Mine-v0", "environment 'no_such_module:Mine-v0' can't be imported (ModuleNotFoundError"),
        ("tests.own_envs:Mind-v0", "registers no 'Mind-v0' (did you mean 'Mine-v0'?)"),
        ("tests.own_envs:Mine", "it must call gymnasium.register('Mine', entry_point='tests.own_envs:Mine'"),
        ("Nonsense-v9", "unknown environment 'Nonsense-v9'; give the full id"),
        ("Nonsense-v9", "for one of your own the module that registers it too: MODULE:Nonsense-v9"),
        ("Hopper-v3", "its successor is --env Hopper-v4"),
        ("hopper-medium-v2", "--env hopper-medium-v2 is a dataset's name, whose environment is Hopper-v4"),
        ("hopper-demo", "--env hopper-demo is a dataset's name; give an environment's id"),
    ],
)
@pytest.mark.parametrize("command", ["train", "datasets info", "datasets check"])
def test_a_name_that_is_none_is_one_sentence(command, env, words, log, capsys):
    assert main([*command.split(), str(log), *BOUNDS, "--env", env]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "error" not in said.out


def test_no_module_that_a_file_names_is_imported(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "nasty.py").write_text("import gymnasium, tests.own_envs\nTOUCHED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    log = write_log(tmp_path / "log.npz", env_id="nasty:Mine-v0")
    assert train(log, tmp_path / "run", *BOUNDS) == 2
    assert "is the word of a file" in (said := capsys.readouterr().err)
    assert "if you trust it, give --env nasty:Mine-v0" in said
    assert not (tmp_path / "run").exists()
    assert main(["datasets", "info", str(log), *BOUNDS]) == 0
    assert "give --env nasty:Mine-v0" in " ".join(capsys.readouterr().out.replace("\u2502", "").split())
    assert main(["datasets", "check", str(log), *BOUNDS]) == 0
    (tmp_path / "plan.yaml").write_text(f"datasets: [{log}]\narms: {{bc: {{}}}}\noptions: {{env: 'nasty:Mine-v0'}}\n")
    plan = ["sweep", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "sweep")]
    assert main(plan) == 2
    assert "plan.yaml: options.env: a plan is a file" in (said := capsys.readouterr().err)
    assert "give itrpo sweep ... --env nasty:Mine-v0" in said
    assert "nasty" not in sys.modules
    assert main(["datasets", "info", str(log), *BOUNDS, "--env", "nasty:Mine-v0"]) == 0
    assert sys.modules["nasty"].TOUCHED


# --- faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("reset", "fails at reset(seed=0): RuntimeError: the simulator has no licence"),
        ("old-reset", "it must return observation, info (gymnasium's API)"),
        ("step", "fails at its first step: KeyError: 'valve'"),
        ("old-step", "it must return observation, reward, terminated, truncated, info (gymnasium's API)"),
        ("reward", "the reward of a step is [0.0]; it must be one number"),
        ("observation", "its observation_space says 2 finite numbers"),
    ],
)
def test_one_that_fails_at_once_ends_before_any_work(fault, words, log, tmp_path, capsys):
    env = f"tests.own_envs:Faulty-{fault}-v0"
    assert train(log, tmp_path / "run", *BOUNDS, "--env", env) == 2
    said = capsys.readouterr().err
    assert words in said
    assert env in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_one_that_fails_later_loses_nothing(finished, log, tmp_path, capsys, monkeypatch):
    """In the process beside training. Once it is mended the same command ends in the bits of a run without a fault."""
    out = tmp_path / "run"
    monkeypatch.setenv(FAULT, "1")
    assert train(log, out, "--env", OWN, *BOUNDS) == 1
    said = capsys.readouterr().err
    assert f"environment {OWN} failed at a step: ConnectionError: lost the simulator" in said
    assert "own_envs.py:" in said
    assert "Traceback" not in said
    status = read_status(out)
    assert (status.state, status.message) == ("failed", said.removeprefix("error: ").strip())
    assert checkpoint.sorted_checkpoints(out / "checkpoints")[0].name == f"train_{status.step:010}"
    assert main(["runs", "list", "--root", str(tmp_path)]) == 0
    assert "failed" in capsys.readouterr().out
    assert main(["evaluate", str(out), "--env", OWN]) == 1
    assert "lost the simulator" in capsys.readouterr().err
    monkeypatch.delenv(FAULT)
    assert train(log, out, "--env", OWN, *BOUNDS) == 0
    assert (out / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert read_status(out) == read_status(finished)


# --- the scale of actions ----------------------------------------------------------------------------------------


def found(env_id, low, high, bounds, actions, observations=3):
    low, high = (np.array([it], np.float32) for it in (low, high))
    values = np.asarray(actions, np.float32).reshape(-1, 1)
    return misfit(env_id, "log.npz", SpaceSpec(observations, 1), low, high, bounds, values)


@pytest.mark.parametrize(
    ("bounds", "low", "high", "severity"),
    [
        ("assumed", -1, 1, "error"),  # nobody has said anything
        ("declared", -1, 1, "error"),  # such as through a wrapper that rescales
        ("declared", -2, 2, None),
        ("given", -2, 2, None),
        ("given", -2.00001, 2, None),
        ("given", -8, 8, "warning"),
        ("given", -1, 1, "warning"),
        ("given", -2, 1, "warning"),
    ],
)
def test_bounds_are_compared_with_the_environments(bounds, low, high, severity):
    result = found("Pendulum-v1", low, high, bounds, [-0.9, 0.7])
    assert (result and result.severity) == severity
    if result is not None:
        assert "Pendulum-v1 takes actions from -2 to 2" in result.what
        assert f"from {low} to {high}" in result.what
        assert "--action-low -2 --action-high 2" in result.advice


def test_a_scaled_log_within_the_right_bounds_is_noticed():
    result = found("Pendulum-v1", -2, 2, "given", [-0.5, 0.49])  # reaches -1 and 0.98 of the environment's -2 and 2
    assert result is not None
    assert result.severity == "warning"
    assert "all logged actions are within [-1, 1], and reach 1" in result.what
    assert found("Pendulum-v1", -2, 2, "given", [-0.5, 0.6]) is None


def test_sizes_are_compared():
    result = found("Pendulum-v1", -2, 2, "given", [0.0, 0.1], observations=4)
    assert result is not None
    assert "log.npz: its observations have 4 numbers and those of Pendulum-v1 have 3" in result.what


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Ant-v4", "itrpo/AntMaze_UMaze-v0"])
def test_d4rls_actions_fit_their_environments(env_id):
    spec = spaces_of(env_id).spec
    ones = np.ones(spec.action_dim, np.float32)
    assert misfit(env_id, "", spec, -ones, ones, "assumed", np.array([-ones, ones])) is None


def test_a_log_of_another_scale_is_met_everywhere(finished, tmp_path, capsys):
    """Actions divided by two, and no bounds: what acted at half strength without a word."""
    log = write_log(tmp_path / "half.npz", largest=1.0)
    words = "Mine-v0 takes actions from -2 to 2, but no bounds were given, so they are taken to be from -1 to 1"
    assert train(log, tmp_path / "run", "--env", OWN) == 2
    said = capsys.readouterr().err
    assert f"error: {log}: {OWN.partition(':')[0]}:{words}" in said
    assert "give --action-low -2 --action-high 2" in said
    assert not (tmp_path / "run").exists()
    assert main(["datasets", "check", str(log), "--env", OWN]) == 1
    assert words in " ".join(capsys.readouterr().out.split())
    assert main(["datasets", "info", str(log), "--env", OWN]) == 0
    assert words in " ".join(capsys.readouterr().out.replace("\u2502", "").split())
    assert main(["datasets", "check", str(log), "--env", "none"]) == 0
    assert train(log, tmp_path / "run", "--env", "none") == 0
    assert main(["evaluate", str(tmp_path / "run"), "--env", OWN, "--episodes", "1"]) == 0
    assert "takes actions from -2 to 2, but the policies in" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--env", OWN, "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 1
    assert main(["evaluate", str(finished), "--env", OWN, "--episodes", "1"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_sizes_that_do_not_fit_have_no_score_and_name_the_file(tmp_path, capsys):
    log = write_log(tmp_path / "log.npz", largest=1.0)
    assert main(["datasets", "info", str(log), "--env", "Hopper-v4"]) == 0
    said = capsys.readouterr().out
    assert "D4RL" not in said
    assert "does not fit" in said
    assert main(["train", str(log), "--env", "Hopper-v4", "--out", str(tmp_path / "run")]) == 2
    assert f"{log}: its observations have 2 numbers and those of Hopper-v4 have 11" in capsys.readouterr().err
