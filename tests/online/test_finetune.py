"""Offline to online: what a step learns from, what a kill changes, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from itrpo import RunOptions, evaluate, export, train
from itrpo.behavior import flow, flow_matching, gaussian
from itrpo.behavior.likelihood import LikelihoodFit
from itrpo.cli import main
from itrpo.collection.online_rows import row_type
from itrpo.console import silent_console
from itrpo.data.load import load_dataset
from itrpo.data.preprocess import Preprocess
from itrpo.errors import InputError
from itrpo.online import finetune as finetuning
from itrpo.online.finetune import Config, drawn_rows, finetune, regret, returns_of
from itrpo.policy import load_policy
from itrpo.report.runs import list_runs
from itrpo.results.store import read_metrics
from itrpo.training.restore import read_config
from itrpo.types import SpaceSpec, Transition

FIELDS = {"policy_hidden": (8,), "critic_hidden": (8,), "value_hidden": (8,), "batch_size": 16}
ONLINE = {"steps": 230, "every": 115, "episodes": 2}  # more than an episode of 200


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """Pendulum's own shapes, with rewards that need scaling."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "log.npz"
    np.savez(
        path,
        observations=rng.normal(1, 2, (60, 3)).astype(np.float32),
        actions=rng.uniform(-2, 2, (60, 1)).astype(np.float32),
        rewards=rng.normal(size=60).astype(np.float32),
        terminals=np.zeros(60, bool),
        timeouts=np.arange(60) % 20 == 19,
    )
    return path


@pytest.fixture(scope="module")
def run(log, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "iql"
    options = RunOptions(
        steps=10, seeds=2, eval_every=10, eval_episodes=1, env="Pendulum-v1", out=out, action_low=-2.0, action_high=2.0
    )
    train(log, "iql", options, fields=FIELDS)
    return out


@pytest.fixture(scope="module")
def finetuned(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finetuned") / "run"
    words = [word for name, value in ONLINE.items() for word in (f"--{name}", str(value))]
    assert main(["finetune", str(run), "--out", str(out), *words]) == 0
    return out


@pytest.fixture(scope="module")
def adapts(log, tmp_path_factory) -> Path:
    """A run with pi_beta, and an alpha that adapts."""
    out = tmp_path_factory.mktemp("adapts") / "adapts"
    options = RunOptions(steps=10, seeds=1, eval_every=10, env="none", action_low=-2.0, action_high=2.0, out=out)
    fields = {"policy_hidden": (8,), "critic_hidden": (8,), "behavior_hidden": (8,), "batch_size": 16}
    train(log, "itrpo", options, fields=fields | {"divergence_target": 0.5, "alpha_scale": "absolute"})
    return out


def content(folder: Path) -> dict[str, bytes]:
    names = ("rows.bin", "curve.jsonl", "policy.npz")
    found = {f"{k}/{name}": (folder / f"seed{k}" / name).read_bytes() for k in range(2) for name in names}
    return found | {
        f"{k}/last": (folder / f"seed{k}" / "checkpoints" / "train_0000000230" / "arrays.safetensors").read_bytes()
        for k in range(2)
    }


def test_it_begins_as_the_run_s_policy_and_learns(run, finetuned):
    curve = finetuning.read_curve(finetuned / "seed1")
    assert [row["step"] for row in curve] == [0, 115, 230]
    before, after = (load_policy(folder / "seed1" / "policy.npz") for folder in (run, finetuned))
    np.testing.assert_array_equal(before.observation_std, after.observation_std)
    assert (before.networks[""][0][0] != after.networks[""][0][0]).any()
    assert curve[-1]["online_episodes"] == 1
    rows = np.memmap(finetuned / "seed1" / "rows.bin", row_type(SpaceSpec(3, 1)), "r")
    assert len(rows) == 230
    assert rows["reward"][:200].sum(dtype=np.float64) == pytest.approx(curve[-1]["online_return"], rel=1e-5)
    assert np.flatnonzero(rows["timeout"]).tolist() == [199]
    assert evaluate(finetuned, episodes=1).step == 10 + 230  # the folder is one of policies, which are not the run's


def test_a_kill_changes_no_bit(run, finetuned, tmp_path, monkeypatch):
    """In the middle of an episode, with steps after the checkpoint that are lost."""
    record = finetuning.record

    def killed(trainer, pool):
        if trainer.step == 230 and trainer.index == 0:
            raise MemoryError
        record(trainer, pool)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "record", killed)
        with pytest.raises(MemoryError):
            finetune(run, tmp_path / "run", fields=ONLINE)
    assert (tmp_path / "run" / "seed0" / "rows.bin").stat().st_size == 230 * row_type(SpaceSpec(3, 1)).itemsize
    finetune(run, tmp_path / "run", fields=ONLINE)
    assert content(tmp_path / "run") == content(finetuned)
    assert content(finetuned)["0/policy.npz"] != content(finetuned)["1/policy.npz"]
    with pytest.raises(InputError, match="belongs to another run"):
        finetune(run, tmp_path / "run", fields=ONLINE | {"seed": 1})


class Holding(NamedTuple):
    """A state of an algorithm, as far as a refit sees it."""

    behavior_params: Any


def test_a_refit_ends_at_the_largest_likelihood_of_the_buffer():
    """One state: mean and deviation of u = atanh(a) over the batch, from wherever pi_beta was."""
    u = np.random.default_rng(0).normal([0.6, -0.3], [0.4, 0.2], (256, 2)).astype(np.float32)
    config = gaussian.Config(hidden=(), fit=LikelihoodFit(fit_learning_rate=1e-2, entropy_floor=-20.0))
    model = gaussian.make(config, SpaceSpec(1, 2), finetuning.NO_DROP)
    state = Holding(model.params(model.init(jax.random.key(1))))
    rows = np.zeros((256, 1), np.float32)
    batch = Transition(rows, np.tanh(u), rows[:, 0], rows[:, 0], rows, np.tanh(u))
    fit = finetuning.fit_from(model, state.behavior_params)
    same, nothing, none = finetuning.refitted(None, state, (), batch, jax.random.key(0))
    assert (same, nothing, none) == (state, (), {})
    step = jax.jit(lambda *it: finetuning.refitted(model, *it)[:2])
    for number in range(600):
        state, fit = step(state, fit, batch, jax.random.key(number))
    assert model.moments is not None
    mean, log_std = model.moments(state.behavior_params, jnp.asarray(rows[:1]))
    np.testing.assert_allclose(mean[0], u.mean(0), atol=5e-3)
    np.testing.assert_allclose(np.exp(log_std[0]), u.std(0), rtol=2e-2)


@pytest.mark.parametrize("kind", [flow, flow_matching])
def test_a_refit_of_a_flow_goes_on_from_where_it_was(kind):
    """Flows have no entropy floor."""
    config = replace(kind.Config(), hidden=(8,), fit_learning_rate=1e-4)
    model = kind.make(config, SpaceSpec(1, 2), finetuning.NO_DROP)
    state = Holding(model.params(model.init(jax.random.key(1))))
    rows, actions = jnp.ones((16, 1)), jnp.full((16, 2), 0.5)
    batch = Transition(rows, actions, rows[:, 0], rows[:, 0], rows, actions)
    fit = finetuning.fit_from(model, state.behavior_params)
    new, _, metrics = jax.jit(lambda *it: finetuning.refitted(model, *it))(state, fit, batch, jax.random.key(0))
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), new.behavior_params, state.behavior_params)
    assert 5e-5 < max(jax.tree.leaves(moved)) < 2e-4  # a step of Adam's
    assert metrics
    assert all(map(np.isfinite, metrics.values()))


def test_a_refit_is_in_the_checkpoint(adapts, tmp_path, monkeypatch):
    """A kill changes no bit, nor does an end between two evaluations that was none; without it pi_beta is the run's."""
    run = adapts
    own = {"steps": 60, "every": 30, "episodes": 1, "refit_rate": 1e-3}
    record = finetuning.record

    def killed(trainer, pool):
        if trainer.step == 60:
            raise MemoryError
        record(trainer, pool)

    finetune(run, tmp_path / "whole", env="Pendulum-v1", fields=own)
    finetune(run, tmp_path / "killed", env="Pendulum-v1", fields=own | {"steps": 40})
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "record", killed)
        with pytest.raises(MemoryError):
            finetune(run, tmp_path / "killed", env="Pendulum-v1", fields=own)
    finetune(run, tmp_path / "killed", env="Pendulum-v1", fields=own)
    finetune(run, tmp_path / "frozen", env="Pendulum-v1", fields=own | {"refit_rate": None})
    place = Path("checkpoints") / "train_0000000060" / "arrays.safetensors"
    whole, again, frozen = (tmp_path / name / "seed0" / place for name in ("whole", "killed", "frozen"))
    assert whole.read_bytes() == again.read_bytes()
    curves = [finetuning.read_curve(tmp_path / name / "seed0") for name in ("whole", "killed")]
    assert curves[0] == [row for row in curves[1] if row["step"] != 40]
    before = load_file(run / "checkpoints" / "train_0000000010" / "arrays.safetensors")
    refitted, kept = load_file(whole), load_file(frozen)
    names = [name for name in kept if "behavior_params" in name]
    assert names
    for name in names:
        np.testing.assert_array_equal(kept[name], before[name][0])
        assert (refitted[name] != kept[name]).any()
    assert not any(name.startswith("fit") for name in kept)
    assert {"behavior_nll", "kl"} <= set(finetuning.read_curve(tmp_path / "whole" / "seed0")[-1])
    with pytest.raises(InputError, match="belongs to another run"):
        finetune(run, tmp_path / "whole", env="Pendulum-v1", fields=own | {"refit_rate": 1e-4})


def test_its_policy_is_exported_and_what_was_held_out_stays_so(log, tmp_path):
    """From data with columns of the user's own names, a third of whose episodes the run has never seen."""
    with np.load(log) as file:
        rows = dict(file) | {"timeouts": np.arange(60) % 5 == 4}
    np.savez(tmp_path / "same.npz", **rows)
    names = {"s": "observations", "a": "actions", "r": "rewards", "d": "terminals", "cut": "timeouts"}
    np.savez(tmp_path / "own.npz", **{own: rows[name] for own, name in names.items()})
    options = RunOptions(
        steps=10,
        seeds=1,
        eval_every=10,
        eval_episodes=1,
        env="Pendulum-v1",
        out=tmp_path / "iql",
        action_low=-2.0,
        action_high=2.0,
        holdout=0.3,
        columns={name: own for own, name in names.items()},
    )
    train(tmp_path / "own.npz", "iql", options, fields=FIELDS)
    config = read_config(tmp_path / "iql")
    read = finetuning.read_data(tmp_path / "iql", config, None, silent_console())
    assert len(read) == len(load_dataset(tmp_path / "same.npz", action_low=-2.0, action_high=2.0, holdout=0.3)) < 40
    finetune(tmp_path / "iql", tmp_path / "out", fields={"steps": 20, "every": 20, "episodes": 1})
    done = export(tmp_path / "out", "npz", tmp_path / "policy.npz")
    assert done.proof is not None
    assert done.proof.problem == ""


def test_runs_list_and_plot_know_it(finetuned, tmp_path, capsys):
    (entry,) = list_runs(finetuned.parent)
    assert entry.status is not None
    assert (entry.status.algorithm, entry.status.dataset, entry.status.state) == ("iql, online", "log", "finished")
    assert (entry.status.step, entry.status.steps, entry.status.seeds) == (230, 230, 2)
    curve = finetuning.read_curve(finetuned / "seed1")
    metrics = read_metrics(finetuned)
    own = metrics.filter((metrics["seed"] == 1) & (metrics["metric"] == "return"))
    assert own["step"].to_list() == [0, 115, 230]
    assert own["value"].to_list() == [row["return"] for row in curve]
    assert main(["runs", "list", "--root", str(finetuned.parent)]) == 0
    assert "IQL, online" in capsys.readouterr().out
    assert main(["plot", str(finetuned), "--out", str(tmp_path / "curves.png")]) == 0
    capsys.readouterr()
    assert main(["runs", "show", str(finetuned)]) == 0
    assert "updates_per_step 1" in capsys.readouterr().out
    assert main(["runs", "show", str(finetuned), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["env_id"] == "Pendulum-v1"
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_length_that_steps_depend_on_does_not_grow(run, finetuned, tmp_path):
    """IQL's learning rate falls over all of them."""
    with pytest.raises(InputError, match="steps: 230 -> 300"):
        finetune(run, finetuned, fields=ONLINE | {"steps": 300})


@pytest.mark.slow
def test_more_steps_are_the_same_as_having_asked_for_them(log, tmp_path):
    options = RunOptions(
        steps=10, seeds=1, eval_every=10, eval_episodes=1, env="Pendulum-v1", action_low=-2.0, action_high=2.0
    )
    fields = {name: it for name, it in FIELDS.items() if name != "value_hidden"}
    train(log, "spot", replace(options, out=tmp_path / "run"), fields=fields)
    for out, lengths in (("grown", (40, 80)), ("whole", (80,))):
        for steps in lengths:
            finetune(tmp_path / "run", tmp_path / out, fields={"steps": steps, "every": 40, "episodes": 1})
    for name in ("rows.bin", "curve.jsonl", "policy.npz"):
        both = [(tmp_path / out / "seed0" / name).read_bytes() for out in ("grown", "whole")]
        assert both[0] == both[1], name
    with pytest.raises(InputError, match="has 80 steps already"):
        finetune(tmp_path / "run", tmp_path / "grown", fields={"steps": 60, "every": 40, "episodes": 1})


@pytest.mark.parametrize("share", [None, 0.25])
def test_batches_mix_what_is_there(share):
    """100 offline rows and 10 steps of 1,000 places."""
    config = Config("", {}, steps=1_000, offline_share=share)
    keys = jax.random.split(jax.random.key(0), 50)
    places = np.concatenate([np.asarray(drawn_rows(key, config, 64, 100, 10)) for key in keys])
    assert (places.min(), places.max()) == (0, 109)
    expected = 100 / 110 if share is None else share
    assert (places < 100).mean() == pytest.approx(expected, abs=1e-9 if share else 0.02)
    assert len(np.unique(places)) == 110


def test_a_step_is_seen_as_the_data_are():
    normaliser = np.array([1, 2], np.float32), np.array([2, 4], np.float32)
    preprocess = Preprocess(*normaliser, *normaliser, reward_scale=3.0, reward_shift=-1.0)
    rows = np.zeros(1, row_type(SpaceSpec(2, 1)))
    rows["observation"], rows["next_observation"], rows["reward"], rows["timeout"] = [[3, 2]], [[1, 6]], 2, True
    seen = finetuning.as_transition(preprocess, rows)
    assert (seen.observation.tolist(), seen.next_observation.tolist()) == ([[1, 0]], [[0, 1]])
    assert (seen.reward.tolist(), seen.continues.tolist()) == ([5], [1])  # the clock does not stop bootstrapping
    rows["terminal"] = True
    assert finetuning.as_transition(preprocess, rows).continues.tolist() == [0]


def test_regret_and_returns():
    assert regret([50, 100]) == 0.25
    assert regret([-30, 140]) == 0.5  # cut to [0, 100], as CORL's CQL
    rows = np.zeros(5, row_type(SpaceSpec(1, 1)))
    rows["reward"], rows["terminal"][1], rows["timeout"][2] = [1, 2, 4, 8, 16], True, True
    assert returns_of(rows) == ([3, 4], 24)


def test_what_can_not_be_finetuned(run, adapts, log, tmp_path):
    with pytest.raises(InputError, match="cool_to: iql has no penalty"):
        finetune(run, tmp_path / "x", fields={"cool_to": 0.5})
    with pytest.raises(InputError, match=r"cool_to: alpha adapts in .*adapts, to a D_KL of 0\.5"):
        finetune(adapts, tmp_path / "x", env="Pendulum-v1", fields={"cool_to": 0.5})
    with pytest.raises(InputError, match="refit_rate: iql asks no pi_beta for its density; that does: itrpo"):
        finetune(run, tmp_path / "x", fields={"refit_rate": 1e-3})
    with pytest.raises(InputError, match="its observations have 3 numbers and those of Hopper-v4 have 11"):
        finetune(run, tmp_path / "x", env="Hopper-v4")
    other = dict(np.load(log))
    np.savez(tmp_path / "other.npz", **other | {"rewards": other["rewards"] + 1})
    with pytest.raises(InputError, match="is not the data of"):
        finetune(run, tmp_path / "x", data=tmp_path / "other.npz", fields=ONLINE)
    bc = RunOptions(steps=1, seeds=1, eval_every=1, env="none", out=tmp_path / "bc", action_low=-2.0, action_high=2.0)
    train(log, "bc", bc, fields={"hidden": (4,)})
    with pytest.raises(InputError, match="is a run of bc; these can be fine-tuned: iql, cql, spot, itrpo"):
        finetune(tmp_path / "bc", tmp_path / "x")
    assert not (tmp_path / "x").exists()
