"""The numbers of the report against ones computed by hand, on results of two tasks and two seeds."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import polars
import pytest

from itrpo.errors import InputError
from itrpo.report.controls import ALPHA, LAMBDA
from itrpo.report.page import datasets, evidence, exports, figures, html, write
from itrpo.report.published import TABLES
from itrpo.results.frames import Results
from tests.report.canned_results import ARMS, HOSTILE, everything, joined, make_results

T_ONE = 12.706204736432095  # Student's t, 97.5%, one degree of freedom
TWO = ("hopper-medium", "walker2d-medium")
ITRPO_AND_BRAC = {it: ARMS[it] for it in ("itrpo", "brac_alpha", "brac_lambda")}


def by_hand(task: str, label: str) -> list[list[float]]:
    """Two seeds, four evaluations; in so short a run the later half counts: the last two."""
    base = {"itrpo": 60.0, "brac_alpha": 50.0, "brac_lambda": 40.0}[label] + (
        20.0 if task.startswith("walker") else 0.0
    )
    return [[0.0, 0.0, base - 2, base], [0.0, 0.0, base + 2, base + 8]]


def tiny(kind: str = "generated", **given) -> Results:
    return make_results("table2", TWO, ITRPO_AND_BRAC, kind, seeds=2, evaluations=4, scores=by_hand, **given)


def test_a_cell_has_each_seeds_mean_and_students_interval():
    table = evidence.tables(tiny())[0]
    cell = table.cells["hopper-medium", "itrpo"]
    assert cell.scores == {"paper": [59.0, 65.0], "last": [60.0, 68.0]}
    assert (cell.evaluations, cell.step, cell.final) == (2, 50_000, True)
    shown = html.score_cell(cell, TABLES["hopper-medium"]["itrpo"], "")
    assert "<b>62.0</b> <i>(59.0 / 65.0)</i>" in shown  # two seeds, whose interval would be 38 wide
    assert "98.5 ± 0.6" in shown
    assert "−36.5" in shown  # 62.0 - 98.5
    assert "−34.5" in shown  # the last checkpoint: 64.0 - 98.5


def test_averages_stand_only_where_every_task_has_finished():
    table = evidence.tables(tiny())[0]
    fifteen, nine, both = table.averages
    assert fifteen.values["itrpo"] == [2, 2]  # of 15
    assert nine.values["itrpo"] == [2, 2]
    assert both.tasks == TWO
    for index, (mean, half) in enumerate(((72.0, 3.0), (74.0, 4.0))):
        assert both.values["itrpo"][index][:2] == pytest.approx((mean, T_ONE * half))
    assert both.paper["itrpo"] == pytest.approx((98.5 + 85.0) / 2)
    assert table.wins == {"itrpo": [2.0, 2.0], "brac_alpha": [0.0, 0.0], "brac_lambda": [0.0, 0.0]}


def test_the_papers_averages_of_15_and_of_9_tasks_are_apart():
    table = evidence.tables(make_results(seeds=2, evaluations=2))[0]
    fifteen, nine = table.averages
    assert (len(fifteen.tasks), len(nine.tasks)) == (15, 9)
    assert round(fifteen.paper["itrpo"], 1) == 79.3  # as printed
    assert round(nine.paper["itrpo"], 1) == 89.5
    own = [table.cells[task, "itrpo"].scores["last"] for task in evidence.NINE]
    assert fifteen.values["itrpo"][1] != nine.values["itrpo"][1]
    assert nine.values["itrpo"][1].mean == pytest.approx(np.mean(own))


def test_the_paper_has_no_cell_for_a_control_or_a_variant():
    results = make_results("figure2", TWO, {"itrpo-tau=0.5": ("itrpo", 3.0, 0.5), "itrpo-tau=0": ("itrpo", 3.0, 0.0)})
    assert [arm.printed for arm in evidence.tables(results)[0].arms] == [None, None]
    table = evidence.tables(tiny())[0]
    assert [(arm.title, arm.printed) for arm in table.arms] == [
        ("iTRPO", "itrpo"),
        (f"BRAC, {ALPHA}", None),
        (f"BRAC, {LAMBDA}", None),
    ]


def test_data_of_two_kinds_never_share_a_table():
    tables = evidence.tables(joined(tiny("d4rl"), tiny("generated")))
    assert [(it.kind, len(it.cells)) for it in tables] == [("d4rl", 6), ("generated", 6)]
    page = write.make_report(joined(tiny("d4rl"), tiny("generated"))).page
    assert "D4RL’s own data" in page
    assert "data made here" in page


def test_controls_are_told_by_their_constants_not_by_their_names():
    runs = evidence.runs_of(tiny())
    own = {label: [it for it in runs if it["label"] == label] for label in ITRPO_AND_BRAC}
    assert evidence.control(own["brac_alpha"], runs) == ALPHA
    assert evidence.control(own["brac_lambda"], runs) == LAMBDA
    assert evidence.control(own["itrpo"], runs) is None
    other = make_results("table2", TWO, ARMS | {"brac_lambda": ("brac_v", 1.0, None)}, seeds=2, evaluations=4)
    mine = [it for it in evidence.runs_of(other) if it["label"] == "brac_lambda"]
    assert evidence.control(mine, evidence.runs_of(other)) is None  # 3 (1 - 0.8) is 0.6, not 1
    same = {"itrpo": ("itrpo", 3.0, 0.8), "no_shaping": ("itrpo", 3.0, 0.0)}  # BRAC by iTRPO's own program
    runs = evidence.runs_of(make_results("ablation", TWO, same))
    assert evidence.control([it for it in runs if it["label"] == "no_shaping"], runs) == ALPHA


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({}, {}, LAMBDA),
        ({"alpha_scale": "relative"}, {}, None),
        ({"divergence_target": 2.0}, {}, None),
        ({"divergence_target": 2.0}, {"divergence_target": 1.0}, None),
        ({"divergence_target": 2.0}, {"divergence_target": 2.0}, LAMBDA),
        ({"divergence_target": None}, {}, LAMBDA),  # runs from before the field
    ],
)
def test_a_control_has_its_alpha_in_the_same_units_and_holds_as_much(ours, theirs, expected):
    runs = evidence.runs_of(tiny())
    for run in runs:
        given = ours if run["label"] == "itrpo" else theirs
        if expected == LAMBDA and ours.get("divergence_target"):
            run["alpha"] = 1.0  # whatever they start from
        run["config"] = {"algorithm_config": {"alpha": run["alpha"], "tau": run["tau"]} | given}
    assert evidence.control([it for it in runs if it["label"] == "brac_lambda"], runs) == expected


def test_the_ablation_is_a_percentage_of_itrpo_against_both_controls():
    changes = {(it.task, it.control): it for it in evidence.ablation(evidence.tables(tiny())[0])}
    assert len(changes) == 4
    change = changes["hopper-medium", ALPHA]
    assert change.points == pytest.approx(-10.0)  # 52 - 62
    assert change.percent == pytest.approx(-100 * 10 / 62)
    assert changes["walker2d-medium", LAMBDA].percent == pytest.approx(-100 * 20 / 82)
    # two seeds of each: the extremes of the bootstrap are ratios of single seeds
    assert change.low == pytest.approx(100 * (49 - 65) / 65)
    assert change.high == pytest.approx(100 * (55 - 59) / 59)


def test_scores_near_zero_are_percentages_of_one():
    def scores(task: str, label: str) -> list[list[float]]:
        if label == "itrpo":
            return [[0.0] * 4, [0.0] * 4 if task.startswith("hopper") else [4.0] * 4]
        return [[44.0] * 4, [44.0] * 4]

    results = make_results("table2", TWO, ITRPO_AND_BRAC, seeds=2, evaluations=4, scores=scores)
    changes = {(it.task, it.control): it for it in evidence.ablation(evidence.tables(results)[0])}
    nothing, half = changes["hopper-medium", ALPHA], changes["walker2d-medium", ALPHA]
    assert (nothing.percent, nothing.low, nothing.high, nothing.points) == (4400.0, 4400.0, 4400.0, 44.0)
    assert half.percent == pytest.approx(100 * (44 - 2) / 2)
    assert (half.low, half.high) == (100 * (44 - 4) / 4, 4400.0)  # resamples: 0, 2 or 4
    assert figures.ablation(evidence.tables(results)[0]) is not None


def test_what_has_not_finished_counts_nowhere_and_says_so():
    states = {"itrpo": "finished", "brac_alpha": "unfinished", "brac_lambda": None}
    table = evidence.tables(tiny(state=lambda task, label: states[label]))[0]
    assert table.compared == ()
    assert not any(it.values["brac_alpha"] != [0, 0] for it in table.averages)
    shown = html.scores(table)
    assert "not run" in shown
    assert "unfinished at 25k" in shown
    assert evidence.ablation(table) == []
    diverged = evidence.tables(tiny(state=lambda task, label: "diverged"))[0]
    assert HOSTILE not in html.scores(diverged)
    assert "diverged" in html.scores(diverged)


def test_shorter_columns_say_how_they_deviate():
    long = make_results("table2", TWO, {it: ARMS[it] for it in ("itrpo", "iql")}, seeds=4)
    dear = make_results("table2", TWO, {"cql": ARMS["cql"]}, seeds=2, steps=20_000)
    arms = {arm.label: arm.deviation for arm in evidence.tables(joined(long, dear))[0].arms}
    assert arms == {"itrpo": "", "iql": "", "cql": "20k steps, 2 seeds"}


def test_an_average_curve_is_the_mean_over_tasks_of_each_seed():
    results = tiny()
    table, rows = evidence.tables(results)[0], evidence.split(results.rows)
    curve = evidence.average_curve([rows[table.cells[task, "itrpo"].run] for task in TWO], "score")
    assert curve is not None
    assert curve.steps.tolist() == [12_500, 25_000, 37_500, 50_000]
    assert curve.mean.tolist() == [0.0, 0.0, 70.0, 74.0]
    assert np.isnan([curve.low, curve.high]).all()  # of two seeds no band, and none of no width
    four = evidence.curve_of(np.array([1]), np.array([[1.0], [2.0], [3.0], [4.0]]))
    assert four.high[0] - four.mean[0] == pytest.approx(3.18245 * np.sqrt(5 / 3) / 2, rel=1e-5)


def test_data_without_a_score_have_a_table_of_returns():
    """In units of their own, so without means over tasks."""
    results = make_results("choices", ["cartpole-medium", "acrobot-medium"], ITRPO_AND_BRAC, seeds=2, evaluations=4)
    rows = results.rows.with_columns(metric=polars.col("metric").replace({"score": "return"}))
    results = Results(results.runs.with_columns(dataset_score=polars.lit(None, polars.Float64)), rows)
    (table,) = evidence.tables(results)
    assert (table.name, table.metric, table.of_paper) == ("choices-returns-generated", "return", False)
    assert table.tasks == ("acrobot-medium-itrpo1", "cartpole-medium-itrpo1")
    assert table.data_scores == dict.fromkeys(table.tasks, 1000.0)  # returns of the log
    assert all(cell.final for cell in table.cells.values())
    assert table.averages == []
    page = write.make_report(results).page
    assert "Returns: no score is known." in page
    assert "finished without a score" not in page


def test_a_plan_that_leaves_runs_to_another_shows_them():
    """As `ablation` leaves iTRPO and one control to `table2`; a run of another length is no stand-in."""
    arms = {"itrpo": ("itrpo", 3.0, 0.8), "brac_lambda": ("brac_v", 0.6, None), "iql": ("iql", None, None)}
    more = {"no_shaping": ("itrpo", 3.0, 0.0), "clipped": ("itrpo", 3.0, 0.8)}
    table2 = make_results("table2", TWO, arms, seeds=2, evaluations=4)
    ablation = make_results("ablation", TWO, more, seeds=2, evaluations=4)
    both = {it.plan: it for it in evidence.tables(joined(table2, ablation))}
    assert {it.label for it in both["table2"].arms} == {*arms, "no_shaping"}
    assert {it.label for it in both["ablation"].arms} == {*more, "itrpo", "brac_lambda"}
    for table in both.values():
        assert {it.label: it.control for it in table.arms if it.control} == {"no_shaping": ALPHA, "brac_lambda": LAMBDA}
        assert len(evidence.ablation(table)) == 4
    longer = make_results("ablation", TWO, more, seeds=2, evaluations=4, steps=60_000)
    apart = {it.plan: it for it in evidence.tables(joined(table2, longer))}
    assert {it.label for it in apart["table2"].arms} == {*arms}
    assert {it.label for it in apart["ablation"].arms} == {*more}


def test_a_family_of_tau_takes_what_another_plan_has_of_it():
    grid = {f"itrpo-tau={tau}": ("itrpo", 3.0, tau) for tau in (0.25, 0.9)}
    figure = make_results("figure2", TWO, grid, seeds=2, evaluations=4)
    table = make_results("table2", TWO, {"itrpo": ("itrpo", 3.0, 0.5)}, seeds=2, evaluations=4)
    found = evidence.by_tau(evidence.runs_of(joined(figure, table)))
    assert {(it.plan, tuple(it.runs)) for it in found} == {("figure2", (0.25, 0.5, 0.9))}
    other = make_results("table2", TWO, {"itrpo": ("itrpo", 3.0, 0.5)}, seeds=2, evaluations=4, steps=60_000)
    found = evidence.by_tau(evidence.runs_of(joined(figure, other)))
    assert {tuple(it.runs) for it in found} == {(0.25, 0.9)}


def test_the_map_has_both_lambda_and_tau_and_tables_have_none():
    cells = evidence.trust_region_map(everything())
    assert {it.plan for it in cells} == {"trust_region"}
    assert len(cells) == 40
    assert {it.lambda_ for it in cells} == {0.1, 0.3, 1.0, 3.0}
    assert {it.tau for it in cells} == {0.0, 0.5, 0.8, 0.9, 0.95}


def test_families_of_tau_share_everything_else():
    families = {(it.plan, it.alpha, tuple(it.runs)) for it in evidence.by_tau(evidence.runs_of(everything()))}
    assert ("figure2", 3.0, (0.0, 0.5, 0.8, 0.9)) in families
    # of a grid over lambda those that have one alpha: 0.3 / (1 - 0.9) is 3 / (1 - 0)
    assert {it for it in families if it[0] == "trust_region"} == {
        ("trust_region", 1.0, (0.0, 0.9)),
        ("trust_region", 2.0, (0.5, 0.95)),
        ("trust_region", 3.0, (0.0, 0.9)),
        ("trust_region", 6.0, (0.5, 0.95)),
    }


def test_the_files_have_the_numbers_of_the_page():
    table = evidence.tables(tiny())[0]
    lines = list(csv.DictReader(io.StringIO(exports.scores_csv(table))))
    assert len(lines) == 15 * 3
    line = next(it for it in lines if (it["task"], it["arm"]) == ("hopper-medium", "iTRPO"))
    assert float(line["paper_mean"]) == 62.0
    assert float(line["paper_half_width_95"]) == pytest.approx(T_ONE * 3.0)
    assert (line["printed_mean"], line["difference"]) == ("98.5", "")  # of other data
    assert next(it for it in lines if it["task"] == "hopper-expert")["state"] == "not run"
    of_d4rl = evidence.tables(make_results(tasks=["hopper-medium"], kind="d4rl"))[0]
    again = csv.DictReader(io.StringIO(exports.scores_csv(of_d4rl)))
    line = next(it for it in again if (it["task"], it["arm"]) == ("hopper-medium", "iTRPO"))
    assert float(line["difference"]) == pytest.approx(float(line["paper_mean"]) - 98.5)
    seeds = list(csv.DictReader(io.StringIO(exports.seeds_csv([table]))))
    assert [float(it["paper"]) for it in seeds[:2]] == [59.0, 65.0]
    latex = exports.latex(table, "Scores & more")
    assert rf"$\mathbf{{62.0}} \pm {T_ONE * 3.0:.1f}$ \textcolor{{gray}}{{(98.5)}}" in latex
    assert r"Scores \& more" in latex
    assert latex.count(r"\\") == 15 + 1 + len(table.averages)


def test_figures_are_drawn_without_a_browser(tmp_path):
    page = write.write_report(tiny(), tmp_path / "out")
    written = {it.name for it in (tmp_path / "out" / "figures").iterdir()}
    assert {f"mean-table2-locomotion-generated.{it}" for it in ("svg", "png", "csv")} <= written
    svg = (page.parent / "figures" / "mean-table2-locomotion-generated.svg").read_text("utf-8")
    assert "var(" not in svg
    assert "#d55e00" in svg
    for name in links_of(page.read_text("utf-8")):
        assert (page.parent / name).stat().st_size > 0, name


def links_of(page: str) -> list[str]:
    return re.findall(r'href="((?:figures|tables)/[^"]+)"', page)


def test_without_runs_there_is_one_message():
    empty = tiny()
    with pytest.raises(InputError, match="no runs to report"):
        write.make_report(Results(empty.runs.clear(), empty.rows.clear()))


def test_a_figures_numbers_are_finite_or_missing():
    assert figures.number(float("nan")) is None
    assert figures.number(1234567.0) == 1234600.0


def test_made_sets_stand_beside_d4rls_in_its_deviations():
    (it,) = datasets.likenesses(evidence.runs_of(make_results(tasks=["hopper-medium"], arms={"iql": ARMS["iql"]})))
    theirs = datasets.d4rl_sets()["hopper-medium"]
    assert len(theirs["observation_mean"]) == 11
    assert it.shift[0] == pytest.approx((1.0 - theirs["observation_mean"][0]) / theirs["observation_std"][0])
    assert it.ratio[3] == pytest.approx(0.5 / theirs["observation_std"][3])
    assert it.returns == (1500.0, 400.0)
    assert it.d4rl_returns == (1422.1, 379.0)
    assert (it.length, it.d4rl_length) == (450.0, 457.4)
    assert datasets.likenesses(evidence.runs_of(make_results(tasks=["hopper-medium"], kind="d4rl"))) == []


def test_runs_outside_of_a_plan_are_told_apart_by_their_fields():
    two = [make_results(None, ["hopper-medium"], {"itrpo": ("itrpo", 3.0, tau)}) for tau in (0.0, 0.8)]
    runs = joined(*(it._replace(runs=it.runs.with_columns(run=it.runs["run"] + str(i))) for i, it in enumerate(two)))
    assert [it["label"] for it in evidence.runs_of(runs)] == ["itrpo-tau=0.0", "itrpo-tau=0.8"]
    longer = two[0]._replace(runs=two[0].runs.with_columns(run=two[0].runs["run"] + "b", seeds=5))
    assert [it["label"] for it in evidence.runs_of(joined(two[0], longer))] == ["itrpo-seeds=4", "itrpo-seeds=5"]


def test_verdicts_are_written_with_their_numbers():
    report = write.make_report(tiny())
    lines = list(csv.DictReader(io.StringIO(report.tables["claims.csv"])))
    line = next(it for it in lines if (it["claim"], it["number"]) == ("ablation", "iTRPO - BRAC"))
    assert float(line["value"]) == pytest.approx(10.0)
    assert line["verdict"] in report.page


def test_brac_stands_in_the_map_of_every_clip():
    grid = {
        f"{clip}-{tau}-{alpha}": ("itrpo", alpha, tau)
        for clip in ("a", "b")
        for tau in (0.0, 0.5)
        for alpha in (1.0, 2.0)
    }
    del grid["b-0.0-1.0"], grid["b-0.0-2.0"]  # without shaping its clip does nothing
    results = make_results("trust_region", ["hopper-medium"], grid)

    def clipped(label: str, config: str) -> str:
        own = json.loads(config)["algorithm_config"] | {"log_ratio_low": -1.0 if label.startswith("b") else "-Infinity"}
        return json.dumps({"algorithm_config": own})

    configs = [clipped(*it) for it in results.runs.select("label", "config").iter_rows()]
    cells = evidence.trust_region_map(results._replace(runs=results.runs.with_columns(config=polars.Series(configs))))
    squares = sorted((it.variant, it.tau, it.lambda_) for it in cells)
    both = [(0.0, 1.0), (0.0, 2.0), (0.5, 0.5), (0.5, 1.0)]
    assert squares == [("", *it) for it in both] + [("log ratio low -1.0", *it) for it in both]
