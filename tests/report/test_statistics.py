"""Against closed forms, and against rliable's own numbers on public scores: rliable_numbers.json, by the script beside
it."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from itrpo.errors import InputError
from itrpo.report import statistics

RLIABLE = json.loads((Path(__file__).parent / "rliable_numbers.json").read_text("utf-8"))
SCORES = {name: np.array(values) for name, values in RLIABLE["scores"].items()}
REBRAC, TD3_BC = SCORES["ReBRAC"], SCORES["TD3 + BC"]
THRESHOLDS = np.array(RLIABLE["taus"])


def assert_like_rliable(ours, theirs, atol):
    """The estimate to the last bits; the ends of the interval as two bootstraps agree."""
    theirs = np.array(theirs)
    np.testing.assert_allclose(ours.value, theirs[:, 0], rtol=1e-12)
    np.testing.assert_allclose(np.stack([ours.low, ours.high], axis=-1), theirs[:, 1:], atol=atol)


@pytest.mark.parametrize("name", SCORES)
def test_aggregates_are_rliables(name):
    found = statistics.aggregates(SCORES[name])
    for estimate, theirs in zip(found.values(), RLIABLE["rliable"]["aggregates"][name], strict=True):
        width = theirs[2] - theirs[1]
        assert_like_rliable(statistics.Estimate(*([it] for it in estimate)), [theirs], atol=0.04 * width)


def test_published_intervals():
    """77.9 [77.1, 78.7] and 66.9 [65.3, 68.4], as ReBRAC's repository gives them."""
    for scores, printed in ((REBRAC, (77.9, 77.1, 78.7)), (TD3_BC, (66.9, 65.3, 68.4))):
        np.testing.assert_allclose(statistics.aggregates(scores)["mean"], printed, atol=0.15)


def test_improvement_is_rliables():
    found = statistics.improvement(REBRAC, TD3_BC)
    assert_like_rliable(statistics.Estimate(*([it] for it in found)), RLIABLE["rliable"]["improvement"], atol=0.01)


@pytest.mark.parametrize("of_means", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_profiles_are_rliables(name, of_means):
    found = statistics.profile(SCORES[name], THRESHOLDS, of_means)
    assert_like_rliable(found, RLIABLE["rliable"]["mean_profile" if of_means else "profile"][name], atol=0.015)


def test_iqm_is_scipys_trimmed_mean_and_the_gap_ignores_what_is_above():
    scores = np.random.default_rng(0).normal(60, 40, size=(5, 3, 7))
    for one, ours in zip(scores, statistics.iqm(scores), strict=True):
        assert ours == pytest.approx(scipy_stats.trim_mean(one, 0.25, axis=None), rel=1e-12)
    assert statistics.optimality_gap(np.array([[90.0, 1000.0], [100.0, 110.0]])) == pytest.approx(2.5)


def test_ties_count_half_and_a_loss_is_not_a_win():
    x, y = np.array([[1.0, 5.0], [2.0, 5.0]]), np.array([[1.0, 9.0], [0.0, 9.0], [2.0, 9.0]])
    # first task: of 6 pairs 3 won and 2 tied; second: none
    assert statistics.probability_of_improvement(x, y) == pytest.approx((4 / 6 + 0) / 2)
    assert statistics.probability_of_improvement(y, x) == pytest.approx((2 / 6 + 1) / 2)


def test_the_bootstrap_is_stratified():
    """Tasks far apart, runs alike: resampling within tasks leaves nothing to vary."""
    scores = np.tile([0.0, 50.0, 1000.0], (4, 1))
    found = statistics.aggregates(scores)
    assert all(it.low == it.value == it.high for it in found.values())


def test_the_interval_of_two_runs_is_known():
    """Runs 0 and 1 on one task: resamples have mean 0, 1/2, 1 with 1/4, 1/2, 1/4; of 12 tasks, binomial / 24."""
    found = statistics.bootstrap(statistics.mean, np.array([[0.0] * 12, [1.0] * 12]))
    at_most = np.cumsum([comb(24, k) for k in range(25)]) / 2**24
    assert found.low == pytest.approx(np.searchsorted(at_most, 0.025) / 24, abs=1e-9)
    assert found.high == pytest.approx(np.searchsorted(at_most, 0.975) / 24, abs=1e-9)


def test_pairing_takes_out_what_a_seed_does_to_both():
    seeds = np.array([-30.0, 0.0, 30.0, 60.0])[:, None] * np.ones(3)
    x, y = seeds + 5.0 + np.random.default_rng(0).normal(size=(4, 3)), seeds
    paired, apart = (statistics.difference(x, y, paired=it) for it in (True, False))
    assert paired.value == pytest.approx(apart.value)
    assert paired.low > 3.0
    assert apart.low < -10.0
    turned = statistics.difference(y, x, paired=True)
    assert turned.high < -3.0


def test_it_is_of_its_seed_alone_whatever_is_in_memory_at_once(monkeypatch):
    first = statistics.aggregates(REBRAC, repetitions=2_500)
    assert statistics.aggregates(REBRAC, repetitions=2_500) == first
    assert statistics.aggregates(REBRAC, repetitions=2_500, seed=1) != first


@pytest.mark.parametrize(("scores", "words"), [(REBRAC[0], r"shape \[15\]"), (np.full((2, 3), np.nan), "NaN")])
def test_what_is_no_table_of_scores_is_refused(scores, words):
    with pytest.raises(InputError, match=words):
        statistics.aggregates(scores)


def test_the_page_s_example_runs(monkeypatch, capsys):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    page = (root / "docs" / "results.md").read_text("utf-8")
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    mean, difference = capsys.readouterr().out.splitlines()
    assert mean.startswith("Estimate(value=")
    assert "low=" in difference
