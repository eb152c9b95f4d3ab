"""`--continue-from`: a run that begins with another's networks, on new data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import itrpo
from itrpo import RunOptions, train
from itrpo.cli import main
from itrpo.console import silent_console
from itrpo.errors import InputError
from itrpo.files import read_json, write_json
from itrpo.options import lengths
from itrpo.policy import load_policy
from itrpo.results import checkpoint
from itrpo.training import continuing
from itrpo.training.continuing import options_for
from itrpo.training.restore import read_config
from itrpo.training.train import prepare

FIELDS = {"policy_hidden": (8,), "critic_hidden": (8,), "behavior_hidden": (8,), "alpha": 0.7}
SHORT = {"steps": 20, "eval_every": 20, "seeds": 2, "behavior_steps": 20, "env": "none"}


@pytest.fixture(scope="module")
def new_data(pendulum, tmp_path_factory) -> Path:
    """Other rows than the old ones, and on another scale than theirs: what a normaliser would notice."""
    with np.load(pendulum) as file:
        columns = dict(file)
    columns["observations"] = columns["observations"] * 1.5
    path = tmp_path_factory.mktemp("new") / "new.npz"
    np.savez(path, **{name: it[400:] if len(it) == 1000 else it for name, it in columns.items() if it.ndim})
    return path


def arrays(size: int) -> dict[str, np.ndarray]:
    ends = {"terminals": np.zeros(4), "timeouts": np.arange(4) == 3}
    columns = {"observations": np.ones((4, size), np.float32), "actions": np.zeros((4, 1), np.float32)}
    return columns | ends | {"rewards": np.ones(4)}


def options(out: Path, **more) -> RunOptions:
    return RunOptions(**SHORT | {"action_low": -2.0, "action_high": 2.0} | more, out=out)


@pytest.fixture(scope="module")
def old(pendulum, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "run"
    train(pendulum, "itrpo", options(folder, preset="quick", normalize_observations=True), fields=FIELDS)
    return folder


@pytest.fixture(scope="module")
def new(old, new_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "run"
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    train(new_data, "itrpo", RunOptions(env="none", out=folder), continue_from=old)
    assert before == {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    return folder


def first_state(run: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(run / "checkpoints" / "train_0000000000")[0]


def test_networks_constants_and_normaliser_are_carried_over_and_pi_beta_is_not(old, new):
    last, first = checkpoint.load(old / "checkpoints" / "train_0000000020")[0], first_state(new)
    kinds = {"params": 0, "behavior": 0, "optimiser": 0}
    for name in first:
        if not name.startswith("state/"):
            continue
        if "behavior_params" in name:
            kinds["behavior"] += 1
            assert (first[name] != last[name]).any(), name
        elif "opt_state" in name:
            kinds["optimiser"] += 1
            assert not first[name].any(), name
        else:
            kinds["params"] += 1
            np.testing.assert_array_equal(first[name], last[name], name)
    assert all(kinds.values())
    ours, theirs = (read_json(run / "config.json")["config"] for run in (new, old))
    assert ours["algorithm_config"] == theirs["algorithm_config"]
    assert (ours["algorithm_config"]["alpha"], ours["preset"], ours["train"]["steps"]) == (0.7, "quick", 20)
    parent = ours["data"]["parent"]
    assert parent["run"] == read_json(old / "status.json")["run"]
    assert parent["dataset_sha256"] == read_json(old / "provenance.json")["dataset_sha256"]
    assert (parent["seeds"], parent["step"]) == (2, 20)
    a, b = (load_policy(run / "seed1" / "policy.npz") for run in (new, old))
    np.testing.assert_array_equal(a.observation_mean, b.observation_mean)
    np.testing.assert_array_equal(a.observation_std, b.observation_std)
    assert (np.array(a.metadata["trained_high"]) > b.metadata["trained_high"]).any()  # what both data have
    moved = continuing.changes(old, new, itrpo.load_dataset(arrays(3), action_low=-2.0, action_high=2.0))
    assert (moved > 0).all()
    assert (moved < 0.1).all()  # twenty steps from where they were


def test_a_kill_changes_nothing(old, new, new_data, tmp_path, monkeypatch):
    """Stopped before the first step's checkpoint and after it."""
    from itrpo.training import run as running

    folder = tmp_path / "run"
    for name in ("begin", "train_algorithm"):
        with monkeypatch.context() as patch:

            def stop(*_):
                raise KeyboardInterrupt

            patch.setattr(running, name, stop)
            with pytest.raises(KeyboardInterrupt):
                train(new_data, "itrpo", RunOptions(env="none", out=folder), continue_from=old)
    train(new_data, "itrpo", RunOptions(env="none", out=folder), continue_from=old)
    for name in ("metrics.jsonl", "seed0/policy.npz", "seed1/policy.npz"):
        assert (folder / name).read_bytes() == (new / name).read_bytes()


def test_an_alpha_that_adapts_begins_anew(old, new_data, tmp_path):
    """Also where the old run's was a constant."""
    own = {"divergence_target": 0.5, "alpha_scale": "absolute"}
    short = RunOptions(env="none", steps=2, eval_every=2)
    for name, parent, alpha in (("first", old, 3.0), ("second", tmp_path / "first", 2.0)):
        out = replace(short, out=tmp_path / name)
        train(new_data, "itrpo", out, fields=own | {"alpha": alpha}, continue_from=parent)
        saved = load_file(next((tmp_path / name / "checkpoints").glob("train_*2")) / "arrays.safetensors")
        np.testing.assert_allclose(saved["state/weight/params"], alpha, atol=2.1e-3)  # two steps of its rate


CHOICES = {"actions": np.arange(4)[:, None], "observations": np.eye(4, 3, dtype=np.float32)}
CRITIC = {"critic_hidden": (4,), "batch_size": 4}


@pytest.mark.parametrize(
    ("algorithm", "fields", "given", "name", "value"),
    [
        ("munchausen_dqn", {"alpha": 0.5, "alpha_scale": "relative"}, {"alpha": 0.25}, "alpha", None),
        ("bcq_discrete", {"threshold": 0.3}, {"threshold": 0.75}, "threshold", 0.75),
        ("pbrl", {"ood_record_every": 1, "policy_hidden": (4,)}, {"ood_weight_end": 0.75}, "ood_weight", 0.75),
    ],
)
def test_a_constant_that_is_given_anew_is_in_force(tmp_path, algorithm, fields, given, name, value):
    """Also where a state keeps it."""
    discrete = {"num_actions": 4, "action_low": None, "action_high": None} if algorithm != "pbrl" else {}
    short = {"steps": 1, "eval_every": 1, "seeds": 1, "behavior_steps": None} | discrete
    data = arrays(3) | (CHOICES if discrete else {})
    train(data, algorithm, options(tmp_path / "old", preset="matched", **short), fields=CRITIC | fields)
    own = {it: short[it] for it in ("steps", "eval_every", "seeds")} | discrete
    train(data, algorithm, options(tmp_path / "new", **own), fields=given, continue_from=tmp_path / "old")
    first = {it: own[0] for it, own in first_state(tmp_path / "new").items() if it.startswith("state/")}
    if value is None:  # of |Q|
        assert first["state/q_scale"] != 1.0
        value = np.float32(0.25) * first["state/q_scale"]
    assert first[f"state/{name}"] == value
    assert not first.get("state/records", np.zeros(1)).any()


def test_a_scale_that_is_given_counts_whichever_it_is(old, tmp_path):
    parent = read_config(old)
    kept = options_for(parent, RunOptions(), old, False)
    assert (kept.steps, kept.seeds) == (parent.train.steps, parent.train.seeds)
    for scale, steps in (("smoke", 300), ("laptop", 12_000), ("paper", 1_000_000)):
        asked = options_for(parent, RunOptions(scale=scale), old, False)
        assert asked.steps is None
        assert lengths(asked, False).steps == steps


def test_what_can_not_be_continued(old, new_data, tmp_path):
    def attempt(data=new_data, algorithm="itrpo", parent=old, fields=None, **given):
        train(
            data,
            algorithm,
            RunOptions(**{"env": "none", "out": tmp_path / "x"} | given),
            fields=fields,
            continue_from=parent,
        )

    with pytest.raises(InputError, match="is a run of itrpo, and only itrpo can continue it: give --algorithm itrpo"):
        attempt(algorithm="iql")
    with pytest.raises(InputError, match="--preset: it stays quick"):
        attempt(preset="source")
    with pytest.raises(InputError, match="--normalize-observations"):
        attempt(normalize_observations=False)
    with pytest.raises(InputError, match=r"policy.params.*\[8, 3\] there and \[4, 3\] here"):
        attempt(fields={"policy_hidden": (4,), "behavior_hidden": (4,)})
    with pytest.raises(InputError, match="has 2 seeds: ask for --seeds 2 or fewer"):
        attempt(seeds=3)
    with pytest.raises(InputError, match=r"action_high is \[4.0\], and \[2.0\] in"):
        attempt(action_high=4.0)
    with pytest.raises(InputError, match="numbers in an observation: 4 here, 3 there"):
        attempt(data=arrays(4))
    stopped = tmp_path / "stopped"
    shutil.copytree(old, stopped)
    write_json(stopped / "status.json", read_json(old / "status.json") | {"state": "stopped", "step": 7})
    with pytest.raises(InputError, match=r"is stopped \(step 7 of 20\): finish it first"):
        attempt(parent=stopped)
    with pytest.raises(InputError, match="is no run"):
        attempt(parent=tmp_path / "nowhere")
    assert not (tmp_path / "x").exists()


def test_a_run_begins_as_the_very_policy_that_it_continues(old, new_data, tmp_path):
    """What a policy that acts through pi_beta (PLAS, BCQ) would not."""
    other = tmp_path / "other"
    shutil.copytree(old, other)
    with np.load(other / "seed0" / "policy.npz") as file:
        content = dict(file)
    content["bias_0"][0] += 1e-6
    np.savez(other / "seed0" / "policy.npz", **content)
    with pytest.raises(InputError, match="its policy acts through the model of pi_beta"):
        train(new_data, "itrpo", RunOptions(env="none", out=tmp_path / "x"), continue_from=other)


def test_the_command(old, new_data, tmp_path, capsys):
    words = ["--continue-from", str(old), "--env", "none", "--seeds", "1", "--out", str(tmp_path / "run")]
    assert main(["train", str(new_data), *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "normalised as in run" in said
    assert "of the range on this data, by seed" in said
    given = RunOptions(env="none", out=tmp_path / "run", steps=7)
    config, _, _ = prepare(new_data, "itrpo", given, {"alpha": 0.5}, silent_console(), old)
    assert (config.algorithm_config.alpha, config.train.steps, config.train.seeds) == (0.5, 7, 2)
