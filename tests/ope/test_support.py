"""Where a policy leaves the log."""

from __future__ import annotations

import numpy as np
import pytest

from itrpo.ope import support

RNG = np.random.default_rng(0)


def test_unlikely_actions_are_counted_against_the_logs_own():
    log = RNG.standard_normal(10_000)
    assert support.unlikely_share(log, log) == pytest.approx(0.01, abs=1e-3)
    assert support.unlikely_share(log - 10, log) == 1.0
    assert support.unlikely_share(np.concatenate([log[:5_000], log[5_000:] - 10]), log) == pytest.approx(
        0.505, abs=0.01
    )


def test_distances_are_exact():
    points, known = RNG.standard_normal((30, 3)), RNG.standard_normal((400, 3))
    chosen, nearest = support.nearest_distances(points, known, queries=1_000, limit=1_000)
    slow = np.linalg.norm(points[:, None] - known[None], axis=2).min(axis=1)
    assert chosen.tolist() == list(range(30))
    np.testing.assert_allclose(nearest, slow, atol=1e-6)
    assert len(support.nearest_distances(points, known, queries=7)[0]) == 7


def test_far_actions_are_counted_whatever_the_units():
    observation, known = RNG.standard_normal((1_500, 2)), RNG.standard_normal((5_000, 2))
    observation[:, 1] = known[:, 1] = 3.0  # a column that never varies says nothing
    actions, known_actions = 0.1 * RNG.standard_normal((1_500, 1)), 0.1 * RNG.standard_normal((5_000, 1))
    for unit in (1.0, 1e4):
        given = actions, unit * known, known_actions
        same = support.far_share(unit * observation, 0.1 * RNG.standard_normal((1_500, 1)), *given)
        away = support.far_share(unit * observation, actions + 1.0, *given)
        assert same < 0.05
        assert away > 0.99


def test_regions_say_where_the_policy_leaves_the_range():
    observation = np.stack([np.linspace(0, 10, 1_000), np.full(1_000, 2.0)], axis=1)
    log_action = RNG.uniform(-0.5, 0.5, (1_000, 2))
    policy_action = np.where((observation[:, :1] > 8), [0.0, 0.9], [0.0, 0.1])
    found = support.regions(observation, policy_action, log_action)
    assert [it.column for it in found] == [0] * 5  # the other never varies
    assert [it.outside for it in found] == [0, 0, 0, 0, 1]
    assert sum(it.weight for it in found) == pytest.approx(1)
    assert (found[-1].low, found[-1].high) == (8, 10)


@pytest.mark.parametrize("actions", [1, 6, 21])
@pytest.mark.parametrize("rows", [2_000, 20_000])
def test_a_policy_that_does_what_the_log_does_leaves_no_region_however_many_its_actions(rows, actions):
    observation = RNG.standard_normal((rows, 1))
    log_action, policy_action = (RNG.standard_normal((rows, actions)) for _ in range(2))
    log_action[:, 0] = policy_action[:, 0] = 0.5  # a dimension that never moves
    found = support.regions(observation, policy_action, log_action)
    deviation = 0.02 if rows == 2_000 else 0.006  # of the excess in 400 rows, too
    assert sum(it.weight * it.outside for it in found) == pytest.approx(0.02 * (actions > 1), abs=deviation)
    policy_action[:, 0] += 1e-3
    assert all(it.outside == 1 for it in support.regions(observation, policy_action, log_action))


def test_what_was_never_done_leaves_the_log_where_much_is_rarely_done():
    """Ten choices of twelve in 0.9 % of the rows each and one that was never taken; three valves that open in 0.9 %."""
    observation = RNG.standard_normal((20_000, 1))
    rare = RNG.choice(12, 20_000, p=[0.91, *[0.009] * 10, 0.0])
    for choice, outside in ((0, 0), (3, 0), (11, 1)):
        found = support.regions(observation, np.eye(12)[np.full(20_000, choice)], np.eye(12)[rare])
        assert [it.outside for it in found] == [outside] * 5, choice
    valves, open_wide = np.zeros((20_000, 5)), np.zeros((20_000, 5))
    valves[:, :3] = 0.9 * (RNG.random((20_000, 3)) < 0.009)
    valves[:, 4] = RNG.uniform(-0.2, 0.2, 20_000)
    for valve, size in ((3, 0.9), (4, 0.3)):  # one that never moved; one that moves within bounds
        found = support.regions(observation, open_wide + size * np.eye(5)[valve], valves)
        assert [it.outside for it in found] == [1] * 5, valve


def test_a_region_of_fewer_rows_than_dimensions_says_nothing():
    found = support.leaving(RNG.standard_normal((5, 21)), RNG.standard_normal((5, 21)))
    assert 0 <= found <= 1
