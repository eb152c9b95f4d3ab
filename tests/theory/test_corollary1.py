"""Corollary 1, its sharper constant, and the instances that use the most of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.theory import corollary1 as c1
from itrpo.theory.instances import draw
from itrpo.theory.mdp import advantages, expected_return, inner, occupancy

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(instances)
def test_the_bound_holds_with_the_sharper_constant(instance):
    terms = c1.terms(instance.mdp, instance.policy, instance.previous, instance.behavior)
    assert terms.loss <= c1.sharper_factor(instance.mdp.discount) * terms.bound * (1 + 1e-9)


def test_the_loss_is_the_surrogate_minus_the_return():
    instance = draw(8, 3)
    mean_advantage = inner(instance.policy, advantages(instance.mdp, instance.previous))
    base = expected_return(instance.mdp, instance.previous)
    visits = occupancy(instance.mdp, instance.behavior)
    surrogate = base + (visits * mean_advantage).sum() / (1 - instance.mdp.discount)
    loss = c1.terms(instance.mdp, instance.policy, instance.previous, instance.behavior).loss
    assert loss == pytest.approx(surrogate - expected_return(instance.mdp, instance.policy), rel=1e-10)


@pytest.mark.parametrize("discount", [0.01, 0.3, 0.6, 0.9, 0.99, 0.999])
def test_the_fork_uses_sqrt_of_one_minus_gamma(discount):
    """The share tends to the limit linearly in the tilt, so a tenfold smaller tilt comes at least tenfold closer."""

    def distance(tilt):
        lifted = c1.lift(*c1.fork(discount, tilt), tilt=tilt)
        terms = c1.terms(*lifted)
        return abs(float(terms.loss[0] / terms.bound[0]) / np.sqrt(1 - discount) - 1)

    assert distance(1e-2) < 1e-4
    assert distance(1e-3) < max(0.1 * distance(1e-2), 1e-9)


def test_below_a_small_gamma_no_smaller_constant_is_valid():
    """The share tends to one as gamma -> 0: the printed constant's factor 2 can't be improved for every gamma."""
    terms = c1.terms(*c1.lift(*c1.fork(1e-4)))
    assert terms.loss[0] / terms.bound[0] > 0.9999


def test_lifting_keeps_the_share():
    rng = np.random.default_rng(0)
    mdp, policy, behavior = c1.worst_leaky_fork(0.9, rng)
    share = float(c1.occupancy_ratio(mdp, policy, behavior))
    terms = c1.terms(*c1.lift(mdp, policy, behavior))
    assert float(terms.loss / terms.bound) == pytest.approx(share, rel=1e-6)
    assert 0.38 < share < float(c1.sharper_factor(0.9))


def test_the_hellinger_chain_rule_over_paths():
    """H^2(P, Q) <= 3.463 sum_i E_P[h^2(s_i)] on paths of a random walk, by enumeration of the affinities."""
    assert pytest.approx(3.4627466, abs=1e-6) == c1.HELLINGER_CHAIN
    for seed in range(20):
        instance = draw(seed, 3)
        transition, policy, behavior = instance.mdp.transition, instance.policy, instance.behavior
        affinity = np.sqrt(policy * behavior)
        per_state = 1 - affinity.sum(-1)
        crossed = np.einsum("sa,sat->st", affinity, transition)
        plain = np.einsum("sa,sat->st", behavior, transition)
        left, visits, total = instance.mdp.start, instance.mdp.start, 0.0
        for _ in range(30):
            total += visits @ per_state
            left, visits = left @ crossed, visits @ plain
            assert 1 - left.sum() <= c1.HELLINGER_CHAIN * total + 1e-14
