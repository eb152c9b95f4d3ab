from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from itrpo import files, registry
from itrpo.report.comparison import footnote, print_comparison, read_comparison, write_comparison
from itrpo.report.published import TABLES
from itrpo.results import store
from itrpo.results.run_folder import RunFolder
from tests.report.canned import make_run


def comparison_folder(folder, kind="d4rl", task="hopper-medium"):
    """Runs of iql (seeds return 1000 ... 1300), of bc (diverged, nothing evaluated), and nothing yet of cql."""
    for name in ("iql", "bc"):
        make_run(folder / name, evaluations=22 if name == "iql" else 0)
        about = files.read_json(folder / name / "provenance.json")["dataset"]
        about |= {"name": "hopper-medium-v2", "source": {"kind": kind}}
        files.write_json(folder / name / "provenance.json", {"dataset": about})
        lengths = {"train": {"steps": 110_000}, "evaluation": {"eval_every": 5_000}}
        files.write_json(folder / name / "config.json", {"config": {"preset": name, "data": {"task": task}} | lengths})
    status = store.read_status(folder / "bc")
    RunFolder(folder / "bc").write_status(status._replace(state="diverged", message="q_target at step 7"))
    for step, seconds in ((5_000, 100.0), (10_000, 40.0), (10_000, 60.0)):  # killed and resumed after 5,000 steps
        record = {"step": step, "train_seconds": seconds, "steps_per_second": 5_000 / seconds}
        RunFolder(folder / "iql").append_timing(record)
    return folder


def test_numbers_of_the_runs_stand_beside_the_papers(tmp_path):
    rows = {it.algorithm: it for it in read_comparison(comparison_folder(tmp_path), ["iql", "bc", "cql"]).rows}
    assert set(rows) == {"iql", "bc"}
    assert rows["iql"].returns.mean == 1150.0
    assert rows["iql"].paper == (63.6, 2.9)  # Table 2, hopper-m
    assert rows["iql"].train_seconds == 160.0
    assert rows["iql"].steps_per_second == pytest.approx(10_000 / 160)
    assert rows["iql"].per_seed == pytest.approx([1000 / 32.5, 1100 / 32.5, 1200 / 32.5, 1300 / 32.5])
    assert rows["bc"].returns is None
    assert rows["bc"].state == "diverged: q_target at step 7"


def test_where_nothing_was_evaluated_nothing_is_a_mean(tmp_path):
    folder = comparison_folder(tmp_path)
    assert footnote(read_comparison(folder, ["bc"])).startswith("Nothing was evaluated. Preset bc. Time")
    RunFolder(folder / "bc").write_status(store.read_status(folder / "bc")._replace(env_id=None))
    blind = read_comparison(folder, ["bc"])
    assert "No environment: `itrpo select` ranks the runs on episodes of another file (--data FILE)." in footnote(blind)
    aside = "No environment: `itrpo select` ranks the runs on the episodes that --holdout 0.2 set aside."
    assert aside in footnote(blind._replace(holdout=0.2))


def test_who_ran_with_other_constants_is_named(tmp_path):
    comparison = read_comparison(comparison_folder(tmp_path), ["iql", "bc"])
    for presets, words in (
        ({"iql": "quick", "bc": "quick"}, "Preset quick."),
        ({"iql": "quick", "bc": "quick", "my:CRR": "matched"}, "Preset quick, but my:CRR matched."),
    ):
        assert words in footnote(comparison._replace(presets=presets))


@pytest.mark.parametrize(("kind", "task"), [("generated", "hopper-medium"), ("d4rl", "hopper-full-replay")])
def test_the_paper_is_quoted_only_for_its_own_datasets(tmp_path, kind, task):
    comparison = read_comparison(comparison_folder(tmp_path, kind, task), ["iql"])
    assert comparison.rows[0].paper is None


def test_printed_and_written_tables_are_the_same_and_best_comes_first(tmp_path):
    names = ["bc", "cql", "iql"]
    console = Console(file=io.StringIO(), width=160)
    print_comparison(comparison_folder(tmp_path), names, console)
    write_comparison(tmp_path, names)
    printed, written = console.file.getvalue(), (tmp_path / "comparison.md").read_text()
    for text in (printed, written):
        for part in (
            "IQL",
            "1,150 ± 205",
            "last 10 evaluations x 10 episodes",
            "63.6 ± 2.9",
            "2:40",
            "62.5",
            "diverged: q_target at step 7",
            "800",
        ):
            assert part in text
        assert text.index("IQL") < text.index("BC") < text.index("dataset", text.index("BC"))
        assert "CQL" not in text


def test_published_averages_and_totals_are_the_papers():
    """The bottom line of Table 2, and of Table 3: but iTRPO's cells add up to 434.9, where the paper prints 418.5."""
    locomotion = [task for task in TABLES if not task.startswith("antmaze")]
    mazes = [task for task in TABLES if task.startswith("antmaze")]
    assert (len(locomotion), len(mazes)) == (15, 6)
    averages = {"bear": 38.8, "uwac": 50.4, "iql": 69.4, "td3_bc": 68.3, "cql": 71.8, "pbrl": 74.4, "itrpo": 79.3}
    for name, average in averages.items():
        assert np.mean([TABLES[task][name][0] for task in locomotion]) == pytest.approx(average, abs=0.051)
    totals = {"bear": 142.0, "td3_bc": 120.2, "plas": 164.6, "cql": 218.0, "iql": 392.4, "spot": 359.6, "itrpo": 434.9}
    for name, total in totals.items():
        assert sum(TABLES[task][name][0] for task in mazes) == pytest.approx(total, abs=0.051)
    assert {name for cells in TABLES.values() for name in cells} <= set(registry.ALGORITHMS)
