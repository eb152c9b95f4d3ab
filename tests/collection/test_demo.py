from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from itrpo.collection.demo import HOPPER_DEMO, POLICY_FOLDER, make_dataset, make_hopper_demo
from itrpo.data import d4rl
from itrpo.data.cache import generated_path
from itrpo.data.load import load_dataset
from itrpo.errors import StorageError

SMALL = replace(HOPPER_DEMO, steps_per_slot=300, slots=(("hopper_sac_040k", 2), ("hopper_sac_140k", 1)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "small.hdf5"
    make_dataset(path, SMALL, workers=2)
    return path


def test_the_file_has_d4rls_keys_and_reads_back(small: Path) -> None:
    with h5py.File(small) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        following, observations = file["next_observations"][:], file["observations"][:]
    infos = ["infos/action_log_probs", "infos/qpos", "infos/qvel"]
    assert sorted(names) == sorted(
        ["observations", "actions", "next_observations", "rewards", "terminals", "timeouts", *infos]
    )
    episodes = d4rl.read(small)
    assert episodes.env_id == "Hopper-v4"
    assert episodes.behavior_log_probs is not None
    assert np.isfinite(episodes.behavior_log_probs).all()
    inside = ~(episodes.terminals | episodes.timeouts)[:-1]
    np.testing.assert_array_equal(following[:-1][inside], observations[1:][inside])


def test_the_bytes_do_not_depend_on_the_number_of_processes(small: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "small.hdf5", SMALL, workers=1)
    assert (tmp_path / "small.hdf5").read_bytes() == small.read_bytes()


def test_another_seed_is_another_dataset(small: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other.hdf5", replace(SMALL, seed=1), workers=2)
    assert d4rl.read(tmp_path / "other.hdf5").rewards[:50].tolist() != d4rl.read(small).rewards[:50].tolist()


def test_slots_of_one_policy_differ(small: Path) -> None:
    episodes = d4rl.read(small)
    first_rows = np.flatnonzero(np.concatenate([[True], (episodes.terminals | episodes.timeouts)[:-1]]))
    starts = episodes.observations[first_rows]
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_recipe_names_seeds_policies_and_versions(small: Path) -> None:
    recipe = d4rl.read(small).source.recipe
    assert (recipe["seed"], recipe["steps_per_slot"], recipe["env_id"]) == (0, 300, "Hopper-v4")
    assert [(part["policy"], part["slots"]) for part in recipe["parts"]] == list(SMALL.slots)
    assert all(len(part["sha256"]) == 64 for part in recipe["parts"])
    assert set(recipe["versions"]) == {"itrpo", "gymnasium", "mujoco", "numpy"}
    json.dumps(recipe)


def test_by_name_it_is_made_once_with_a_progress_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("itrpo.collection.demo.HOPPER_DEMO", SMALL)
    shown = io.StringIO()
    dataset = load_dataset("hopper-demo", console=Console(file=shown, force_terminal=True, width=100))
    assert "Making hopper-demo" in shown.getvalue()
    assert (dataset.name, dataset.source.kind, dataset.env_id) == ("hopper-demo", "generated", "Hopper-v4")
    path = generated_path("hopper-demo")
    assert [entry.name for entry in path.parent.iterdir()] == ["hopper-demo.hdf5"]
    made = path.stat().st_mtime_ns
    assert load_dataset("hopper-demo").source.sha256 == dataset.source.sha256
    assert path.stat().st_mtime_ns == made


def test_a_run_killed_while_making_it_leaves_no_dataset_and_is_redone(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "demo.hdf5"
    script = "from itrpo.collection.demo import make_hopper_demo as make; print('started', flush=True); "
    script += f"make({str(path)!r})"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
    assert not path.exists()
    make_dataset(path, SMALL, workers=2)
    assert path.read_bytes() == small.read_bytes()


def test_a_script_without_a_main_guard_can_make_it(tmp_path: Path, small: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from itrpo.collection.demo import HOPPER_DEMO, make_dataset\n"
        f"slots = {SMALL.slots!r}\n"
        f"make_dataset(Path({str(tmp_path / 'a.hdf5')!r}), replace(HOPPER_DEMO, steps_per_slot=300, slots=slots), 2)\n"
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
        make_dataset(tmp_path / "a.hdf5", SMALL, workers=1)


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="set ITRPO_CACHE"):
        make_hopper_demo(tmp_path / "file" / "demo.hdf5")


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import resource
from dataclasses import replace
from pathlib import Path
from itrpo.collection.demo import HOPPER_DEMO, make_dataset
from itrpo.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # bytes that a file may have
try:
    make_dataset(Path({str(tmp_path / "a.hdf5")!r}), replace(HOPPER_DEMO, steps_per_slot=300, slots={SMALL.slots!r}), 1)
except StorageError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "a.hdf5: File too large; set ITRPO_CACHE" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_shipped_policies_are_small_and_all_used() -> None:
    files = list(POLICY_FOLDER.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 2e6
    assert {file.stem for file in files} == {policy for policy, _ in HOPPER_DEMO.slots}


def test_the_recipe_is_about_200_000_steps() -> None:
    assert sum(slots for _, slots in HOPPER_DEMO.slots) * HOPPER_DEMO.steps_per_slot == 200_000
