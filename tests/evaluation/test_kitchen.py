from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.evaluation import rollout
from itrpo.evaluation.environments import logged_score, make_env, normalized_score, spaces_of, time_limit
from itrpo.files import d4rl_path, file_sha256
from itrpo.types import SpaceSpec

pytest.importorskip("gymnasium_robotics")
SLIDER = "itrpo/Kitchen_MicrowaveKettleLightSlider-v0"
BURNER = "itrpo/Kitchen_MicrowaveKettleBottomBurnerLight-v0"
REST = np.zeros(9, np.float32)

# element -> joints of the model, by their names, and where they are to be
JOINTS = {
    "microwave": (["microwave"], [-0.75]),
    "kettle": (["kettle"], [-0.23, 0.75, 1.62, 0.99, 0, 0, -0.06]),
    "light switch": (["light_switch", "light_joint"], [-0.69, -0.05]),
    "slide cabinet": (["slide_cabinet"], [0.37]),
    "bottom burner": (["knob_Joint_2", "bottom_left_burner"], [-0.88, -0.01]),
}


def positions(env: Any, element: str) -> list[int]:
    """Indices of an element's joints in qpos, from the model."""
    joints = [env.unwrapped.model.joint(name) for name in JOINTS[element][0]]
    return [int(joint.qposadr[0]) + k for joint in joints for k in range(7 if joint.type[0] == 0 else 1)]


def move(env: Any, element: str) -> None:
    env.unwrapped.data.qpos[positions(env, element)] = JOINTS[element][1]


@pytest.mark.parametrize(
    ("env_id", "elements"),
    [
        (SLIDER, ("microwave", "kettle", "light switch", "slide cabinet")),
        (BURNER, ("microwave", "kettle", "light switch", "bottom burner")),
    ],
)
def test_sixty_numbers_are_positions_and_the_tasks_goals(env_id: str, elements: tuple[str, ...]) -> None:
    assert spaces_of(env_id).spec == SpaceSpec(60, 9)
    env: Any = make_env(env_id)
    observation, _ = env.reset(seed=3)
    goal = np.zeros(30)
    for element in elements:
        goal[positions(env, element)] = JOINTS[element][1]
    np.testing.assert_array_equal(observation[30:], goal)
    state = env.unwrapped.data.qpos
    robot = [f"robot:panda0_joint{number}" for number in range(1, 8)] + ["robot:panda0_finger_joint1"]
    assert [env.unwrapped.model.joint(name).qposadr[0] for name in robot] == list(range(8))
    noise = np.array([env.step(REST)[0][:30] - state for _ in range(30)])
    largest = np.abs(noise).max(0)
    assert (largest[[*range(9), 20, 21, 22, 26, 27, 28]] <= 0.01).all()  # a tenth of the 0.1 in `franka_config.xml`
    assert (largest[[*range(9), 20, 21, 22, 26, 27, 28]] > 0.007).all()
    assert (largest[[9, 10, 17, 18, 19, 23, 24, 25, 29]] <= 5e-4).all()
    assert (largest[11:17] <= 5e-5).all()
    assert (largest[11:17] > 3e-5).all()


def test_an_action_is_a_speed_from_where_a_joint_was_seen() -> None:
    """Towards where the last observation saw a joint, plus 2 rad/s for 0.08 s at full action, within its bounds."""
    env: Any = make_env(SLIDER)
    seen, _ = env.reset(seed=0)
    action = np.array([1, 0.5, 0, 3, 0, 0, -0.5, 1, -1], np.float32)
    env.step(action)
    asked = seen[:9] + 0.16 * np.clip(action, -1, 1)
    asked[7:] = 0.04, 0.0
    np.testing.assert_allclose(env.unwrapped.data.ctrl, asked, atol=1e-12)
    before = env.unwrapped.data.qpos[0]
    for _ in range(10):
        env.step(action)
    assert env.unwrapped.data.qpos[0] > before + 0.3


def test_each_subtask_pays_once_and_the_fourth_ends_the_episode() -> None:
    env: Any = make_env(SLIDER)
    for seed in (0, 1):  # a reset begins anew
        env.reset(seed=seed)
        assert env.step(REST)[1:4] == (0.0, False, False)
        move(env, "microwave")
        move(env, "bottom burner")  # is none of this task's
        _, reward, ended, _, info = env.step(REST)
        assert (reward, ended, info["completed"]) == (1.0, False, ["microwave"])
        assert env.step(REST)[1] == 0.0  # it still is in its place
        env.unwrapped.data.qpos[positions(env, "microwave")] = 0.0
        env.step(REST)
        move(env, "microwave")
        assert env.step(REST)[1] == 0.0  # nor for a second time
        move(env, "slide cabinet")
        move(env, "light switch")
        assert env.step(REST)[1:3] == (2.0, False)
        move(env, "kettle")
        assert env.step(REST)[1:3] == (1.0, True)
    np.testing.assert_array_equal(normalized_score(SLIDER, [0, 3, 4]), [0, 75, 100])
    assert logged_score(SLIDER, 3.0) is None  # the rewards of the files are others


def test_near_is_within_three_tenths() -> None:
    env: Any = make_env(SLIDER)
    for angle, paid in ((-0.43, 0.0), (-0.47, 1.0)):  # the goal is -0.75; the sensor's noise at most 0.01
        env.reset(seed=0)
        env.unwrapped.data.qpos[positions(env, "microwave")] = angle
        assert env.step(REST)[1] == paid


def test_an_evaluation_plays_d4rls_280_steps() -> None:
    pool = rollout.make_pool(BURNER, 1, 1)
    returns, lengths = rollout.evaluate(pool, lambda seen: np.zeros((*seen.shape[:2], 9), np.float32), seed=0, step=0)
    assert (returns.tolist(), lengths.tolist()) == ([[0.0]], [[280]])
    assert time_limit(SLIDER) == time_limit(BURNER) == 280


def test_what_is_missing_or_another_task_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"FrankaKitchen-v1: its observations are a Dict .* --env itrpo/Kitchen_"):
        make_env("FrankaKitchen-v1")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"needs the model of gymnasium-robotics: pip install 'itrpo\[maze\]'"):
        make_env(SLIDER)


def test_names_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of D4RL's layout, in which `infos` is an array, is read by its name."""
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path))
    entry = D4RL_FILES["kitchen-complete-v0"]
    assert entry.file == "mini_kitchen_microwave_kettle_light_slider-v0.hdf5"
    assert (D4RL_FILES["kitchen-partial-v0"].env_id, D4RL_FILES["kitchen-mixed-v0"].env_id) == (SLIDER, BURNER)
    path, rng = d4rl_path(entry.file), np.random.default_rng(0)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(40, 60)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (40, 9)).astype(np.float32)
        file["rewards"] = np.repeat(np.float32([0, 1, 2, 4]), 10)
        file["terminals"] = np.arange(40) % 20 == 19
        file["timeouts"] = np.zeros(40, bool)
        file["infos"] = np.arange(40) // 20
    known = entry._replace(size=path.stat().st_size, sha256=file_sha256(path))
    monkeypatch.setitem(D4RL_FILES, "kitchen-complete-v0", known)
    dataset = load_dataset("kitchen-complete-v0")
    assert (dataset.env_id, dataset.source.kind, len(dataset)) == (SLIDER, "d4rl", 39)  # D4RL's view: not the last
    assert dataset.episode_returns.tolist() == [10, 60]
