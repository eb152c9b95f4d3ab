from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from itrpo.collection import demo
from itrpo.collection.demo import Share
from itrpo.collection.ladders import policy_sha256
from itrpo.collection.making import make
from itrpo.data.formats import hdf5
from itrpo.data.load import load_dataset
from itrpo.files import generated_path

SHARES = (Share("hopper_sac_040k", 2), Share("hopper_sac_140k", 1))
SMALL = demo.plan(SHARES, steps_per_slot=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "small.hdf5"
    make(SMALL, path, workers=2)
    return path


def test_the_file_has_d4rls_keys_and_reads_back(small: Path) -> None:
    with h5py.File(small) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        following, observations = file["next_observations"][:], file["observations"][:]  # type: ignore[index]
    infos = ["infos/action_log_probs", "infos/qpos", "infos/qvel"]
    assert sorted(names) == sorted(
        ["observations", "actions", "next_observations", "rewards", "terminals", "timeouts", *infos]
    )
    episodes = hdf5.read(small)
    assert episodes.env_id == "Hopper-v4"
    assert episodes.behavior_log_probs is not None
    assert np.isfinite(episodes.behavior_log_probs).all()
    inside = ~(episodes.terminals | episodes.timeouts)[:-1]
    np.testing.assert_array_equal(following[:-1][inside], observations[1:][inside])


def test_the_bytes_do_not_depend_on_the_number_of_processes(small: Path, tmp_path: Path) -> None:
    make(SMALL, tmp_path / "small.hdf5", workers=1)
    assert (tmp_path / "small.hdf5").read_bytes() == small.read_bytes()


def test_another_seed_is_another_dataset(small: Path, tmp_path: Path) -> None:
    make(demo.plan(SHARES, 300, seed=1), tmp_path / "other.hdf5", workers=1)
    assert hdf5.read(tmp_path / "other.hdf5").rewards[:50].tolist() != hdf5.read(small).rewards[:50].tolist()


def test_slots_of_one_policy_differ(small: Path) -> None:
    episodes = hdf5.read(small)
    first_rows = np.flatnonzero(np.concatenate([[True], (episodes.terminals | episodes.timeouts)[:-1]]))
    starts = episodes.observations[first_rows]
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_recipe_names_seeds_policies_and_versions(small: Path) -> None:
    recipe = hdf5.read(small).source.recipe
    assert (recipe["seed"], recipe["steps_per_slot"], recipe["env_id"]) == (0, 300, "Hopper-v4")
    assert [(part["policy"], part["slots"]) for part in recipe["parts"]] == list(SHARES)
    assert [part["sha256"] for part in recipe["parts"]] == [policy_sha256(policy) for policy, _ in SHARES]
    assert set(recipe["versions"]) == {"itrpo", "gymnasium", "mujoco", "numpy"}
    json.dumps(recipe)


def test_by_name_it_is_made_once_with_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("itrpo.collection.demo.plan", lambda: SMALL)
    shown = io.StringIO()
    dataset = load_dataset("hopper-demo", console=Console(file=shown, width=100))
    assert "Making hopper-demo" in shown.getvalue()
    assert (dataset.name, dataset.source.kind, dataset.env_id) == ("hopper-demo", "generated", "Hopper-v4")
    path = generated_path("hopper-demo")
    assert [entry.name for entry in path.parent.iterdir()] == ["hopper-demo.hdf5"]
    made = path.stat().st_mtime_ns
    assert load_dataset("hopper-demo").source.sha256 == dataset.source.sha256
    assert path.stat().st_mtime_ns == made


def test_a_script_without_a_main_guard_can_make_it(tmp_path: Path, small: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom itrpo.collection import demo\nfrom itrpo.collection.making import make\n"
        f"shares = [demo.Share(*share) for share in {[tuple(share) for share in SHARES]!r}]\n"
        f"make(demo.plan(tuple(shares), 300), Path({str(tmp_path / 'a.hdf5')!r}), 2)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.hdf5").read_bytes() == small.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.hdf5", "script.py"]  # no MUJOCO_LOG.TXT


def test_no_warning_reaches_the_user(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(demo.plan(SHARES[1:], 50), tmp_path / "a.hdf5", workers=1)
