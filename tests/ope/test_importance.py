"""Importance sampling and doubly robust estimates on exact MDPs: right values, honest intervals, and known failures."""

from __future__ import annotations

import numpy as np
import pytest

from itrpo.ope import bootstrap, importance
from itrpo.ope.log import Log, by_episode, discounted_returns, make_log, returns_to_go
from itrpo.theory.mdp import action_values, expected_return, random_mdp, random_policy, state_values
from itrpo.types import Transition
from tests.ope.tables import at, ending, log_ratio, simulate, tail, taken

GAMMA = 0.8
RNG = np.random.default_rng(3)
MDP = random_mdp(RNG, 5, 3, GAMMA)
MDP = MDP._replace(reward=1 + MDP.reward)  # so that what lies behind a cut is not 0 on average
BEHAVIOR, POLICY = random_policy(RNG, 5, 3, 0.5), random_policy(RNG, 5, 3, 0.5)
ENDING = ending(MDP)


def small_log() -> Log:
    """Two episodes: one of three rows that ends, one of two that is cut."""
    empty = np.zeros((5, 1), np.float32)
    reward = np.array([1, 2, 4, 8, 16], np.float32)
    return make_log(
        Transition(empty, empty, reward, np.array([1, 1, 0, 1, 1], np.float32), empty, empty), np.array([0, 3])
    )


def estimates(log: Log, ratio: np.ndarray, q: np.ndarray, v: np.ndarray, last: np.ndarray, weights: np.ndarray):
    """Each estimator in each fold, [F]."""
    table, values = taken(log, q), at(v, log.rows.observation)
    plain = importance.per_decision(log, ratio, GAMMA, last)
    robust = importance.doubly_robust(log, ratio, GAMMA, table, values, last)
    return {
        "pdis": bootstrap.over_folds(plain, weights),
        "wpdis": importance.self_normalised(log, ratio, GAMMA, weights, last),
        "dr": bootstrap.over_folds(robust, weights),
        "wdr": importance.weighted_doubly_robust(log, ratio, GAMMA, table, values, weights, last),
    }


def test_by_hand():
    log, gamma = small_log(), 0.5
    ratio = np.log([2.0, 0.5, 3.0, 4.0, 0.25])
    last = np.array([100.0, 100.0])
    assert discounted_returns(log, gamma).tolist() == [1 + 1 + 1, 8 + 8]
    assert discounted_returns(log, gamma, last).tolist() == [3, 16 + 25]
    assert returns_to_go(log, gamma).tolist() == [3, 4, 4, 16, 16]
    plain = importance.per_decision(log, ratio, gamma, last)
    np.testing.assert_allclose(plain, [2 * 1 + 1 * 1 + 3 * 1, 4 * 8 + 1 * 8 + 1 * 25])
    # by step: rho = (2, 4), (1, 1), then the ended one has 3 and the cut one 1 for its tail
    normalised = importance.self_normalised(log, ratio, gamma, np.ones((1, 2)), last)
    by_step = (2 * 1 + 4 * 8) / 6 + (1 * 2 + 1 * 16) / 2 * 0.5 + (3 * 4 + 1 * 100) / 4 * 0.25
    np.testing.assert_allclose(normalised, [by_step])
    q, v = np.array([1.0, 0, 2, 3, 1]), np.array([2.0, 1, 1, 0, 5])
    third = 1 + 3 * (4 - 2)
    second = 1 + 0.5 * (2 + 0.5 * third - 0)
    other = 5 + 0.25 * (16 + 0.5 * 100 - 1)
    expected = [2 + 2 * (1 + 0.5 * second - 1), 0 + 4 * (8 + 0.5 * other - 3)]
    np.testing.assert_allclose(importance.doubly_robust(log, ratio, gamma, q, v, last), expected)
    robust = (
        ((2 * (1 - 1) + 4 * (8 - 3)) / 6 + (2 + 0) / 2)
        + 0.5 * ((1 * 2 + 1 * 15) / 2 + (2 * 1 + 4 * 5) / 6)
        + 0.25 * ((3 * 2 + 1 * 0) / 4 + (1 * 1 + 1 * 100) / 2)
        + 0.125 * 0
    )
    weighted = importance.weighted_doubly_robust(log, ratio, gamma, q, v, np.ones((1, 2)), last)
    np.testing.assert_allclose(weighted, [robust])
    sizes = importance.effective_sample_size(log, ratio)
    np.testing.assert_allclose(sizes, [36 / 20, 2, 16 / 10])


def test_without_ratios_and_values_all_are_the_mean_return():
    log = simulate(ENDING, BEHAVIOR, 50, 12, np.random.default_rng(0), terminal=4)
    zero = np.zeros(len(log.rows.reward))
    found = estimates(log, zero, np.zeros((5, 3)), np.zeros(5), np.ones(50), np.ones((1, 50)))
    for value in found.values():
        np.testing.assert_allclose(value, discounted_returns(log, GAMMA, np.ones(50)).mean())
    assert importance.overlap(log, zero, GAMMA) == pytest.approx((50, 1))


@pytest.mark.parametrize("mdp", [MDP, ENDING])
def test_all_converge_to_the_known_value(mdp):
    """Also with cuts after six steps, behind which a third of the value lies: the tail has it."""
    terminal = 4 if mdp is ENDING else None
    log = simulate(mdp, BEHAVIOR, 40_000, 6, np.random.default_rng(1), terminal)
    truth, q, v = expected_return(mdp, POLICY), action_values(mdp, POLICY), state_values(mdp, POLICY)
    off = 0.3 * RNG.standard_normal(q.shape)  # values need not be right where ratios are
    weights = bootstrap.fold_weights(40_000, 40)
    found = estimates(log, log_ratio(log, POLICY, BEHAVIOR), q + off, v + (POLICY * off).sum(-1), tail(log, v), weights)
    for name, folds in found.items():
        error = abs(folds[0] - truth) / folds[1:].std()
        assert error < 3.5, (name, folds[0], truth)
        assert abs(folds[0] - truth) < 0.05, (name, folds[0], truth)
    cut_short = estimates(log, log_ratio(log, POLICY, BEHAVIOR), q, v, 0 * tail(log, v), weights)["wpdis"]
    assert abs(cut_short[0] - truth) > 10 * cut_short.std()


def test_intervals_cover_at_their_rate():
    """Of 200 datasets of 200 episodes each: 190 should be covered, give or take 3.3 binomial deviations of 3.1."""
    q, v, truth = action_values(MDP, POLICY), state_values(MDP, POLICY), float(expected_return(MDP, POLICY))
    v_log, truth_log = state_values(MDP, BEHAVIOR), float(expected_return(MDP, BEHAVIOR))
    covered, widths = dict[str, int](), dict[str, float]()
    weights = bootstrap.fold_weights(200, 100)
    for seed in range(200):
        log = simulate(MDP, BEHAVIOR, 200, 6, np.random.default_rng((7, seed)))
        found = estimates(log, log_ratio(log, POLICY, BEHAVIOR), q + 0.5, v + 0.5, tail(log, v), weights)
        found["log"] = bootstrap.over_folds(discounted_returns(log, GAMMA, tail(log, v_log)), weights)
        for name, folds in found.items():
            _value, low, high = bootstrap.interval(folds, 200)
            covered[name] = covered.get(name, 0) + (low <= (truth_log if name == "log" else truth) <= high)
            widths[name] = widths.get(name, 0.0) + (high - low) / 200
    assert all(180 <= count <= 199 for count in covered.values()), covered
    assert widths["dr"] < 0.7 * widths["pdis"]  # what the values are for


def test_robust_where_either_is_right_and_wrong_where_neither_is():
    log = simulate(MDP, BEHAVIOR, 5_000, 30, np.random.default_rng(2))
    truth, q, v = float(expected_return(MDP, POLICY)), action_values(MDP, POLICY), state_values(MDP, POLICY)
    wrong_beta = log_ratio(log, POLICY, np.full((5, 3), 1 / 3))  # pi_beta as somebody fitted it badly
    weights, none = bootstrap.fold_weights(5_000, 30), np.zeros(5_000)

    def error(ratio, q, v) -> dict[str, float]:
        found = estimates(log, ratio, q, v, none, weights)
        return {name: abs(folds[0] - truth) / folds[1:].std() for name, folds in found.items()}

    with_values, without = error(wrong_beta, q, v), error(wrong_beta, 0 * q, 0 * v)
    assert with_values["dr"] < 4
    assert with_values["wdr"] < 4
    assert min(without[name] for name in ("pdis", "dr")) > 8
    assert without["wpdis"] > 4


def test_without_overlap_intervals_miss_and_the_weights_say_so():
    """The policy wants an action that the log has once in a thousand rows: intervals miss, and the weights say so."""
    rare = np.full((5, 3), [0.998, 0.001, 0.001])
    wanted = np.full((5, 3), [0.01, 0.495, 0.495])
    truth, v = float(expected_return(MDP, wanted)), state_values(MDP, wanted)
    weights, missed, told = bootstrap.fold_weights(60, 50), 0, 0
    for seed in range(20):
        log = simulate(MDP, rare, 60, 20, np.random.default_rng((11, seed)))
        ratio = log_ratio(log, wanted, rare)
        folds = bootstrap.over_folds(importance.per_decision(log, ratio, GAMMA, tail(log, v)), weights)
        _, low, high = bootstrap.interval(folds, 60)
        missed += not low <= truth <= high
        overlap = importance.overlap(log, ratio, GAMMA)
        told += overlap.sample_size < 20 or overlap.mean_weight < 0.5
    assert missed >= 15
    assert told >= 18


def test_exact_values_in_a_deterministic_mdp_leave_no_noise():
    """Then every r + gamma V' - Q is 0, whatever the ratios: each episode's DR is V of its first state."""
    mdp = MDP._replace(transition=np.eye(5)[np.random.default_rng(0).integers(5, size=(5, 3))])
    log = simulate(mdp, BEHAVIOR, 30, 8, np.random.default_rng(5))
    q, v = action_values(mdp, POLICY), state_values(mdp, POLICY)
    ratio, first = RNG.standard_normal(len(log.rows.reward)), at(v, log.rows.observation[log.starts])
    robust = importance.doubly_robust(log, ratio, GAMMA, taken(log, q), at(v, log.rows.observation), tail(log, v))
    np.testing.assert_allclose(robust, first, atol=1e-5)


def test_tables_of_steps():
    log = small_log()
    assert by_episode(log, np.arange(5.0), np.nan)[0].tolist() == [0, 1, 2]
    assert np.isnan(by_episode(log, np.arange(5.0), np.nan)[1, 2])
    assert log.cut.tolist() == [False, True]
    assert log.ends.tolist() == [2, 4]


def test_folds_and_intervals():
    weights = bootstrap.fold_weights(7, 50)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights[0] == 1).all()
    assert (bootstrap.fold_weights(7, 5) == weights[:5]).all()
    value, low, high = bootstrap.interval(np.array([3.0]), 7)
    assert value == 3
    assert (low, high) == (-np.inf, np.inf)
    values = np.random.default_rng(0).standard_normal(400)
    folds = bootstrap.over_folds(values, bootstrap.fold_weights(400, 2_000))
    value, low, high = bootstrap.interval(folds, 400)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.06)
