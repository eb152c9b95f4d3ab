"""What "continue" means for a run folder: whose it is, and from where."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from itrpo import files
from itrpo.errors import InputError, StorageError
from itrpo.results import checkpoint
from itrpo.results.run_folder import RunFolder

CONFIG = {"algorithm": "itrpo", "data": {"rows": 4}, "alpha": 6.0, "train": {"steps": 10, "seed": 0}}
ABOUT = {"dataset_sha256": "abc", "dataset": {"name": "hopper-demo"}}
STATE = {"weights": np.arange(3, dtype=np.float32)}


def begin(folder: RunFolder, config=CONFIG, kind="config", lasting=10, about=ABOUT, console=None):
    return folder.begin_or_continue(
        kind,
        config,
        console or Console(quiet=True),
        reader="itrpo evaluate",
        free=("train.steps",),
        lasting={"begun_steps": lasting},
        about=about,
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has begun."""
    (tmp_path / "run").mkdir()
    begun = RunFolder(tmp_path / "run")
    begin(begun)
    return begun


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_longer_run_continues_and_keeps_what_lasts(folder):
    longer = {**CONFIG, "train": {"steps": 20, "seed": 0}}
    assert begin(folder, longer, lasting=20) == {"begun_steps": 10}
    recorded = files.read_json(folder.path / "config.json")
    assert recorded == {"config": longer, "version": checkpoint.VERSION, "begun_steps": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {**CONFIG, "alpha": 1.0}}, r"another run \(alpha: 6.0 -> 1.0\)"),
        ({"config": {**CONFIG, "train": {"steps": 10, "seed": 1}}}, r"another run \(train.seed: 0 -> 1\)"),
        ({"kind": "sac"}, "a run of another kind"),
        ({"about": {**ABOUT, "dataset_sha256": "def"}}, "another version of hopper-demo"),
        (
            {
                "about": {"dataset_sha256": "def", "dataset": {"name": "tank"}},
                "config": {**CONFIG, "data": {"rows": 5}},
            },
            "trained on hopper-demo, and not on tank",
        ),
        ({"config": {**CONFIG, "algorithm": "td3_bc", "alpha": 1}}, r"another run \(algorithm: 'itrpo' -> 'td3_bc'\);"),
    ],
)
def test_another_run_is_refused_and_the_folder_is_as_it_was(folder, change, message):
    before = contents(folder)
    with pytest.raises(InputError, match=message):
        begin(folder, **change)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("recorded", "which"), [({}, "an earlier"), ({"version": 1}, "an earlier"), ({"version": 9}, "a later")]
)
def test_a_run_of_another_version_is_refused_in_one_sentence(folder, recorded, which):
    """Also where its configuration has other fields, which nobody could set right by flags."""
    path = folder.path / "config.json"
    files.write_json(path, {"config": {"backbone": dict.fromkeys("abcdefgh", 1)}, "begun_steps": 10} | recorded)
    before = contents(folder)
    with pytest.raises(InputError) as refused:
        begin(folder)
    assert str(refused.value) == (
        f"{folder.path} was begun by {which} version of itrpo, whose checkpoints this one does not continue; train "
        f"anew in another --out (`itrpo evaluate {folder.path}` still works)"
    )
    assert contents(folder) == before


def test_another_machine_is_said_and_recorded(folder):
    path = folder.path / "provenance.json"
    about = files.read_json(path)
    about["machine"]["threads"] = "64"
    files.write_json(path, about)
    said = io.StringIO()
    begin(folder, console=Console(file=said, width=1000))
    assert "threads: '64' ->" in said.getvalue()
    assert "not to the same bits" in said.getvalue()
    assert len(files.read_json(path)["resumed_on"]) == 1


def test_a_killed_beginning_leaves_a_folder_that_can_begin(tmp_path):
    """Provenance comes first: without config.json nothing has begun, and other people's files are in nobody's way."""
    folder = RunFolder(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files and no config\.json"):
        begin(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "provenance.json").write_text("{}")
    (tmp_path / ".config.json.0a1b.tmp").write_text('{"conf')
    begin(folder)
    assert files.read_json(tmp_path / "config.json")["config"] == CONFIG


def test_the_newest_whole_checkpoint_is_found(folder):
    console = Console(quiet=True)
    assert folder.newest(console) is None
    for step in (1, 2, 3):
        folder.save("train", step, STATE, {"run": "x"})
    assert len(list(folder.checkpoints.iterdir())) == checkpoint.KEEP
    saved = folder.newest(console)
    assert saved is not None
    assert (saved.phase, saved.step) == ("train", 3)
    np.testing.assert_array_equal(folder.restored(saved, STATE)["weights"], STATE["weights"])
    meta = json.loads((folder.checkpoints / "train_0000000003" / "meta.json").read_text())
    assert meta["run"] == "x"

    (folder.checkpoints / "train_0000000003" / "meta.json").write_text("{")
    said = io.StringIO()
    saved = folder.newest(Console(file=said, width=1000))
    assert saved is not None
    assert saved.step == 2
    assert "is damaged" in said.getvalue()
    (folder.checkpoints / "train_0000000002" / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(StorageError, match="every checkpoint"):
        folder.newest(console)


def test_a_state_of_other_arrays_is_said(folder):
    folder.save("train", 1, STATE, {})
    saved = folder.newest(Console(quiet=True))
    assert saved is not None
    with pytest.raises(StorageError, match="of another version of itrpo: array weights is float32"):
        folder.restored(saved, {"weights": np.zeros(4, np.float32)})


def test_what_killed_writers_left_is_removed(folder):
    (folder.path / ".config.json.1.0.tmp").write_text("half")
    (folder.checkpoints / ".train_0000000001.1.0.tmp").mkdir(parents=True)
    begin(folder)
    assert not list(folder.path.rglob("*.tmp"))


def test_a_checkpoint_whose_description_is_endlessly_deep_is_damaged(tmp_path):
    """JSON that nests so far ends Python's reader in a RecursionError."""
    checkpoint.save(tmp_path, "train", 20, {"w": np.ones(3)}, {})
    (tmp_path / "train_0000000020" / "meta.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"recursion|Stack overflow"):  # the second: Python 3.14
        checkpoint.load(tmp_path / "train_0000000020")


def test_a_folder_that_is_deleted_under_its_run_is_not_written_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for name in ("config.json", "status.json"):  # seeds that are to be added to a run have the second alone
        files.write_json(folder.path / name, {})
        folder.require()
        (folder.path / name).unlink()
    with pytest.raises(StorageError, match=r"run was deleted while its run went on; the same command begins it anew"):
        folder.require()


@pytest.mark.parametrize("older", [False, True])
def test_what_was_written_while_a_folder_was_being_deleted_goes_too(tmp_path, older):
    """Files put into it after `rm -r` has listed it stay; with an older file there, it was not deleted."""
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        files.write_json(folder.path / "config.json", {})
        files.write(folder.path / "policies" / "step_1", b"1")
        folder.save("train", 1, STATE, {})
        folder.require()
        folder.require()
        folder.append_timing({"step": 2})
        files.write(folder.path / "policies" / "step_2", b"2")
        folder.save("train", 2, STATE, {})
        (folder.path / "config.json").unlink()
        if not older:
            (folder.path / "policies" / "step_1").unlink()
            shutil.rmtree(folder.checkpoints / "train_0000000001")
    left = {it.name for it in folder.path.rglob("*")}
    if older:
        assert left >= {"step_1", "step_2", "train_0000000001", "train_0000000002", "timing.jsonl"}
    else:
        assert left <= {".lock"}
        with folder.lock():
            begin(folder)
