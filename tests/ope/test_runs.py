"""`itrpo judge` on runs: from the command line, and what it takes from their folders."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import itrpo
from itrpo.cli import main
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.ope import judgement, page, runs
from itrpo.ope.behavior import EDGE, fit_behavior
from itrpo.ope.estimate import JudgeOptions
from itrpo.ope.fqe import FQE
from itrpo.ope.log import log_of
from itrpo.ope.runs import judge
from itrpo.training.restore import trained_states
from itrpo.types import SpaceSpec

QUIET = Console(quiet=True)
SETTINGS = JudgeOptions(folds=2, behavior_steps=20, fqe=FQE(steps=20))
EPISODES, LENGTH = 20, 6


def log(seed: int) -> dict[str, np.ndarray]:
    """s' = 0.5 s + a + noise, r = -s^2, cut after six steps; actions from -2 to 2."""
    rng, rows = np.random.default_rng(seed), EPISODES * LENGTH
    observation, action = np.zeros((rows, 1)), rng.uniform(-2, 2, (rows, 1))
    for row in range(rows):
        start = row % LENGTH == 0
        before = observation[row - 1] * 0.5 + action[row - 1]
        observation[row] = rng.standard_normal() if start else before + 0.1 * rng.standard_normal()
    ends = np.arange(rows) % LENGTH == LENGTH - 1
    following = 0.5 * observation + action
    following[:-1][~ends[:-1]] = observation[1:][~ends[:-1]]
    return {
        "observations": 1_000 * observation,  # normalised: of another size than actions
        "actions": action,
        "rewards": -(observation[:, 0] ** 2),
        "terminals": np.zeros(rows, bool),
        "timeouts": ends,
        "next_observations": 1_000 * following,
    }


def options(out: Path, **more) -> itrpo.RunOptions:
    common = {"scale": "smoke", "steps": 6, "seeds": 2, "eval_every": 6, "env": "none"}
    return itrpo.RunOptions(out=out, action_low=-2.0, action_high=2.0, holdout=0.25, **{**common, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two runs on log.npz, a quarter of which is held out; other.npz is new to them."""
    root = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("log", "other")):
        np.savez(root / f"{name}.npz", **log(seed))
    itrpo.train(root / "log.npz", "bc", options(root / "first"), console=QUIET)
    itrpo.train(root / "log.npz", "bc", options(root / "second", seeds=1, seed=5), console=QUIET)
    return root


def test_from_the_command_line(folder, capsys):
    words = ["judge", str(folder / "first"), str(folder / "second"), "--folds", "2", "--steps", "20"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "judging 3 policies on 5 episodes, 30 rows (--holdout 0.25 of log), in 2 folds of 20 steps" in said
    assert "there are only 5 episodes" in said
    assert "Not available for BC: weighted doubly robust, doubly robust, self-normalised importance, imp" in said
    assert said.count("saved to ") == said.count("as a page: ") == 2
    found = judgement.read(folder / "first")
    assert [it.name for it in found.policies] == ["seed 0", "seed 1", "BC", "log"]
    assert (found.episodes, found.rows, found.gamma, found.cut) == (5, 30, 0.99, 1.0)
    assert found.policies[0].sample_size is not None
    other = judgement.read(folder / "second")
    assert other.policies[1:] == found.policies[2:]  # one fit of the references for both
    pages = [folder / it / page.FILE for it in ("first", "second")]
    assert [it.stat().st_size > 500_000 for it in pages] == [True, True]
    pages[1].unlink()
    before = (folder / "first" / judgement.FILE).stat().st_mtime_ns, pages[0].stat().st_mtime_ns
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["policies"][3]["name"] == "log"
    # nothing was fitted again, and the page that was gone is back
    assert ((folder / "first" / judgement.FILE).stat().st_mtime_ns, pages[0].stat().st_mtime_ns) == before
    assert pages[1].exists()


def test_a_file_that_was_written_anew_is_judged_anew(folder, tmp_path):
    """A weekly export: the same name, as many rows, other numbers."""
    run, week = tmp_path / "run", tmp_path / "week.npz"
    shutil.copytree(folder / "second", run)
    np.savez(week, **log(3))
    first = judge(run, week, SETTINGS, console=QUIET)[0]
    told = Console(record=True, width=400)
    assert judge(run, week, SETTINGS, console=told)[0] == first
    assert f"judged before, on the same rows: {run} (--again true judges anew)" in told.export_text()
    np.savez(week, **log(3) | {"rewards": 1 - log(3)["rewards"]})
    second = judge(run, week, SETTINGS, console=QUIET)[0]
    assert (second.rows, second.dataset) == (first.rows, first.dataset)
    assert second.log_return == pytest.approx(LENGTH - first.log_return)


def test_densities_of_a_module_of_the_users_own_take_its_name(folder, tmp_path, monkeypatch):
    """No file may have it imported."""
    run = tmp_path / "run"
    shutil.copytree(folder / "second", run)
    config = json.loads((run / "config.json").read_text())
    config["config"]["algorithm"] = "own_judged:ENTRY"
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "own_judged.py").write_text("from itrpo import registry\n\nENTRY = registry.algorithm('bc')\n")
    monkeypatch.syspath_prepend(tmp_path)
    log = log_of(load_dataset(folder / "other.npz", action_low=-2.0, action_high=2.0))
    for named in (None, "other_module:ENTRY"):
        (without,) = runs.of_run(runs.read_run(run), log, named)
        assert without.log_prob is None
        assert "own_judged:ENTRY, whose module is imported only if you name it" in without.why
        assert "own_judged" not in sys.modules
    (own,) = runs.of_run(runs.read_run(run), log, "own_judged:ENTRY")
    (same,) = runs.of_run(runs.read_run(folder / "second"), log)
    np.testing.assert_array_equal(own.log_prob, same.log_prob)


def test_without_what_draws_there_is_no_page_but_a_judgement(folder, capsys, monkeypatch):
    (folder / "second" / page.FILE).unlink()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    found = judge(folder / "second", None, JudgeOptions(folds=2, fqe=FQE(steps=20)), console=Console())
    assert found == [judgement.read(folder / "second")]
    assert "no page was written: the page needs vl-convert: pip install 'itrpo[report]'" in capsys.readouterr().out
    assert not (folder / "second" / page.FILE).exists()


@pytest.mark.slow
def test_judged_alone_is_judged_the_same(folder):
    """As beside others."""
    settings = JudgeOptions(folds=2, fqe=FQE(steps=20))
    beside = judge([folder / "first", folder / "second"], None, settings, again=True, console=QUIET)[1]
    alone = judge(folder / "second", None, settings, again=True, console=QUIET)[0]
    assert replace(alone, seconds=0.0) == replace(beside, seconds=0.0)


@pytest.mark.slow
def test_episodes_of_another_file(folder):
    """Where the runs' own is gone, too; and that file at another place."""
    moved, run = folder / "elsewhere.npz", runs.read_run(folder / "first", gamma=0.5)
    (folder / "log.npz").rename(moved)
    try:
        with pytest.raises(InputError, match=r"log\.npz"):
            judge(folder / "first", None, SETTINGS, console=QUIET)
        unseen = runs.read_unseen(run, moved, QUIET)
        assert (len(log_of(unseen.dataset).starts), unseen.why) == (5, "--holdout 0.25 of elsewhere")
        found = judge(folder / "first", folder / "other.npz", SETTINGS, gamma=0.5, console=QUIET)[0]
    finally:
        moved.rename(folder / "log.npz")
    assert (found.episodes, found.unseen, found.dataset, found.gamma) == (20, "other", "other", 0.5)
    assert "pi_beta was fitted on the judged episodes themselves" in found.reasons[-1].text


def test_episodes_that_the_run_was_trained_on_are_left_out_of_another_file(folder):
    """A log that has grown; and the same log in another file, where nothing new is left."""
    old, new = log(0), log(7)
    grown, same = folder / "grown.npz", folder / "same.npz"
    np.savez(grown, allow_pickle=False, **{name: np.concatenate([old[name], new[name]]) for name in old})
    np.savez(same, allow_pickle=False, **old | {"more": np.zeros(1)})
    run = runs.read_run(folder / "first")
    unseen = runs.read_unseen(run, grown, QUIET)
    assert len(log_of(unseen.dataset).starts) == 5 + EPISODES  # the quarter that was held out is new to the run, too
    np.testing.assert_array_equal(unseen.dataset.transitions.reward[-len(new["rewards"]) :], np.float32(new["rewards"]))
    assert unseen.why.startswith("grown; 15 of its 40 episodes begin as ones that")
    held = runs.read_unseen(run, same, QUIET).dataset
    np.testing.assert_array_equal(
        held.transitions.reward, runs.read_unseen(run, None, QUIET).dataset.transitions.reward
    )
    trained = load_dataset(folder / "log.npz", action_low=-2.0, action_high=2.0, holdout=0.25)
    with pytest.raises(InputError, match="15 of its 15 episodes begin as ones that"):
        runs.new_episodes(run, trained, trained)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gamma": 2.0}, r"gamma must be in \[0, 1\), got 2"),
        ({"options": JudgeOptions(folds=0)}, "folds must be at least 2, got 0"),
        ({"options": JudgeOptions(fqe=FQE(steps=0))}, "steps must be at least 1, got 0"),
        (
            {"options": {"folds": 3}},
            r"options must be JudgeOptions\(...\) of itrpo.ope.estimate, got an object of type dict",
        ),
    ],
)
def test_wrong_options_are_said_before_anything_is_read(wrong, words, tmp_path):
    with pytest.raises(InputError, match=words):
        judge(tmp_path, None, **wrong, console=QUIET)


def test_what_can_not_be_judged_is_one_message(folder, tmp_path):
    with pytest.raises(InputError, match=r"is no run: it has no config\.json"):
        judge(tmp_path, None, SETTINGS, console=QUIET)
    config = json.loads((folder / "second" / "config.json").read_text())
    config["config"]["data"]["holdout"] = None
    for name in ("provenance.json", "seed0/policy.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((folder / "second" / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"was trained on all episodes of log.*train with --holdout 0.2, or give --data"
    ):
        judge(tmp_path, None, SETTINGS, console=QUIET)
    with pytest.raises(InputError, match="was trained on log itself: give --data FILE"):
        judge(tmp_path, folder / "log.npz", SETTINGS, console=QUIET)
    assert not (tmp_path / judgement.FILE).exists()
    held = load_dataset(folder / "log.npz", action_low=-2.0, action_high=2.0, holdout=0.25).held
    with pytest.raises(InputError, match=r"give what itrpo\.load_dataset returns with it"):
        judge(folder / "second", held, SETTINGS, console=QUIET)


def test_states_act_as_the_policies_that_ship(folder):
    """At the observations as the policy sees them, and in the user's units; the density is the actor's."""
    policies = runs.read_run(folder / "first").policies
    log = log_of(load_dataset(folder / "other.npz", action_low=-2.0, action_high=2.0))
    rows = log.rows.observation
    algorithm, states, step = trained_states(folder / "first", SpaceSpec(1, 1))
    found = runs.of_run(runs.read_run(folder / "first"), log)
    assert (step, len(states), [it.name for it in found]) == (6, 2, ["seed 0", "seed 1"])
    for state, policy, it in zip(states, policies, found, strict=True):
        seen = jnp.asarray((rows - policy.observation_mean) / policy.observation_std)
        own = algorithm.acting.act(state, seen, jax.random.key(0), True)
        np.testing.assert_allclose(it.action, own, atol=1e-5)
        np.testing.assert_allclose(2 * it.action, policy.act(rows), atol=1e-5)
        inside = np.clip(log.rows.action, -0.999, 0.999)
        assert algorithm.acting.log_prob is not None
        np.testing.assert_allclose(it.log_prob, algorithm.acting.log_prob(state, seen, jnp.asarray(inside)), atol=1e-4)
        assert it.samples is not None
        assert np.abs(np.arctanh(it.samples).mean(axis=1) - np.arctanh(own)).mean() < np.arctanh(it.samples).std()
    assert runs.read_run(folder / "first").gamma == 0.99


def test_no_two_rows_share_the_noise_of_their_samples(folder, monkeypatch):
    """Rows are asked in pieces; in one state all draws of one policy differ."""
    monkeypatch.setattr("itrpo.training.rows.ROWS", 4)
    log = log_of(load_dataset(folder / "other.npz", action_low=-2.0, action_high=2.0))
    one_state = log._replace(rows=log.rows._replace(observation=np.zeros_like(log.rows.observation)))
    (it, _) = runs.of_run(runs.read_run(folder / "first"), one_state)
    assert it.samples is not None
    assert len(it.samples) > 8
    assert len(np.unique(it.samples)) > 0.99 * it.samples.size


def test_densities_of_clipped_actions_are_asked_where_the_model_of_pi_beta_asks_them(folder):
    """A policy's density at 1 and its model's at 0.95 would make a ratio of nothing."""
    run, rows = runs.read_run(folder / "first"), load_dataset(folder / "other.npz", action_low=-2.0, action_high=2.0)
    clipped = log_of(
        replace(rows, transitions=rows.transitions._replace(action=rows.transitions.action.clip(-0.5, 0.5) * 2))
    )
    model = fit_behavior(clipped.rows, steps=20)
    assert model.edge == 0.05
    assert fit_behavior(rows.transitions, steps=20).edge == EDGE
    inside = clipped._replace(rows=clipped.rows._replace(action=clipped.rows.action.clip(-0.95, 0.95)))
    assert (inside.rows.action != clipped.rows.action).mean() > 0.3
    np.testing.assert_allclose(
        *(model.log_prob(it.rows.observation, it.rows.action) for it in (clipped, inside)), rtol=1e-5
    )
    for seed in range(2):
        expected, found = (runs.of_run(run, it, None, model.edge)[seed].log_prob for it in (inside, clipped))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert np.abs(found - runs.of_run(run, clipped)[seed].log_prob).max() > 0.1
