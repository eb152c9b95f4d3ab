"""Exact values, occupancies and optima: closed forms, sums, simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.errors import InputError
from itrpo.theory.instances import batch, draw
from itrpo.theory.mdp import (
    action_values,
    advantages,
    chain_mdp,
    expected_return,
    gridworld_mdp,
    inner,
    kl,
    logged_behavior,
    make_mdp,
    occupancy,
    optimal_values,
    random_mdp,
    random_policy,
    sample_rows,
    soft_optimum,
    state_values,
)

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 3))


@settings(max_examples=50, deadline=None)
@given(instances)
def test_occupancies_are_distributions_and_carry_the_return(instance):
    visits = occupancy(instance.mdp, instance.policy)
    assert visits.min() >= 0
    assert abs(visits.sum() - 1) < 1e-13
    from_visits = (visits * inner(instance.policy, instance.mdp.reward)).sum() / (1 - instance.mdp.discount)
    assert from_visits == pytest.approx(expected_return(instance.mdp, instance.policy), rel=1e-11, abs=1e-13)


@settings(max_examples=50, deadline=None)
@given(instances)
def test_advantages_average_to_zero_under_their_own_policy(instance):
    values = action_values(instance.mdp, instance.policy)
    mean = inner(instance.policy, advantages(instance.mdp, instance.policy))
    assert np.abs(mean).max() < 1e-14 * (1 + np.abs(values).max())


def simulated_returns(mdp, policy, rng, episodes, horizon):
    """Discounted returns of sampled trajectories cut at `horizon`, [episodes]."""
    states = rng.choice(mdp.states, size=episodes, p=mdp.start)
    total, weight = np.zeros(episodes), 1.0
    for _ in range(horizon):
        actions = sample_rows(rng, policy[states])
        total += weight * mdp.reward[states, actions]
        weight *= float(mdp.discount)
        states = sample_rows(rng, mdp.transition[states, actions])
    return total


def test_values_match_simulation():
    mdp = random_mdp(np.random.default_rng(5), 4, 3, 0.8)
    policy = random_policy(np.random.default_rng(6), 4, 3)
    # 0.8^80 / 0.2 leaves less than 1e-7 beyond the horizon.
    returns = simulated_returns(mdp, policy, np.random.default_rng(7), episodes=40_000, horizon=80)
    standard_error = returns.std() / np.sqrt(len(returns))
    assert standard_error < 0.01
    assert abs(returns.mean() - expected_return(mdp, policy)) < 4 * standard_error


def test_chain_values_in_closed_form():
    """Without slips, walking right in a chain of n states earns gamma^(n-2) / (1 - gamma) from the left end."""
    mdp = chain_mdp(length=5, discount=0.9, slip=0.0)
    right = np.tile([0.0, 1.0], (5, 1))
    assert state_values(mdp, right)[0] == pytest.approx(0.9**3 / 0.1, rel=1e-13)
    assert np.array_equal(optimal_values(mdp), state_values(mdp, right))


def test_gridworld_optimum_is_the_shortest_path():
    mdp = gridworld_mdp(side=4, discount=0.95)
    steps = np.array([(3 - row) + (3 - column) for row in range(4) for column in range(4)])
    expected = np.where(steps > 0, 0.95 ** (steps - 1.0), 0)
    assert np.allclose(optimal_values(mdp), expected, rtol=1e-12, atol=0)


def test_logged_behavior_has_full_support_and_prefers_the_good_moves():
    mdp = gridworld_mdp(4, 0.9)
    behavior = logged_behavior(mdp, np.random.default_rng(0))
    assert behavior.min() > 0
    assert np.allclose(behavior.sum(-1), 1)
    assert expected_return(mdp, behavior) > 2 * expected_return(mdp, np.full_like(behavior, 0.25))


@settings(max_examples=40, deadline=None)
@given(instances)
def test_soft_optimum_beats_every_policy_by_exactly_its_kl(instance):
    """V*(rho) - V^pi(rho) = E_{d^pi}[lambda KL(pi || pi*)] / (1 - gamma)."""
    mdp, temperature = instance.mdp, float(instance.alpha)
    optimum = soft_optimum(mdp, instance.behavior, temperature)
    value = state_values(mdp, instance.policy, -temperature * kl(instance.policy, instance.behavior))
    gap = (mdp.start * (optimum.v - value)).sum()
    divergence = inner(instance.policy, np.log(instance.policy) - optimum.log_policy)
    expected = temperature * (occupancy(mdp, instance.policy) * divergence).sum() / (1 - mdp.discount)
    assert abs(gap - expected) < 1e-13 * (np.abs(optimum.v).max() + np.abs(value).max()) / (1 - mdp.discount)
    assert gap > 0


def test_a_batch_gives_what_its_members_give():
    members = [draw(3, 4 * i) for i in range(5)]
    together = batch(members)
    values = state_values(together.mdp, together.policy)
    for row, member in zip(values, members, strict=True):
        assert np.allclose(row, state_values(member.mdp, member.policy), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, r"gamma must lie in \[0, 1\)"),
        ({"discount": -0.1}, r"gamma must lie in \[0, 1\)"),
        ({"transition": np.full((2, 2, 2), 0.6)}, "transition must be a probability"),
        ({"start": np.array([0.5, 0.6])}, "start must be a probability"),
        ({"start": np.ones(3) / 3}, "start"),
        ({"reward": np.full((2, 2), np.nan)}, "reward must be finite"),
        ({"reward": np.zeros((2, 3))}, "transition"),
    ],
)
def test_bad_mdps_are_refused(change, message):
    good = {
        "transition": np.full((2, 2, 2), 0.5),
        "reward": np.zeros((2, 2)),
        "start": np.array([1.0, 0.0]),
        "discount": 0.9,
    }
    make_mdp(**good)
    with pytest.raises(InputError, match=message):
        make_mdp(**(good | change))
