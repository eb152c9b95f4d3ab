"""Theorem 1: the shaped scheme and the two-KL scheme have the same policies."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.theory.instances import draw
from itrpo.theory.schemes import implicit_q, itrpo_vi, theorem1_vi

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(instances, st.booleans())
def test_theorem1(instance, noisy):
    rng = np.random.default_rng(int(instance.alpha * 1e6))
    errors = rng.standard_normal((100, *instance.mdp.reward.shape)) if noisy else None
    args = (instance.mdp, instance.behavior, instance.alpha, instance.tau, 100, errors, instance.initial_q)
    shaped = itrpo_vi(*args)
    explicit = theorem1_vi(*args, first_policy=instance.previous)
    logits = 1 + np.abs(shaped.q_values).max() / instance.alpha
    assert np.abs(shaped.policies - explicit.policies).max() < 1e-12 * logits
    implied = implicit_q(shaped, instance.behavior, instance.alpha, instance.tau, instance.previous)
    assert np.abs(implied - explicit.q_values).max() < 1e-12 * (np.abs(shaped.q_values).max() + instance.alpha)


def test_theorem1_holds_at_tau_one_where_lambda_is_zero():
    instance = draw(0, 7)
    args = (instance.mdp, instance.behavior, 2.0, 1.0, 100)
    assert np.abs(itrpo_vi(*args).policies - theorem1_vi(*args).policies).max() < 1e-12


def test_theorem1_needs_its_own_shaping():
    """The test above can fail: shaping by another tau in one of the two forms separates the policies."""
    instance = draw(0, 7)
    shaped = itrpo_vi(instance.mdp, instance.behavior, 1.0, 0.6, 20)
    explicit = theorem1_vi(instance.mdp, instance.behavior, 1.0, 0.59, 20)
    assert np.abs(shaped.policies - explicit.policies).max() > 1e-3
