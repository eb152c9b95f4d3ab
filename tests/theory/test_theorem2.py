"""Theorem 2: printed form refuted, corrected form held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.errors import InputError
from itrpo.theory import theorem2 as t2
from itrpo.theory.instances import draw, large_temperature, rare_and_rewarding, unlikely_error
from itrpo.theory.mdp import kl, soft_optimum, state_values
from itrpo.theory.schemes import averaged_q, itrpo_vi
from itrpo.theory.theorem2 import bounds_against_gap

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 2))


def test_as_printed_fails_on_counterexample_a_and_the_corrected_form_holds():
    result = bounds_against_gap(*large_temperature())
    assert (result.gap[10:] > result.bounds["as printed"][10:]).all()
    assert (result.gap < result.bounds["corrected"]).all()


def test_the_gap_of_counterexample_a_shrinks_like_tau_squared():
    """Why (tau/lambda)^j can't be right: the gap's rate is tau^2 = 0.9025, the printed bound's is gamma = 0.5."""
    result = bounds_against_gap(*large_temperature())
    assert result.gap[-1] / result.gap[-2] == pytest.approx(0.95**2, rel=5e-3)
    printed = result.bounds["as printed"]
    assert printed[-1] / printed[-2] == pytest.approx(0.5, rel=1e-9)


def test_the_printed_form_does_not_scale_with_the_reward_and_the_corrected_one_does():
    """Rewards and alpha in cents instead of euros must give the same statement."""
    instance = draw(4, 1)
    scaled = instance.mdp._replace(reward=100 * instance.mdp.reward)
    euros = (instance.mdp, instance.behavior, 0.5, 0.8, 30)
    cents = (scaled, instance.behavior, 50.0, 0.8, 30)
    for form, rtol, scales in (("corrected", 1e-12, True), ("as printed", 0.1, False)):
        ours, hundredfold = t2.right_side(form, *cents), 100 * t2.right_side(form, *euros)
        assert np.allclose(ours, hundredfold, rtol=rtol) == scales


def test_counterexample_b_refutes_assumption_1_whatever_the_base():
    result = bounds_against_gap(*unlikely_error())
    assert result.gap[-1] == pytest.approx(18.0, abs=1e-3)
    assert result.bounds["as printed"][-1] < 0.1
    assert result.bounds["base only"][-1] < 0.1
    assert result.gap[-1] < result.bounds["corrected"][-1]


def test_counterexample_c_refutes_the_printed_constant_at_q_zero():
    result = bounds_against_gap(*rare_and_rewarding(), from_behavior=True)
    assert (result.gap / result.bounds["corrected"]).max() > 5
    assert (result.gap <= result.bounds["natural start"]).all()


@settings(max_examples=25, deadline=None)
@given(instances, st.integers(0, 1000), st.sampled_from([0.0, 0.01, 1.0, 30.0]))
def test_the_corrected_forms_hold_with_errors(instance, seed, scale):
    errors = scale * np.random.default_rng(seed).standard_normal((10, *instance.mdp.reward.shape))
    case = (instance.mdp, instance.behavior, instance.alpha, instance.tau, 10, errors)
    result = bounds_against_gap(*case)
    assert (result.gap <= result.bounds["corrected"] + result.floor).all()
    started = bounds_against_gap(*case, from_behavior=True)
    assert (started.gap <= started.bounds["natural start"] + started.floor).all()
    assert (started.gap <= started.bounds["quadratic"] + started.floor).all()


def test_the_start_makes_h_zero():
    instance = draw(2, 3)
    alpha, tau = 3.0, 0.6
    start = t2.zero_h_start(instance.behavior, alpha, tau)
    run = itrpo_vi(instance.mdp, instance.behavior, alpha, tau, 2, initial_q=start)
    uniform = np.full_like(instance.behavior, 0.25)
    assert np.abs(averaged_q(run, instance.behavior, alpha, tau, uniform)[0]).max() < 1e-14
    assert np.abs(run.policies[0] - 0.25).max() < 1e-15


@settings(max_examples=25, deadline=None)
@given(instances)
def test_the_gap_is_the_difference_of_exact_values(instance):
    temperature = float(instance.alpha * (1 - instance.tau))
    run = itrpo_vi(instance.mdp, instance.behavior, instance.alpha, instance.tau, 2, initial_q=instance.initial_q)
    best = soft_optimum(instance.mdp, instance.behavior, temperature).v
    for k in range(2):
        penalty = -temperature * kl(run.policies[k], instance.behavior)
        value = state_values(instance.mdp, run.policies[k], penalty)
        plain = (instance.mdp.start * (best - value)).sum()
        gap = t2.regularised_gap(instance.mdp, instance.behavior, temperature, run)[k]
        scale = (np.abs(best).max() + np.abs(value).max()) / (1 - instance.mdp.discount)
        assert abs(gap - plain) < 1e-12 * scale


def test_errors_without_a_concentration_and_tau_one_are_refused():
    instance = draw(0, 0)
    with pytest.raises(InputError, match="concentration"):
        t2.right_side("corrected", instance.mdp, instance.behavior, 1.0, 0.5, 3, np.zeros((3, 2, 2)))
    with pytest.raises(InputError, match="use tau < 1"):
        t2.right_side("as printed", instance.mdp, instance.behavior, 1.0, 1.0, 3)
