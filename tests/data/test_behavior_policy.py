from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from itrpo.data.behavior_policy import CHECKED_ROWS, Layer, agreement, fits, log_prob, read_policy, saturated
from itrpo.errors import InputError
from tests.data.hdf5_files import columns, write
from tests.data.policy_files import moments, network, sampled, write_policy

STATE = np.array([0.7, -1.2])


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_the_density_of_each_component_is_the_slope_of_its_distribution(nonlinearity: str) -> None:
    """P(a <= x) = Phi((atanh(x) - mean) / std), and the integral of the density up to x must be that."""
    policy = network(nonlinearity, low=-1.0, high=0.5)
    mean, std = moments(policy, STATE)
    grid = np.tanh(np.linspace(-9, 9, 40_001))  # the density's slope grows without end at the edges
    for component in range(3):
        alone = policy._replace(
            mean=Layer(*(part[component : component + 1] for part in policy.mean)),
            log_std=Layer(*(part[component : component + 1] for part in policy.log_std)),
        )
        density = np.exp(log_prob(alone, np.tile(STATE, (len(grid), 1)), grid[:, None]))
        integral = np.concatenate([[0], np.cumsum(np.diff(grid) * (density[1:] + density[:-1]) / 2)])
        standardised = (np.arctanh(grid) - mean[component]) / std[component]
        expected = [0.5 * (1 + math.erf(it / math.sqrt(2))) for it in standardised]
        np.testing.assert_allclose(integral, expected, atol=1e-5)


def test_components_are_independent() -> None:
    policy, action = network(), np.array([[0.1, -0.5, 0.9]])
    alone = [
        policy._replace(
            mean=Layer(*(part[it : it + 1] for part in policy.mean)),
            log_std=Layer(*(part[it : it + 1] for part in policy.log_std)),
        )
        for it in range(3)
    ]
    parts = [log_prob(one, STATE[None], action[:, it : it + 1]) for it, one in enumerate(alone)]
    np.testing.assert_allclose(log_prob(policy, STATE[None], action), np.sum(parts, axis=0))


@pytest.mark.parametrize("clip", [None, (-5.0, 1.5)])
def test_a_policy_comes_back_from_a_file(tmp_path: Path, clip: tuple[float, float] | None) -> None:
    policy = network("tanh", *(clip or (-20.0, 2.0)))
    path = write_policy(tmp_path / "a.hdf5", policy)
    if clip is not None:
        with h5py.File(path, "a") as file:
            file["metadata/policy/log_std_low"], file["metadata/policy/log_std_high"] = clip
    read = read_policy(path)
    assert read is not None
    assert read[3:] == policy[3:]
    for mine, its in zip([*policy.hidden, *policy[1:3]], [*read.hidden, *read[1:3]], strict=True):
        np.testing.assert_array_equal(mine.weight, its.weight)
        np.testing.assert_array_equal(mine.bias, its.bias)
    assert fits(read, 2, 3)
    assert not fits(read, 3, 3)
    assert not fits(read, 2, 2)
    assert not fits(read._replace(hidden=read.hidden[:1]), 2, 3)


def test_most_files_have_no_policy(tmp_path: Path) -> None:
    assert read_policy(write(tmp_path / "a.hdf5", columns())) is None
    assert read_policy(write(tmp_path / "b.hdf5", columns() | {"metadata/iteration": np.array(3)})) is None


def remove(key: str) -> Callable[[h5py.Group], None]:
    return lambda group: group.__delitem__(key)


def put(key: str, value: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        if key in group:
            del group[key]
        group[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("last_fc_log_std"), "no key 'last_fc_log_std'"),
        (remove("output_distribution"), "no key 'output_distribution'"),
        (remove("fc1"), "does not fit"),
        (put("nonlinearity", np.bytes_("gelu")), "nonlinearity 'gelu'"),
        (put("output_distribution", np.bytes_("gaussian")), "output_distribution 'gaussian'"),
        (put("nonlinearity", 3.0), "nonlinearity None"),
        (put("fc0/weight", np.zeros(5)), r"'metadata/policy/fc0' has a weight of shape \[5\] and a bias of \[5\]"),
        (
            put("last_fc/bias", np.zeros(2)),
            r"'metadata/policy/last_fc' has a weight of shape \[3, 4\] and a bias of \[2\]",
        ),
        (put("fc1/weight", np.zeros((4, 5), complex)), "must be floating-point"),
        (put("fc1/weight", h5py.ExternalLink("other.hdf5", "/x")), "'metadata/policy/fc1/weight' is a link"),
        (put("fc1", h5py.SoftLink("/elsewhere")), "'metadata/policy/fc1' is a link"),
        (put("log_std_low", np.bytes_("low")), "truncated or damaged"),
    ],
)
def test_policies_that_cannot_be_evaluated(tmp_path: Path, change: Callable[[h5py.Group], None], message: str) -> None:
    path = write_policy(tmp_path / "a.hdf5", network())
    with h5py.File(path, "a") as file:
        change(file["metadata/policy"])
    if "does not fit" in message:
        policy = read_policy(path)
        assert policy is not None
        assert not fits(policy, 2, 3)
        return
    with pytest.raises(InputError, match=message):
        read_policy(path)


def test_stored_densities_of_the_policy_agree_with_it_and_those_of_another_do_not() -> None:
    policy = network(low=-1.0, high=0.0)
    observations, actions, densities = sampled(policy, 500)
    actions[:3, 1] = 1  # a saturated component makes a row's density meaningless
    same = agreement(policy, observations, actions, densities)
    assert same is not None
    assert same.saturated == saturated(actions).sum() >= 3
    assert same.rows + same.saturated == 500
    assert same.mean < 1e-3
    shifted = policy._replace(mean=policy.mean._replace(bias=policy.mean.bias + np.float32(0.2)))
    other = agreement(shifted, observations, actions, densities)
    assert other is not None
    assert other.mean > 0.1
    assert other.largest > other.mean


def test_rows_are_spread_over_the_dataset() -> None:
    """Densities are wrong in the second half only; looking at the first rows alone would not show it."""
    policy = network(low=-1.0, high=0.0)
    observations, actions, densities = sampled(policy, 100)
    repeats = 6 * CHECKED_ROWS // 100
    observations, actions, densities = (np.concatenate([it] * repeats) for it in (observations, actions, densities))
    densities[len(densities) // 2 :] += 1
    found = agreement(policy, observations, actions, densities)
    assert found is not None
    assert CHECKED_ROWS / 2 < found.rows + found.saturated <= CHECKED_ROWS
    assert found.mean == pytest.approx(0.5, abs=0.02)


def test_saturated_rows_alone_say_nothing() -> None:
    assert agreement(network(), np.zeros((4, 2)), np.ones((4, 3)), np.zeros(4)) is None
