from __future__ import annotations

import numpy as np
import polars
import pytest

from itrpo.errors import InputError
from itrpo.report import arms
from tests.report.made_results import Arm, constant, joined, made_results


def test_a_score_is_the_mean_of_the_last_ten_evaluations():
    """Seed k scores step + 100 k: over steps 1 to 30 the last ten have mean 25.5."""
    arm = Arm("a", lambda index, step: {"score": step + 1000.0 * index})
    results = made_results([arm], ["t-1", "t-2"], steps=range(1, 31), noise=0.0)
    shift = results.rows.with_columns(value=polars.col("value") + 100.0 * polars.col("seed"))
    found = arms.scores(results._replace(rows=shift))
    np.testing.assert_allclose(found.values, [[25.5 + 100 * k, 1025.5 + 100 * k] for k in range(4)])
    assert found.seeds == (0, 1, 2, 3)


def test_seeds_and_datasets_are_those_that_all_have():
    results = made_results([Arm("a", constant(3.0)), Arm("b", constant(4.0))], ["t-1", "t-2"])
    fewer = results.rows.filter(
        ~((polars.col("run") == "generated-table2-t-2-a") & (polars.col("seed") == 1)),
        ~(polars.col("run") == "generated-table2-t-1-b"),
    )
    results = results._replace(rows=fewer)
    a, b = (arms.scores(arms.arm(results, name)) for name in "ab")
    assert a.seeds == (0, 2, 3)
    assert a.values.shape == (3, 2)
    assert b.datasets == ("t-2-itrpo1",)
    assert [it.values.shape for it in arms.common(a, b)] == [(3, 1), (4, 1)]
    curve = arms.curves(arms.arm(results, "a"))
    assert curve.values.shape == (3, 2, 2)
    assert curve.steps.tolist() == [10, 20]
    assert arms.curves(results, "none") is None


def test_an_arm_is_a_label_or_the_only_one_of_an_algorithm_and_goes_on_no_longer():
    results = made_results(
        [Arm("a", constant(1.0), "itrpo"), Arm("b", constant(2.0), "itrpo"), Arm("c", constant(3.0), "iql")], ["t-1"]
    )
    assert arms.arm(results, "b").runs["label"].to_list() == ["b"]
    assert arms.arm(results, "iql").runs["label"].to_list() == ["c"]
    assert arms.arm(results, "itrpo") is None
    going = results._replace(runs=results.runs.with_columns(state=polars.lit("unfinished")))
    assert arms.arm(going, "b") is None


def test_two_runs_of_a_dataset_are_refused_but_an_arm_takes_that_of_the_table():
    both = [
        made_results([Arm("a", constant(score))], ["t-1"], plan=plan) for plan, score in (("x", 1.0), ("table2", 9.0))
    ]
    with pytest.raises(InputError, match=r"several runs on t-1-itrpo1 .*generated-x-t-1-a"):
        arms.scores(joined(*both))
    assert arms.scores(arms.arm(joined(*both), "a")).values.mean() > 5


def test_kinds_are_kept_apart():
    mixed = joined(*(made_results([Arm("a", constant(1.0))], ["t-1"], kind=kind) for kind in ("d4rl", "generated")))
    assert arms.of_kind(mixed, "d4rl").runs["dataset"].to_list() == ["t-1-v2"]
    assert len(arms.of_kind(mixed, "d4rl").rows) == 8
