"""What a person reads: every field says what it means, every command has a help text that fits a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from itrpo import cli, registry
from itrpo.cli.flags import Flag, flags_of, spelled_out
from itrpo.collection.online_run import KINDS
from itrpo.config import descriptions
from itrpo.options import RunOptions

CONFIGS = {name: registry.algorithm(name).config for name in registry.ALGORITHMS}
MODELS = {name: registry.resolve(dotted).config for name, dotted in registry.BEHAVIOR_MODELS.items()}
COMMANDS = {name: command.kind for name, command in cli.COMMANDS.items()}


@pytest.mark.parametrize(
    "kind", [*CONFIGS.values(), *MODELS.values(), RunOptions, *(kind for kind, _ in KINDS.values())]
)
def test_every_field_says_what_it_means(kind):
    found = descriptions(kind)
    assert found
    assert [name for name, meaning in found.items() if not meaning] == []


@pytest.mark.parametrize("kind", COMMANDS.values(), ids=list(COMMANDS))
def test_every_flag_says_what_it_means(kind):
    assert [flag.text for flag in flags_of(kind) if not flag.meaning.partition("[")[0].strip()] == []


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_fits_the_terminal(name, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: itrpo {name} ")
    assert max(map(len, printed.splitlines())) <= columns
    assert all(flag.text in printed for flag in flags_of(cli.COMMANDS[name].kind))


def test_compare_takes_every_option_that_train_takes():
    train, compare = ({flag.name for flag in flags_of(COMMANDS[name])} for name in ("train", "compare"))
    assert train - compare == {"algorithm", "continue_from"}
    assert {"columns", "track", "normalize_observations"} <= compare


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "x", "--normalize-observations", "maybe"],
            "--normalize-observations must be true or false, got 'maybe'",
        ),
        (["train", "x", "--seeds"], "--seeds needs a value"),
        (["compare", "x", "--batch_size", "3"], "unknown flag --batch_size"),
        (["judge", "--fold", "3"], "unknown flag --fold (did you mean '--folds'?)"),  # and not that RUN is missing
        (["export", "--formt", "onnx"], "unknown flag --formt (did you mean '--format'?)"),
        (["train", "x", "--algorithm", "iql", "--seeds", "abc", "--expectile", "0.9"], "seeds"),
        (["train", "--alhpa", "3"], "unknown flag --alhpa (did you mean '--alpha'?)"),
        (["compare", "x", "--itrpo.batch-sise", "3"], "did you mean '--itrpo.batch-size'?"),
        (["evaluate", "x", "y"], "unexpected argument 'y'"),
        (["train", "x", "--track", "tensorbord"], "did you mean 'tensorboard'?"),
        (["datasets", "check", "x", "--steps", "3"], "unknown flag --steps"),
        (["datasets", "chek"], "did you mean 'check'?"),
        (["sac"], "itrpo sac needs ENV (gymnasium id"),
        (["judge"], "itrpo judge needs RUN (run folders"),
        (["sac", "Hopper-v4"], "needs --out"),
        (["report"], "itrpo report needs --runs (folders of runs"),
        (["report", "--runs", "x"], "itrpo report needs --out (folder for report.html"),
        (["theory", "--instances", "many"], "--instances must be a whole number"),
        (["theory", "--instances", "0"], "instances must be at least 1"),
        (["theory", "--x"], "--x"),
        (["evaluate", "x", "--seed", "-1"], "seed must be in [0, 2147483647], got -1"),
        (["train", "x", "--reward-scale", "inf"], "reward_scale must be finite, got inf"),
    ],
)
def test_a_wrong_word_is_one_sentence(words, message, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("word", ["--help", "--version", "trian"])
def test_words_that_need_no_jax_load_none(word):
    code = f"""
import sys
from itrpo.cli import main
main([{word!r}])
print("loaded:", {{"jax", "equinox", "gymnasium", "matplotlib"}} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: set()", done.stderr


def test_a_reader_that_went_away_is_no_traceback():
    reads, writes = os.pipe()
    os.close(reads)
    code = "import sys; from itrpo.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_describing_a_dataset_loads_no_jax(tmp_path):
    rows = {"observations": np.zeros((10, 3)), "actions": np.zeros((10, 2)), "rewards": np.zeros(10)}
    np.savez(tmp_path / "log.npz", **rows, terminals=np.zeros(10), timeouts=np.eye(10)[4])
    code = f"""
import sys
from itrpo.cli import main
assert main(["datasets", "info", {str(tmp_path / "log.npz")!r}]) == 0
print("loaded:", {{"jax", "equinox"}} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("loaded: set()\n"), done


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        ("--dry-run x", "--dry-run true x"),
        ("x --dry-run", "x --dry-run true"),
        ("--dry-run false x", "--dry-run false x"),
        ("--normalize-observations --seeds 2", "--normalize-observations true --seeds 2"),
        ("--normalize-observations maybe", "--normalize-observations maybe"),  # refused with its own message
        ("x --normalize-observations", "x --normalize-observations true"),
    ],
)
def test_flags_of_truth_values_stand_alone(words, spelled):
    flags = [Flag("dry_run", bool, "", switch=True), Flag("normalize_observations", bool | None, "")]
    assert spelled_out(words.split(), flags) == spelled.split()
