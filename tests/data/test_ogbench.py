"""OGBench's sets, as its own loader reads them: rows of its simulators, written as its files are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from itrpo import load_dataset
from itrpo.cli import main
from itrpo.data import ogbench_names
from itrpo.data.again import load_again, source_again
from itrpo.data.convert import convert
from itrpo.errors import InputError
from itrpo.evaluation.environments import make_env, normalized_score

ogbench = pytest.importorskip("ogbench")
TASKS = {  # name: the environment of its file, and trajectories of so many states
    "pointmaze-medium-navigate-singletask-task2-v0": ("pointmaze-medium-v0", (40, 30)),
    "antsoccer-arena-navigate-singletask-v0": ("antsoccer-arena-v0", (6, 5)),
    "puzzle-3x3-play-singletask-task1-v0": ("puzzle-3x3-v0", (4, 5)),
}


def build(env_id: str, **options) -> gymnasium.Env:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(env_id, disable_env_checker=True, **options)


def write(home: Path, env_id: str, lengths: tuple[int, ...], file: str) -> Path:
    """Trajectories of an environment of OGBench; the last state of each is `terminals`, its action goes nowhere."""
    env, rows = build(env_id), []
    for seed, length in enumerate(lengths):
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        for step in range(length):
            action = env.action_space.sample()
            following, _, _, _, info = env.step(action)
            states = info["prev_qpos"], info.get("prev_button_states", 0)
            rows.append((observation, action, step == length - 1, *states))
            observation = following
    env.close()
    path = home / ".ogbench" / "data" / f"{file}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("observations", "actions", "terminals", "qpos", "button_states")
    arrays = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    if arrays["button_states"].ndim == 1:
        del arrays["button_states"]
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_of_its_own_loader(name, home):
    env_id, lengths = TASKS[name]
    path = write(home, env_id, lengths, ogbench_names.parse(name).file)
    np.savez(path.with_name(path.stem + "-val.npz"), **np.load(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, wanted, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
    found = load_dataset(f"ogbench:{name}", env="none")
    rows = found.transitions
    assert len(found) == sum(lengths) - len(lengths)
    np.testing.assert_array_equal(rows.observation, wanted["observations"])
    np.testing.assert_array_equal(rows.next_observation, wanted["next_observations"])
    np.testing.assert_array_equal(rows.action, wanted["actions"])
    np.testing.assert_array_equal(rows.reward, wanted["rewards"])
    np.testing.assert_array_equal(rows.continues, wanted["masks"])
    assert found.bounds == "declared"


def test_a_row_at_the_goal_is_a_terminal(home):
    """Task 2 of the maze: where a state is moved onto its goal, the reward is 0 and nothing follows."""
    name = "pointmaze-medium-navigate-singletask-task2-v0"
    path = write(home, "pointmaze-medium-v0", (6, 6), ogbench_names.parse(name).file)
    env = build("pointmaze-medium-singletask-task2-v0")
    env.reset()
    arrays = dict(np.load(path))
    arrays["qpos"][8] = env.unwrapped.cur_goal_xy  # pyright: ignore[reportAttributeAccessIssue]
    np.savez(path, **arrays)
    rows = load_dataset(f"ogbench:{name}", env="none").transitions
    np.testing.assert_array_equal(rows.reward, [-1] * 7 + [0] + [-1] * 2)  # row 8 of the file is the 8th transition
    np.testing.assert_array_equal(rows.continues, [1] * 7 + [0] + [1] * 2)


def test_a_return_is_a_success():
    """The maze's own state is put onto the goal; its own reward there would be 0, and -1 before."""
    env = make_env("pointmaze-medium-singletask-task2-v0")
    env.reset(seed=0)
    still = np.zeros(2, np.float32)
    assert env.step(still)[1:3] == (0.0, False)
    inner = env.unwrapped
    inner.set_xy(inner.cur_goal_xy)  # pyright: ignore[reportAttributeAccessIssue]
    assert env.step(still)[1:3] == (1.0, True)
    assert normalized_score("pointmaze-medium-singletask-task2-v0", 0.25) == 25.0
    assert normalized_score("pointmaze-medium-v0", 0.25) is None  # its goal changes: no single task


def test_a_run_scores_successes(home, tmp_path, capsys):
    name = "pointmaze-medium-navigate-singletask-v0"
    write(home, "pointmaze-medium-v0", (60,), ogbench_names.parse(name).file)
    out = tmp_path / "run"
    words = "--algorithm bc --steps 4 --eval-every 2 --eval-episodes 1 --seeds 1 --out"
    assert main(["train", f"ogbench:{name}", *words.split(), str(out)]) == 0
    printed = capsys.readouterr()
    assert "score" in printed.out + printed.err
    about, config = (json.loads((out / f"{it}.json").read_text()) for it in ("provenance", "config"))
    again = load_again(source_again(about), config["config"]["data"])  # as judge, export and finetune read it
    np.testing.assert_array_equal(again.transitions.reward, load_dataset(f"ogbench:{name}").transitions.reward)
    convert(f"ogbench:{name}", tmp_path / "task.npz")
    assert load_dataset(tmp_path / "task.npz").env_id == "pointmaze-medium-singletask-v0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("antmaze-large-navigate-v0", "those of single tasks"),
        ("visual-cube-single-play-singletask-v0", "vectors as observations"),
        ("antmaze-large-navigate-singletask-task9-v0", "those of single tasks"),
    ],
)
def test_names_that_are_no_single_task(name, message):
    with pytest.raises(InputError, match=message):
        load_dataset(f"ogbench:{name}")


def test_without_a_network_one_sentence_says_what_to_do(home, monkeypatch):
    monkeypatch.setattr("ogbench.utils.DATASET_URL", "http://127.0.0.1:9/ogbench")
    with pytest.raises(
        InputError, match=r"downloading it failed \(URLError.*or put antmaze-large-navigate-v0\.npz there"
    ):
        load_dataset("ogbench:antmaze-large-navigate-singletask-v0")


def test_a_file_of_another_environment_is_named(home):
    name = "puzzle-3x3-play-singletask-task1-v0"
    path = write(home, "pointmaze-medium-v0", (6,), ogbench_names.parse(name).file)
    with pytest.raises(InputError, match=rf"{path}: its states .* are not those of puzzle-3x3-singletask-task1-v0"):
        load_dataset(f"ogbench:{name}")
