"""Lemma 1: the averaged table, its residual, and where the scheme ends."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.theory.instances import draw
from itrpo.theory.lemma1 import h_residuals
from itrpo.theory.mdp import soft_optimum
from itrpo.theory.schemes import averaged_q, itrpo_vi, lemma1_vi

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(instances, st.floats(0.05, 0.95))
def test_lemma1_residual_shrinks_by_exactly_tau(instance, tau):
    instance = instance._replace(tau=np.float64(tau))
    run = itrpo_vi(instance.mdp, instance.behavior, instance.alpha, tau, 12, initial_q=instance.initial_q)
    uniform = np.full_like(instance.behavior, 1 / instance.mdp.actions)
    h = averaged_q(run, instance.behavior, instance.alpha, tau, uniform)
    residuals = h_residuals(instance.mdp, instance.behavior, instance.alpha * (1 - tau), h)
    scale = np.abs(h).max()
    assert np.abs(residuals[1:] - tau * residuals[:-1]).max() < 1e-13 * scale
    logits = h[:-1] / (instance.alpha * (1 - tau))
    recovered = np.exp(logits - logits.max(-1, keepdims=True))
    recovered /= recovered.sum(-1, keepdims=True)
    assert np.abs(recovered - run.policies).max() < 1e-13 * (1 + np.abs(logits).max())


def test_lemma1_as_printed_misses_a_start_at_the_behavior_policy():
    instance = draw(0, 3)
    alpha, tau = 1.0, 0.8
    run = itrpo_vi(instance.mdp, instance.behavior, alpha, tau, 30)
    h = averaged_q(run, instance.behavior, alpha, tau, instance.behavior)

    def distance(logits, k):
        policy = np.exp(logits / (alpha * (1 - tau)))
        return np.abs(policy / policy.sum(-1, keepdims=True) - run.policies[k]).max()

    assert distance(h[0], 0) > 0.01
    for k in range(30):
        assert distance(h[k] + tau ** (k + 1) * alpha * (1 - tau) * np.log(instance.behavior), k) < 1e-13


@settings(max_examples=25, deadline=None)
@given(instances)
def test_lemma1_scheme_reaches_the_kl_regularised_optimum(instance):
    """h* = Q* + lambda log pi_beta: the entropy-regularised MDP with r-hat is BRAC(lambda)'s KL-regularised one."""
    iterations = int(np.ceil(np.log(1e-14) / np.log(instance.mdp.discount))) + 5
    temperature = instance.alpha * (1 - instance.tau)
    run = lemma1_vi(instance.mdp, instance.behavior, instance.alpha, instance.tau, iterations)
    optimum = soft_optimum(instance.mdp, instance.behavior, temperature)
    target = optimum.q + temperature * np.log(instance.behavior)
    assert np.abs(run.q_values[-1] - target).max() < 1e-12 * (1 + np.abs(target).max()) / (1 - instance.mdp.discount)
