"""Exports of every kind of policy really run, and what differs is found; from a log in CSV to a program in C."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import itrpo
from itrpo import cli
from itrpo.errors import InputError, ItrpoError
from itrpo.policy import Guards, Policy, guards_json, load_policy, save_policy, step
from itrpo.shipping import c_source, export, onnx_file, stablehlo, verify
from itrpo.shipping.guards import make_guards
from tests.test_policy import ACTION, COMPONENTS, COMPOSED, OBSERVATION, arrays, composed, network

PAGE = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text("utf-8")
ABOUT = {"itrpo": "0", "run": "abc"}
KINDS = {
    "tanh_mlp": lambda: arrays(ACTION),
    "tanh_mixture_mlp": lambda: arrays(COMPONENTS * (1 + ACTION)),
    "tanh_factored_mixture_mlp": lambda: arrays(2 * COMPONENTS * ACTION),
} | {kind: lambda kind=kind: composed(kind) for kind in COMPOSED}
NAMES = {"observation_names": ["a", "b */ int hostile; /*", "c\n??/\\\nint x;"], "action_names": ["u", "v\r*/"]}


@pytest.fixture(autouse=True)
def fewer_inputs(monkeypatch):
    monkeypatch.setattr(verify, "INPUTS", 1000)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


GUARDS = Guards(
    missing="hold",
    fallback=array(0.1, 0.2),
    constant=array(np.nan, np.nan, 1.5),
    low=array(-1, -0.5, 1.5),
    high=array(1, 2, 1.5),
    clamp=True,
    action_low=array(-0.5, 0.05),
    action_high=array(0.6, 4),
    rate=array(np.inf, 0.3),
)
ERROR = replace(GUARDS, missing="error", fallback=array(np.nan, np.nan), clamp=False)
CASES = [(kind, 1, guards) for kind in KINDS for guards in (None, GUARDS)]
CASES += [("tanh_mlp", stack, guards) for stack, guards in ((2, None), (3, GUARDS), (2, ERROR), (1, ERROR))]


def make(folder: Path, kind: str, stack: int = 1, guards: Guards | None = None) -> Policy:
    size, rng = 3 * stack + 2 * (stack - 1), np.random.default_rng(0)
    parts = KINDS[kind]() if stack == 1 else {"weight_0": rng.normal(size=(2, size)), "bias_0": [0.1, 0.2]}
    metadata = {"stack": stack, **NAMES} | ({} if guards is None else {"guards": guards_json(guards)})
    moments = rng.normal(size=size), rng.uniform(0.5, 2, size)
    save_policy(folder / "policy.npz", {**parts, "kind": kind}, *moments, [-1, 0], [1, 5], metadata)
    return load_policy(folder / "policy.npz")


DATA = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)


@pytest.mark.parametrize(("kind", "stack", "guards"), CASES)
def test_every_format_does_what_the_numpy_policy_does(tmp_path, kind, stack, guards):
    policy = make(tmp_path, kind, stack, guards)
    inputs = verify.make_inputs(policy, DATA)
    source = c_source.to_c(policy, ABOUT, "valve")
    runners = {
        "onnx": onnx_file.runner(onnx_file.to_onnx(policy, ABOUT), policy),
        "stablehlo": stablehlo.runner(stablehlo.to_stablehlo(policy)),
        "c": verify.compile_c(policy, source, "valve", tmp_path),
    }
    for name, run in runners.items():
        proof = verify.check(policy, run, inputs)
        assert (proof.problem, proof.inputs) == ("", 1000), name
        assert proof.largest < 1e-5, name


@pytest.mark.parametrize(("kind", "stack"), [("tanh_mlp", 3), ("best_of_decoder", 1), ("latent_decoder", 1)])
def test_c_reads_and_writes_nothing_that_is_not_its_own(tmp_path, kind, stack):
    policy = make(tmp_path, kind, stack, GUARDS)
    flags = (*verify.FLAGS, "-Wconversion", "-Wshadow", "-fsanitize=address,undefined", "-fno-sanitize-recover")
    run = verify.compile_c(policy, c_source.to_c(policy, ABOUT, "valve"), "valve", tmp_path, flags)
    inputs = verify.make_inputs(policy, DATA)
    assert verify.check(policy, run, inputs).problem == ""


def numpy_runner(policy: Policy):
    def run(observations, states):
        done = step(policy, observations, states)
        return [done.action, done.state, done.on_observation, done.on_action]

    return run


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"observation_mean": array(0.1, 0.2, 0.3)}, "its action is"),
        ({"guards": replace(GUARDS, action_high=array(0.6, 3.9))}, "its action is"),
        ({"guards": replace(GUARDS, rate=array(np.inf, 0.4))}, "its action is"),
        ({"guards": replace(GUARDS, high=array(1, 2.5, 1.5))}, "its action is|guards see"),
        ({"guards": replace(GUARDS, fallback=array(0.1, 0.3))}, "its action is"),
        ({"guards": replace(GUARDS, constant=array(np.nan, np.nan, 1.6))}, "its action is|guards see"),
        ({"guards": replace(GUARDS, missing="fallback")}, "its action is"),
        ({"guards": None}, "are not there"),
    ],
)
def test_an_export_of_something_else_fails_its_check(tmp_path, change, problem):
    policy = make(tmp_path, "tanh_mlp", 1, GUARDS)
    inputs = verify.make_inputs(policy, DATA)
    assert verify.check(policy, numpy_runner(policy), inputs).problem == ""
    with np.errstate(all="ignore"):
        assert re.search(problem, verify.check(policy, numpy_runner(replace(policy, **change)), inputs).problem)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("x < low ? low", "x < low ? x"),
        ("- observation_mean[i])", "+ observation_mean[i])"),
        ("x[i] < 0.0f ? 0.0f", "x[i] < 0.1f ? 0.0f"),
        ("bits |= VALVE_CONSTANT", "bits |= VALVE_RANGE"),
        ("- action_rate[i]", "+ action_rate[i]"),
    ],
)
def test_a_bug_in_c_is_found(tmp_path, right, wrong):
    policy = make(tmp_path, "tanh_mlp", 1, GUARDS)
    source = c_source.to_c(policy, ABOUT, "valve")
    assert right in source.source
    broken = source._replace(source=source.source.replace(right, wrong))
    run = verify.compile_c(policy, broken, "valve", tmp_path)
    assert verify.check(policy, run, verify.make_inputs(policy, DATA)).problem


def test_a_choice_that_rounding_decides_is_a_tie_and_another_one_is_not(tmp_path):
    policy = make(tmp_path, "tanh_mixture_mlp")
    (*layers, (weight, bias)) = policy.networks[""]
    weight, bias = weight.copy(), bias.copy()
    weight[:COMPONENTS], bias[:COMPONENTS] = 0, 1  # all components are as heavy as each other
    tied = replace(policy, networks={"": (*layers, (weight, bias))})
    inputs = verify.make_inputs(tied, DATA)
    bias = bias.copy()
    bias[2] += 1e-6
    other = replace(policy, networks={"": (*layers, (weight, bias))})
    with np.errstate(all="ignore"):
        proof = verify.check(tied, numpy_runner(other), inputs)
        assert "rows are decided by rounding" in proof.problem
        assert proof.ties > 900
        bias = bias.copy()
        bias[2] += 1
        decided = replace(policy, networks={"": (*layers, (weight, bias))})
        assert "its action is" in verify.check(decided, numpy_runner(tied), inputs).problem


SPLINE = {"kind": "autoregressive_spline", **network("", (OBSERVATION + ACTION, 6, 7 * ACTION), 0)}
MATCHED = {
    "kind": "flow",
    "times": np.array([0.0, 1.0, 1.5]),
    **network("", (OBSERVATION, 6, 2 * ACTION), 0),
    **network("velocity_", (OBSERVATION + ACTION + 2, 6, ACTION), 1),
}


@pytest.mark.parametrize("parts", [SPLINE, MATCHED], ids=["flow", "flow_matching"])
def test_what_takes_its_actions_from_a_flow_acts_with_numpy_alone(tmp_path, parts):
    path, moments = tmp_path / "policy.npz", (np.zeros(OBSERVATION), np.ones(OBSERVATION))
    save_policy(path, {**parts, "log_std_range": np.array([-5.0, 2.0])}, *moments, [-1, 0], [1, 5], {})
    with pytest.raises(InputError, match="give --format npz, not c"):
        export.export(path, format="c", out=tmp_path / "valve.c")
    assert not (tmp_path / "valve.c").exists()


def test_an_onnx_file_says_what_it_is_and_takes_any_batch(tmp_path):
    onnx, runtime = onnx_file.import_onnx()
    policy = make(tmp_path, "tanh_mlp", 1, GUARDS)
    content = onnx_file.to_onnx(policy, export.describe(policy))
    said = {it.key: json.loads(it.value) for it in onnx.load_from_string(content).metadata_props}
    assert said["observation_names"] == NAMES["observation_names"]
    assert (said["action_high"], said["guards"]["missing"]) == ([1, 5], "hold")
    assert said["observation_std"] == policy.observation_std.tolist()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        given = {"observation": np.zeros((rows, 3), np.float32), "state": np.zeros((rows, 3), np.float32)}
        assert session.run(["action"], given)[0].shape == (rows, 2)


# --- from CSV to C: what docs/deploying.md says -----------------------------------------------------------------------


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def tank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's log and its run, of few steps."""
    folder = tmp_path_factory.mktemp("tank")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(blocks("python")[0], {})  # our own page
        line = next(it for it in blocks("sh")[0].splitlines() if it.startswith("itrpo train"))
        words = shlex.split(line)[1:]
        assert (
            cli.main(
                [*words, "--steps", "20"]
                if "--steps" not in words
                else ["20" if before == "--steps" else word for before, word in zip(["", *words], words, strict=False)]
            )
            == 0
        )
    return folder


def test_the_page_from_csv_to_c(tank, monkeypatch, capsys):
    monkeypatch.chdir(tank)
    for line in (it for it in blocks("sh")[0].splitlines() if it.startswith("itrpo export")):
        assert cli.main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out
    assert "constant: site" in printed
    assert "verified on 1,000 inputs" in printed
    (tank / "main.c").write_text(blocks("c")[0])
    compile_line, run_line = blocks("sh")[1].strip().splitlines()
    subprocess.run(shlex.split(compile_line.replace("cc ", f"{verify.compiler()} -Werror ", 1)), check=True)
    answers = subprocess.run(["sh", "-c", run_line], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    policy = load_policy("runs/tank/seed0/export/policy.npz")
    policy.reset([0.25])
    observations = [[float(it) for it in row.split()] for row in run_line.split("'")[1].split("\\n")[:-1]]
    expected = [float(policy.act(it)[0]) for it in observations]
    np.testing.assert_allclose([float(it.split()[0]) for it in answers], expected, atol=2e-6)
    assert [("constant" in it, "missing" in it, "range" in it) for it in answers] == [
        (False, False, False), (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip
    exec(blocks("python")[1], {})
    assert "temp is 70 degC, beyond" in capsys.readouterr().out


def test_a_run_is_exported_from_python_in_every_format(tank):
    bare = load_policy(tank / "runs/tank/seed0/policy.npz")
    for kind in ("onnx", "stablehlo", "npz"):
        done = itrpo.export(tank / "runs/tank", kind, tank / f"out/tank.{kind}")
        assert done.proof is not None
        assert done.proof.problem == ""
        assert all(path.stat().st_size for path in done.paths)
    guards = load_policy(tank / "out/tank.npz").guards
    assert guards is not None
    rows = np.genfromtxt(tank / "tank.csv", delimiter=",", names=True)
    assert guards.action_low == pytest.approx(rows["valve"].min(), abs=1e-6)  # not 0, which it was trained for
    assert guards.action_high == pytest.approx(rows["valve"].max(), abs=1e-6)
    assert np.isnan(guards.constant).tolist() == [True, True, True, False]
    plain = itrpo.export(tank / "runs/tank", "npz", tank / "out/bare.npz", guards=itrpo.GuardOptions(guards=False))
    observation = np.float32([[54, 10, 1, 7]])
    np.testing.assert_array_equal(load_policy(plain.paths[0]).act(observation), bare.act(observation))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "no seed 3; it has seed0"),
        ({"out": "x.onnx"}, r"ends in \.c"),
        ({"out": "My-valve.c"}, "lower-case letters"),
        ({"guards": itrpo.GuardOptions(missing="hold")}, "--missing hold needs --fallback"),
        ({"guards": itrpo.GuardOptions(fallback=0.5)}, "of use with --missing"),
        ({"guards": itrpo.GuardOptions(missing="fallback", fallback=0.9)}, "outside of the actions' bounds"),
        ({"guards": itrpo.GuardOptions(rate=-1.0)}, "--rate must be positive"),
        ({"guards": itrpo.GuardOptions(action_low=(0.0, 1.0))}, "--action-low must be one finite number, or 1"),
        ({"format": "npz", "out": "seed1/policy.npz"}, "is a policy as it was trained"),
        ({"data": "absent.csv"}, r"absent\.csv"),
        ({"format": "tflite"}, "format must be one of onnx, stablehlo, c, npz, got 'tflite'"),
        ({"format": None}, "format must be one of onnx"),
        ({"guards": "none"}, r"guards must be GuardOptions\(\.\.\.\) of itrpo\.options, got 'none'"),
        ({"guards": itrpo.GuardOptions(missing="holdd")}, "missing must be .*did you mean 'hold'"),
        ({"guards": itrpo.GuardOptions(quantile=0.7)}, r"quantile must be in \[0, 0\.5\), got 0\.7"),
        ({"guards": itrpo.GuardOptions(clamp="no")}, "clamp must be true or false, got 'no'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(tank, monkeypatch, change, message):
    monkeypatch.chdir(tank)
    with pytest.raises(InputError, match=message):
        itrpo.export("runs/tank", **({"format": "c"} | change))


def test_guards_know_the_rows_that_the_policy_knew_and_no_others(tmp_path):
    """The run's own data, read as the run read it: its columns, its bounds, its history, without what was held back."""
    rows = 60
    level = np.array([1, 2, 0, 3, 9, 4, 5, 6, 7, 8]).repeat(6)  # of ten episodes, of which 2, 4 and 6 are held back
    columns = {"observations": "sensor", "actions": "valve", "rewards": "paid", "terminals": "none", "timeouts": "end"}
    log = {"sensor": 10.0 + level[:, None], "valve": 5.0 * level[:, None], "paid": np.zeros(rows)}
    np.savez(tmp_path / "log.npz", **log, end=np.arange(rows) % 6 == 5)
    given = {"columns": columns, "action_low": -10.0, "action_high": 90.0, "stack": 2}
    known = itrpo.load_dataset(tmp_path / "log.npz", env="none", holdout=0.3, **given)
    assert known.held is not None
    held = np.unique(known.held.transitions.observation[:, 0]) - 10
    assert {0.0, 9.0} <= set(held)  # the ends of the range, which guards must not know
    path = tmp_path / "run" / "seed0" / "policy.npz"
    path.parent.mkdir(parents=True)
    network = {"kind": "tanh_mlp", "weight_0": np.zeros((1, 3)), "bias_0": np.zeros(1)}
    save_policy(path, network, np.zeros(3), np.ones(3), [-10.0], [90.0], {"stack": 2})
    source = {"name": "log", "kind": "npz", "path": str(tmp_path / "log.npz"), "recipe": {}}
    about = {"dataset": {"source": source}, "dataset_sha256": known.source.sha256}
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(about))
    config = {
        "config": {"data": {**given, "action_low": [-10.0], "action_high": [90.0], "holdout": 0.3, "rules": None}}
    }
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    guards = itrpo.export(tmp_path / "run", "npz", guards=itrpo.GuardOptions(quantile=0.0)).policy.guards
    assert guards is not None
    assert (guards.low[0], guards.high[0]) == (11, 18)
    assert (guards.action_low[0], guards.action_high[0]) == pytest.approx((5, 40), rel=1e-5)
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(about | {"dataset_sha256": "0"}))
    with pytest.raises(InputError, match=r"is not what .* was trained on"):
        itrpo.export(tmp_path / "run", "npz")


def test_a_policy_without_its_data_does_not_guess_the_bounds_of_actions(tmp_path):
    make(tmp_path, "tanh_mlp")
    with pytest.raises(InputError, match="give --data FILE, or both --action-low and --action-high"):
        itrpo.export(tmp_path / "policy.npz", "onnx")
    asked = itrpo.GuardOptions(action_low=-1.0, action_high=3.0)
    done = itrpo.export(tmp_path / "policy.npz", "onnx", guards=asked)
    assert done.paths == (tmp_path / "export" / "policy.onnx",)


def test_without_a_compiler_c_is_written_only_if_asked(tmp_path, monkeypatch):
    make(tmp_path, "tanh_mlp")
    monkeypatch.setattr(verify, "compiler", lambda: None)
    asked = itrpo.GuardOptions(action_low=-1.0, action_high=3.0)
    with pytest.raises(InputError, match="no C compiler"):
        itrpo.export(tmp_path / "policy.npz", "c", guards=asked)
    assert itrpo.export(tmp_path / "policy.npz", "c", guards=asked, unverified=True).proof is None


def test_an_export_that_fails_its_check_is_not_written(tmp_path, monkeypatch):
    make(tmp_path, "tanh_mlp")
    written = onnx_file.to_onnx
    monkeypatch.setattr(
        onnx_file,
        "to_onnx",
        lambda policy, about: written(replace(policy, observation_mean=policy.observation_mean + 1), about),
    )
    with pytest.raises(ItrpoError, match="fails its check, and is not written"):
        itrpo.export(tmp_path / "policy.npz", "onnx", guards=itrpo.GuardOptions(guards=False))
    assert not (tmp_path / "export").exists()


def test_a_column_that_is_constant_but_for_rounding_is_within_its_range(tmp_path):
    """Its smallest number stands in for it, and is farther out than the quantiles of the others."""
    weights = {"kind": "tanh_mlp", "weight_0": np.zeros((1, 2)), "bias_0": [0.0]}
    save_policy(tmp_path / "p.npz", weights, np.zeros(2), np.ones(2), [-1.0], [1.0], {})
    rows = np.random.default_rng(0).uniform(0, 1, (4_000, 2)).astype(np.float32)
    rows[:, 1] = 7.0
    rows[1_000, 1] = np.float32(6.9999995)
    arrays = {"observations": rows, "actions": rows[:, :1], "rewards": rows[:, 0], "terminals": np.zeros(4_000, bool)}
    dataset = itrpo.load_dataset(arrays | {"timeouts": np.arange(4_000) % 100 == 99})
    policy = load_policy(tmp_path / "p.npz")
    guards = make_guards(policy, itrpo.GuardOptions(), dataset)
    assert guards is not None
    assert guards.constant.tolist()[1] == guards.low[1] == guards.high[1] == np.float32(6.9999995)
    seen = step(replace(policy, guards=guards), np.float32([[0.5, 7.0]]), np.zeros((1, 0), np.float32))
    assert seen.on_observation.tolist() == [[0, 0]]
