"""Real trackers, where they are installed: what they write for two steps of a run."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from itrpo.errors import InputError
from itrpo.results.trackers import check_trackers, open_tracker, scalars

METRICS = {"kl": np.array([1.0, 3.0])}


def test_every_seed_and_their_mean():
    assert scalars(METRICS, range(2)) == {"kl": 2.0, "kl/seed0": 1.0, "kl/seed1": 3.0}


def test_seeds_that_were_added_have_their_own_names_and_no_mean():
    assert scalars(METRICS, range(4, 6)) == {"kl/seed4": 1.0, "kl/seed5": 3.0}


def test_tensorboard_writes_a_curve_for_each(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    tracker = open_tracker("tensorboard", tmp_path, {})
    tracker.log(10, METRICS, range(2))
    tracker.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(name in events.read_bytes() for name in (b"kl", b"kl/seed0", b"kl/seed1"))


def test_a_resumed_run_takes_back_the_steps_that_come_again(tmp_path: Path):
    """TensorBoard drops events of earlier files from the step on at which a later one says that a session started."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for resumed_at, steps in ((None, (10, 20)), (10, (20, 30))):
        tracker = open_tracker("tensorboard", tmp_path, {}, resumed_at)
        for step in steps:
            tracker.log(step, METRICS, range(2))
        tracker.close()
    starts = dict[str, list[int]]()
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):  # records: a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            (length,) = struct.unpack_from("<Q", content, place)
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
            if event.HasField("session_log"):
                starts.setdefault(path.name, []).append(event.step)
            place += length + 16
    assert list(starts.values()) == [[11]]


def test_without_a_login_wandb_says_so_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("WANDB_API_KEY", "bad")
    refused = pytest.raises(InputError, match=r"--track wandb can't begin: .*WANDB_MODE=offline needs no login")
    for mode, outcome in (("offline", nullcontext()), ("online", refused)):
        wandb.teardown()
        monkeypatch.setenv("WANDB_MODE", mode)
        with outcome:
            check_trackers(["wandb"])
    wandb.teardown()


def test_wandb_offline_keeps_folders_of_one_name_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`itrpo compare` calls them all by their algorithms: `a/iql` and `b/iql` are two runs, each resumed as itself."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    ids = list[str]()
    for folder in (tmp_path / "a" / "iql", tmp_path / "b" / "iql", tmp_path / "a" / "iql"):
        folder.mkdir(parents=True, exist_ok=True)
        tracker = open_tracker("wandb", folder, {"alpha": 1.0})
        ids.append(wandb.run.id)
        assert wandb.run.name == "iql"
        tracker.log(10, METRICS, range(2))
        tracker.log(20, METRICS, range(2))  # wandb sends a step away when the next one begins
        assert wandb.run.summary["kl/seed1"] == 3.0
        tracker.close()
        assert list((folder / "wandb").glob("offline-run-*"))
    assert ids[0] == ids[2] != ids[1]
