from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from itrpo.report.aggregate import Interval, mean_interval
from itrpo.report.tables import algorithm_name, format_returns, print_run_summary, summarize_run
from itrpo.results.run_folder import RunFolder
from itrpo.results.store import read_status
from tests.report.canned import make_run

# seeds return 1000, 1100, 1200, 1300: s = 100 * sqrt(5 / 3), half-width = 3.18245 * s / 2
HALF_WIDTH = 3.18245 * 100 * np.sqrt(5 / 3) / 2


def printed(function, *arguments) -> str:
    console = Console(file=io.StringIO(), width=140)
    function(*arguments, console)
    return console.file.getvalue()


def test_summary_of_a_run(tmp_path):
    trained, behavior, dataset = summarize_run(make_run(tmp_path))
    assert trained.returns[:2] == pytest.approx((1150.0, HALF_WIDTH), rel=1e-5)
    assert trained.score[:2] == pytest.approx((1150.0 / 32.5, HALF_WIDTH / 32.5), rel=1e-5)
    assert (trained.policy, trained.seeds, trained.mean_of) == ("iTRPO", 4, "last 10 evaluations x 10 episodes")
    assert behavior.returns[:2] == pytest.approx((515.0, HALF_WIDTH / 10), rel=1e-5)
    assert behavior.mean_of == "1 evaluation x 10 episodes"
    assert dataset.returns == (800.0, None, ())
    assert dataset.score == (25.0, None, ())


def test_a_score_by_the_datasets_own_references_is_not_called_d4rls(tmp_path):
    run = make_run(tmp_path)
    assert "D4RL score" in printed(print_run_summary, run)
    RunFolder(run).write_status(read_status(run)._replace(reference=(20.0, 3_270.0)))
    text = printed(print_run_summary, run)
    assert "score" in text
    assert "D4RL" not in text


def test_printed_summary(tmp_path):
    text = printed(print_run_summary, make_run(tmp_path))
    for part in (
        "hopper-demo, Hopper-v4, after 110,000 gradient steps",
        "1,150 ± 205",
        "35.4 ± 6.3",
        "515 ± 21",
        "800",
    ):
        assert part in text
    assert "95% interval (Student-t) over the 4 seeds" in text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(2743.2, 368.4), "2,743 ± 368"),
        (Interval(-27.34, 1.26), "-27.3 ± 1.3"),
        (Interval(0.776, 0.081), "0.78 ± 0.08"),
        (Interval(100.0, None), "100"),
        (mean_interval([87.0, 1049.0]), "568 (87 / 1,049)"),  # where ± would be 6,112
        (mean_interval([-0.5, 0.25, 1.0]), "0.25 (-0.50 / 0.25 / 1.00)"),
        (None, "-"),
    ],
)
def test_returns_of_sparse_rewards_keep_their_decimals(interval, text):
    assert format_returns(interval) == text


def test_one_seed_prints_no_interval_and_says_so(tmp_path):
    text = printed(print_run_summary, make_run(tmp_path, seeds=1, evaluations=5))
    assert "±" not in text
    assert "One seed gives no interval" in text
    assert "last 2 evaluations x 10 episodes" in text
    assert "1,000" in text


def test_two_seeds_print_their_own_values_and_no_interval(tmp_path):
    text = printed(print_run_summary, make_run(tmp_path, seeds=2))
    assert "1,050 (1,000 / 1,100)" in text
    assert "±" not in text
    assert "--seeds 4" in text


def test_the_summary_says_where_the_policies_are(tmp_path):
    run = make_run(tmp_path / "run", seeds=2)
    for index in range(2):
        (run / f"seed{index}").mkdir()
        (run / f"seed{index}" / "policy.npz").write_bytes(b"")
    text = printed(print_run_summary, run)
    assert f"run folder {run}\n" in text
    assert f"policy     {run}/seed0/policy.npz, and of 1 more seed beside it" in text


def test_names_as_people_write_them():
    assert [algorithm_name(name) for name in ("td3_bc", "itrpo", "iql", "mine:CRR")] == [
        "TD3+BC",
        "iTRPO",
        "IQL",
        "mine:CRR",
    ]


def test_without_an_environment_nobody_speaks_of_seeds(tmp_path):
    run = make_run(tmp_path)
    RunFolder(run).write_status(read_status(run)._replace(env_id=None))
    (run / "metrics.jsonl").write_bytes(b"")
    text = printed(print_run_summary, run)
    assert "the logged episodes" in text
    assert "No environment: `itrpo judge` estimates what it is worth" in text
    assert "interval" not in text


def test_without_reference_scores_there_is_no_score_column(tmp_path):
    text = printed(print_run_summary, make_run(tmp_path, scores=False))
    assert "D4RL" not in text
    assert "1,150 ± 205" in text
