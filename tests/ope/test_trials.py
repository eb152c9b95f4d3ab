"""Which policy to try next: closed forms, and users of policies with a planted best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from itrpo.errors import InputError, StorageError
from itrpo.ope import trials
from itrpo.ope.trials import Rule, Trial, Trials, advise


def test_the_first_round_goes_in_the_order_of_the_estimates():
    assert advise([[], [], []])[:2] == (None, 0)
    assert advise([[1.0], [], []])[:2] == (0, 1)
    given = advise([[1.0], [5.0], []])
    assert (given.best, given.following, given.better_by) == (1, 2, np.inf)


def test_then_the_largest_upper_bound():
    """By hand: spread 4, three trials, bonus 4 sqrt(2 ln 3 / n)."""
    assert advise([[4.0, 3.0], [0.0]]).following == 0  # 3.5 + 4.19 and 0 + 5.93
    assert advise([[4.0, 0.0], [1.9]]).following == 1  # 2 + 4.19 and 1.9 + 5.93
    assert advise([[4.0, 3.0], [0.0]], Rule(scale=0.1)).following == 0  # 3.5 + 0.1 and 0.15
    assert advise([[4.0, 3.0], [0.0]], Rule(exploration=0.0)).following == 0


def test_the_end_is_where_no_other_can_be_better_by_what_is_worth_it():
    """Student's t with the variance pooled over policies, and its tail shared by the rivals."""
    returns = [[10.0, 12.0], [9.0, 9.0], [4.0]]
    freedom, variance = 2, 2.0 / 2
    half = t.ppf(1 - 0.05 / 2, freedom) * np.sqrt(variance * (1 / np.array([2, 1]) + 1 / 2))
    wanted = max(9.0 - 11.0 + half[0], 4.0 - 11.0 + half[1])
    assert advise(returns).better_by == pytest.approx(wanted)
    assert advise(returns, Rule(worth=wanted - 1e-6)).following is not None
    assert advise(returns, Rule(worth=wanted + 1e-6)).following is None
    assert advise(returns).worth == pytest.approx(0.05 * 11.0)
    assert advise([[1.0], [2.0]]).better_by == np.inf  # nothing was tried twice: nothing is known of chance
    assert advise([[1.0]]).following is None  # there is no other


def test_a_spent_budget_ends_it():
    assert advise([[], []], Rule(budget=1)).following == 0
    done = advise([[2.0], []], Rule(budget=1))
    assert (done.best, done.following, done.spent) == (0, None, True)


def test_users_find_a_planted_best_policy_and_stop():
    """Whatever the order; and who stops is wrong as seldom as is promised, though the end is looked for every time."""
    stops, wrong = list[int](), 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        means = generator.permutation([100.0, 80.0, 60.0, 40.0, 20.0])
        own: list[list[float]] = [[] for _ in means]
        for trial in range(300):
            advice = advise(own)
            if advice.following is None:
                stops.append(trial)
                assert advice.best is not None
                wrong += means[advice.best] < 95.0
                break
            own[advice.following].append(generator.normal(means[advice.following], 15.0))
    assert len(stops) == 30
    assert wrong <= 3
    assert np.median(stops) < 60


def test_equal_policies_end_as_a_tie_and_not_as_a_best_one():
    generator, own = np.random.default_rng(0), [list[float](), list[float]()]
    while (advice := advise(own)).following is not None:
        own[advice.following].append(generator.normal(100.0, 5.0))
    assert 0 < advice.better_by <= advice.worth  # another may still be better, by too little


def test_the_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "trials.json"
    assert trials.read(path) == Trials(Rule(), ())
    kept = Trials(Rule(keep=3, worth=2.5), (Trial("a/seed0", 7, 1.25), Trial("a/seed1", 7, -3.0)))
    trials.write(path, kept)
    assert trials.read(path) == kept
    for bad in ("[]", "{}", '{"version": 1, "rule": {}, "tried": [{"policy": "a", "step": 1, "return": "NaN"}]}'):
        path.write_text(bad)
        with pytest.raises(StorageError, match=r"trials\.json: not a file of trials"):
            trials.read(path)


def test_returns_are_read_from_words():
    (folder, seed, value), _ = trials.parse(["runs/a=b/seed12=-1.5e3", "c/seed0=1"])
    assert (str(folder), seed, value) == ("runs/a=b", 12, -1500.0)
    for bad in ("runs/a/seed0", "runs/a=3", "runs/a/seed0=nan", "runs/a/seed=3", "runs/a/seed0=x"):
        with pytest.raises(InputError, match="give what came of a trial"):
            trials.parse([bad])
