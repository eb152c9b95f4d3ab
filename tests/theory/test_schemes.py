"""The iterations against each other and against their own equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.errors import InputError
from itrpo.theory.instances import draw, large_temperature
from itrpo.theory.mdp import inner, kl, soft_optimum
from itrpo.theory.schemes import (
    averaged_q,
    brac_vi,
    implicit_q,
    itrpo_vi,
    lemma1_vi,
    moving_average,
    munchausen_vi,
    theorem1_vi,
)
from itrpo.theory.statements import h_residuals

instances = st.builds(draw, st.integers(0, 2**31), st.integers(0, 3))


def _expected_next(mdp, values):
    """gamma P v by a plain loop, so that the equations below share no code with the schemes."""
    result = np.zeros_like(mdp.reward)
    for state in range(mdp.states):
        for action in range(mdp.actions):
            result[state, action] = mdp.discount * sum(
                mdp.transition[state, action, after] * values[after] for after in range(mdp.states)
            )
    return result


def test_one_step_of_eq5_by_hand():
    """One state, two actions, gamma = 0: pi_1 = pi_beta from Q_0 = 0, and pi_2 weighs pi_beta by exp(r / alpha)."""
    instance = large_temperature()
    mdp = instance.mdp._replace(
        transition=np.ones((1, 2, 1)), reward=np.array([[1.0, 0.0]]), start=np.ones(1), discount=np.float64(0)
    )
    behavior = np.array([[0.2, 0.8]])
    run = itrpo_vi(mdp, behavior, alpha=2.0, tau=0.5, iterations=3)
    assert np.allclose(run.policies[0], behavior, rtol=1e-15)
    assert np.allclose(run.q_values[1], mdp.reward, rtol=1e-15)
    weights = np.array([0.2 * np.exp(0.5), 0.8])
    assert np.allclose(run.policies[1], weights / weights.sum(), rtol=1e-14)
    shaped = mdp.reward + 0.5 * 2.0 * np.log(weights / weights.sum() / behavior)
    assert np.allclose(run.q_values[2], shaped, rtol=1e-14)


@settings(max_examples=25, deadline=None)
@given(instances)
def test_eq5_and_eq4_satisfy_their_equations(instance):
    for tau, run in (
        (float(instance.tau), itrpo_vi(instance.mdp, instance.behavior, instance.alpha, instance.tau, 8)),
        (0.0, brac_vi(instance.mdp, instance.behavior, instance.alpha, 8)),
    ):
        log_ratio = run.log_policies - np.log(instance.behavior)
        for k in range(8):
            value = inner(run.policies[k], run.q_values[k] - instance.alpha * log_ratio[k])
            expected = instance.mdp.reward + tau * instance.alpha * log_ratio[k] + _expected_next(instance.mdp, value)
            assert np.abs(expected - run.q_values[k + 1]).max() < 1e-13 * (np.abs(run.q_values).max() + instance.alpha)
            assert inner(run.policies[k], run.q_values[k]).shape == (instance.mdp.states,)


@settings(max_examples=25, deadline=None)
@given(instances)
def test_the_policy_step_is_the_maximum(instance):
    """Eq. 4's objective at pi falls short of its maximum by exactly alpha KL(pi || pi_{k+1})."""
    run = brac_vi(instance.mdp, instance.behavior, instance.alpha, 1, initial_q=instance.initial_q)

    def objective(policy):
        return inner(policy, instance.initial_q) - instance.alpha * kl(policy, instance.behavior)

    shortfall = objective(run.policies[0]) - objective(instance.policy)
    divergence = inner(instance.policy, np.log(instance.policy) - run.log_policies[0])
    assert np.abs(shortfall - instance.alpha * divergence).max() < 1e-12 * (1 + instance.alpha)


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


@settings(max_examples=40, deadline=None)
@given(instances, st.floats(0.05, 0.95))
def test_lemma1_residual_shrinks_by_exactly_tau(instance, tau):
    instance = instance._replace(tau=np.float64(tau))
    run = itrpo_vi(instance.mdp, instance.behavior, instance.alpha, tau, 12, initial_q=instance.initial_q)
    uniform = np.full_like(instance.behavior, 1 / instance.mdp.actions)
    h = averaged_q(run, instance.behavior, instance.alpha, tau, uniform)
    residuals = h_residuals(instance, h)
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


def test_moving_average_is_theorem_2s_definition():
    rng = np.random.default_rng(0)
    errors, tau = rng.standard_normal((9, 3, 2)), 0.7
    for k in range(1, 10):
        printed = (1 - tau) * sum(tau ** (k - i) * errors[i - 1] for i in range(1, k + 1))
        assert np.allclose(moving_average(errors, tau)[k - 1], printed, rtol=1e-13, atol=1e-15)


def test_tau_zero_is_brac_to_the_bit_and_uniform_behavior_is_munchausen():
    instance = draw(1, 3)
    shaped = itrpo_vi(instance.mdp, instance.behavior, 0.7, 0.0, 30)
    assert np.array_equal(shaped.q_values, brac_vi(instance.mdp, instance.behavior, 0.7, 30).q_values)
    uniform = np.full_like(instance.behavior, 1 / instance.mdp.actions)
    ours = itrpo_vi(instance.mdp, uniform, 0.7, 0.6, 30)
    assert np.abs(ours.policies - munchausen_vi(instance.mdp, 0.7, 0.6, 30).policies).max() < 1e-13


def test_a_batch_runs_as_its_members():
    from itrpo.theory.instances import batch

    members = [draw(9, 4 * i + 2) for i in range(4)]
    together = batch(members)
    run = itrpo_vi(together.mdp, together.behavior, together.alpha, together.tau, 20)
    assert run.policies.shape == (20, 4, 4, 3)
    assert run.q_values.shape == (21, 4, 4, 3)
    for i, member in enumerate(members):
        alone = itrpo_vi(member.mdp, member.behavior, member.alpha, member.tau, 20)
        assert np.abs(run.policies[:, i] - alone.policies).max() < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number > 0"),
        ({"alpha": np.inf}, "alpha must be a finite number > 0"),
        ({"tau": -0.01}, r"tau must lie in \[0, 1\]"),
        ({"tau": 1.01}, r"tau must lie in \[0, 1\]"),
        ({"behavior": np.array([[1.0, 0.0], [0.5, 0.5]])}, "behavior policy has zeros"),
        ({"behavior": np.full((2, 2), 0.4)}, "sum to one"),
        ({"behavior": np.full((3, 2), 0.5)}, r"must be \[..., S, A\]"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"errors": np.zeros((4, 2, 2))}, "errors"),
    ],
)
def test_bad_input_is_refused(change, message):
    mdp = draw(0, 0).mdp
    good = {"behavior": np.full((2, 2), 0.5), "alpha": 1.0, "tau": 0.5, "iterations": 5}
    itrpo_vi(mdp, **good)
    with pytest.raises(InputError, match=message):
        itrpo_vi(mdp, **(good | change))


def test_tau_one_is_refused_where_lambda_divides():
    instance = draw(0, 0)
    with pytest.raises(InputError, match="use tau < 1"):
        lemma1_vi(instance.mdp, instance.behavior, 1.0, 1.0, 5)
    with pytest.raises(InputError, match="lambda"):
        soft_optimum(instance.mdp, instance.behavior, 0.0)
