"""Runs that differ in numbers of one algorithm train as one program; each folder is as if its run were alone."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from itrpo import RunOptions
from itrpo.config import RunConfig, replace_leaves
from itrpo.data.load import load_dataset
from itrpo.errors import DivergenceError, InputError
from itrpo.evaluation import rollout
from itrpo.results.store import read_status
from itrpo.training import run, seeds, together
from itrpo.training.configure import complete, make_setup
from itrpo.types import Dataset

QUIET = Console(quiet=True)
SMALL = {"policy_hidden": (8,), "critic_hidden": (8,), "behavior_hidden": (8,)}


@pytest.fixture(scope="module")
def dataset(pendulum) -> Dataset:
    return load_dataset(pendulum, action_low=-2.0, action_high=2.0)


def config(
    dataset: Dataset, steps: int = 40, algorithm: str = "itrpo", preset: str = "paper", **fields: float
) -> RunConfig:
    options = RunOptions(steps=steps, behavior_steps=30, eval_every=20, eval_episodes=1, seeds=2)
    return complete(make_setup(algorithm, preset=preset, fields=SMALL | fields), options, dataset)


def rows(folder: Path) -> dict[tuple[str, int, int, str], float]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    named = {(row["run"], row["seed"], row["step"], row["metric"]): row["value"] for row in found}
    assert len(named) == len(found)
    return named


def close(one: Path, other: Path) -> None:
    """Rows of the same run: a number that is an argument rounds otherwise than a constant does."""
    here, there = rows(one), rows(other)
    assert here.keys() == there.keys()
    np.testing.assert_allclose(list(here.values()), [there[name] for name in here], rtol=2e-3, atol=2e-4)


GRID = [{"alpha": 0.5, "tau": 0.0}, {"alpha": 2.0, "tau": 0.5}, {"alpha": 2.0, "tau": 0.9}]


@pytest.fixture(scope="module")
def grid(dataset, tmp_path_factory) -> list[Path]:
    """Folders of a grid that trained as one program; what it said is beside them."""
    folder, console = tmp_path_factory.mktemp("grid"), Console(file=io.StringIO(), width=80)
    wanted = [(config(dataset, **own), folder / str(place)) for place, own in enumerate(GRID)]
    run.train_together(wanted, dataset, console)
    (folder / "said").write_text(console.file.getvalue())
    return [path for _, path in wanted]


def test_runs_say_once_that_the_papers_eq_5_has_no_clip(grid):
    text = (grid[0].parent / "said").read_text()
    assert text.count("can run away") == text.count("preset paper: Eq. (5)") == 1
    assert "--log-ratio-low -1\n" in text


@pytest.mark.slow
def test_each_run_is_the_one_that_it_is_alone(grid, dataset, tmp_path):
    for place, own in enumerate(GRID):
        run.run(config(dataset, **own), dataset, tmp_path / str(place), QUIET)
        close(grid[place], tmp_path / str(place))
        assert read_status(grid[place]) == read_status(tmp_path / str(place))
        assert sorted(it.name for it in grid[place].iterdir()) == sorted(
            it.name for it in (tmp_path / str(place)).iterdir()
        )
    returns = [[value for (_, _, _, name), value in rows(path).items() if name == "probe_kl"] for path in grid]
    assert len(np.unique(returns, axis=0)) == len(GRID)  # the numbers reached their own runs


@pytest.mark.slow
def test_as_one_vmapped_program_too(grid, dataset, tmp_path, monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(seeds, "one_by_one", seeds.vmapped)
    wanted = [(config(dataset, **own), tmp_path / str(place)) for place, own in enumerate(GRID)]
    run.train_together(wanted, dataset, QUIET)
    for path, (_, here) in zip(grid, wanted, strict=True):
        close(path, here)


@pytest.mark.slow
def test_a_grid_goes_on_from_where_it_stopped(grid, dataset, tmp_path):
    paths = [tmp_path / str(place) for place in range(len(GRID))]
    for steps in (20, 40):
        wanted = [(config(dataset, steps, **own), path) for own, path in zip(GRID, paths, strict=True)]
        run.train_together(wanted, dataset, QUIET)
    for path, here in zip(grid, paths, strict=True):
        assert rows(path) == rows(here)  # to the bit
        assert (path / "seed1" / "policy.npz").read_bytes() == (here / "seed1" / "policy.npz").read_bytes()


@pytest.mark.slow
def test_runs_at_different_steps_and_with_fewer_seeds_join(grid, dataset, tmp_path):
    """One that is ahead, one that has a seed less, one that has not begun: three programs, the same runs."""
    paths = [tmp_path / str(place) for place in range(len(GRID))]
    run.run(config(dataset, 20, **GRID[0]), dataset, paths[0], QUIET)
    fewer = config(dataset, **GRID[1])
    run.run(replace(fewer, train=replace(fewer.train, seeds=1)), dataset, paths[1], QUIET)
    run.train_together([(config(dataset, **own), path) for own, path in zip(GRID, paths, strict=True)], dataset, QUIET)
    for path, here in zip(grid, paths, strict=True):
        close(path, here)


@pytest.mark.slow
def test_one_that_diverges_leaves_the_others_as_they_are(grid, dataset, tmp_path):
    wild = {"alpha": 1e30, "tau": 0.9}
    paths = [tmp_path / str(place) for place in range(3)]
    fields = [GRID[0], wild, GRID[2]]
    wanted = [(config(dataset, **own), path) for own, path in zip(fields, paths, strict=True)]
    run.train_together(wanted, dataset, QUIET)
    close(grid[0], paths[0])
    close(grid[2], paths[2])
    assert [read_status(path).state for path in paths] == ["finished", "diverged", "finished"]
    assert max(step for _, _, step, _ in rows(paths[1])) < 40
    with pytest.raises(DivergenceError):
        run.train_together([wanted[1]], dataset, QUIET)


def test_one_whose_policy_fails_in_the_simulator_leaves_the_others_as_they_are(grid, dataset, tmp_path, monkeypatch):
    def failure(env_id: str, played: rollout.Returns, place: int, index: int, step: int) -> str | None:
        return f"seed {index} fails" if (place, step) == (3, 20) else None  # seed 1 of the second run

    monkeypatch.setattr(rollout, "failure", failure)
    paths = [tmp_path / str(place) for place in range(len(GRID))]
    run.train_together([(config(dataset, **own), path) for own, path in zip(GRID, paths, strict=True)], dataset, QUIET)
    assert [read_status(path).state for path in paths] == ["finished", "diverged", "finished"]
    assert read_status(paths[1]).message == "seed 1 fails"
    assert rows(paths[0]) == rows(grid[0])
    assert rows(paths[2]) == rows(grid[2])
    steps = [{step for _, _, step, name in rows(path) if name == "return"} for path in (grid[1], paths[1])]
    assert steps == [{20, 40}, set()]


def test_only_numbers_may_differ(dataset, tmp_path):
    one = config(dataset)
    assert together.differing(
        [one, replace(one, algorithm_config=replace_leaves(one.algorithm_config, {"tau": 0.1}))]
    ) == ["tau"]
    others = (
        config(dataset, critics=4),
        config(dataset, divergence_target=4.0),  # by default None
        config(dataset, log_std_low=-4.0),
        config(dataset, steps=60),
        config(dataset, algorithm="itrpo_insample", preset="matched"),
        replace(one, train=replace(one.train, seed=1)),
    )
    setups = (make_setup("rebrac", fields={"critic_bc_weight": weight}) for weight in (0.0, 0.01, 0.02))
    rebrac = [complete(setup, RunOptions(steps=1), dataset) for setup in setups]
    assert together.differing(rebrac) is None  # a weight of 0 trains on rows whose next action is not known, too
    assert together.differing(rebrac[1:]) == ["critic_bc_weight"]
    for other in others:
        assert together.differing([one, other]) is None
        with pytest.raises(InputError, match="only if they differ in numbers"):
            run.train_together([(one, tmp_path / "a"), (other, tmp_path / "b")], dataset, QUIET)


def test_one_that_diverges_leaves_those_that_train_after_it(dataset, tmp_path):
    """It is ahead of the other, which has not begun: two programs, one after the other."""
    options = RunOptions(steps=4, eval_every=4, seeds=1, env="none")
    wild, other, tame = (
        complete(make_setup("bc", fields={"hidden": (8,), "fit_learning_rate": rate}), options, dataset)
        for rate in (1e30, 1e29, 1e-3)
    )
    with pytest.raises(DivergenceError):
        run.train_together([(wild, tmp_path / "wild")], dataset, QUIET)
    run.train_together([(wild, tmp_path / "wild"), (tame, tmp_path / "tame")], dataset, QUIET)
    states = [(read_status(tmp_path / name).state, read_status(tmp_path / name).step) for name in ("wild", "tame")]
    assert states == [("diverged", 4), ("finished", 4)]
    with pytest.raises(DivergenceError):
        run.train_together([(wild, tmp_path / "wild"), (other, tmp_path / "other")], dataset, QUIET)
    assert read_status(tmp_path / "other").message != read_status(tmp_path / "wild").message != ""
