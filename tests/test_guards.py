"""Guards of a policy, on one whose action is 5 tanh(temp - 20): each against what it must do by hand."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from itrpo.policy import Guards, MissingInput, Policy, PolicyFileError, guards_json, load_policy, save_policy

NAMES = {
    "observation_names": ["temp", "level", "site"],
    "observation_units": ["degC", "m", ""],
    "action_names": ["valve"],
    "action_units": ["%"],
}


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def guarded(folder: Path, stack: int = 1, **changed) -> Policy:
    given = {
        "missing": "error",
        "fallback": array(np.nan),
        "constant": array(np.nan, np.nan, 7),
        "low": array(18, 0, 7),
        "high": array(22, 2, 7),
        "clamp": False,
        "action_low": array(-4),
        "action_high": array(3),
        "rate": array(np.inf),
    }
    guards = Guards(**(given | changed))
    size = 3 * stack + stack - 1
    weight, mean = np.zeros((1, size)), np.zeros(size)
    weight[0, 0], mean[0] = 1, 20
    metadata = {**NAMES, "guards": guards_json(guards), "stack": stack}
    export = {"kind": "tanh_mlp", "weight_0": weight, "bias_0": [0.0]}
    save_policy(folder / "p.npz", export, mean, np.ones(size), [-5.0], [5.0], metadata)
    return load_policy(folder / "p.npz")


def wants(temp: float) -> float:
    return 5 * np.tanh(temp - 20)


def quietly(policy: Policy, *observation: float) -> float:
    return float(policy.act(observation)[0])


def test_nothing_acts_where_nothing_is_wrong(tmp_path):
    policy = guarded(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy([20.3, 1, 7]) == pytest.approx(wants(20.3), rel=1e-5)
    assert str(policy.explain([20.3, 1, 7])) == "no guard acts"
    assert not any(count.any() for count in policy.counts.values())


def test_actions_stay_within_their_bounds(tmp_path):
    policy = guarded(tmp_path)
    assert quietly(policy, 30, 1, 7) == 3
    assert quietly(policy, 10, 1, 7) == -4
    assert (policy.counts["bounds"].tolist(), policy.counts["range"].tolist()) == ([2], [2, 0, 0])
    action, findings = policy.explain([30.0, 1, 7])
    assert action == 3
    assert [it.text for it in findings] == [
        "temp is 30 degC, beyond 18 to 22 of training: counted",
        "valve is 3 %: the policy's 5 % is outside of its bounds, -4 to 3",
    ]
    assert [(it.guard, it.column, it.name, it.row) for it in findings] == [
        ("range", 0, "temp", ()),
        ("bounds", 0, "valve", ()),
    ]


def test_what_is_beyond_training_is_clamped_if_asked(tmp_path):
    policy = guarded(tmp_path, clamp=True, low=array(19.9, 0, 7))
    assert quietly(policy, 0, 1, 7) == pytest.approx(wants(19.9), rel=1e-4)
    assert "temp is 0 degC, beyond 19.9 to 22 of training: clamped" in str(policy.explain([0, 1, 7]))


LARGEST = float(np.finfo(np.float32).max)  # as some recorders mark what they don't have


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf, LARGEST, -LARGEST])
def test_an_observation_that_is_missing_is_an_error(tmp_path, missing):
    policy = guarded(tmp_path, rate=array(1))
    policy([20.1, 1, 7])
    with pytest.raises(MissingInput, match=r"temp is .*: an error"):
        policy([missing, 1, 7])
    assert policy.counts["missing"].tolist() == [1, 0, 0]
    assert np.isnan(policy.explain([missing, 1, 7]).action).all()
    # the one before still counts for the rate
    assert quietly(policy, 22, 1, 7) == pytest.approx(wants(20.1) + 1, rel=1e-5)


def test_a_missing_observation_holds_the_last_action(tmp_path):
    policy = guarded(tmp_path, missing="hold", fallback=array(1.5))
    assert quietly(policy, np.nan, 1, 7) == 1.5
    held = quietly(policy, 20.2, 1, 7)
    assert quietly(policy, 20.9, np.nan, 7) == held
    assert "valve is 0.98688 %: the observation is missing (hold)" in str(policy.explain([20, np.nan, 7]))
    policy.reset()
    assert quietly(policy, np.nan, 1, 7) == 1.5
    policy.reset([2.0])
    assert quietly(policy, np.nan, 1, 7) == 2
    policy.reset([np.nan])  # where the valve is was not read
    assert quietly(policy, np.nan, 1, 7) == 1.5
    with pytest.raises(ValueError, match="an action has 1 numbers"):
        policy.reset([1.0, 2.0])


def test_a_mark_for_what_is_not_there_does_not_stay_in_the_memory(tmp_path):
    """It is finite, and its square is not: with a history or a limit of rates a NaN would never leave again."""
    for stack in (1, 2):
        policy = guarded(tmp_path, stack, missing="hold", fallback=array(0), rate=array(0.25))
        first = quietly(policy, 20.1, 1, 7)
        assert quietly(policy, LARGEST, 1, 7) == first
        assert np.isfinite([quietly(policy, it, 1, 7) for it in (20.1, 21, -LARGEST, 20.3)]).all()
        assert policy.counts["missing"].tolist() == [2, 0, 0]


def test_a_missing_observation_leads_to_the_fallback(tmp_path):
    policy = guarded(tmp_path, missing="fallback", fallback=array(-1), rate=array(0.5))
    first = quietly(policy, 20.2, 1, 7)
    # on the way there no faster than allowed
    assert [quietly(policy, np.nan, 1, 7) for _ in range(5)] == pytest.approx(
        [first - 0.5, first - 1, first - 1.5, -1, -1]
    )


def test_a_column_that_never_varied_is_as_it_was(tmp_path):
    policy = guarded(tmp_path, constant=array(20.1, np.nan, 7))
    for value in (99, np.nan, np.inf):
        assert quietly(policy, value, 1, value) == pytest.approx(wants(20.1), rel=1e-4)
    assert policy.counts["constant"].tolist() == [3, 0, 3]
    assert policy.counts["missing"].tolist() == [0, 0, 0]
    assert str(policy.explain([20.1, 1, 8])) == ("site is 8, and always was 7 in training, which stands in for it")
    assert not policy.explain([20.11, 1, 7.005]).findings  # the noise of a sensor


def test_actions_change_by_no_more_than_their_rate(tmp_path):
    policy = guarded(tmp_path, rate=array(0.25))
    assert quietly(policy, 20.4, 1, 7) == pytest.approx(wants(20.4), rel=1e-5)  # nothing was before
    assert quietly(policy, 10, 1, 7) == pytest.approx(wants(20.4) - 0.25, rel=1e-5)
    assert str(policy.explain([10, 1, 7])).splitlines()[1:] == [
        "valve is 1.39974 %: the policy's -5 % is outside of its bounds, -4 to 3",
        "valve is 1.39974 %: more than its limit of 0.25 % per step towards -5 %",
    ]
    policy.reset([-2.0])
    assert quietly(policy, 30, 1, 7) == -1.75
    assert policy.counts["rate"].tolist() == [2]


def test_each_of_a_batch_has_a_memory_of_its_own(tmp_path):
    policy = guarded(tmp_path, missing="hold", fallback=array(0), rate=array(0.5))
    steps = np.array([[20.0, 20.5, 19.0], [20.4, np.nan, 19.8], [20.4, 30.0, np.nan], [np.nan, 20, 20]])
    rows = np.stack([steps, np.ones_like(steps), np.full_like(steps, 7)], axis=-1)  # [T, B, O]
    alone = []
    for b in range(3):
        policy.reset()
        alone.append([policy.act(it)[0] for it in rows[:, b]])
    policy.reset()
    np.testing.assert_array_equal(np.stack([policy.act(it)[:, 0] for it in rows], axis=1), alone)
    with pytest.raises(ValueError, match=r"call reset\(\)"):
        policy.act(rows[0, 0])
    explained = policy.explain(rows[2])
    assert "row 1: temp is 30 degC" in str(explained)
    assert {it.row for it in explained.findings if it.guard == "instead"} == {(2,)}


def test_explaining_changes_nothing(tmp_path):
    policy = guarded(tmp_path, missing="hold", fallback=array(0), rate=array(0.1))
    policy.act([20, 1, 7])
    before = policy.past["state"].copy()
    explained = policy.explain([30, 1, 7])
    np.testing.assert_array_equal(policy.past["state"], before)
    assert not policy.counts["rate"].any()
    np.testing.assert_array_equal(policy.act([30, 1, 7]), explained.action)


def test_a_guard_warns_once_of_each_column(tmp_path):
    policy = guarded(tmp_path)
    with pytest.warns(RuntimeWarning) as caught:
        policy([[23, 1, 8], [24, 1, 7]])
    said = [str(it.message).partition(",")[0] for it in caught]
    assert said[:2] == ["temp is 23 degC", "site is 8"]
    assert said[2:] == ["valve is 3 %: the policy's 4.97527 % is outside of its bounds"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy([25, 1, 9])


def test_a_missing_observation_has_a_place_in_the_history(tmp_path):
    """Its numbers are those before, the others its own; the action is the one that was done, in [-1, 1]."""
    policy = guarded(tmp_path, stack=3, missing="fallback", fallback=array(2.5))
    policy.act([np.nan, 0.5, 7])  # begins nothing
    assert policy.past["state"][0] == 0
    policy.act([20.2, 0.5, 7])
    policy.act([np.nan, 0.8, 7])
    expected = [20.2, 0.8, 7, 20.2, 0.5, 7, 20.2, 0.5, 7, 0.5, np.tanh(0.2)]
    np.testing.assert_allclose(policy.past["state"][1:], expected, rtol=1e-5)


def test_a_policy_without_guards_explains_what_is_outside(tmp_path):
    export = {"kind": "tanh_mlp", "weight_0": [[1.0, 0.0]], "bias_0": [0.0]}
    ranges = {"trained_low": [0.0, 0.0], "trained_high": [1.0, 1.0]}
    save_policy(tmp_path / "p.npz", export, np.zeros(2), np.ones(2), [-1.0], [1.0], ranges)
    policy = load_policy(tmp_path / "p.npz")
    explained = policy.explain([[0.2, 1.2], [np.nan, 9.0]])
    assert [it.text for it in explained.findings] == [
        "observation 0 is nan: no guard acts",
        "observation 1 is 9, far outside of training",
    ]
    assert np.isnan(explained.action[1]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"missing": "ignore"},
        {"clamp": 1},
        {"rate": [0.0]},
        {"rate": [1.0, 1.0]},
        {"low": [3.0, None, None], "high": [2.0, None, None]},
        {"action_high": [None]},
        {"fallback": [9.0], "missing": "hold"},
        {"fallback": [None], "missing": "fallback"},
        {"constant": "abc"},
        {"clamp": None},
    ],
)
def test_guards_that_are_none_are_refused(tmp_path, change):
    good = guards_json(guarded(tmp_path).guards)  # pyright: ignore[reportArgumentType]
    export = {"kind": "tanh_mlp", "weight_0": np.ones((1, 3)), "bias_0": [0.0]}
    with pytest.raises(PolicyFileError, match="its guards are none"):
        save_policy(tmp_path / "q.npz", export, np.zeros(3), np.ones(3), [-5], [5], {"guards": good | change})
    assert not (tmp_path / "q.npz").exists()


def test_files_with_guards_are_of_a_format_that_others_refuse(tmp_path):
    """An older itrpo/policy.py reads format 1 alone; a file that was changed to it is refused here too."""
    guarded(tmp_path)
    content = dict(np.load(tmp_path / "p.npz"))
    assert content["version"] == 2
    np.savez(tmp_path / "q.npz", **(content | {"version": np.array(1)}))
    with pytest.raises(PolicyFileError, match="format 2"):
        load_policy(tmp_path / "q.npz")
    json.loads(str(content["metadata"]))


def test_a_file_of_more_than_a_policy_can_have_is_refused_unread(tmp_path, monkeypatch):
    guarded(tmp_path)
    monkeypatch.setattr("itrpo.policy.MAX_BYTES", 1000)
    with pytest.raises(PolicyFileError, match="policies at most 1,000"):
        load_policy(tmp_path / "p.npz")
