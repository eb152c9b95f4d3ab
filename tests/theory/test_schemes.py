"""The iterations against each other and against their own equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.errors import InputError
from itrpo.theory.instances import batch, draw, large_temperature
from itrpo.theory.mdp import inner, kl, soft_optimum
from itrpo.theory.schemes import (
    brac_vi,
    itrpo_vi,
    lemma1_vi,
    moving_average,
    munchausen_vi,
)

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
