"""The command line, as other tools call it: what it writes, how it resumes, what it says to bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest

import itrpo
from itrpo import files
from itrpo.cli import main
from itrpo.cli.flags import Flag, value_of
from itrpo.console import LiveLine
from itrpo.errors import InputError
from itrpo.evaluation import beside
from itrpo.files import read_json
from itrpo.policy import load_policy
from itrpo.results import checkpoint
from itrpo.results.run_folder import RunFolder
from itrpo.results.store import read_metrics, read_status, read_timing
from itrpo.training import run
from tests.processes import running

SMALL = ["--preset", "quick", "--policy-hidden", "16,16", "--critic-hidden", "16,16"]
SMALL += ["--behavior-hidden", "16,16", "--batch-size", "32"]
SIZES = ["--seeds", "2", "--steps", "60", "--eval-every", "20", "--eval-episodes", "1", "--behavior-steps", "100"]
BOUNDS = ["--action-low", "-2", "--action-high", "2"]


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(data), *BOUNDS, *SIZES, *SMALL, "--out", str(out), *more]


def command(*words: str, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "itrpo.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def final_arrays(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(checkpoint.sorted_checkpoints(folder / "checkpoints")[0])[0]


def assert_same_run(one: Path, other: Path) -> None:
    left, right = final_arrays(one), final_arrays(other)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def finished(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments(pendulum, out)) == 0
    return out


def test_a_run_leaves_everything_in_its_folder(finished, pendulum):
    assert {it.name for it in finished.iterdir()} == {
        *("config.json", "provenance.json", "status.json", "metrics.jsonl", "timing.jsonl", "checkpoints"),
        *("seed0", "seed1", "learning_curve.png", ".lock"),
    }
    assert [it.name for it in checkpoint.sorted_checkpoints(finished / "checkpoints")] == [
        "train_0000000060",
        "train_0000000040",
    ]
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["algorithm_config"]["backbone"]["policy_hidden"] == [16, 16]
    assert config["behavior_steps"] == 100
    about = json.loads((finished / "provenance.json").read_text())
    assert about["dataset"]["source"]["path"] == str(pendulum)
    assert len(about["dataset_sha256"]) == 64
    assert about["machine"]["threads"] == "2"
    status = read_status(finished)
    assert (status.state, status.step, status.seeds) == ("finished", 60, 2)


def test_metrics_hold_what_figure_2_needs(finished):
    metrics = read_metrics(finished)
    at_end = metrics.filter((metrics["step"] == 60) & (metrics["seed"] == 1))
    names = set(at_end["metric"])
    assert names >= {
        *("return", "return_std", "episode_length", "critic_loss", "policy_loss", "kl", "q_target"),
        *("probe_kl", "probe_log_ratio", "probe_shaping_reward", "probe_clipped_fraction", "probe_q_data"),
        *("probe_policy_std", "probe_action_gradient_norm"),
    }
    values = dict(zip(at_end["metric"], at_end["value"], strict=True))
    # the preset's tau, and its alpha times the running mean of |Q|, scale the log-ratio into the shaping reward
    arrays, _ = checkpoint.load(checkpoint.sorted_checkpoints(finished / "checkpoints")[0])
    weight = 0.03 * arrays["state/q_scale"][1] * 0.5
    np.testing.assert_allclose(values["probe_shaping_reward"], weight * values["probe_log_ratio"], rtol=1e-4)
    before = metrics.filter(metrics["step"] == 0)["metric"].to_list()
    assert "behavior_return" in before
    assert "behavior_nll" in before


def test_the_exported_policy_is_what_was_evaluated(finished):
    """Replaying the last evaluation by hand with seed0/policy.npz gives the return in metrics.jsonl."""
    policy = load_policy(finished / "seed0" / "policy.npz")
    assert policy.metadata["observation_names"] == ["x", "y", "w"]
    assert policy.metadata["observation_low"] == [None, -1, -8]
    env = gymnasium.make("Pendulum-v1")
    start = int(np.random.SeedSequence([0, 0, 0, 60]).generate_state(1)[0])
    observation, total, ended = env.reset(seed=start)[0], 0.0, False
    while not ended:
        action = policy(observation)
        assert np.abs(action).max() <= 2  # the dataset's units, not the network's
        observation, reward, terminal, timeout, _ = env.step(action)
        total, ended = total + float(reward), terminal or timeout
    metrics = read_metrics(finished)
    recorded = metrics.filter((metrics["metric"] == "return") & (metrics["seed"] == 0) & (metrics["step"] == 60))
    np.testing.assert_allclose(total, recorded["value"].item(), rtol=1e-4)


def test_kill_and_resume_is_bit_identical(finished, pendulum, tmp_path, capsys):
    out = tmp_path / "killed"
    process = command(*arguments(pendulum, out))
    deadline = time.monotonic() + 300
    while not any((out / "checkpoints").glob("train_00000000[246]0")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = checkpoint.sorted_checkpoints(out / "checkpoints")[0]
    assert int(reached.name[-10:]) > 0
    assert main(arguments(pendulum, out)) == 0
    assert f"resuming train at step {int(reached.name[-10:])}" in " ".join(capsys.readouterr().out.split())
    assert_same_run(finished, out)


def test_what_was_stopped_before_its_first_rows_goes_on(pendulum, tmp_path, monkeypatch):
    """Nothing is measured of an algorithm without pi_beta until its first evaluation."""
    words = ["train", str(pendulum), *BOUNDS, "--algorithm", "bc", "--preset", "quick", "--hidden", "16,16"]
    words += ["--seeds", "2", "--steps", "20", "--eval-every", "20", "--eval-episodes", "1", "--out"]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert main([*words, str(whole)]) == 0

    def ask_to_stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(LiveLine, "update", ask_to_stop)
        assert main([*words, str(out)]) == 130
    assert read_status(out).step == 1
    assert not (out / "metrics.jsonl").exists()
    assert main([*words, str(out)]) == 0
    assert_same_run(whole, out)


@pytest.mark.slow
def test_a_kill_while_policies_are_played_is_no_loss(finished, pendulum, tmp_path):
    """Their process is halted, so the checkpoint that they are of is there, and their returns are not: they are played
    again.
    """
    out = tmp_path / "killed"
    assert main(arguments(pendulum, out, "--steps", "20")) == 0
    process, playing = command(*arguments(pendulum, out)), list[int]()
    while not playing:
        assert process.poll() is None, process.communicate()
        playing = running("itrpo.evaluation.beside", process.pid)
    os.kill(playing[0], signal.SIGSTOP)
    while checkpoint.sorted_checkpoints(out / "checkpoints")[0].name != "train_0000000040":
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.wait()
    os.kill(playing[0], signal.SIGCONT)
    process.communicate()  # until nobody holds the other end: who plays for a trainer that is gone ends, too
    metrics = read_metrics(out)
    assert metrics.filter(metrics["metric"] == "return")["step"].max() == 20
    assert metrics["step"].max() == 40
    assert main(arguments(pendulum, out)) == 0
    assert_same_run(finished, out)


@pytest.mark.slow
def test_what_goes_wrong_while_pi_beta_is_played_is_no_loss(finished, pendulum, tmp_path, monkeypatch, capsys):
    """Its checkpoint is there before: the next try plays it again, and ends in the same bits."""

    def fail(*_: object) -> None:
        raise OSError("no display")

    out = tmp_path / "failed"
    with monkeypatch.context() as patched:
        patched.setattr(run, "start_evaluation", fail)
        with pytest.raises(OSError, match="no display"):
            main(arguments(pendulum, out))
    assert [it.name for it in checkpoint.sorted_checkpoints(out / "checkpoints")] == ["train_0000000000"]
    status = read_status(out)
    assert (status.state, status.message) == ("failed", "OSError: no display")
    assert main(["runs", "list", "--root", str(tmp_path)]) == 0
    assert "failed: OSError" in capsys.readouterr().out
    assert main(arguments(pendulum, out)) == 0
    assert_same_run(finished, out)


def test_playing_beside_training_changes_no_bit(finished, pendulum, tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "known_elsewhere", lambda env_id: False)  # so it is played here, between blocks
    out = tmp_path / "here"
    assert main(arguments(pendulum, out)) == 0
    assert_same_run(finished, out)
    assert (out / "seed1" / "policy.npz").read_bytes() == (finished / "seed1" / "policy.npz").read_bytes()
    for record in read_timing(out):
        assert record["waited_seconds"] > record["evaluation_seconds"] > 0


@pytest.mark.slow
def test_a_fit_stopped_halfway_resumes_to_the_same_bits(finished, pendulum, tmp_path, monkeypatch):
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))  # or the fit would be taken from the cache
    out = tmp_path / "stopped"
    process = command(*arguments(pendulum, out))
    while not (out / "provenance.json").exists():  # from here on it listens to signals, and the fit is still to come
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command continues" in errors
    reached = checkpoint.sorted_checkpoints(out / "checkpoints")[0].name
    assert reached.startswith("behavior_")
    assert 0 < int(reached[-10:]) < 100
    assert read_status(out).state == "stopped"
    assert main(arguments(pendulum, out)) == 0
    assert_same_run(finished, out)


def test_a_fit_from_the_cache_changes_no_bit(finished, pendulum, tmp_path, capsys):
    out = tmp_path / "again"
    assert main(arguments(pendulum, out)) == 0
    assert "in the cache" in capsys.readouterr().out.replace("\n", " ")
    assert_same_run(finished, out)


def test_more_steps_extend_a_run_to_the_bits_of_a_longer_one(finished, pendulum, tmp_path):
    out = tmp_path / "extended"
    assert main(arguments(pendulum, out, "--steps", "40")) == 0
    assert main(arguments(pendulum, out)) == 0
    assert_same_run(finished, out)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, pendulum, tmp_path, capsys):
    out = tmp_path / "damaged"
    shutil.copytree(finished, out)
    arrays = out / "checkpoints" / "train_0000000060" / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-5] ^= 1
    arrays.write_bytes(content)
    assert main(arguments(pendulum, out)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "is damaged" in printed
    assert "resuming train at step 40" in printed
    assert_same_run(finished, out)


def test_every_checkpoint_damaged_is_an_error_that_says_so(finished, pendulum, tmp_path, capsys):
    out = tmp_path / "damaged"
    shutil.copytree(finished, out)
    for arrays in out.glob("checkpoints/*/arrays.safetensors"):
        arrays.write_bytes(b"")
    assert main(arguments(pendulum, out)) == 1
    assert "every checkpoint" in capsys.readouterr().err


def test_diverging_stops_with_the_quantity_and_the_step(pendulum, tmp_path, capsys):
    out = tmp_path / "diverged"
    assert main(arguments(pendulum, out, "--critic-learning-rate", "1e18")) == 1
    message = capsys.readouterr().err
    assert "training diverged" in message
    assert "of seed 0" in message
    assert "at step" in message
    assert read_status(out).state == "diverged"
    arrays, meta = checkpoint.load(checkpoint.sorted_checkpoints(out / "checkpoints")[0])
    assert meta["step"] == 0
    assert all(np.isfinite(it).all() for it in arrays.values())


def test_a_full_disk_is_one_message(pendulum, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code = limit + "import sys; from itrpo.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *arguments(pendulum, tmp_path / "full")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr


def test_another_machine_is_said_and_recorded(finished, pendulum, tmp_path, capsys):
    out = tmp_path / "moved"
    shutil.copytree(finished, out)
    about = json.loads((out / "provenance.json").read_text())
    about["machine"]["threads"] = "64"
    (out / "provenance.json").write_text(json.dumps(about))
    assert main(arguments(pendulum, out)) == 0
    assert "not to the same bits" in " ".join(capsys.readouterr().out.split())
    assert len(json.loads((out / "provenance.json").read_text())["resumed_on"]) == 1


def test_evaluate_and_runs_list(finished, capsys):
    assert main(["evaluate", str(finished), "--episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Pendulum-v1" in printed
    assert "saved to" in printed
    (saved,) = (finished / "evaluations").iterdir()
    assert len(read_json(saved)["returns"]) == 2
    shutil.rmtree(finished / "evaluations")  # other tests copy this folder
    assert main(["runs", "list", "--root", str(finished.parent)]) == 0
    assert "whole" in capsys.readouterr().out


def test_without_an_environment_it_trains_all_the_same(pendulum, tmp_path):
    out = tmp_path / "blind"
    assert main(arguments(pendulum, out, "--env", "none", "--steps", "20")) == 0
    assert "return" not in set(read_metrics(out)["metric"])
    assert load_policy(out / "seed1" / "policy.npz")(np.zeros(3)).shape == (1,)


def test_what_is_lost_of_a_finished_run_is_made_again(pendulum, tmp_path):
    """A policy, one of its bytes, and then all checkpoints: the run that it was, to the bit, and no row twice."""
    out, words = tmp_path / "run", ["--algorithm", "bc", "--env", "none", "--steps", "20", "--preset", "quick"]
    again = ["train", str(pendulum), *BOUNDS, "--seeds", "2", "--eval-every", "10", *words, "--out", str(out)]
    assert main(again) == 0
    policies = [out / f"seed{index}" / "policy.npz" for index in range(2)]
    before, rows = [it.read_bytes() for it in policies], (out / "metrics.jsonl").read_bytes()
    policies[0].unlink()
    policies[1].write_bytes(before[1][:-40] + bytes([before[1][-40] ^ 1]) + before[1][-39:])
    assert main(again) == 0
    assert [it.read_bytes() for it in policies] == before
    shutil.rmtree(out / "checkpoints")
    assert main(again) == 0
    assert [it.read_bytes() for it in policies] == before
    assert (out / "metrics.jsonl").read_bytes() == rows


def test_a_policy_that_is_damaged_while_its_evaluation_is_due_is_made_again(finished, pendulum, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    rows = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    played = ('"return"', '"return_std"', '"episode_length"', '"score"')
    is_last = [b'"step": 60' in row and any(f'"metric": {it}'.encode() in row for it in played) for row in rows]
    assert sum(is_last) == 6
    (out / "metrics.jsonl").write_bytes(b"".join(row for row, last in zip(rows, is_last, strict=True) if not last))
    files.write_json(out / "status.json", files.read_json(out / "status.json") | {"state": "unfinished"})
    policy = out / "seed0" / "policy.npz"
    whole = policy.read_bytes()
    policy.write_bytes(whole[:100])
    assert main(arguments(pendulum, out)) == 0
    assert policy.read_bytes() == whole
    assert sorted((out / "metrics.jsonl").read_bytes().splitlines(keepends=True)) == sorted(rows)


def test_a_missing_seed_is_said_and_no_other_taken_for_it(finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "seed0")
    assert main(["evaluate", str(out), "--episodes", "1"]) == 2
    assert f"{out / 'seed0' / 'policy.npz'} is not there" in capsys.readouterr().err


def test_too_little_memory_is_one_message(pendulum, tmp_path, capsys):
    words = ["--algorithm", "iql", "--env", "none", "--steps", "20", "--preset", "quick", "--batch-size", "20000000000"]
    assert main(["train", str(pendulum), *BOUNDS, *words, "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert "there is not enough memory for this run (RESOURCE_EXHAUSTED" in message
    assert "smaller batch_size" in message


@pytest.mark.parametrize(("words", "expected"), [(["true"], True), (["false"], False), ([], True)])
def test_normalising_observations_is_said_in_the_fields_own_words(words, expected, pendulum, tmp_path):
    out, flag = tmp_path / "run", ["--normalize-observations", *words] if words else []
    cheap = ["--algorithm", "bc", "--preset", "quick", "--env", "none", "--steps", "1", "--seeds", "1"]
    assert main(["train", str(pendulum), *BOUNDS, *cheap, *flag, "--out", str(out)]) == 0
    assert read_json(out / "config.json")["config"]["data"]["normalize_observations"] is expected
    if not words:  # the same data under another name: the run goes on, and is called what it was called
        moved = shutil.copy(pendulum, tmp_path / "moved.npz")
        assert main(["train", str(moved), *BOUNDS, *cheap, "--steps", "2", "--out", str(out)]) == 0
        rows = read_metrics(out)
        assert rows["step"].max() == 2
        assert set(rows["run"]) == {read_status(out).run}


def test_policies_of_a_run_act_from_anywhere_and_are_read_once(pendulum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = itrpo.RunOptions(steps=5, seeds=1, env="none", action_low=-2.0, action_high=2.0, out="relative")
    run = itrpo.train(pendulum, "bc", options)
    monkeypatch.chdir(tmp_path.parent)
    action = run.policy(np.zeros(3))
    (run.folder / "seed0" / "policy.npz").unlink()
    np.testing.assert_array_equal(run.policy(np.zeros(3)), action)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"scale": "big"}, "scale must be one of smoke, laptop, paper"), ({"action_low": -2.0}, "load_dataset")],
)
def test_arguments_of_train_that_make_no_sense(arguments, words, pendulum, tmp_path):
    dataset = itrpo.load_dataset(pendulum, action_low=-2.0, action_high=2.0)
    with pytest.raises(InputError, match=words):
        itrpo.train(dataset, options=itrpo.RunOptions(out=tmp_path / "run", steps=5, **arguments))
    assert not (tmp_path / "run").exists()


# --- bad input: (what, change of the good command, words of the message) -------------------------------------------


def hdf5(path: Path, change: str = "") -> Path:
    rng = np.random.default_rng(0)
    rows = {
        "observations": rng.normal(size=(50, 3)),
        "actions": rng.uniform(-1, 1, (50, 1)),
        "rewards": rng.normal(size=50),
        "terminals": np.zeros(50, bool),
        "timeouts": np.arange(50) % 10 == 9,
    }
    if change == "nan":
        rows["rewards"][7] = np.nan
    if change == "unequal":
        rows["rewards"] = rows["rewards"][:-1]
    if change == "no actions":
        rows["action"] = rows.pop("actions")
    with h5py.File(path, "w") as file:
        for key, value in rows.items():
            file[key] = value
    return path


FIELDS = [
    (["--algorithm", "itrop"], "did you mean 'itrpo'"),
    (["--env", "Pendulum-v9"], "Pendulum"),
    (["--env", "CartPole-v1"], "CartPole-v1"),
    (["--env", "MountainCarContinuous-v0"], "observation"),
    (["--alpa", "1"], "did you mean '--alpha'?"),
    (["--eval-evry", "1"], "unknown flag --eval-evry (did you mean '--eval-every'?)"),
    (["--behaviour-steps", "1"], "did you mean '--behavior-steps'?"),
    (["--columns", "actions=valve"], "columns"),
    (["--alpha", "0"], "alpha must be positive"),
    (["--tau", "1.5"], "tau must be in [0, 1]"),
    (["--tau", "big"], "--tau must be a number, got 'big'"),
    (["--preset", "sorce"], "did you mean 'source'"),
    (["--behavior", "cvae"], "gaussian, mixture, flow"),
    (["--steps", "0"], "steps must be at least 1"),
    (["--seeds", "10000000"], "seeds must be in [1, 10000]"),
    (["--reward-scale", "0"], "reward_scale must not be 0"),
    (["--kl", "closed"], "closed_form"),
    (["--behavior", "mixture", "--warm-start", "true"], "--warm-start false"),
    (["--warm-start", "true", "--log-std-high", "0"], "--behavior-log-std-high"),
    (["--warm-start", "true", "--behavior-log-std-squash", "true"], "log_std_squash = False"),
]


@pytest.mark.parametrize(("change", "words"), FIELDS)
def test_a_wrong_field_is_one_message_and_status_2(change, words, pendulum, tmp_path, capsys):
    out = tmp_path / "bad"
    assert main(arguments(pendulum, out, *change)) == 2
    message = capsys.readouterr().err
    assert words in message.replace("\n", " ")
    assert message.count("error:") == 1
    assert not (out / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("nan", ["rewards", "1 NaN", "row 7"]),
        ("unequal", ["rewards", "49", "50"]),
        ("no actions", ["'actions'"]),
    ],
)
def test_a_wrong_file_is_one_message_and_status_2(change, words, tmp_path, capsys):
    path = hdf5(tmp_path / "wrong.hdf5", change)
    assert main(["train", str(path), "--env", "none", "--out", str(tmp_path / "bad")]) == 2
    message = capsys.readouterr().err.replace("\n", " ")
    for word in (str(path), *words):
        assert word in message
    good = ["--algorithm", "bc", "--env", "none", "--steps", "1", "--seeds", "1"]
    assert main(["train", str(hdf5(path)), *good, "--out", str(tmp_path / "good")]) == 0


def test_actions_out_of_range_name_the_flags(pendulum, tmp_path, capsys):
    assert main(["train", str(pendulum), "--out", str(tmp_path / "bad")]) == 2
    assert "--action-low" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file at all", b"\x89HDF\r\n\x1a\n truncated"])
def test_a_file_that_is_no_hdf5(content, tmp_path, capsys):
    path = tmp_path / "broken.hdf5"
    path.write_bytes(content)
    assert main(["train", str(path), "--out", str(tmp_path / "bad")]) == 2
    assert str(path) in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("name", ["hoper-demo", "missing.hdf5", "hopper-medium-v3"])
def test_an_unknown_dataset(name, tmp_path, capsys):
    assert main(["train", name, "--out", str(tmp_path / "bad")]) == 2
    assert name in capsys.readouterr().err


def test_a_folder_of_another_run_is_refused_and_untouched(finished, pendulum, capsys):
    before = {it: it.read_bytes() for it in finished.rglob("*") if it.is_file()}
    assert main(arguments(pendulum, finished, "--alpha", "0.25")) == 2
    message = capsys.readouterr().err
    assert "algorithm_config.alpha: 0.03 -> 0.25" in message
    assert {it: it.read_bytes() for it in finished.rglob("*") if it.is_file()} == before


def test_a_folder_that_is_no_run_is_refused(pendulum, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(arguments(pendulum, tmp_path)) == 2
    assert "config.json" in capsys.readouterr().err


def test_two_processes_do_not_share_a_folder(pendulum, tmp_path, capsys):
    with RunFolder(tmp_path / "busy").lock():
        assert main(arguments(pendulum, tmp_path / "busy")) == 2
    assert "another process" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["trian"], ["runs", "list", "--rot", "x"], ["train"], ["datasets", "info"]])
def test_a_wrong_command_line_is_status_2(words, capsys):
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


def test_numbers_of_steps_are_read_as_people_write_them(capsys):
    steps = Flag("steps", int | None, "")
    read = [value_of([text], steps, "itrpo train") for text in ("1e6", "1_000_000", "1000000", "2.5e3", "-1")]
    assert read == [10**6] * 3 + [2500, -1]
    for wrong in ("1.5", "1e-3", "inf", "nan", "many"):
        assert main(["train", "nothing.hdf5", "--steps", wrong]) == 2
        assert f"--steps must be a whole number, got {wrong}" in capsys.readouterr().err.replace("'", "")


def test_help_says_what_happens_without_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "paper: 1,000,000 steps" in printed
    assert "None" not in printed


def test_ctrl_c_saves_and_says_how_to_go_on(pendulum, tmp_path):
    out = tmp_path / "stopped"
    cheap = ["--algorithm", "bc", "--preset", "quick", "--hidden", "16,16"]
    words = ["train", str(pendulum), *BOUNDS, *SIZES, *cheap, "--out", str(out), "--steps", "100000000"]
    process = command(*words, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    while not (out / "checkpoints" / "train_0000000020").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert read_status(out).state == "stopped"
    reached = checkpoint.sorted_checkpoints(out / "checkpoints")[0]
    assert checkpoint.load(reached)[1]["step"] > 20


@pytest.mark.parametrize("words", [("train", "hopper-demo"), ("compare", "hopper-demo", "--algorithms", "bc,iql")])
def test_a_folder_that_cannot_be_made_is_said_before_a_dataset_is(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    assert main([*words, "--out", str(tmp_path / "file" / "run")]) == 1
    assert "file is a file; give another with --out" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_what_writes_nothing_needs_no_folder_to_write_in(pendulum, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    assert main(["sweep"]) == 0
    assert main([*arguments(pendulum, tmp_path / "runs" / "one"), "--dry-run"]) == 0
    assert main(arguments(pendulum, tmp_path / "runs" / "one")) == 1
    assert "runs is a file; give another with --out" in capsys.readouterr().err
