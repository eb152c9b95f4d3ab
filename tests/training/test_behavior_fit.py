"""The cache of fits: the same fit is taken from it, another one never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import itrpo
from itrpo.options import RunOptions
from itrpo.training import behavior_fit, run
from itrpo.training.session import Session

FIELDS = {"policy_hidden": (8,), "critic_hidden": (8,), "behavior_hidden": (8,), "batch_size": 8}
OPTIONS = RunOptions(preset="quick", steps=2, seeds=2, behavior_steps=6, eval_every=2, env="none")


def arrays(rewards: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(40, 2)),
        "actions": rng.uniform(-0.9, 0.9, (40, 1)),
        "rewards": np.full(40, rewards),
        "terminals": np.zeros(40, bool),
        "timeouts": np.arange(40) % 10 == 9,
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "behavior"


def train(out: Path, rows=None, options: RunOptions = OPTIONS, **fields) -> bytes:
    given = arrays() if rows is None else rows
    itrpo.train(given, "brac_v", replace(options, out=out), fields=FIELDS | fields, console=Console(quiet=True))
    return (out / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_damaged_fit_is_done_again_to_the_same_bits(cache, tmp_path):
    first = train(tmp_path / "first")
    fits = {path: path.read_bytes() for path in cache.iterdir()}
    assert len(fits) == 2  # one for each seed
    damaged = min(fits)
    damaged.write_bytes(fits[damaged][:-40])
    assert train(tmp_path / "again") == first
    assert {path: path.read_bytes() for path in cache.iterdir()} == fits


@pytest.mark.slow
def test_a_cache_that_refuses_is_no_reason_to_stop(cache, tmp_path):
    cache.parent.mkdir()
    cache.write_text("no folder")
    assert b"behavior_nll" in train(tmp_path / "first")


class Stop(Exception):
    pass


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    """The names in the cache of the fits, one a seed, of the run that `train` would do."""
    keys: list[tuple[str, ...]] = []

    def note(session: Session, train_phases: Any, saved: Any) -> None:
        _, _, fit_steps, _ = train_phases.args
        keys.append(tuple(behavior_fit.fit_keys(session, fit_steps)))
        raise Stop

    def key(**change: Any) -> tuple[str, ...]:
        with pytest.raises(Stop):
            train(tmp_path / str(len(keys)), **change)
        return keys[-1]

    monkeypatch.setattr(run, "train_all", note)
    return key


def test_what_a_fit_follows_from_is_in_its_name(key, monkeypatch):
    moved, swapped = arrays(), arrays()
    moved["actions"][3] += 0.05
    swapped["observations"] = swapped["observations"][:, ::-1]
    changes = [
        {},
        {"rows": moved},
        {"rows": swapped},
        {"options": replace(OPTIONS, seed=1)},
        {"options": replace(OPTIONS, behavior_steps=7)},
        {"options": replace(OPTIONS, normalize_observations=False)},
        {"options": replace(OPTIONS, action_low=-2.0, action_high=2.0)},
        {"behavior_dual_learning_rate": 0.5},
    ]
    names = [name for change in changes for name in key(**change)]
    assert len(set(names)) == 2 * len(changes)
    monkeypatch.setattr(behavior_fit, "FIT_VERSION", behavior_fit.FIT_VERSION + 1)
    assert not {*key()} & {*names}


def test_what_a_fit_does_not_follow_from_shares_it(key):
    """The rest of the algorithm, its length, rewards, and how many seeds there are."""
    same = [{}, {"alpha": 0.3}, {"options": replace(OPTIONS, steps=3)}, {"rows": arrays(rewards=2.0)}]
    first, second = key()
    assert {key(**change) for change in same} == {(first, second)}
    assert key(options=replace(OPTIONS, seeds=1)) == (first,)
