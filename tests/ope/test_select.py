"""`itrpo select` on runs whose judgements were planted: from the command line, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from itrpo.cli import main
from itrpo.errors import InputError, StorageError
from itrpo.ope import judgement, trials
from itrpo.ope.estimate import make_estimate
from itrpo.ope.judgement import Judged, Judgement
from itrpo.ope.reasons import Reason
from itrpo.ope.select import select, try_out
from itrpo.policy import save_policy
from tests.results.test_frames import make_run

QUIET = Console(quiet=True)
GENERATOR = np.random.default_rng(0)


def judged(name: str, seed: int | None, value: float) -> Judged:
    """With noise of its own in four folds, and a wave that all have in common."""
    folds = value + np.array([0, 30, -30, 30, -30]) + 0.1 * GENERATOR.standard_normal(5)
    estimate = make_estimate("fqe", folds, None, 5, 0.9, ())
    return Judged(name, seed, (estimate,), {"wdr": "it has no density"}, None, None, None, ())


def plant(folder: Path, *values: float, **more) -> None:
    policies = [judged(f"seed {seed}", seed, value) for seed, value in enumerate(values)]
    given = Judgement(
        run=folder.name,
        algorithm="bc",
        dataset="log",
        step=6,
        gamma=0.9,
        episodes=5,
        rows=30,
        rows_sha256="ab12",
        cut=1.0,
        log_return=-7.0,
        unseen="--holdout 0.25 of log",
        settings={"folds": 5},
        seconds=1.0,
        policies=(*policies, judged("log", None, 40.0)),
        reasons=(Reason("few", "there are only 5 episodes"),),
    )
    judgement.write(folder, replace(given, **more))


@pytest.fixture
def folders(tmp_path, monkeypatch) -> list[Path]:
    """Two runs: a's policies are worth 100 and 60, b's 60 and 99.99."""
    monkeypatch.chdir(tmp_path)
    for name, values in {"a": (100.0, 60.0), "b": (60.0, 99.99)}.items():
        make_run(Path(name), name, alpha=1.0 + len(values))
        for seed in range(2):
            path = Path(name, f"seed{seed}", "policy.npz")
            path.parent.mkdir()
            export = {"kind": "tanh_mlp", "weight_0": np.zeros((1, 1)), "bias_0": np.zeros(1)}
            save_policy(path, export, [0.0], [1.0], [-1.0], [1.0], {"run": name, "step": 6})
        plant(Path(name), *values)
    return [Path("a"), Path("b")]


def test_from_the_command_line(folders, capsys):
    assert main(["select", "a", "b"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("- there are only 5 episodes")  # warnings first
    assert "4 policies by fitted Q on 5 episodes of log" in said
    assert "Can't tell which of the first 2 is best; they are ahead of the other policies." in said
    found = json.loads(Path("selection.json").read_text())
    assert [it["group"] for it in found["places"]] == [0, 0, 1, 1]
    assert {it["name"] for it in found["places"][:2]} == {"a/seed0", "b/seed1"}
    plant(Path("b"), 60.0, 110.0)  # a planted best one
    assert main(["select", "a", "b", "--json", "--out", "s.json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(it["name"], it["group"]) for it in found["places"][:2]] == [("b/seed1", 0), ("a/seed0", 1)]
    assert found == json.loads(Path("s.json").read_text())
    assert found["log"] == pytest.approx(40.0, abs=1)


def test_runs_are_ranked_with_the_spread_over_their_seeds(folders):
    plant(Path("b"), 71.0, 72.0)
    one = select(folders, by="run", console=QUIET)
    assert [it.name for it in one.places] == ["a", "b"]  # 80 and 71.5
    assert [it.ranked.group for it in one.places] == [0, 0]  # folds would tell, but a's seeds differ by 40
    plant(Path("a"), 80.1, 79.9)
    assert [it.ranked.group for it in select(folders, by="run", console=QUIET).places] == [0, 1]


def test_a_trial_goes_on_where_it_was_left(folders, capsys):
    assert main(["select", "a", "b", "--trials", "t.json", "--keep", "3", "--worth", "1"]) == 0
    first = select(folders, console=QUIET).places[0].name
    assert f"Try next: {first}, and say what came: --tried {first}=RETURN" in " ".join(capsys.readouterr().out.split())
    assert main(["select", "a", "b", "--trials", "t.json", "--tried", "a/seed0=10", "a/seed0=10.5", "b/seed1=30"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Best so far: b/seed1; nobody knows yet by how much another is better; trials end once that is at most" in said
    )
    kept = trials.read(Path("t.json"))
    assert (kept.rule.keep, kept.rule.worth, len(kept.tried)) == (3, 1.0, 3)
    tried = try_out(select(folders, console=QUIET), Path("t.json"))
    assert dict(zip(tried.names, tried.returns, strict=True))["a/seed0"] == (10.0, 10.5)
    assert tried.advice.following == 2  # the third of those that are kept has not been tried
    third = tried.names[2]
    words = ["select", "a", "b", "--trials", "t.json", "--tried", f"{third}=10", f"{third}=10.5", "b/seed1=30.5"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Stop after 6 trials, and take b/seed1" in said
    assert json.loads(Path("selection.json").read_text())["trials"]["next"] is None


def test_returns_are_of_the_policy_that_was_tried(folders):
    """The file is found again from elsewhere; a policy that was trained on is another one."""
    found = select(folders, console=QUIET)
    try_out(found, Path("t.json"), ["a/seed0=1"])
    moved = [replace_step(it) for it in found.places]
    assert try_out(replace(found, places=tuple(moved)), Path("t.json")).left_out == 1
    absolute = select([it.resolve() for it in folders], console=QUIET)
    assert sum(map(len, try_out(absolute, Path("t.json").resolve()).returns)) == 1


def replace_step(place):
    return place._replace(step=place.step + 1)


def test_what_can_not_be_compared_is_one_message(folders):
    plant(Path("b"), 1.0, 2.0, episodes=6)
    with pytest.raises(InputError, match=r"b was judged on 6 episodes of log.*and a on 5.*judge them together"):
        select(folders, console=QUIET)
    plant(Path("b"), 1.0, 2.0, settings={"folds": 3})
    with pytest.raises(InputError, match=r"at gamma 0.9, with other settings \(folds: 5 -> 3\): nothing can be said"):
        select(folders, console=QUIET)
    plant(Path("b"), 1.0, 2.0)
    with pytest.raises(InputError, match=r"a: seed 0 has no estimate by wdr \(it has no density\)"):
        select(folders, estimator="wdr", console=QUIET)
    found = select(folders, console=QUIET)
    with pytest.raises(InputError, match=r"--tried c/seed0=1: no policy of these runs"):
        try_out(found, Path("t.json"), ["a/seed0=1", "c/seed0=1"])
    assert not Path("t.json").exists()
    with pytest.raises(InputError, match="leave --by run out"):
        try_out(select(folders, by="run", console=QUIET), Path("t.json"))
    assert main(["select", "a", "--budget", "3"]) == 2
    Path("a/judgement.json").write_text("{}")
    with pytest.raises(StorageError, match=r"a/judgement\.json: not a judgement"):
        select(folders, console=QUIET)


def test_an_old_judgement_is_not_taken_for_the_policy_of_now(folders):
    plant(Path("b"), 1.0, 2.0, step=3)
    with pytest.raises(InputError, match=r"^b was trained on all episodes"):  # b is to be judged again
        select(folders, console=QUIET)
