"""Actions that are choices: who says so, how they are numbered, and what every format keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from itrpo.cli import main
from itrpo.data.convert import convert
from itrpo.data.health import check_dataset
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.report.datasets import describe
from itrpo.types import DiscreteSpec, SpaceSpec

N = 40
RNG = np.random.default_rng(0)
CHOICE = RNG.integers(0, 3, N)
CHOICE[:3] = 0, 1, 2


def columns(actions: Any = CHOICE, **more: Any) -> dict[str, Any]:
    ends = np.arange(N) % 10 == 9
    return {
        "observations": RNG.normal(size=(N, 2)).astype(np.float32),
        "actions": actions,
        "rewards": np.ones(N, np.float32),
        "terminals": ends,
        "timeouts": np.zeros(N, bool),
        **more,
    }


@pytest.mark.parametrize(
    "actions", [CHOICE, CHOICE[:, None], CHOICE[:, None].astype(np.float32), np.eye(3, dtype=np.float32)[CHOICE]]
)
def test_whole_numbers_and_codes_are_choices_where_nobody_says_otherwise(actions: np.ndarray) -> None:
    dataset = load_dataset(columns(actions))
    assert (dataset.num_actions, dataset.spec, dataset.bounds) == (3, DiscreteSpec(2, 3), "assumed")
    rows = dataset.transitions
    assert rows.action.dtype == rows.next_action.dtype == np.int32
    np.testing.assert_array_equal(rows.action, CHOICE)
    np.testing.assert_array_equal(rows.next_action[:9], CHOICE[1:10])
    assert rows.next_action[9] == 0  # the episode is over
    assert "taken for 3 choices" in dataset.notes[-1]
    assert (dataset.action_low, dataset.action_high) == (0, 2)


@pytest.mark.parametrize("every", [2, 10])
def test_choices_of_a_long_log_need_not_be_in_every_sample_of_it(every: int) -> None:
    """A 1 at each second, or tenth, of 100,000 rows, which a look at each tenth sees never."""
    count = 100_000
    rows = {
        "observations": np.zeros((count, 1), np.float32),
        "actions": (np.arange(count) % every == 1).astype(np.float32)[:, None],
        "rewards": np.zeros(count, np.float32),
        "terminals": np.zeros(count, bool),
        "timeouts": np.arange(count) % 100 == 99,
    }
    assert load_dataset(rows).num_actions == 2


def test_the_word_of_the_user_the_file_and_the_environment() -> None:
    assert load_dataset(columns(), num_actions=5).spec == DiscreteSpec(2, 5)
    assert load_dataset(columns(num_actions=np.array(4))).num_actions == 4
    assert load_dataset(columns(num_actions=np.array(4)), num_actions=3).bounds == "given"
    env = load_dataset(columns(np.minimum(CHOICE, 1), env_id=np.array("MountainCar-v0")))
    assert (env.num_actions, env.bounds) == (3, "declared")
    assert [it[:35] for it in env.notes] == ["choices that were never made: 2; no"]
    plain = load_dataset(columns(np.minimum(CHOICE, 1)[:, None], env_id=np.array("Pendulum-v1")))
    assert plain.spec == SpaceSpec(2, 1)  # a motor that is on or off
    assert load_dataset(columns(CHOICE[:, None] - 1.0)).num_actions is None  # -1, 0, 1: nobody knows
    shifted = load_dataset(columns(CHOICE - 1), num_actions=3)
    assert (shifted.action_low, shifted.transitions.action.min()) == (-1, 0)
    assert load_dataset(columns(CHOICE[:, None]), action_low=0, action_high=2).spec == SpaceSpec(2, 1)


def test_choices_numbered_from_one_begin_there() -> None:
    """Else there would be a choice 0 that nobody ever made, and that nothing is known of."""
    dataset = load_dataset(columns(CHOICE + 1))
    assert (dataset.num_actions, dataset.action_low, dataset.action_high) == (3, 1, 3)
    np.testing.assert_array_equal(dataset.transitions.action, CHOICE)
    assert "taken for 3 choices from 1 on" in dataset.notes[-1]
    assert not any("never made" in it for it in dataset.notes)
    assert load_dataset(columns(np.where(CHOICE == 1, 3, CHOICE))).num_actions == 4  # from 0 on: one may be missing


def test_choices_that_were_never_made_are_said_with_their_numbers() -> None:
    (note,) = (it for it in load_dataset(columns(CHOICE + 1), num_actions=4).notes if "never made" in it)
    assert note.startswith("choices that were never made: 0; ")
    assert note.endswith("if the first choice is 1: --action-low 1 --num-actions 3 (action_low, num_actions in Python)")
    assert load_dataset(columns(CHOICE + 1), action_low=1, num_actions=3).notes == ()
    (note,) = (it for it in load_dataset(columns(), num_actions=5).notes if "never made" in it)
    assert note.startswith("choices that were never made: 3, 4; ")
    assert note.endswith("if 2 is the last one, lower --num-actions")
    (found,) = (it for it in check_dataset(columns(CHOICE + 1), num_actions=4).findings if it.name == "unused-actions")
    assert "--action-low 1 --num-actions 3" in found.advice


def test_one_bound_says_what_the_other_is() -> None:
    with pytest.raises(InputError, match=r"action_high was not given, and is 1 then: give .* --num-actions with"):
        load_dataset(columns(CHOICE + 1), action_low=1)
    with pytest.raises(InputError, match="action_low was not given, and is -1 then"):
        load_dataset(columns(CHOICE + 1), action_high=-1)
    with pytest.raises(InputError, match=r"\[1\.0\]$"):
        load_dataset(columns(CHOICE + 1), action_low=1, action_high=1)


def test_of_declared_choices_the_first_one_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **columns(CHOICE + 1, num_actions=np.array(4), action_low=np.array(1)))
    dataset = load_dataset(tmp_path / "log.npz")
    assert (dataset.num_actions, dataset.action_low, dataset.action_high, dataset.bounds) == (4, 1, 4, "declared")


def test_convert_writes_how_many_choices_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **columns(CHOICE + 1))
    words = [str(tmp_path / "log.npz"), str(tmp_path / "a.hdf5"), "--action-low", "1", "--num-actions", "4"]
    assert main(["datasets", "convert", *words]) == 0
    dataset = load_dataset(tmp_path / "a.hdf5")
    assert (dataset.num_actions, dataset.action_low, dataset.action_high, dataset.bounds) == (4, 1, 4, "declared")
    again = convert(tmp_path / "a.hdf5", tmp_path / "b.csv", num_actions=3)  # the first stays, the last follows
    assert (load_dataset(again.path).action_low, load_dataset(again.path).action_high) == (1, 3)
    with pytest.raises(InputError, match=r"c\.npz: .* other than the whole numbers 0 to 2"):
        convert(tmp_path / "log.npz", tmp_path / "c.npz", num_actions=3)
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.parametrize(
    ("actions", "given", "message"),
    [
        (CHOICE, {"num_actions": 2}, r"rows have 'actions' other than the whole numbers 0 to 1 \(first: row"),
        (CHOICE, {"num_actions": 1}, "must be at least 2"),
        (CHOICE, {"num_actions": 3, "continuous_actions": True}, "opposite things"),
        (CHOICE[:, None] / 2, {"num_actions": 3}, "other than the whole numbers"),
        (np.stack([CHOICE, CHOICE], 1), {"num_actions": 3}, "have 2 columns; one of 3 choices is one column"),
    ],
)
def test_actions_that_are_none_of_the_choices(actions: np.ndarray, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(columns(actions), **given)


def test_a_history_has_them_as_numbers_between_minus_one_and_one() -> None:
    dataset = load_dataset(columns(), stack=2)
    assert dataset.spec == DiscreteSpec(5, 3)
    assert dataset.frame == DiscreteSpec(2, 3)
    np.testing.assert_array_equal(dataset.transitions.observation[1:4, -1], CHOICE[:3] - 1)


def test_every_format_keeps_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name, values in columns().items():
            file[name] = values
        file.attrs["num_actions"] = 4
    expected = load_dataset(tmp_path / "log.hdf5")
    assert expected.num_actions == 4
    for target in ("a.npz", "b.parquet", "c.csv", "d-v0", "e.hdf5"):
        convert(tmp_path / "log.hdf5", tmp_path / target)
        dataset = load_dataset(tmp_path / target)
        assert dataset.num_actions == 4, target
        np.testing.assert_array_equal(dataset.transitions.action, expected.transitions.action)
    assert "4 choices (declared)" in describe(expected)["observations, actions"]
    assert describe(expected)["how often chosen"].endswith("3: 0")


def test_choices_that_are_hardly_made_are_a_finding(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **columns(num_actions=np.array(4)))
    (found,) = [it for it in check_dataset(tmp_path / "log.npz").findings if it.name == "unused-actions"]
    assert found.what.endswith(": 3")
    wrong = check_dataset(tmp_path / "log.npz", num_actions=2)
    assert any(it.name == "choices" and it.severity == "error" for it in wrong.findings)
    assert "choices" in check_dataset(tmp_path / "log.npz").facts["observations, actions"]
