from __future__ import annotations

import numpy as np
import polars
import pytest

from itrpo.report.aggregate import final_score, mean_interval, one_window, window
from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Row
from itrpo.results.store import read_metrics

# 0.975 quantiles of Student's t, from the printed tables
T_QUANTILES = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 9: 2.26216, 30: 2.04227, 120: 1.97993}


@pytest.mark.parametrize(("freedom", "quantile"), T_QUANTILES.items())
def test_half_width_is_the_t_quantile_times_the_standard_error(freedom, quantile):
    count = freedom + 1
    values = 7.0 + np.arange(count)
    standard_error = np.sqrt(count * (count + 1) / 12) / np.sqrt(count)  # variance of 0..n-1 with n - 1: n (n + 1) / 12
    mean, half_width, _ = mean_interval(values)
    assert mean == pytest.approx(7.0 + freedom / 2, rel=1e-12)
    assert half_width == pytest.approx(quantile * standard_error, rel=2e-6)


def test_the_interval_covers_the_true_mean_95_times_in_100():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 4))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([abs(interval.mean - 3.0) <= interval.half_width for interval in intervals])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_has_no_interval():
    assert mean_interval([5.0]) == (5.0, None, ())
    assert mean_interval([4.0, 6.0]).each == (4.0, 6.0)
    assert mean_interval([4.0, 6.0, 5.0, 5.0]).each == ()


def metrics_of(tmp_path, rows):
    RunFolder(tmp_path).append_metrics([Row("r", *row) for row in rows])
    return read_metrics(tmp_path)


def test_final_score_is_each_seeds_mean_of_the_last_evaluations(tmp_path):
    rows = [(seed, step, "return", 1000.0 * seed + step) for step in range(23) for seed in (7, 3)]
    final = final_score(metrics_of(tmp_path, [*rows, (3, 22, "loss", 1e9)]))
    assert final is not None
    assert final.seeds == (3, 7)
    assert final.evaluations == 10
    np.testing.assert_allclose(final.per_seed, [3000 + 17.5, 7000 + 17.5])  # steps 13 to 22


@pytest.mark.parametrize(("evaluations", "last"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (10, 5), (19, 9), (200, 10)])
def test_of_a_short_run_the_later_half_counts_and_never_step_0(evaluations, last, tmp_path):
    metrics = metrics_of(tmp_path, [(0, step, "return", float(step)) for step in range(evaluations + 1)])
    final = final_score(metrics)
    assert final is not None
    assert final.evaluations == last
    assert final.per_seed.tolist() == [evaluations - (last - 1) / 2]
    assert final_score(metrics, "score") is None


def test_a_number_of_evaluations_may_be_given(tmp_path):
    metrics = metrics_of(tmp_path, [(0, step, "return", float(value)) for step, value in ((0, 100), (5, 1), (10, 3))])
    final = final_score(metrics, last=7)
    assert final is not None
    assert (final.per_seed.tolist(), final.evaluations) == ([2.0], 2)


def test_an_evaluation_that_a_seed_lacks_is_no_evaluation(tmp_path):
    final = final_score(metrics_of(tmp_path, [(0, 5, "return", 1.0), (1, 5, "return", 2.0), (0, 10, "return", 50.0)]))
    assert final is not None
    assert final.per_seed.tolist() == [1.0, 2.0]


def test_one_window_for_runs_that_are_compared():
    """The later half of a short run, ten of a long one; together that of the one with the fewest."""
    assert [window(number) for number in (1, 2, 3, 6, 20, 200)] == [1, 1, 1, 3, 10, 10]
    short, long = (
        polars.DataFrame([{"seed": 0, "step": step, "metric": "return", "value": 1.0} for step in range(1, number + 1)])
        for number in (6, 22)
    )
    assert one_window([long, short]) == 3
    assert one_window([long, long]) == 10
    assert one_window([long.clear()]) is None
