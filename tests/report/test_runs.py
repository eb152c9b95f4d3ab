"""What `itrpo runs list`, `show` and `diff` say, of canned folders."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from itrpo import files
from itrpo.cli import main
from itrpo.errors import InputError
from itrpo.report.runs import (
    differing,
    flat,
    in_words,
    labels,
    list_runs,
    named_runs,
    print_differences,
    print_run,
    print_runs,
)
from itrpo.results import store
from itrpo.results.frames import read_results
from itrpo.results.run_folder import RunFolder
from tests.report.canned import make_run


def printed(function, *arguments, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    function(*arguments, console)
    return console.file.getvalue()


def make(folder: Path, alpha: float = 3.0, algorithm: str = "itrpo", **more) -> Path:
    make_run(folder, **more)
    RunFolder(folder).write_status(store.read_status(folder)._replace(algorithm=algorithm, run=folder.name))
    config = {
        "algorithm": algorithm,
        "preset": "quick",
        "algorithm_config": {"alpha": alpha, "backbone": {"gamma": 0.99}},
        "data": {"dataset": "hopper-demo", "reward_scale": 1.0 if algorithm == "itrpo" else 0.1},
        "train": {"steps": 110_000, "seeds": 4, "seed": 0},
        "evaluation": {"eval_every": 5_000},
    }
    files.write_json(folder / "config.json", {"config": config, "begun_steps": 50_000})
    about = files.read_json(folder / "provenance.json")
    commands = [{"argv": ["itrpo", "train", "hopper-demo", "--alpha", str(alpha)]}]
    files.write_json(folder / "provenance.json", about | {"commands": commands, "git": {"commit": "c", "dirty": False}})
    return folder


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three runs in folders below, and seeds that are being added to one of them."""
    make(tmp_path / "sweep" / "hopper" / "low", alpha=3.0)
    make(tmp_path / "sweep" / "hopper" / "high", alpha=6.0)
    make(tmp_path / "alone", algorithm="iql", seeds=2)
    make_run(tmp_path / "alone" / "adding_seeds_2_to_3")
    return tmp_path


def test_runs_in_folders_below_are_found_and_what_differs_is_shown(runs):
    assert [entry.name for entry in list_runs(runs)] == ["alone", "sweep/hopper/high", "sweep/hopper/low"]
    text = printed(print_runs, runs)
    for part in ("sweep/hopper/high", "alpha 6.0", "alpha 3.0", "1,150 ± 205", "1,050 (1,000 / 1,100)", "110,000"):
        assert part in text
    assert "All have dataset hopper-demo." in text
    assert "mean of the last 10 evaluations" in text
    assert "reward_scale" not in text  # of another algorithm: no difference that anybody chose
    assert max(map(len, printed(print_runs, runs, width=80).splitlines())) <= 80
    (only,) = list_runs(runs / "alone")
    assert only.name == "alone"


def test_the_list_as_json(runs, capsys):
    assert main(["runs", "list", "--root", str(runs), "--json"]) == 0
    alone, high, low = json.loads(capsys.readouterr().out)
    assert high["folder"] == str(runs / "sweep/hopper/high")
    assert (high["differs"], low["differs"], alone["differs"]) == ({"alpha": 6.0}, {"alpha": 3.0}, {})
    assert high["return"]["per_seed"] == [1000, 1100, 1200, 1300]
    assert (high["return"]["evaluations"], high["state"]) == (10, "finished")


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    make_run(tmp_path / "a")
    diverged = store.read_status(make_run(tmp_path / "b", seeds=1))._replace(
        state="diverged", message="q_mean, step 70"
    )
    RunFolder(tmp_path / "b").write_status(diverged._replace(steps=200_000))
    (make_run(tmp_path / "c") / "status.json").write_text("{")
    (tmp_path / "not-a-run").mkdir()
    assert [entry.name for entry in list_runs(tmp_path)] == ["a", "b", "c"]
    text = printed(print_runs, tmp_path)
    for part in ("110,000/200,000", "1,150 ± 205", "finished", "diverged: q_mean, step 70", "damaged"):
        assert part in text
    assert "No runs in" in printed(print_runs, tmp_path / "not-a-run")


def test_only_what_is_comparable_differs():
    base = {"algorithm": "itrpo", "preset": "quick", "algorithm_config.alpha": 1.0, "train.seed": 0}
    other = {"algorithm": "iql", "preset": "source", "algorithm_config.beta": 3.0, "train.seed": 0}
    assert differing([base, other]) == [{"preset": "quick"}, {"preset": "source"}]
    assert differing([base, base | {"train.seed": 1}]) == [{"seed": 0}, {"seed": 1}]
    assert differing([base]) == [{}]


def test_rules_columns_and_bounds_differ_where_one_run_has_none():
    """A field that a run lacks, or has as null, is none; of a run that is continued its name is said."""
    base = {"algorithm": "itrpo", "preset": "quick", "data.dataset": "log", "data.rules": None, "data.columns": None}
    data = {"rules": {"fill": "previous"}, "columns": {"actions": ["valve"]}, "action_high": [100.0]}
    data |= {"parent": {"run": "3f2a", "mean": [1.0, 2.0]}}
    given = flat({"algorithm": "itrpo", "preset": "quick", "data": {"dataset": "log"} | data})
    names = ("fill", "columns.actions", "action_high", "parent.run")
    assert differing([base, given]) == [
        dict.fromkeys(names),
        dict(zip(names, ("previous", ["valve"], [100.0], "3f2a"), strict=True)),
    ]
    assert differing([base, given | {"data.dataset": "other"}]) == [{}, {}]  # what is done to other data is no choice


def test_long_lists_are_cut_off_in_the_list_alone():
    words = in_words({"columns.observations": [f"sensor_{i}" for i in range(30)], "fill": None})
    assert words[0].startswith("columns.observations sensor_0,sensor_1,")
    assert words[0].endswith("...")
    assert len(words[0]) == len("columns.observations ") + 60
    assert words[1] == "fill none"


def test_labels_tell_runs_apart(runs):
    assert labels(named_runs([runs])) == ["IQL", "iTRPO, alpha 6.0", "iTRPO, alpha 3.0"]
    make(runs / "again", alpha=6.0)
    assert labels(named_runs([runs / "again", runs / "sweep"])) == [
        "iTRPO, alpha 6.0 (again)",
        "iTRPO, alpha 6.0 (high)",
        "iTRPO, alpha 3.0",
    ]
    with pytest.raises(InputError, match="no run of itrpo is in it"):
        named_runs([runs / "nothing"])


def test_show_has_commands_constants_and_the_length_it_began_with(runs, capsys):
    RunFolder(runs / "alone").save_evaluation(
        {"env_id": "itrpo/A-v0", "step": 5, "episodes": 2, "seed": 0, "return": {"mean": 1.5, "per_seed": [1.0, 2.0]}}
    )
    text = " ".join(printed(print_run, runs / "alone").split())
    for part in (
        "110,000 of 110,000 steps, begun as 50,000, 2 seeds",
        "itrpo train hopper-demo --alpha 3.0",
        "alpha 3.0, gamma 0.99",
        "1,000, 1,100 (each seed's mean of the last 10 evaluations)",
        "return 1, 2 (evaluations/itrpo-A-v0_step5_episodes2_seed0.json)",
    ):
        assert part in text
    assert main(["runs", "show", str(runs / "alone"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["config"]["algorithm_config"]["alpha"] == 3.0
    assert list(about["evaluations"]) == ["itrpo-A-v0_step5_episodes2_seed0.json"]
    assert main(["runs", "show", str(runs)]) == 2
    assert "holds 3 runs; name one" in capsys.readouterr().err


def test_diff_shows_what_differs_and_nothing_else(runs, capsys):
    low, high = runs / "sweep/hopper/low", runs / "sweep/hopper/high"
    text = printed(print_differences, [low, high])
    assert "algorithm_config.alpha" in text
    assert "gamma" not in text
    assert "1,150 ± 205" in text
    assert main(["runs", "diff", str(low), str(high), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differs"] == {"algorithm_config.alpha": [3.0, 6.0]}
    shutil.copytree(low, runs / "again")
    assert "No difference in constants, data, versions" in printed(print_differences, [low, runs / "again"])
    assert main(["runs", "diff", str(low)]) == 2


def test_runs_that_are_compared_have_one_window(runs):
    """The shorter run has 4 evaluations, of which the last 2 count; in the longer one it is then 2 as well."""
    make(runs / "short", evaluations=4)
    said = printed(print_differences, [runs / "short", runs / "sweep/hopper/low"])
    assert "means of the last 2 evaluations of each" in said


def test_results_are_read_by_text_too(runs):
    folder = str(runs / "alone")
    assert len(store.read_metrics(folder)) == len(store.read_metrics(runs / "alone"))
    assert store.read_status(folder).algorithm == "iql"
    assert store.read_timing(folder) == []
    assert [str(it) for it in store.run_folders(folder)] == [folder]
    np.testing.assert_equal(len(store.read_rows(f"{folder}/metrics.jsonl")), len(store.read_metrics(folder)))


def test_seeds_that_are_being_added_are_no_run_of_their_own(tmp_path):
    """`adding_seeds_...` has a status and no config.json."""
    make(tmp_path / "run")
    (tmp_path / "run" / "adding_seeds_4_to_7").mkdir()
    (tmp_path / "run" / "adding_seeds_4_to_7" / "status.json").write_text("{}")
    about = files.read_json(tmp_path / "run/provenance.json")
    about["dataset"] |= {"source": {"kind": "file"}}
    files.write_json(tmp_path / "run/provenance.json", about)
    config = files.read_json(tmp_path / "run/config.json")
    config["config"] |= {"behavior": None}
    config["config"]["data"] |= {"task": None}
    files.write_json(tmp_path / "run/config.json", config)
    assert len(read_results([str(tmp_path)]).runs) == 1
