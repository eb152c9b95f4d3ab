from __future__ import annotations

import json
import os
from pathlib import Path

import polars
import pytest
from rich.console import Console

from itrpo import cli, files
from itrpo.errors import InputError, StorageError
from itrpo.results import frames
from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Row, Status

DATASET = {
    "source": {"name": "x", "kind": "generated", "path": "/home/someone/.cache/itrpo/x.hdf5"},
    "return_mean": 1456.0,
    "score_mean": 45.5,
}


def make_run(folder: Path, run: str = "aaaa0001", *, step: int = 20, seeds: int = 2, **fields: object) -> Path:
    """A run folder as training leaves it. In it, value = step + seed / 3 + 0.1 for the score."""
    algorithm = "iql" if "expectile" in fields else "itrpo"
    own = fields or {"alpha": 3.0, "tau": 0.9, "log_ratio_low": "-inf", "backbone": {"gamma": 0.99}}
    config = {
        "data": {"dataset": "hopper-medium-itrpo1", "task": "hopper-medium"},
        "preset": "quick",
        "algorithm_config": own,
        "behavior": "gaussian",
        "evaluation": {"eval_every": 10, "eval_episodes": 5},
    }
    files.write_json(folder / "provenance.json", {"argv": ["/usr/bin/itrpo", "train"], "dataset": DATASET})
    files.write_json(folder / "config.json", {"config": config, "version": 3})
    rows = [
        Row(run, seed, at, metric, at + seed / 3 + shift)
        for at in range(10, step + 1, 10)
        for seed in range(seeds)
        for metric, shift in (("score", 0.1), ("probe_kl", -0.7))
    ]
    RunFolder(folder).append_metrics(rows)
    for seconds in (99.0, 7.0):  # a resumed run times a stretch again
        RunFolder(folder).append_timing({"step": 10, "train_seconds": seconds})
    RunFolder(folder).append_timing({"step": 20, "train_seconds": 5.0})
    RunFolder(folder).write_status(
        Status(run, algorithm, "hopper-medium-itrpo1", "Hopper-v4", seeds, 5, step, 20, "unfinished")
    )
    return folder


def test_a_run_folder_is_one_row_and_its_measurements(tmp_path):
    make_run(tmp_path / "deep" / "down")
    results = frames.read_results([tmp_path])
    (row,) = results.runs.iter_rows(named=True)
    config = json.loads(row.pop("config"))
    provenance = json.loads(row.pop("provenance"))
    assert row == {
        "run": "aaaa0001",
        "plan": None,
        "label": "itrpo",
        "algorithm": "itrpo",
        "preset": "quick",
        "dataset": "hopper-medium-itrpo1",
        "task": "hopper-medium",
        "kind": "generated",
        "env_id": "Hopper-v4",
        "seeds": 2,
        "step": 20,
        "steps": 20,
        "eval_every": 10,
        "eval_episodes": 5,
        "state": "unfinished",
        "message": "",
        "dataset_score": 45.5,
        "dataset_return": 1456.0,
        "train_seconds": 12.0,
        "behavior": "gaussian",
        "alpha": 3.0,
        "tau": 0.9,
    }
    assert config["algorithm_config"]["log_ratio_low"] == "-inf"
    assert provenance["dataset"] == DATASET
    assert len(results.rows) == 8
    assert results.rows.filter(polars.col("metric") == "score", step=20, seed=1)["value"].item() == 20 + 1 / 3 + 0.1
    assert results.runs.schema == polars.Schema(frames.runs_schema())
    assert results.rows.schema == polars.Schema(frames.rows_schema())


def planned(label: str, run: str = "aaaa0001") -> dict[str, str]:
    """A run in plan.json."""
    dataset = "hopper-medium-itrpo1"
    return {"label": label, "dataset": dataset, "hash": run, "folder": f"{dataset}/{label}"}


def test_arms_that_differ_in_length_alone_keep_their_own_numbers(tmp_path):
    """In one plan, and a run of a plan beside one of another folder."""
    for label, seeds in (("a", 2), ("b", 3)):
        make_run(tmp_path / "sweep" / "hopper-medium-itrpo1" / label, seeds=seeds)
    files.write_json(tmp_path / "sweep" / "plan.json", {"name": "mine", "runs": [planned("a"), planned("b")]})
    make_run(tmp_path / "compared", seeds=5)
    there = frames.read_results([tmp_path])
    frames.pack(there, tmp_path / "kept.parquet")
    for results in (there, frames.read_results([tmp_path / "kept.parquet"]), frames.read_results([tmp_path])):
        assert results.runs.select("plan", "label", "seeds").rows() == [
            ("mine", "a", 2),
            ("mine", "b", 3),
            (None, "itrpo", 5),
        ]
        assert results.runs["run"].to_list() == ["aaaa0001-20x2", "aaaa0001-20x3", "aaaa0001"]
        for run, seeds in results.runs.select("run", "seeds").rows():
            assert results.rows.filter(polars.col("run") == run)["seed"].n_unique() == seeds


def test_a_sweeps_plan_names_its_arms(tmp_path):
    make_run(tmp_path / "hopper-medium-itrpo1" / "shaped")
    make_run(tmp_path / "hopper-medium-itrpo1" / "iql", "bbbb0002", expectile=0.7)
    make_run(tmp_path / "hopper-medium-itrpo1" / "grid-tau=0.9")  # the same constants as the arm before
    listed = [planned("shaped"), planned("grid-tau=0.9") | {"hash": None}]  # one has ended, the other goes on
    files.write_json(tmp_path / "plan.json", {"name": "ablation", "runs": listed})
    runs = frames.read_results([tmp_path / "hopper-medium-itrpo1"]).runs
    assert runs.select("label", "plan", "alpha", "tau").rows() == [
        ("grid-tau=0.9", "ablation", 3.0, 0.9),
        ("iql", None, None, None),  # the plan has it no longer
        ("shaped", "ablation", 3.0, 0.9),
    ]
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(StorageError, match=r"plan\.json"):
        frames.read_results([tmp_path])


def test_a_pack_holds_the_same_runs_without_their_folders(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", "bbbb0002", step=0)  # nothing measured yet
    there = frames.read_results([tmp_path])
    assert (
        cli.main(["runs", "pack", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "p.parquet")]) == 0
    )
    back = frames.read_results([tmp_path / "p.parquet"])
    assert back.runs.drop("provenance").equals(there.runs.drop("provenance"))
    order = ["run", "metric", "seed", "step"]
    assert back.rows.sort(order).drop("value").equals(there.rows.sort(order).drop("value"))
    exact, packed = (it.rows.sort(order)["value"] for it in (there, back))
    assert packed.to_list() == pytest.approx(exact.to_list(), rel=2**-23)
    text = "".join(back.runs["provenance"])
    assert "someone" not in text
    assert "/" not in text
    assert json.loads(back.runs["provenance"][0])["dataset"]["source"]["path"] == "x.hdf5"
    again = tmp_path / "again.parquet"
    frames.pack(back, again)
    assert again.read_bytes() == (tmp_path / "p.parquet").read_bytes()


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_found_twice_is_kept_once_where_it_is_further(tmp_path, order):
    early, late = make_run(tmp_path / "early", step=10), make_run(tmp_path / "late")
    frames.pack(frames.read_results([early]), tmp_path / "early.parquet")
    results = frames.read_results([tmp_path / "early.parquet", late][::order])
    assert results.runs["step"].to_list() == [20]
    assert len(results.rows) == 8
    assert len(frames.read_results([tmp_path]).runs) == 1  # folders and packs below one folder
    make_run(tmp_path / "more", seeds=5)  # is another one
    assert sorted(frames.read_results([late, tmp_path / "more"][::order]).runs["seeds"]) == [2, 5]


def test_a_packed_file_is_not_written_over_where_runs_of_it_would_be_lost(tmp_path, capsys):
    one, other, kept = make_run(tmp_path / "one"), make_run(tmp_path / "other", "bbbb0002"), tmp_path / "kept.parquet"
    assert cli.main(["runs", "pack", str(one), "--out", str(kept)]) == 0
    assert "1 run, 8 rows" in capsys.readouterr().out
    before = kept.read_bytes()
    assert cli.main(["runs", "pack", str(other), "--out", str(kept)]) == 2
    assert "holds 1 run that would be lost" in capsys.readouterr().err
    assert kept.read_bytes() == before
    assert cli.main(["runs", "pack", str(other), str(kept), "--out", str(kept)]) == 0
    assert set(frames.read_results([kept]).runs["run"]) == {"aaaa0001", "bbbb0002"}


def test_runs_of_another_kind_are_called_so(tmp_path):
    files.write_json(make_run(tmp_path / "tuned") / "config.json", {"finetune": {}})
    with pytest.raises(InputError, match="its runs are of another kind"):
        frames.read_results([tmp_path])
    (tmp_path / "tuned" / "status.json").unlink()
    with pytest.raises(InputError, match="no run of itrpo is in it"):
        frames.read_results([tmp_path])


def test_a_run_that_has_grown_takes_the_place_of_its_beginning_and_not_the_reverse(tmp_path, capsys):
    short, grown, kept = make_run(tmp_path / "short"), make_run(tmp_path / "grown", seeds=5), tmp_path / "kept.parquet"
    for run, status in ((short, 0), (grown, 0), (short, 2)):
        assert cli.main(["runs", "pack", str(run), "--out", str(kept)]) == status
    assert "holds 1 run that would be lost" in capsys.readouterr().err


def test_a_torn_last_line_is_left_out_with_a_notice_and_damage_is_named(tmp_path, capsys):
    make_run(tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    os.truncate(metrics, metrics.stat().st_size - 9)
    assert len(frames.read_results([tmp_path], Console(width=1000)).rows) == 7
    assert f"{metrics}: a kill cut its last line short" in capsys.readouterr().out
    metrics.write_text('{"run": 3}\n' + metrics.read_text())
    with pytest.raises(StorageError, match=r"metrics\.jsonl, line 1"):
        frames.read_results([tmp_path])


@pytest.mark.parametrize("file", ["config.json", "provenance.json", "status.json"])
@pytest.mark.parametrize("content", ["{", '{"config": {}}', None])
def test_a_damaged_folder_is_an_error_that_names_it(tmp_path, file, content):
    make_run(tmp_path / "run")
    path = tmp_path / "run" / file
    if content is None and file == "status.json":
        return  # then it has measured nothing yet
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(StorageError, match="run"):
        frames.read_results([tmp_path])


def test_a_number_that_is_none_is_named_with_its_run(tmp_path):
    status = make_run(tmp_path / "run") / "status.json"
    status.write_text(status.read_text().replace('"step": 20', '"step": NaN'))
    with pytest.raises(StorageError, match=r"run: config\.json, provenance\.json or status\.json is not that of a run"):
        frames.read_results([tmp_path])


def test_runs_of_another_kind_are_passed_over(tmp_path):
    make_run(tmp_path / "run")
    files.write_json(tmp_path / "sac" / "config.json", {"sac": {}})
    files.write_json(tmp_path / "sac" / "status.json", {"updates": 3})
    polars.DataFrame({"x": [1]}).write_parquet(tmp_path / "log.parquet")
    assert len(frames.read_results([tmp_path]).runs) == 1


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none", None, InputError, "no such file or folder"),
        ("log.csv", b"x", InputError, "not a file of `itrpo runs pack`"),
        ("p.parquet", b"PAR1", StorageError, "can't read"),
        ("p.parquet", b"", StorageError, "can't read"),
    ],
)
def test_what_is_no_run_is_one_message(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as refused:
        frames.read_results([tmp_path / name])
    assert name in str(refused.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no run of itrpo is in it"):
        frames.read_results([tmp_path / "empty"])


def test_a_packs_name_is_checked_and_a_disk_that_refuses_leaves_the_old_one(tmp_path, monkeypatch):
    results = frames.read_results([make_run(tmp_path / "run")])
    with pytest.raises(InputError, match=r"ends in \.parquet"):
        frames.pack(results, tmp_path / "p.csv")
    path = tmp_path / "p.parquet"
    path.write_bytes(b"old")

    def full(finished: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "put", full)
    with pytest.raises(StorageError, match="No space left"):
        frames.pack(results, path)
    assert path.read_bytes() == b"old"
    assert {it.name for it in tmp_path.iterdir()} == {"run", "p.parquet"}


def test_a_run_that_two_plans_share_is_an_arm_of_both(tmp_path):
    for plan, step in (("table2", 20), ("ablation", 10)):
        folder = make_run(tmp_path / plan / "hopper-medium-itrpo1" / "itrpo", step=step)
        arm = {"label": "itrpo", "dataset": "hopper-medium-itrpo1", "hash": "aaaa0001", "folder": str(folder)}
        files.write_json(tmp_path / plan / "plan.json", {"name": plan, "runs": [arm]})
    make_run(tmp_path / "alone")  # the same run outside of a plan
    results = frames.read_results([tmp_path])
    assert sorted(results.runs.select("plan", "label", "step").rows(), key=str) == [
        ("ablation", "itrpo", 20),
        ("table2", "itrpo", 20),
        (None, "itrpo", 20),
    ]
    assert len(results.rows) == len(frames.read_results([tmp_path / "alone"]).rows)  # measured once
    frames.pack(results, tmp_path / "both.parquet")
    packed = frames.read_results([tmp_path / "both.parquet"])
    assert packed.runs.select("plan", "step").sort("plan").rows() == [(None, 20), ("ablation", 20), ("table2", 20)]
    assert len(packed.rows) == len(results.rows)
