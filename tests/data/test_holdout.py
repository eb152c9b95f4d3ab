"""Held-out episodes: whole, apart, and the same ones every time."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from itrpo.config import config_hash
from itrpo.data.load import load_dataset
from itrpo.data.preprocess import fit_preprocess
from itrpo.errors import InputError
from itrpo.options import RunOptions
from itrpo.training.train import prepare
from itrpo.types import Transition

LENGTHS = np.array([3, 5, 2, 4, 6, 3, 2, 5, 4, 6])
EPISODE = np.repeat(np.arange(10), LENGTHS)
ENDS = np.cumsum(LENGTHS) - 1


def log() -> dict[str, np.ndarray]:
    """Ten episodes; a row's observation is its episode, with its number in it behind the point."""
    rows = len(EPISODE)
    ends = np.isin(np.arange(rows), ENDS)
    terminals = ends & (EPISODE % 2 == 0)
    observation = (EPISODE + np.arange(rows) / 100)[:, None]
    return {
        "observations": observation,
        "actions": np.linspace(-0.9, 0.9, rows)[:, None],
        "rewards": np.arange(rows, dtype=float),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
    }


def episodes_in(rows: Transition) -> set[int]:
    return set(np.floor(rows.observation[:, 0]).astype(int).tolist())


SUCCESSORS = {"next_observations": log()["observations"] + 0.01}


@pytest.mark.parametrize("more", [{}, SUCCESSORS, {"d4rl_view": np.array(True)}], ids=["rows", "successors", "d4rl"])
@pytest.mark.parametrize("stack", [1, 2])
def test_parts_are_whole_episodes_with_the_rows_of_before(more, stack):
    data = log() | more
    whole, parts = load_dataset(data, stack=stack), load_dataset(data, stack=stack, holdout=0.3)
    held = parts.held
    assert held is not None
    assert held.starts is not None
    assert parts.starts is not None
    assert len(held.starts) == 3
    assert episodes_in(held.transitions) | episodes_in(parts.transitions) == set(range(10))
    assert not episodes_in(held.transitions) & episodes_in(parts.transitions)
    for name, column in zip(Transition._fields, whole.transitions, strict=True):
        for part in (held, parts):
            mine = np.isin(np.floor(whole.transitions.observation[:, 0]), list(episodes_in(part.transitions)))
            np.testing.assert_array_equal(getattr(part.transitions, name), column[mine], err_msg=name)
    for part in (held, parts):
        numbers = np.floor(part.transitions.observation[:, 0])
        np.testing.assert_array_equal(part.starts, np.flatnonzero(np.diff(numbers, prepend=-1)))
        mine = sorted(episodes_in(part.transitions))
        np.testing.assert_array_equal(part.episode_lengths, LENGTHS[mine])
        returns = [np.arange(len(EPISODE))[np.isin(EPISODE, one)].sum() for one in mine]
        np.testing.assert_array_equal(part.episode_returns, returns)


def test_a_file_is_split_as_arrays_are(tmp_path):
    """Its rows are moved in memory as they are read, and some transitions are dropped."""
    np.savez(tmp_path / "log.npz", **log())
    from_file, from_arrays = (load_dataset(it, holdout=0.4) for it in (tmp_path / "log.npz", log()))
    for one, other in ((from_file, from_arrays), (from_file.held, from_arrays.held)):
        for mine, theirs in zip(one.transitions, other.transitions, strict=True):  # pyright: ignore[reportOptionalMemberAccess]
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(one.episode_returns, other.episode_returns)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_smaller_share_is_a_part_of_a_larger_one():
    few, many = (load_dataset(log(), holdout=share).held for share in (0.2, 0.5))
    assert few is not None
    assert many is not None
    assert episodes_in(few.transitions) < episodes_in(many.transitions)


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.9, 9), (0.04, 0)])
def test_too_few_episodes_are_one_message(share, count):
    with pytest.raises(
        InputError, match=rf"--holdout {share:g} of its 10 episodes would hold out {count}, and at leas"
    ):
        load_dataset(log(), holdout=share)
    one = log() | {"terminals": np.zeros(len(EPISODE)), "timeouts": np.zeros(len(EPISODE))}
    with pytest.raises(InputError, match=r"of its 1 episode would hold out .* mark more ends"):
        load_dataset(one, holdout=share)


def test_nothing_of_a_run_sees_them(tmp_path):
    """Neither normaliser nor the scale of rewards (by the range of returns, IQL) depend on what is held out."""

    def of(data: dict[str, np.ndarray], seed: int = 0):
        options = RunOptions(holdout=0.3, scale="smoke", seed=seed, out=tmp_path, task="hopper-medium")
        return prepare(data, "iql", options, {}, Console(quiet=True))[:2]

    config, dataset = of(log())
    assert dataset.held is not None
    unseen = np.isin(EPISODE, list(episodes_in(dataset.held.transitions)))
    changed = log()
    changed["observations"][unseen] += 1e6
    changed["rewards"][unseen] *= 1e6
    other_config, other = of(changed)
    assert config == other_config
    assert config.data.holdout == 0.3
    for mine, theirs in zip(dataset.transitions, other.transitions, strict=True):
        going_on = dataset.transitions.continues == 1  # what follows a terminal is never read
        np.testing.assert_array_equal(mine[going_on], theirs[going_on])
    normaliser = [fit_preprocess(it.transitions, True) for it in (dataset, other)]
    np.testing.assert_array_equal(normaliser[0].observation_mean, normaliser[1].observation_mean)
    assert (normaliser[0].observation_high < 1e6).all()
    again = of(log(), seed=5)[1]
    np.testing.assert_array_equal(again.transitions.observation, dataset.transitions.observation)


def test_runs_without_keep_their_names(tmp_path):
    options = [RunOptions(holdout=it, scale="smoke", out=tmp_path) for it in (None, 0.0, 0.3)]
    configs = [prepare(log(), "td3_bc", it, {}, Console(quiet=True))[0] for it in options]
    assert configs[0] == configs[1]
    assert config_hash(configs[0]) != config_hash(configs[2])
