"""Where the log does not say what was done next, an algorithm that reads it has nothing to learn from."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from itrpo.config import override
from itrpo.data.load import load_dataset
from itrpo.data.next_actions import unknown_next, with_next_actions
from itrpo.errors import InputError
from itrpo.options import RunOptions
from itrpo.registry import algorithm
from itrpo.training.train import prepare, train
from itrpo.types import Transition

LENGTH, EPISODES = 5, 8
ROWS = LENGTH * EPISODES
ENDS = np.arange(LENGTH - 1, ROWS, LENGTH)
CUT = ENDS[1::2]  # by the clock; the others end by themselves


def log() -> dict[str, np.ndarray]:
    """Every successor is given; one action in an episode is 0, the middle of its range."""
    rows = np.arange(ROWS)
    actions = 0.1 + np.linspace(0, 0.5, ROWS)
    actions[2::LENGTH] = 0
    return {
        "observations": rows[:, None] / 10.0,
        "actions": actions[:, None],
        "rewards": np.ones(ROWS),
        "terminals": np.isin(rows, ENDS[::2]),
        "timeouts": np.isin(rows, CUT),
        "next_observations": (rows[:, None] + np.where(np.isin(rows, ENDS), 0.5, 1.0)[:, None]) / 10.0,
    }


def shuffled() -> dict[str, np.ndarray]:
    order = np.random.default_rng(0).permutation(ROWS)[::-1]
    return {name: column[order] for name, column in log().items()}


def loaded(data: dict[str, np.ndarray]):
    return load_dataset(data, action_low=-1.0, action_high=1.0)


def test_they_are_the_rows_that_the_clock_cut():
    assert unknown_next(loaded(log()).transitions).tolist() == CUT.tolist()
    without = {name: column for name, column in log().items() if name != "next_observations"}
    assert unknown_next(loaded(without).transitions).size == 0
    assert unknown_next(loaded(log() | {"d4rl_view": np.array(True)}).transitions).tolist() == CUT.tolist()


def test_of_choices_they_are_those_that_no_row_follows():
    """The choice 0 says nothing by itself."""
    choices = log() | {"actions": np.arange(ROWS) % 3}
    assert unknown_next(load_dataset(choices).transitions).tolist() == CUT.tolist()


def test_the_others_stay_as_they_are():
    whole = replace(loaded(log()), behavior_log_probs=np.arange(ROWS, dtype=np.float32))
    kept, words = with_next_actions(whole, "rebrac")
    rows = np.setdiff1d(np.arange(ROWS), CUT)
    for name, column in zip(Transition._fields, whole.transitions, strict=True):
        np.testing.assert_array_equal(getattr(kept.transitions, name), column[rows], err_msg=name)
    assert kept.behavior_log_probs is not None
    assert kept.behavior_log_probs.tolist() == rows.tolist()
    assert kept.starts is not None
    assert kept.starts.tolist() == [0, 5, 9, 14, 18, 23, 27, 32]
    assert "4 of 40 rows don't say" in words
    assert with_next_actions(kept, "rebrac") == (kept, "")


def test_rows_in_no_order_are_refused_before_anything_runs(tmp_path):
    options = RunOptions(env="none", action_low=-1.0, action_high=1.0, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"rebrac reads what was done after each row, and only [0-3] of 36 rows"):
        prepare(shuffled(), "rebrac", options, None, Console(quiet=True))
    prepare(shuffled(), "td3_bc", options, None, Console(quiet=True))


@pytest.mark.parametrize(("name", "fields", "reads"), [
    ("rebrac", {}, True),
    ("rebrac", {"critic_bc_weight": 0.0}, False),
    ("bppo", {}, True),
    ("brac_dual_kl", {"value_share": 1.0}, True),
    ("brac_wasserstein", {}, False),
    ("td3_bc", {}, False),
])  # fmt: skip
def test_who_reads_it(name, fields, reads):
    entry = algorithm(name)
    assert entry.reads_next_action(override(entry.presets["quick"].config, fields, name)) is reads


@pytest.mark.slow
def test_a_run_says_it_and_is_the_one_on_the_other_rows(tmp_path):
    fields = {"policy_hidden": (8,), "critic_hidden": (8,), "batch_size": 8}
    data, said = loaded(log()), Console(file=io.StringIO(), width=200)
    for name, rows in (("all", data), ("known", with_next_actions(data, "rebrac")[0])):
        options = RunOptions(preset="quick", steps=20, seeds=1, env="none", out=tmp_path / name)
        train(rows, "rebrac", options, fields=fields, console=said)
    assert said.file.getvalue().count("4 of 40 rows don't say") == 1
    one, other = (tmp_path / name / "seed0" / "policy.npz" for name in ("all", "known"))
    assert one.read_bytes() == other.read_bytes()
