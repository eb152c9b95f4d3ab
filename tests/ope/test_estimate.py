"""All estimators of a policy on one log, where each can be right, and the reasons where one can't.

The log is of one step: s ~ U(-1, 1), a ~ N(0, 0.5) before the tanh, r = 1 - (tanh^-1 a - s)^2 / 4 + noise, the end. The
value of a policy u ~ N(m, d) is E[1 - (m - s)^2 / 4 - d^2 / 4].
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from itrpo.errors import InputError, StorageError
from itrpo.ope import judgement
from itrpo.ope.behavior import Behavior
from itrpo.ope.estimate import (
    Candidate,
    JudgeOptions,
    bias_reasons,
    judge_candidates,
    logged_next_action,
    next_action,
    overlap_reasons,
)
from itrpo.ope.estimate import (
    candidate as of_function,
)
from itrpo.ope.fqe import FQE
from itrpo.ope.importance import Overlap
from itrpo.ope.judgement import Judgement
from itrpo.ope.log import Log, make_log
from itrpo.types import Transition

RNG = np.random.default_rng(0)
EPISODES, GAMMA = 600, 0.9
S = RNG.uniform(-1, 1, (EPISODES, 1)).astype("f")
U = 0.5 * RNG.standard_normal((EPISODES, 1)).astype("f")
SETTINGS = JudgeOptions(folds=4, fqe=FQE(steps=600, hidden=(32,)))


def normal(u: np.ndarray, mean: np.ndarray, std: float) -> np.ndarray:
    """log N(u) [N], less the Jacobian of the tanh."""
    density = -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    return (density - np.log1p(-(np.tanh(u) ** 2)))[:, 0]


def one_step_log() -> Log:
    reward = 1 - (U - S)[:, 0] ** 2 / 4 + 0.1 * RNG.standard_normal(EPISODES)
    ends = np.zeros(EPISODES, "f")
    return make_log(Transition(S, np.tanh(U), reward.astype("f"), ends, S, np.zeros_like(U)), np.arange(EPISODES))


LOG = one_step_log()
BETA = Behavior(lambda s, a: normal(np.arctanh(np.clip(a, -0.999, 0.999)), 0 * s, 0.5), np.zeros_like)
KNOWN = (RNG.uniform(-1, 1, (2_000, 1)), np.tanh(0.5 * RNG.standard_normal((2_000, 1))))


def candidate(name: str, slope: float, shift: float, std: float) -> Candidate:
    mean = (slope * S + shift).astype("f")
    samples = np.tanh(mean[:, None] + std * RNG.standard_normal((EPISODES, 8, 1))).astype("f")
    return Candidate(name, np.tanh(mean), np.tanh(mean), normal(U, mean, std), samples, samples)


@pytest.fixture(scope="module")
def judged():
    near, far = candidate("near", 0.5, 0.0, 0.4), candidate("far", 0.0, 4.0, 0.1)
    silent = near._replace(name="silent", log_prob=None)
    given = [near, far, silent]
    return judge_candidates(LOG, given, GAMMA, BETA, KNOWN, SETTINGS, ["speed"])


def test_all_are_right_where_they_can_be(judged):
    near, truth = judged[0][0], 1 - 0.25 / 3 / 4 - 0.16 / 4
    assert [it.estimator for it in near.estimates] == ["fqe", "wdr", "dr", "wpdis", "pdis"]
    for it in near.estimates[1:]:
        assert it.value == pytest.approx(truth, abs=0.03), it.estimator
        assert it.low < truth < it.high
        assert it.reasons == ()
    shipped = near.estimates[0]  # as it ships, without noise
    assert shipped.value == pytest.approx(1 - 0.25 / 3 / 4, abs=0.03)
    assert shipped.per_step == pytest.approx(0.1 * shipped.value)
    assert len(shipped.folds) == 4
    assert shipped.folds[0] == shipped.value
    own = judged[0][-1]
    assert own.name == "log"
    earned = own.by("log")
    assert earned.value == pytest.approx(LOG.rows.reward.mean(), abs=1e-6)
    gain = near.by("wdr").against_log
    assert gain.value == pytest.approx(near.by("wdr").value - earned.value, abs=1e-6)
    assert gain.high - gain.low < 2 * (near.by("wdr").high - near.by("wdr").low)
    assert near.reasons == judged[1] == ()
    assert near.sample_size > 300
    assert near.mean_weight == pytest.approx(1, abs=0.1)


def test_who_leaves_the_log_is_told(judged):
    far = judged[0][1]
    assert far.support.unlikely > 0.99
    assert far.support.far > 0.99
    assert far.support.outside == 1
    assert ["99% of the log's own" in it.text for it in far.reasons] == [True, True, False]
    assert far.reasons[2].text.startswith("where observation 0 (speed) is ")
    assert far.mean_weight < 0.5 or far.sample_size < 10
    for name in ("wdr", "dr", "wpdis", "pdis"):
        assert name in far.missing or far.by(name).reasons


def test_a_deterministic_policy_has_no_weights(judged):
    silent = judged[0][2]
    assert [it.estimator for it in silent.estimates] == ["fqe"]
    assert set(silent.missing) == {"wdr", "dr", "wpdis", "pdis"}
    assert "deterministic" in silent.missing["dr"]
    assert silent.estimates[0].value == judged[0][0].estimates[0].value


def test_a_file_gives_back_what_was_judged(judged, tmp_path):
    whole = Judgement(
        "abc", "itrpo", "log", 5, GAMMA, 600, 600, "ab12", 0.0, 0.9, "holdout", {"folds": 4}, 1.0, judged[0], judged[1]
    )
    first = whole.policies[0]
    without = replace(first.estimates[0], low=-np.inf, high=np.inf)  # JSON has no infinity
    whole = replace(whole, policies=(replace(first, estimates=(without,)), *whole.policies[1:]))
    judgement.write(tmp_path, whole)
    assert judgement.read(tmp_path) == whole
    (tmp_path / judgement.FILE).write_text('{"version": 1, "policies": 3}')
    with pytest.raises(StorageError, match=r"judgement\.json: not a judgement"):
        judgement.read(tmp_path)


def test_an_estimator_that_is_wrong_about_the_log_says_so():
    """By more than a tenth, and by more than noise where that is known: of two folds it is not."""
    earned = np.array([232.0, 230.0, 235.0, 233.0])
    assert (
        "fitted Q puts the log itself at 310, and its episodes earned 232"
        in bias_reasons(earned + 78, earned, 90)[0].text
    )
    assert bias_reasons(earned[:2] + 78, earned[:2], 90) != ()
    assert bias_reasons(earned + 20, earned, 90) == ()
    assert bias_reasons(earned + np.array([78, -90, 150, 10]), earned, 90) == ()


@pytest.mark.parametrize(("mean", "why"), [(0.01, "the log hardly does what it does"), (3e3, "wrong in its tails")])
def test_weights_that_are_not_1_say_in_which_direction(mean, why):
    (reason,) = overlap_reasons(Overlap(50.0, mean), 50)
    assert why in reason.text
    assert overlap_reasons(Overlap(50.0, 1.0), 50) == ()


def test_next_actions_are_those_of_the_next_row():
    """Of two episodes: rows 0 to 2, which ends, and 3 to 5, which is cut."""
    column = np.arange(6.0, dtype="f")[:, None]
    logged = np.array([1, 2, 0, 4, 5, 0], "f")[:, None] / 10
    continues = np.array([1, 1, 0, 1, 1, 1], "f")
    log = make_log(Transition(column, column / 10, column[:, 0], continues, column + 1, logged), np.array([0, 3]))
    it = Candidate("it", column / 100, np.array([[0.7], [0.8]], "f"))
    assert next_action(log, it)[:, 0].tolist() == pytest.approx([0.01, 0.02, 0.7, 0.04, 0.05, 0.8])
    known = logged_next_action(log)[:, 0]
    assert known[:5].tolist() == pytest.approx([0.1, 0.2, 0, 0.4, 0.5])
    assert np.isnan(known[5])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda s: np.full_like(s, 50.0), r"valve: its actions reach from 50 to 50; here an action is in \[-1, 1\]"),
        (lambda s: s[:, 0], r"valve: its actions for 600 rows are \(600,\), not \(600, 1\)"),
    ],
)
def test_a_policy_of_ones_own_acts_in_the_datas_scale(act, words):
    with pytest.raises(InputError, match=words):
        of_function("valve", act, LOG)


@pytest.mark.parametrize("known", [True, False])
def test_what_a_log_is_worth_behind_its_cuts_does_not_hang_on_whether_it_says_what_was_done_next(known):
    """r = 10 a, a = 0.8 and noise, cut after five steps: worth 80 = 8 / (1 - gamma), of which 47 lie behind cuts."""
    rng, length, rows = np.random.default_rng(0), 5, 300
    seen = rng.standard_normal((rows + 1, 2)).astype("f")
    action = (0.8 + 0.05 * rng.standard_normal((rows + 1, 1))).astype("f")
    following = action[1:].copy()
    if not known:
        following[length - 1 :: length] = 0
    reward, starts = 10 * action[:-1, 0], np.arange(0, rows, length)
    log = make_log(Transition(seen[:-1], action[:-1], reward, np.ones(rows, "f"), seen[1:], following), starts)
    given = Candidate("it", action[:-1], action[length::length])
    judged, _ = judge_candidates(log, [given], GAMMA, options=replace(SETTINGS, fqe=FQE(steps=1_000, hidden=(32,))))
    values = {it.estimator: it.value for it in judged[-1].estimates}
    assert values == pytest.approx({"fqe": 80, "log": 80}, rel=0.02)


def test_a_log_that_is_cut_early_is_told():
    """Two rows each, cut: gamma^2 of the future is unknown; and ten episodes are few."""
    rows = Transition(*(it[:20] for it in LOG.rows))._replace(continues=np.ones(20, "f"))
    log = make_log(rows, np.arange(0, 20, 2))
    given = Candidate("it", rows.action, rows.action[1::2])
    settings = replace(SETTINGS, folds=2, fqe=FQE(steps=40, hidden=(8,)))
    _, reasons = judge_candidates(log, [given], GAMMA, options=settings)
    assert "only 10 episodes" in reasons[0].text
    assert "100% of the episodes were cut, and 81% of the discounted future" in reasons[1].text
    alone = rows.reward.reshape(10, 2) @ [1, GAMMA]
    assert reasons[1].text.endswith(f"whose rows alone earned {alone.mean():,.4g}")


def test_behind_cuts_the_log_is_as_uncertain_as_its_own_fit():
    """98 % of the discount lies behind the cuts, and the fits are far from done: they differ more than episodes do."""
    reward = 1 + 0.3 * np.random.default_rng(2).normal(size=200).astype("f")
    rows = Transition(*(it[:200] for it in LOG.rows))._replace(continues=np.ones(200, "f"), reward=reward)
    log = make_log(rows, np.arange(0, 200, 2))
    given = Candidate("it", rows.action, rows.action[1::2])
    settings = replace(SETTINGS, folds=5, fqe=FQE(steps=30, hidden=(8,)))
    judged, _ = judge_candidates(log, [given], 0.99, options=settings)
    itself, fitted = judged[-1].by("log"), judged[-1].by("fqe")
    behind = 0.99**2
    assert np.std(itself.folds[1:]) > 0.5 * behind * np.std(fitted.folds[1:]) > 5 * 0.3 / np.sqrt(100)
    assert "bias" not in {it.kind for it in fitted.reasons}  # it would be held against itself


def test_a_log_of_single_rows_that_were_cut_has_no_value():
    rows = Transition(*(it[:20] for it in LOG.rows))
    rows = rows._replace(continues=np.ones(20, "f"), next_action=np.zeros_like(rows.next_action))
    given = Candidate("it", rows.action, rows.action)
    with pytest.raises(InputError, match="each of the 20 episodes is one row that the clock cut"):
        judge_candidates(make_log(rows, np.arange(20)), [given], GAMMA, options=SETTINGS)
