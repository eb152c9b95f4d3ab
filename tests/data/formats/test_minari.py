from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from itrpo.data.convert import convert
from itrpo.data.formats import hdf5, hostile
from itrpo.data.formats import minari as minari_format
from itrpo.data.layout import Contents
from itrpo.data.load import load_dataset, read_episodes
from itrpo.errors import InputError
from itrpo.evaluation.environments import logged_score
from tests.data.hdf5_files import columns, write

BOX = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.setattr(hostile, "survives", lambda *_: True)  # tested in test_hdf5; a process takes long
    return tmp_path / "root"


def write_folder(folder: Path, episodes: list[dict[str, Any]], **metadata: Any) -> Path:
    """A folder as the minari package lays it out. In an episode, names with a slash are arrays in groups."""
    (folder / "data").mkdir(parents=True)
    steps = sum(len(episode.get("rewards", ())) for episode in episodes)
    known = {"total_episodes": len(episodes), "total_steps": steps, "data_format": "hdf5", "dataset_id": "own/set-v0"}
    known |= {"action_space": json.dumps(BOX), "minari_version": "0.5.4"}
    (folder / "data" / "metadata.json").write_text(json.dumps(known | metadata))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, episode in enumerate(episodes):
            for name, values in episode.items():
                file[f"episode_{number}/{name}"] = values
    return folder


def episode(first: int, steps: int, terminated: bool = False, truncated: bool = False) -> dict[str, Any]:
    """Observations first, first + 1, ...; the last one is known too."""
    flags = np.zeros((2, steps), dtype=bool)
    flags[:, -1] = terminated, truncated
    return {
        "observations": np.arange(first, first + steps + 1, dtype=np.float64)[:, None],
        "actions": np.arange(first, first + steps, dtype=np.float32)[:, None] / 100,
        "rewards": 10.0 + np.arange(first, first + steps),
        "terminations": flags[0],
        "truncations": flags[1],
    }


def test_every_row_has_its_true_successor(tmp_path: Path) -> None:
    """Episodes 0-2 (terminated), 20-22 (truncated), 40-41 (cut without a flag), 60-61 (still open)."""
    four = [episode(0, 3, terminated=True), episode(20, 3, truncated=True), episode(40, 2), episode(60, 2)]
    path = write_folder(tmp_path / "set-v0", four, env_spec=json.dumps({"id": "Hopper-v4"}))
    dataset = load_dataset(path)
    rows = [0, 1, 2, 20, 21, 22, 40, 41, 60, 61]
    assert dataset.transitions.observation[:, 0].tolist() == rows
    assert dataset.transitions.next_observation[:, 0].tolist() == [row + 1 for row in rows]
    assert np.flatnonzero(dataset.transitions.continues == 0).tolist() == [2]
    assert dataset.episode_returns.tolist() == [33, 93, 101]
    assert (dataset.num_terminals, dataset.num_timeouts, dataset.num_rows) == (1, 2, 10)
    assert np.flatnonzero(dataset.transitions.next_action[:, 0]).tolist() == [0, 1, 3, 4, 6, 8]
    assert (dataset.env_id, dataset.name, dataset.source.kind) == ("Hopper-v4", "own/set-v0", "minari")
    assert len(load_dataset(path / "data")) == 10  # the inner folder works too


def test_declared_action_bounds_are_taken_unless_others_are_given(tmp_path: Path) -> None:
    declared = BOX | {"low": [-0.5], "high": [1.5]}
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)], action_space=json.dumps(declared))
    dataset = load_dataset(path)
    assert (dataset.action_low.tolist(), dataset.action_high.tolist()) == ([-0.5], [1.5])
    np.testing.assert_allclose(dataset.transitions.action[:, 0], [-0.5, -0.49, -0.48], rtol=1e-6)
    dataset = load_dataset(path, action_low=-1, action_high=1)
    np.testing.assert_allclose(dataset.transitions.action[:, 0], [0, 0.01, 0.02], rtol=1e-6)


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("AntMaze_UMaze-v4", [[7, 0, 1], [8, 10, 11]]),  # achieved goal, then observation, as in evaluation
        ("PointMaze_UMaze-v3", [[0, 1], [10, 11]]),
        ("Other-v0", [[7, 5, 6, 0, 1], [8, 15, 16, 10, 11]]),  # alphabetical: achieved_goal, desired_goal, observation
    ],
)
def test_dict_observations(tmp_path: Path, env_id: str, expected: list[list[float]]) -> None:
    three = np.arange(3)[:, None]
    parts = {
        "observations/observation": 10.0 * three + [0, 1],
        "observations/achieved_goal": 7.0 + three,
        "observations/desired_goal/x": 5.0 + 10 * three,
        "observations/desired_goal/y": 6.0 + 10 * three,
    }
    steps = episode(0, 2) | parts
    del steps["observations"]
    path = write_folder(tmp_path / "set-v0", [steps], env_spec=json.dumps({"id": env_id}))
    assert read_episodes(path).observations.tolist() == expected
    kept = minari_format.read_contents(path).columns
    if env_id == "PointMaze_UMaze-v3":  # what is no part of the observation is kept beside it
        assert kept["infos/achieved_goal"].tolist() == [[7], [8]]


def test_infos_of_the_reset_are_left_out(tmp_path: Path) -> None:
    first = episode(0, 2) | {"infos/qpos": np.arange(6).reshape(3, 2), "infos/speed": [1.0, 2.0], "infos/name": "x"}
    first |= {"infos/action_log_probs": [-1.0, -2.0]}
    path = write_folder(tmp_path / "set-v0", [first])
    read = minari_format.read_contents(path)
    assert read.columns["infos/qpos"].tolist() == [[0, 1], [2, 3]]
    assert read.columns["infos/speed"].tolist() == [1, 2]
    assert read.notes == ("left out, not one row of numbers per step: infos/name",)
    log_probs = minari_format.read(path).behavior_log_probs
    assert log_probs is not None
    assert log_probs.tolist() == [-1, -2]


flags = st.lists(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]), min_size=2, max_size=9)


@hypothesis.settings(max_examples=25)
@hypothesis.given(flags, st.sampled_from(["none", "consistent", "broken"]), st.booleans())
def test_hdf5_to_minari_and_back_is_lossless(ends: list[tuple[int, int]], successors: str, odd_types: bool) -> None:
    """One-step episodes, rows both terminal and timeout, files that end within an episode: flags are any."""
    rows, rng = len(ends), np.random.default_rng(len(ends))
    kind = np.float64 if odd_types else np.float32
    values: dict[str, np.ndarray] = {
        "observations": rng.normal(size=(rows, 2)).astype(kind),
        "actions": rng.uniform(-1, 1, (rows, 1)).astype(kind),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.array([end[0] for end in ends]).astype(np.uint8 if odd_types else bool),
        "timeouts": np.array([end[1] for end in ends]).astype(np.float32 if odd_types else bool),
        "infos/action_log_probs": rng.normal(size=rows).astype(np.float32),
        "infos/qpos": rng.normal(size=(rows, 3)),
        "goal/x": rng.integers(0, 9, rows),
    }
    values["observations"][0] = [np.nan, -0.0]
    if successors != "none":
        following = rng.normal(size=(rows, 2)).astype(kind)
        over = np.array([sum(end) > 0 for end in ends])[:-1]
        following[:-1][~over] = values["observations"][1:][~over]
        if successors == "broken":
            following[0] += 1
        values["next_observations"] = following
    folder = Path(tempfile.mkdtemp())
    try:
        source = write(folder / "a.hdf5", values, env_id="Hopper-v4", recipe='{"seed": 3}')
        with h5py.File(source, "a") as file:
            file["metadata/policy/fc0/weight"] = np.arange(6.0).reshape(2, 3)
            file["metadata/algorithm"] = "SAC"
        minari_format.write(hdf5.read_contents(source), folder / "own-v0")
        hdf5.write(minari_format.read_contents(folder / "own-v0"), folder / "b.hdf5")
        with h5py.File(folder / "b.hdf5") as file:
            for key, expected in values.items():
                read = file[key][()]
                assert (read.dtype, read.tobytes()) == (expected.dtype, expected.tobytes()), key
            assert dict(file.attrs) == {"env_id": "Hopper-v4", "recipe": '{"seed": 3}'}
            assert file["metadata/policy/fc0/weight"][()].tolist() == [[0, 1, 2], [3, 4, 5]]
            assert file["metadata/algorithm"][()] == b"SAC"
            named: list[str] = []
            file.visititems(lambda name, entry: named.append(name) if isinstance(entry, h5py.Dataset) else None)
            assert set(named) == set(values) | {"metadata/policy/fc0/weight", "metadata/algorithm"}
    finally:
        shutil.rmtree(folder)


def test_unknown_last_observations_give_the_transitions_of_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5", columns(), env_id="Hopper-v4")
    notes = minari_format.write(hdf5.read_contents(source), tmp_path / "own-v0")
    assert "does not know the last observation" in notes[0]
    with h5py.File(tmp_path / "own-v0" / "data" / "main_data.hdf5") as file:
        assert [len(group["observations"]) for group in file.values()] == [4, 5, 3]
        assert file["episode_0/observations"][2:].tolist() == [[2, -2], [2, -2]]
    before, after = load_dataset(source), load_dataset(tmp_path / "own-v0")
    for one, other in zip(before.transitions, after.transitions, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (after.env_id, after.num_timeouts, after.episode_returns.tolist()) == ("Hopper-v4", 1, [33, 58])


def test_a_break_within_an_episode_is_said_and_starts_a_new_one(tmp_path: Path) -> None:
    following = np.roll(columns()["observations"], -1, axis=0)
    following[4] += 0.5
    broken = Contents(columns() | {"next_observations": following}, None)
    notes = minari_format.write(broken, tmp_path / "a-v0")
    assert notes == (
        "in 1 rows next_observations do not lead to the next row, though no flag ends the episode there: in Minari a"
        " new episode starts after each",
    )
    episodes = read_episodes(tmp_path / "a-v0")
    assert np.flatnonzero(episodes.timeouts).tolist() == [4, 6]
    assert minari_format.read_contents(tmp_path / "a-v0").columns["timeouts"].tolist() == columns()["timeouts"].tolist()
    assert episodes.next_observations is not None
    np.testing.assert_array_equal(episodes.next_observations, following)


def test_the_minari_package_reads_what_we_write(tmp_path: Path, root: Path) -> None:
    minari = pytest.importorskip("minari")
    values = columns() | {
        "next_observations": columns()["observations"] + np.float32([1, -1]),
        "infos/qpos": np.zeros((9, 2)),
    }
    found = hdf5.read_contents(write(tmp_path / "a.hdf5", values, env_id="Hopper-v4"))
    minari_format.write(found, root / "own" / "set-v0")
    dataset = minari.load_dataset("own/set-v0")
    assert (dataset.total_episodes, dataset.total_steps, dataset.env_spec.id) == (3, 9, "Hopper-v4")
    assert (dataset.observation_space.shape, dataset.action_space.shape) == ((2,), (1,))
    assert list(minari.list_local_datasets()) == ["own/set-v0"]
    for read, (start, stop) in zip(dataset.iterate_episodes(), [(0, 3), (3, 7), (7, 9)], strict=True):
        assert read.observations[:, 0].tolist() == list(range(start, stop + 1))
        assert read.rewards.tolist() == values["rewards"][start:stop].tolist()
        assert read.terminations.tolist() == values["terminals"][start:stop].tolist()
        assert read.truncations.tolist() == values["timeouts"][start:stop].tolist()
        assert dataset.observation_space.contains(read.observations[0])
        assert dataset.action_space.contains(read.actions[0])


def test_we_read_what_the_minari_package_writes(root: Path) -> None:
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    from minari.data_collector import EpisodeBuffer

    root.mkdir()
    box = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    buffers = [
        EpisodeBuffer(
            observations=list(np.arange(first, first + 4, dtype=np.float32)[:, None]),
            actions=list(np.full((3, 1), first / 10, np.float32)),
            rewards=[1.0, 2.0, 3.0],
            terminations=[False, False, first == 0],
            truncations=[False, False, first > 0],
            infos={"speed": [0.0, 0.1, 0.2, 0.3]},
        )
        for first in (0, 10)
    ]
    with pytest.warns(UserWarning, match="None"):
        minari.create_dataset_from_buffers(
            "own/set-v0", buffers, observation_space=gymnasium.spaces.Box(-99, 99, (1,)), action_space=box
        )
    dataset = load_dataset("minari:own/set-v0")
    assert dataset.transitions.observation[:, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert dataset.transitions.next_observation[:, 0].tolist() == [1, 2, 3, 11, 12, 13]
    assert dataset.transitions.continues.tolist() == [1, 1, 0, 1, 1, 1]
    assert dataset.transitions.action[:, 0].tolist() == [0, 0, 0, 0.5, 0.5, 0.5]  # 1 of [-2, 2]
    assert dataset.num_timeouts == 1
    np.testing.assert_allclose(
        minari_format.read_contents(root / "own" / "set-v0").columns["infos/speed"], [0, 0.1, 0.2, 0, 0.1, 0.2]
    )


def test_scores_are_those_of_the_minari_package(root: Path) -> None:
    minari = pytest.importorskip("minari")
    import gymnasium

    spec = gymnasium.spec("Hopper-v5").to_json()
    one = [episode(0, 3, terminated=True), episode(20, 3, truncated=True)]
    space = json.dumps(BOX | {"low": [-9.0], "high": [9.0]})
    write_folder(
        root / "own" / "set-v0", one, env_spec=spec, ref_min_score=10, ref_max_score=60.5, observation_space=space
    )
    dataset = load_dataset("minari:own/set-v0")
    assert dataset.env_id == "Hopper-v5"  # for which D4RL has no references
    assert dataset.reference == (10, 60.5)
    scores = logged_score(dataset.env_id, dataset.episode_returns, dataset.reference)
    theirs = minari.get_normalized_score(minari.load_dataset("own/set-v0"), dataset.episode_returns)
    np.testing.assert_allclose(scores, 100 * theirs, rtol=1e-12)


def spec(env_id: str, **more: Any) -> str:
    return json.dumps({"id": env_id, "max_episode_steps": None, "kwargs": {}} | more)


TWO = {"ref_min_score": -20.0, "ref_max_score": 30.0}


@pytest.mark.parametrize(
    ("metadata", "env", "known", "note"),
    [
        ({"env_spec": spec("Hopper-v5")}, None, None, None),  # as in Minari's `mujoco/hopper/...`
        (TWO | {"env_spec": spec("Hopper-v5", max_episode_steps=1000)}, None, (-20, 30), None),
        (TWO | {"env_spec": spec("Other-v0")}, None, (-20, 30), None),  # its clock can't be known here
        (TWO | {"env_spec": spec("Hopper-v5", kwargs={"render_mode": "human"})}, None, (-20, 30), None),
        (TWO | {"env_spec": spec("Hopper-v5")}, "none", None, None),
        (TWO | {"env_spec": spec("Hopper-v5")}, "Hopper-v4", None, "those of Hopper-v5, not of Hopper-v4"),
        (TWO, "Hopper-v4", None, "those of no environment, not of Hopper-v4"),
        (TWO | {"env_spec": spec("Hopper-v5"), "eval_env_spec": spec("Ant-v5")}, "Hopper-v5", None, "those of Ant-v5"),
        (TWO | {"env_spec": spec("Hopper-v5", kwargs={"healthy_reward": 2})}, None, None, "options, which are not"),
        (TWO | {"env_spec": spec("Hopper-v5", additional_wrappers=[{}])}, None, None, "options, which are not applied"),
        (TWO | {"env_spec": spec("Hopper-v5", max_episode_steps=50)}, None, None, "of 50 steps .* for 1,000"),
        (
            TWO | {"env_spec": spec("AdroitHandPen-v1", max_episode_steps=200)},
            None,
            None,
            "of 200 steps .* for 100",
        ),
        ({"ref_min_score": 5, "ref_max_score": 5, "env_spec": spec("Hopper-v5")}, None, None, r"\(5, 5\) are not used"),
        ({"ref_min_score": "0", "ref_max_score": 5, "env_spec": spec("Hopper-v5")}, None, None, "two finite numbers"),
        ({"ref_min_score": 0, "ref_max_score": np.inf, "env_spec": spec("Hopper-v5")}, None, None, "finite numbers"),
        ({"ref_max_score": 5, "env_spec": spec("Hopper-v5")}, None, None, None),
        (TWO | {"env_spec": spec("Hopper-v5", kwargs=[1])}, None, None, None),
    ],
)
def test_references_are_those_of_the_environment_that_is_played(
    tmp_path: Path, metadata: dict[str, Any], env: str | None, known: tuple[float, float] | None, note: str | None
) -> None:
    dataset = load_dataset(write_folder(tmp_path / "set-v0", [episode(0, 3)], **metadata), env=env)
    assert dataset.reference == known
    assert (note is None) == (dataset.notes == ())
    assert note is None or re.search(note, dataset.notes[0])


def test_references_survive_another_format_but_not_another_environment(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)], env_spec=spec("Hopper-v5"), **TWO)
    convert(path, tmp_path / "a.hdf5")
    convert(tmp_path / "a.hdf5", tmp_path / "back-v0")
    for copy in ("a.hdf5", "back-v0"):
        assert load_dataset(tmp_path / copy).reference == (-20, 30)
    contents = replace(minari_format.read_contents(path), env_id="Ant-v5")
    minari_format.write(contents, tmp_path / "ant-v0")
    assert load_dataset(tmp_path / "ant-v0").reference is None


def test_an_id_that_is_not_here_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://at-all")  # with the package installed, nothing goes over a network
    with pytest.raises(InputError) as caught:
        load_dataset("minari:own/set-v0")
    for part in (f"minari:own/set-v0: not in {root}", "itrpo[minari]", "minari download own/set-v0"):
        assert part in str(caught.value) or (part == "itrpo[minari]" and "downloading it failed" in str(caught.value))


@pytest.mark.parametrize("name", ["", "set", "../set-v0", "a/../../set-v0", "/etc/set-v0", "own\\set-v0", "set-v"])
def test_an_id_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(InputError, match=r"a Minari id looks like"):
        load_dataset(f"minari:{name}")


def test_nothing_that_the_metadata_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_env.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"id": "hostile_env:Env-v0", "entry_point": "hostile_env:Env", "kwargs": {}}
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)], env_spec=json.dumps(spec))
    load_dataset(path)
    minari_format.write(minari_format.read_contents(path), tmp_path / "again-v0")
    assert "hostile_env" not in sys.modules
    assert not (tmp_path / "executed").exists()


FAULTS = {
    "last observation missing": (
        {"observations": np.zeros((3, 1))},
        r"'observations' of 'episode_0' has shape \[3, 1\]",
    ),
    "flags too short": ({"terminations": [False]}, "'terminations' and 'rewards' of an episode have unequal lengths"),
    "no flag": ({"truncations": [0, 0, 2]}, r"'truncations' must be 0 or 1"),
    "actions of one axis": ({"actions": [0.5, 1, 1]}, r"'episode_0/actions' has type float64 and shape \[3\]"),
    "images": ({"observations": np.zeros((4, 8, 8, 3), np.uint8)}, "no images"),
    "text": ({"observations": ["a", "b", "c", "d"]}, "'episode_0/observations' has type object"),
    "tuple actions": ({"actions/_index_0": np.zeros((3, 1))}, "a group instead of an array under 'episode_0/actions'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_or_unsuitable_episodes(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    steps = {name: values for name, values in episode(0, 3).items() if not any(key.startswith(name) for key in change)}
    path = write_folder(tmp_path / "set-v0", [steps | change])
    with pytest.raises(InputError, match=message):
        read_episodes(path)


@pytest.mark.parametrize("missing", ["observations", "actions", "rewards", "terminations", "truncations"])
def test_missing_arrays(tmp_path: Path, missing: str) -> None:
    steps = episode(0, 3)
    del steps[missing]
    with pytest.raises(InputError, match=f"no 'episode_0/{missing}'"):
        read_episodes(write_folder(tmp_path / "set-v0", [steps]))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"total_episodes": 2}, r"main_data.hdf5: 1 episodes, but metadata.json says 2"),
        ({"data_format": "arrow"}, r"stored in Minari's format 'arrow'"),
        ({"env_spec": "{"}, "not Minari's metadata"),
        ({"action_space": "nonsense"}, "not Minari's metadata"),
        ({"action_space": json.dumps(BOX | {"low": ["a"]})}, "not Minari's metadata"),
    ],
)
def test_wrong_metadata(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_episodes(write_folder(tmp_path / "set-v0", [episode(0, 3)], **metadata))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"total_episodes": 1'])
def test_metadata_that_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)])
    (path / "data" / "metadata.json").write_bytes(content)
    with pytest.raises(InputError, match=r"metadata.json: not Minari's metadata"):
        read_episodes(path)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)])
    file = path / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=r"main_data.hdf5: (truncated or damaged|not an) HDF5 file"):
        read_episodes(path)


def test_no_such_folder_and_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Minari dataset"):
        minari_format.read(tmp_path)
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)])
    (path / "data" / "main_data.hdf5").unlink()
    with pytest.raises(InputError, match=r"main_data.hdf5: no such file; the dataset is not complete"):
        read_episodes(path)


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_refused(tmp_path: Path, kind: str) -> None:
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        elsewhere = write(tmp_path / "b.hdf5", columns())
        link = h5py.SoftLink("/x") if kind == "soft" else h5py.ExternalLink(str(elsewhere), "/rewards")
        file["episode_0/rewards"] = link
    with pytest.raises(InputError, match="'episode_0/rewards' is a link to somewhere else"):
        read_episodes(path)


def test_declared_but_absent_rows_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set-v0", [episode(0, 3)])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        file["episode_0"].create_dataset("rewards", shape=(2**40,), dtype="f4", chunks=(1024,))
    with pytest.raises(InputError, match="'episode_0/rewards' declares"):
        read_episodes(path)


def test_writing_refuses_what_is_there_and_what_it_could_not_keep(tmp_path: Path) -> None:
    (tmp_path / "there-v0").mkdir()
    with pytest.raises(InputError, match="exists already"):
        minari_format.write(Contents(columns(), None), tmp_path / "there-v0")
    with pytest.raises(InputError, match="'own' is no Minari id"):
        minari_format.write(Contents(columns(), None), tmp_path / "own")
    mixed = columns() | {"next_observations": np.zeros((9, 2))}
    with pytest.raises(InputError, match="'observations' are float32 and 'next_observations' float64"):
        minari_format.write(Contents(mixed, None), tmp_path / "own-v0")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["there-v0"]
