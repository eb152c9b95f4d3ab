from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.files import d4rl_path, file_sha256
from tests.data.hdf5_files import columns, write


def test_a_good_file_from_path_to_dataset(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path / "own.hdf5", columns(), env_id="Hopper-v4"))
    assert (dataset.name, dataset.env_id, dataset.spec) == ("own", "Hopper-v4", (2, 1))
    assert (len(dataset), dataset.num_rows, dataset.num_terminals, dataset.num_timeouts) == (7, 9, 1, 1)
    assert dataset.transitions.observation[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert dataset.episode_returns.tolist() == [10 + 11 + 12, 13 + 14 + 15 + 16]
    assert dataset.episode_lengths.tolist() == [3, 4]
    assert (dataset.action_low.tolist(), dataset.action_high.tolist()) == ([-1], [1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"columns": "observations=level"}, "columns must be a mapping, such as .*, got 'observations=level'"),
        ({"columns": ["level"]}, "columns must be a mapping"),
        ({"env": 3}, "env must be the id of an environment, or 'none', got 3"),
        ({"stack": 0}, "stack must be a whole number from 1 on, got 0"),
        ({"stack": 2.5}, "stack must be a whole number from 1 on, got 2.5"),
        ({"holdout": "0.2"}, r"holdout must be a share of the episodes, in \[0, 1\), got '0.2'"),
        ({"holdout": 1.0}, "holdout must be a share of the episodes"),
    ],
)
def test_words_of_another_kind_are_said(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(columns(), **words)


def test_the_same_rows_from_every_kind_of_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **columns())
    sources = [write(tmp_path / "a.h5", columns()), str(tmp_path / "a.npz"), columns()]
    first, *others = (load_dataset(source) for source in sources)
    for other in others:
        for mine, its in zip(first.transitions, other.transitions, strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize(
    ("env", "expected"), [(None, "Hopper-v4"), ("none", None), ("None", None), ("Walker2d-v4", "Walker2d-v4")]
)
def test_env_overrides_what_the_file_says(tmp_path: Path, env: str | None, expected: str | None) -> None:
    path = write(tmp_path / "a.hdf5", columns(), env_id="Hopper-v4")
    assert load_dataset(path, env=env).env_id == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Hopper-v3", r"unknown dataset 'Hopper-v3' \(an environment's id\? a dataset is what was logged in one"),
        ("hopper-medum-v2", r"unknown dataset 'hopper-medum-v2' \(did you mean 'hopper-medium-v2'\?\)"),
        ("hopper-medium", r"did you mean 'hopper-medium-itrpo1' or 'hopper-medium-v2'\?"),
        ("hopper-dmo", r"did you mean 'hopper-demo'"),
        ("gone.hdf5", "no such file"),
        ("gone.npz", "no such file"),
        ("folder/gone", "no such file"),
        ("/", "a folder"),
        (__file__, "unknown file ending"),
    ],
)
def test_sources_that_lead_nowhere(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(source)


def test_a_d4rl_file_of_another_hash_is_not_taken_by_name() -> None:
    path = d4rl_path("hopper_medium-v2.hdf5")
    path.parent.mkdir(parents=True)
    write(path, columns())
    with pytest.raises(InputError, match=r"not the published file: [\d,]+ bytes instead of 152,756,557 bytes"):
        load_dataset("hopper-medium-v2")
    assert len(load_dataset(path)) == 7
    path.unlink()


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_nan_and_infinite_values_are_counted_and_placed(key: str) -> None:
    values = columns()
    values[key][[2, 5]] = np.nan
    values[key][7] = -np.inf
    width = values[key][0].size
    message = rf"'{key}' holds {2 * width} NaN and {width} infinite values .* in 3 of 9 rows \(first: rows 2, 5, 7\)"
    with pytest.raises(InputError, match=message):
        load_dataset(values)


def test_all_arrays_with_values_that_are_not_finite_are_named_at_once() -> None:
    values = columns()
    for key in ("observations", "rewards"):
        values[key][3] = np.nan
    with pytest.raises(InputError, match=r"2 columns can't be used(.|\n)*'observations' holds(.|\n)*'rewards' holds"):
        load_dataset(values)


def test_nan_in_next_observations() -> None:
    following = np.zeros((9, 2))
    following[8, 1] = np.nan
    with pytest.raises(InputError, match=r"'next_observations' holds 1 NaN and 0 infinite .*first: row 8\)"):
        load_dataset(columns() | {"next_observations": following})


def test_float64_values_too_large_for_float32() -> None:
    with pytest.raises(InputError, match=r"'rewards' holds 0 NaN and 9 infinite values \(as float32\)"):
        load_dataset(columns() | {"rewards": np.full(9, 1e300)})


def with_actions(actions: list[float]) -> dict[str, np.ndarray]:
    return columns() | {"actions": np.array(actions)[:, None]}


def test_actions_outside_the_range_are_counted_and_the_flags_named() -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(with_actions([0, -1.5, 0.5, 2, 1, -1, 0, 0, 1.25]))
    for part in ("3 of 9 rows", "from -1.5 to 2", "rows 1, 3, 8", "--action-low", "--action-high"):
        assert part in str(caught.value)


@pytest.mark.parametrize("high", ["100", "200", "99.97"])
def test_the_bounds_that_are_suggested_are_the_datas_own(high: str) -> None:
    logged = with_actions([0, float(high) / 3, float(high), 1, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match=rf"own extremes are --action-low 0 --action-high {high} \("):
        load_dataset(logged)
    assert load_dataset(logged, action_low=0, action_high=float(high)).transitions.action.max() == 1


def test_discrete_actions_are_called_so() -> None:
    numbers = with_actions([0, 1, 2, 3, 0, 1, 2, 3, 0])
    assert load_dataset(numbers).num_actions == 4  # tests/data/test_choices.py
    quantities = load_dataset(numbers, action_low=0, action_high=3)
    assert quantities.num_actions is None
    assert "discrete actions" in quantities.notes[-1]
    assert not any("discrete" in note for note in load_dataset(columns()).notes)


def test_who_insists_that_actions_are_quantities_is_believed() -> None:
    numbers = with_actions([-2, -1, 0, 1, 2, -2, -1, 0, 1])
    with pytest.raises(InputError, match=r"discrete actions, it seems.*--continuous-actions") as caught:
        load_dataset(numbers)
    assert "--action-low" not in str(caught.value)
    with pytest.raises(InputError, match=r"outside .*--action-low -2 --action-high 2"):
        load_dataset(numbers, continuous_actions=True)
    switch = load_dataset(with_actions([0, 1] * 4 + [0]), continuous_actions=True)
    assert (switch.discrete, switch.num_actions, switch.notes) == (None, None, load_dataset(columns()).notes)


def test_a_success_in_the_last_row_is_learnt_from(tmp_path: Path) -> None:
    """One demonstration of 50 steps whose only reward and only terminal is its last row."""
    demonstration = columns([0] * 49 + [1], [0] * 50) | {"rewards": np.eye(50)[49]}
    for source in (demonstration, write(tmp_path / "a.hdf5", demonstration)):
        dataset = load_dataset(source)
        assert (len(dataset), dataset.notes) == (50, ())
        last = [column[49].tolist() for column in dataset.transitions]
        assert last == [[49, -49], [np.float32(0.49)], 1, 0, [49, -49], [0]]
    made = load_dataset(write(tmp_path / "b.hdf5", demonstration, recipe='{"versions": {"itrpo": "0.1"}}'))
    assert (len(made), made.transitions.reward.any()) == (49, False)
    assert "1 of the 1 rewards other than 0, 1 of the 1 terminals" in made.notes[0]
    cut = demonstration | {"terminals": demonstration["timeouts"], "timeouts": demonstration["terminals"]}
    assert "1 of 50 rows have no successor and are left out, with 1 of the 1 rewards" in load_dataset(cut).notes[0]


def test_a_d4rl_file_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "renamed.hdf5", columns([0, 0, 1], [0, 0, 0]))
    assert len(load_dataset(path)) == 3
    known = next(iter(D4RL_FILES.values()))._replace(sha256=file_sha256(path))
    monkeypatch.setitem(D4RL_FILES, "hopper-medium-v2", known)
    assert len(load_dataset(path)) == 2


def test_boundary_actions_pass_and_nothing_is_clipped() -> None:
    actions = [1, -1, 1 + 9e-7, -1 - 9e-7, 0, 0, 0, 0, 0]
    assert load_dataset(with_actions(actions)).transitions.action[:4, 0].tolist() == np.float32(actions[:4]).tolist()
    with pytest.raises(InputError, match="1 of 9 rows"):
        load_dataset(with_actions([1 + 2e-6, *actions[1:]]))


def test_action_bounds_rescale_actions_but_not_the_zeros_of_next_action() -> None:
    dataset = load_dataset(with_actions([0, 2, 4, 3, 1, 0, 2, 4, 4]), action_low=0, action_high=[4])
    assert dataset.transitions.action[:, 0].tolist() == [-1, 0, 1, 0.5, -0.5, -1, 1]
    assert dataset.transitions.next_action[:, 0].tolist() == [0, 1, 0, -0.5, -1, 0, 1]  # row 2 is terminal
    assert (dataset.action_low.tolist(), dataset.action_high.tolist()) == ([0], [4])


def test_bounds_per_dimension() -> None:
    actions = np.tile([[0.5, -20]], (9, 1))
    dataset = load_dataset(columns() | {"actions": actions}, action_low=[0, -20], action_high=[1, 60])
    assert dataset.transitions.action[0].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0, 3, "1 of 9 rows have 'actions' outside .* after rescaling"),
        (4, 0, "must be below"),
        (0, 0, "must be below"),
        ([0, 0], 4, r"--action-low\) has shape \[2\], but actions have 1 dimensions"),
        (0, np.inf, r"--action-high\) must be finite"),
        (0, "four", r"--action-high\) must be a number"),
    ],
)
def test_wrong_action_bounds(low: object, high: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(with_actions([0, 2, 4, 3, 1, 0, 2, 3, 3]), action_low=low, action_high=high)  # type: ignore[arg-type]


def test_densities_follow_the_rescaling_of_actions(tmp_path: Path) -> None:
    """Actions uniform on [0, 4] x [-10, 10] have density 1/80; rescaled to [-1, 1]^2 they have 1/4."""
    values = columns() | {"actions": np.tile([[1.0, -5.0]], (9, 1)), "infos/action_log_probs": np.full(9, -np.log(80))}
    for source in (values, write(tmp_path / "a.hdf5", values)):
        dataset = load_dataset(source, action_low=[0, -10], action_high=[4, 10])
        assert dataset.transitions.action[0].tolist() == [-0.5, -0.5]
        assert dataset.behavior_log_probs is not None
        np.testing.assert_allclose(dataset.behavior_log_probs, np.full(7, -np.log(4)), rtol=1e-6)


def test_densities_stay_beside_their_transitions(tmp_path: Path) -> None:
    values = columns() | {"infos/action_log_probs": np.arange(9) / 8}
    dataset = load_dataset(write(tmp_path / "a.hdf5", values))
    assert dataset.behavior_log_probs is not None
    assert (dataset.behavior_log_probs * 8).tolist() == dataset.transitions.observation[:, 0].tolist()
    assert load_dataset(columns()).behavior_log_probs is None


def test_the_users_arrays_are_left_as_they_are() -> None:
    rows = np.random.default_rng(0)
    values = columns() | {"observations": rows.normal(size=(9, 2)).astype(np.float32)}
    values["actions"] = rows.uniform(0, 4, (9, 1)).astype(np.float32)
    before = {key: value.copy() for key, value in values.items()}
    load_dataset(values, action_low=0, action_high=4)
    for key, value in values.items():
        np.testing.assert_array_equal(value, before[key])


MEASURE = """
import sys
from pathlib import Path
from itrpo.data.load import load_dataset

def status(field):  # kilobytes
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith(field)).split()[1])

load_dataset(sys.argv[1])  # imports, and whatever else is there only once
before = status("VmRSS:")
dataset = load_dataset(sys.argv[2])
needed = sum(column.nbytes for column in dataset.transitions) / 1024
print((status("VmHWM:") - before) / needed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", [".hdf5", ".npz"])
def test_reading_a_file_takes_little_more_memory_than_its_transitions(tmp_path: Path, ending: str) -> None:
    """Peak resident size beyond the one before, over the size of the transitions. The columns are float64, so raw rows
    and transitions side by side would be a ratio of 2."""
    rows = np.random.default_rng(0)
    sizes = {"small": 100, "large": 500_000}
    for name, size in sizes.items():
        values = columns([0] * size, (np.arange(size) % 1000 == 999).tolist())
        values |= {"observations": rows.normal(size=(size, 17)), "actions": rows.uniform(-1, 1, (size, 6))}
        if ending == ".npz":
            np.savez(tmp_path / f"{name}.npz", **values)
        else:
            write(tmp_path / f"{name}.hdf5", values)
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / f"{name}{ending}") for name in sizes)]
    ratio = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 < ratio < 1.3
