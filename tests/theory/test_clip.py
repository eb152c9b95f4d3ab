"""Eq. 5 with the author's clip: the scheme, its fixed point, its limits, and what it bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.theory import clip
from itrpo.theory.instances import batch, draw, draw_batches
from itrpo.theory.mdp import make_mdp, soft_optimum
from itrpo.theory.schemes import itrpo_vi, theorem1_vi

one_state = make_mdp(np.ones((1, 2, 1)), np.array([[1.0, 0.0]]), np.ones(1), 0.0)
FAIR = np.array([[0.5, 0.5]])


def test_the_lifted_trust_region_by_hand():
    """pi_1 = (0.98, 0.02) from Q_0; a clip at log 0.5 of pi_beta = 0.5 lifts the second action to 0.25."""
    gap = np.log(49)
    run = itrpo_vi(one_state, FAIR, 1.0, 0.5, 2, initial_q=np.array([[gap, 0.0]]), low=np.log(0.5))
    assert np.allclose(run.policies[0], [[0.98, 0.02]], rtol=1e-12)
    lifted = np.array([0.98, 0.25])
    weights = np.exp([1.0, 0.0]) * lifted**0.5 * 0.5**0.5  # e^(Q'/alpha) lifted^tau pi_beta^(1-tau)
    assert np.allclose(run.policies[1], [weights / weights.sum()], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3), st.sampled_from([0.0, -0.01, -0.3, -1.0]))
def test_the_clipped_scheme_is_the_two_kl_scheme_around_the_lifted_policy(seed, index, low):
    it = draw(seed, index)
    args = (it.mdp, it.behavior, it.alpha, it.tau, 60, None, it.initial_q)
    shaped = itrpo_vi(*args, low=low)
    explicit = theorem1_vi(*args, first_policy=it.previous, low=low)
    assert np.abs(shaped.policies - explicit.policies).max() < 1e-11 * (1 + np.abs(shaped.q_values).max() / it.alpha)
    assert np.abs(shaped.q_values[0] - it.initial_q).max() == 0


def test_the_two_slopes_by_hand():
    """One state, gamma = 0: the odds grow as gap / lambda until the worse action is at c, and more slowly after."""
    alpha, tau, low = 2.0, 0.75, np.log(0.5)
    there = 0.5 * np.log(3)  # lambda times the log-odds of (0.75, 0.25), where the worse ratio is just 0.5
    for gap, odds in ((0.9 * there, 0.9 * np.log(3)), (there, np.log(3))):
        mdp = one_state._replace(reward=np.array([[gap, 0.0]]))
        policy = itrpo_vi(mdp, FAIR, alpha, tau, 400, low=low).log_policies[-1]
        assert policy[0, 0] - policy[0, 1] == pytest.approx(odds, abs=1e-12)
    mdp = one_state._replace(reward=np.array([[4.0, 0.0]]))
    better, worse = np.exp(itrpo_vi(mdp, FAIR, alpha, tau, 400, low=low).log_policies[-1])[0]
    # alpha log(2 pi_2) - tau alpha c = -V below the clip, lambda log(2 pi_1) = 4 - V above it
    assert 0.5 * np.log(2 * better) - 4 == pytest.approx(2 * np.log(2 * worse) - 1.5 * low, abs=1e-12)
    assert worse > 1 / (1 + np.exp(4.0 / 0.5))  # BRAC(lambda)'s tail is thinner


def test_newton_finds_where_the_iteration_ends():
    it = batch([draw(3, 4 * i + 3) for i in range(20)])
    low = np.linspace(-1.5, 0, 20)
    log_ratio = clip.clipped_optimum(it, low)[1]
    run = itrpo_vi(it.mdp, it.behavior, it.alpha, it.tau, 900, low=low)
    assert (log_ratio < low[:, None, None]).any((-2, -1)).sum() > 5  # the clip is at work
    assert np.abs(run.policies[-1] - np.exp(log_ratio) * it.behavior).max() < 1e-9


def test_a_clip_that_nothing_reaches_is_theorem_1():
    it = draw(1, 3)
    args = (it.mdp, it.behavior, it.alpha, it.tau, 50, None, it.initial_q)
    free = itrpo_vi(*args)
    least = (free.log_policies - np.log(it.behavior)).min()
    assert np.array_equal(itrpo_vi(*args, low=least).q_values, free.q_values)
    assert not np.array_equal(itrpo_vi(*args, low=least / 2).q_values, free.q_values)
    assert np.array_equal(theorem1_vi(*args, low=2 * least).q_values, theorem1_vi(*args).q_values)


def test_from_brac_at_lambda_to_brac_at_alpha():
    """c = -inf is BRAC(lambda); c above every ratio only adds tau alpha c to every reward, so BRAC(alpha)."""
    it = batch([draw(5, 2)])
    for low, temperature in ((-40.0, it.alpha * (1 - it.tau)), (40.0, it.alpha)):
        found = np.exp(clip.clipped_optimum(it, np.array([low]))[1]) * it.behavior
        assert np.abs(found - np.exp(soft_optimum(it.mdp, it.behavior, temperature).log_policy)).max() < 1e-10


@pytest.mark.parametrize("name", ["itrpo_vi", "theorem1_vi", "clipped_log_ratio"])
def test_a_flipped_sign_of_the_clip_is_noticed(monkeypatch, name):
    true = getattr(clip, name)

    def flipped(*args, low=None, **named):
        return true(*args[:-1], -args[-1]) if low is None else true(*args, low=-low, **named)

    monkeypatch.setattr(clip, name, flipped)
    assert [row for row in clip.check(draw_batches(0, 32), 0) if not row.as_expected]


def test_an_overshooting_actor_runs_away_only_without_the_clip():
    it = batch([draw(0, 4 * i) for i in range(30)])
    shaped = it.tau > 0
    assert (clip.overshooting(it, -np.inf)[shaped] > 1e20).all()
    assert (clip.overshooting(it, -1.0) < 1e6).all()
