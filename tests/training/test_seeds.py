"""How seeds share a machine: to the bit as if each were alone, on devices and in groups of any number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from itrpo import RunOptions, files, train
from itrpo.errors import InputError, StorageError
from itrpo.results.store import read_timing
from itrpo.training import added_seeds, seeds

FLAGS = [
    "--algorithm", "itrpo", "--preset", "matched", "--behavior-steps", "20", "--steps", "20", "--eval-every", "20",
    "--env", "none", "--action-low", "-2", "--action-high", "2",
]  # fmt: skip
BOUNDS = {"action_low": -2.0, "action_high": 2.0}
FIELDS = {"policy_hidden": (8,), "critic_hidden": (8,)}


def options(out: Path, seeds: int, steps: int = 40) -> RunOptions:
    return RunOptions(steps=steps, eval_every=20, eval_episodes=1, seeds=seeds, out=out, **BOUNDS)


def rows(folder: Path) -> dict[tuple[int, int, str], float]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    named = {(row["seed"], row["step"], row["metric"]): row["value"] for row in found}
    assert len(named) == len(found)
    return named


def policies(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("seed*/policy.npz"))]


@pytest.fixture(scope="module")
def three(pendulum, tmp_path_factory):
    """A run of three seeds."""
    folder = tmp_path_factory.mktemp("three") / "run"
    train(pendulum, "td3_bc", options(folder, 3), fields=FIELDS)
    return folder


def fail(*_: object) -> None:
    raise StorageError("no space left")


def test_added_seeds_are_those_of_a_run_that_had_them_from_the_beginning(three, pendulum, tmp_path, monkeypatch):
    """Also where the first try fails, which the run's status then says, and where it had ended between evaluations."""
    folder = tmp_path / "run"
    train(pendulum, "td3_bc", options(folder, 1, steps=30), fields=FIELDS)
    join = added_seeds.join
    monkeypatch.setattr(added_seeds, "join", fail)
    with pytest.raises(StorageError):
        train(pendulum, "td3_bc", options(folder, 3), fields=FIELDS)
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["seeds"], status["message"]) == ("failed", 3, "no space left")
    monkeypatch.setattr(added_seeds, "join", join)
    apart = read_timing(folder) + read_timing(folder / "adding_seeds_1_to_2")
    run = train(pendulum, "td3_bc", options(folder, 3), fields=FIELDS)  # ten steps more for the first one, too
    assert run.returns is not None
    assert run.returns.shape == (3,)
    assert {name: it for name, it in rows(folder).items() if name[1] != 30} == rows(three)
    assert policies(folder) == policies(three)
    assert not list(folder.glob("adding*"))
    together = {it["step"]: it for it in read_timing(folder)}
    assert {step: it["seeds"] for step, it in together.items()} == {20: 3, 30: 1, 40: 3}
    for clock in ("train_seconds", "waited_seconds", "evaluation_seconds"):
        assert sum(it[clock] for it in together.values()) == pytest.approx(sum(it[clock] for it in apart))
    steps = sum(it["seeds"] * it["steps_per_second"] * it["train_seconds"] for it in together.values())
    assert steps == pytest.approx(3 * 40)
    with pytest.raises(InputError, match="has 3 seeds already; ask for --seeds 3 or more"):
        train(pendulum, "td3_bc", options(folder, 2), fields=FIELDS)
    assert json.loads((folder / "status.json").read_text())["seeds"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["save", "write_status"])
def test_a_kill_while_seeds_are_joined_loses_nothing(three, pendulum, tmp_path, monkeypatch, moment):
    """`join` is left just before, and just after, what counts."""
    folder = tmp_path / "run"
    train(pendulum, "td3_bc", options(folder, 2), fields=FIELDS)
    join = added_seeds.join

    def killed(session, *rest):
        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(session), moment, stop)
            join(session, *rest)

    monkeypatch.setattr(added_seeds, "join", killed)
    with pytest.raises(KeyboardInterrupt):
        train(pendulum, "td3_bc", options(folder, 3), fields=FIELDS)
    monkeypatch.setattr(added_seeds, "join", join)
    train(pendulum, "td3_bc", options(folder, 3), fields=FIELDS)
    assert rows(folder) == rows(three)
    assert policies(folder) == policies(three)
    assert not list(folder.glob("adding*"))
    assert json.loads((folder / "status.json").read_text()) == json.loads((three / "status.json").read_text())


@pytest.mark.slow
def test_a_seed_does_not_depend_on_the_cores(pendulum, tmp_path):
    """Two seeds in a process that may use all cores, and one in a process that has one of them.

    Networks of a size at which XLA shares out products: with one thread in place of two, other bits come out.
    """
    command = [sys.executable, "-m", "itrpo.cli", "train", str(pendulum), *FLAGS]
    one_core = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    settings = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    runs = [
        subprocess.Popen([*words, "--out", tmp_path / seeds, "--seeds", seeds], env=settings, stderr=subprocess.DEVNULL)
        for words, seeds in ((command, "2"), (one_core + command, "1"))
    ]
    assert [run.wait() for run in runs] == [0, 0]
    first = {name: value for name, value in rows(tmp_path / "2").items() if name[0] == 0}
    assert first == rows(tmp_path / "1")


@pytest.mark.skipif(files.available_cores() < 2, reason="one core runs one seed at a time")
def test_seeds_run_at_the_same_time_and_compile_once():
    """Each waits inside its program for the other: one after another, neither would end."""
    both, waits, traced = threading.Barrier(2), False, []

    def meet(value):
        if waits:
            both.wait(timeout=60)
        return value

    def walk(start):
        traced.append(start)
        return jax.pure_callback(meet, jax.ShapeDtypeStruct((), np.float32), start)

    walks, starts = seeds.over_seeds(walk, [True]), np.array([1, 2], np.float32)
    walks(starts)
    waits = True
    np.testing.assert_array_equal(walks(starts), starts)
    assert len(traced) == 1


def test_seeds_on_several_devices_are_one_program(tmp_path):
    """As on GPUs: seeds vmapped and sharded over devices, here two that share this machine's cores."""
    code = """
import jax, numpy as np
from itrpo.training import seeds
def walk(start, key, steps):
    return jax.lax.fori_loop(0, steps, lambda i, x: x + jax.random.normal(jax.random.fold_in(key, i)), start)
starts, keys = np.arange(4.0, dtype="float32"), jax.random.split(jax.random.key(0), 4)
arguments = starts, keys, 5
marked = [True, True, False]
one, other = (form(walk, marked)(*arguments) for form in (seeds.vmapped, seeds.one_by_one))
np.testing.assert_allclose(one, other, rtol=1e-6)
assert len(jax.devices()) == 2 and len(one.sharding.device_set) == 2, one.sharding
odd = seeds.vmapped(walk, marked)(starts[:3], keys[:3], 5)
assert len(odd.sharding.device_set) == 1
np.testing.assert_allclose(odd, other[:3], rtol=1e-6)
"""
    settings = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", code], env=settings, cwd=Path(__file__).parents[2], check=True)
