"""Training acting policies: it learns, ends are what they are, and a killed run goes on to the same bits."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from itrpo import files
from itrpo.cli import collection, main
from itrpo.collection import online_rows, online_run, online_updates, sac, td3
from itrpo.collection.online_run import OnlineConfig, SacRun, Td3Run
from itrpo.collection.rollout import load_acting_policy
from itrpo.data import attributes
from itrpo.data.formats import hdf5
from itrpo.data.load import load_dataset
from itrpo.errors import InputError, StorageError
from itrpo.evaluation.environments import spaces_of
from itrpo.results.run_folder import RunFolder
from itrpo.types import SpaceSpec, Transition

QUIET = Console(quiet=True)
# with hardly any weight on entropy, so that values are those of the rewards
TINY = sac.Config(
    gamma=0.5,
    polyak_rate=0.2,
    batch_size=16,
    critic_learning_rate=1e-2,
    initial_entropy_weight=1e-6,
    policy_hidden=(8, 8),
    critic_hidden=(8, 8),
)
LOW, HIGH = np.float32([-3.0, -0.5]), np.float32([1.0, 0.5])


class Steer(gymnasium.Env):
    """Steer a point to the origin: x' = x + a / 2 + noise, reward -|x'|^2. Noise comes from the episode's own stream.

    Options, for tests of the run: `end_at`, an |x| that ends the episode; `constant`, a reward in place of the others;
    `drifts`, steps that depend on more than the seed.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(LOW, HIGH)

    def __init__(self, end_at: float = np.inf, constant: float | None = None, drifts: bool = False) -> None:
        self.end_at, self.constant, self.drift = end_at, constant, 0.1 * time.time() % 0.1 if drifts else 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2)
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert (action >= LOW - 1e-6).all()
        assert (action <= HIGH + 1e-6).all()
        self.x = self.x + action / 2 + self.np_random.normal(0, 0.02, 2) + self.drift
        reward = -float(np.square(self.x).sum()) if self.constant is None else self.constant
        return self.x.copy(), reward, bool(np.abs(self.x).max() > self.end_at), False, {}


@pytest.fixture(scope="module", autouse=True)
def environments() -> Iterator[None]:
    for name, limit, options in (
        ("Steer-v0", 20, {}),
        ("SteerWithin-v0", 5, {"end_at": 1.5}),
        ("EndsAtOnce-v0", 20, {"end_at": 0.0, "constant": 1.0}),
        ("CutAtOnce-v0", 1, {"constant": 1.0}),
        ("Drifts-v0", 20, {"drifts": True}),
    ):
        gymnasium.register(name, Steer, max_episode_steps=limit, kwargs=options)
    yield
    for name in ("Steer-v0", "SteerWithin-v0", "EndsAtOnce-v0", "CutAtOnce-v0", "Drifts-v0"):
        del gymnasium.registry[name]


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Most of the time of such short runs is compilation; runs of one size share their program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_run, "make_block", functools.cache(online_run.make_block))
        for kind, (run, agent) in online_run.KINDS.items():
            patch.setitem(online_run.KINDS, kind, (run, agent._replace(make=functools.cache(agent.make))))
        yield


def config(env_id: str, **fields: Any) -> SacRun:
    small = SacRun(env_id, steps=300, envs=4, uniform_steps=100, steps_per_block=5, every=100, episodes=3, sac=TINY)
    return replace(small, **fields)


def rows_of(folder: Path, it: OnlineConfig) -> np.ndarray:
    """[T, E]"""
    row = online_rows.row_type(SpaceSpec(2, 2))
    return np.fromfile(folder / "rows.bin", row).reshape(-1, it.envs)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on interruptions."""
    files = [
        folder / "rows.bin",
        folder / "curve.jsonl",
        folder / "replay.hdf5",
        *sorted((folder / "policies").iterdir()),
    ]
    newest = max((folder / "checkpoints").iterdir())
    return {str(it.relative_to(folder)): it.read_bytes() for it in [*files, newest / "arrays.safetensors"]}


# --- learning --------------------------------------------------------------------------------------------------------


def test_it_learns_to_steer_as_well_as_the_best_controller(tmp_path: Path) -> None:
    network = sac.Config(
        gamma=0.9,
        polyak_rate=0.02,
        batch_size=64,
        policy_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        entropy_learning_rate=3e-3,
        policy_hidden=(32, 32),
        critic_hidden=(32, 32),
    )
    assert_steers(config("Steer-v0", steps=3_000, uniform_steps=500, every=3_000, episodes=20, sac=network), tmp_path)


@pytest.mark.slow
def test_td3_learns_to_steer_as_well_as_the_best_controller(tmp_path: Path) -> None:
    network = td3.Config(
        gamma=0.9,
        polyak_rate=0.02,
        batch_size=64,
        policy_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        policy_hidden=(32, 32),
        critic_hidden=(32, 32),
    )
    it = Td3Run("Steer-v0", 3_000, envs=4, uniform_steps=500, every=3_000, episodes=20, td3=network)
    assert_steers(it, tmp_path)


def assert_steers(it: OnlineConfig, tmp_path: Path) -> None:
    """The optimum is known: a = -2x, cut to the bounds, which differ by direction and are not -1 and 1."""
    curve = online_run.run(it, tmp_path / "run", QUIET).curve
    env, best = Steer(), []
    for episode in range(200):
        x, total = env.reset(seed=episode)[0], 0.0
        for _ in range(20):
            x, reward, *_ = env.step(np.clip(-2 * x, LOW, HIGH))
            total += reward
        best.append(total)
    untrained, trained, optimum = curve[0]["mode_mean"], curve[-1]["mode_mean"], np.mean(best)
    assert optimum - trained < 0.1 * (optimum - untrained)
    assert untrained < curve[-1]["sampled_mean"] < optimum


@pytest.mark.parametrize(("env_id", "value"), [("CutAtOnce-v0", 2.0), ("EndsAtOnce-v0", 1.0)])
def test_an_episode_cut_by_the_clock_bootstraps_and_one_that_ended_does_not(
    tmp_path: Path, env_id: str, value: float
) -> None:
    """Reward 1 per step, gamma 1/2, episodes of one step: worth 1 / (1 - gamma) = 2 if only the clock ends them."""
    it = config(env_id, updates_per_step=5)
    last = online_run.run(it, tmp_path / "run", QUIET).curve[-1]
    assert last["q_target"] == pytest.approx(value, abs=0.05)
    rows = rows_of(tmp_path / "run", it)
    assert (rows["timeout"].all(), rows["terminal"].any()) == ((True, False) if value == 2 else (False, True))


# --- rows and files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def within(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SacRun]:
    """A run with episodes that end and episodes that are cut."""
    folder, it = tmp_path_factory.mktemp("within") / "run", config("SteerWithin-v0")
    online_run.run(it, folder, QUIET)
    return folder, it


def test_every_row_is_what_the_environment_does(within: tuple[Path, SacRun]) -> None:
    """The rows of each environment are replayed in one of our own, from the seeds that the documentation names."""
    folder, it = within
    rows, ends = rows_of(folder, it), {"terminal": 0, "timeout": 0}
    for index in range(it.envs):
        env, episode, x = Steer(end_at=1.5), 0, None
        elapsed = 0
        for row in rows[:, index]:
            if x is None:
                entropy = np.random.SeedSequence([it.seed, 0, index, episode])
                x, elapsed = env.reset(seed=int(entropy.generate_state(1)[0]))[0], 0
            np.testing.assert_array_equal(row["observation"], np.float32(x))
            x, reward, terminated, *_ = env.step(LOW + (HIGH - LOW) * (row["action"] + 1) / 2)
            elapsed += 1
            np.testing.assert_array_equal(row["next_observation"], np.float32(x))
            assert row["reward"] == np.float32(reward)
            assert row["terminal"] == terminated
            assert row["timeout"] == (elapsed == 5 and not terminated)
            ends["terminal"] += int(row["terminal"])
            ends["timeout"] += int(row["timeout"])
            if terminated or elapsed == 5:
                x, episode = None, episode + 1
    assert min(ends.values()) > 0


def test_log_densities_are_those_of_the_policy_that_acted(within: tuple[Path, SacRun]) -> None:
    """Uniform in the first steps; then of the policy that was saved at the start of the block."""
    folder, it = within
    rows = rows_of(folder, it)
    first = rows[: it.uniform_steps // it.envs]
    np.testing.assert_allclose(first["action_log_prob"], -2 * np.log(2), rtol=1e-6)
    assert abs(first["action"].mean()) < 0.15
    np.testing.assert_allclose(first["action"].std(), 3**-0.5, atol=0.06)
    for step in (100, 200):
        policy = load_acting_policy(folder / "policies" / f"step_{step:07d}.safetensors")
        block = rows[step // it.envs : step // it.envs + it.steps_per_block].reshape(-1)
        hidden = np.float64(block["observation"])
        for weight, bias in policy.hidden:
            hidden = np.maximum(hidden @ weight + bias, 0)
        mean, log_std = (hidden @ weight + bias for weight, bias in (policy.mean, policy.log_std))
        action = np.float64(block["action"])
        z = (np.arctanh(action) - mean) / np.exp(log_std)
        log_density = -(z**2) / 2 - log_std - np.log(2 * np.pi) / 2 - np.log(1 - action**2)
        np.testing.assert_allclose(block["action_log_prob"], log_density.sum(1), rtol=1e-3, atol=2e-3)


def test_the_replay_file_reads_as_d4rls_with_whole_episodes(within: tuple[Path, SacRun], tmp_path: Path) -> None:
    folder, it = within
    rows = rows_of(folder, it)
    by_environment = rows.T.reshape(-1)
    with h5py.File(folder / "replay.hdf5") as file:
        densities = file["infos/action_log_probs"][:]  # pyright: ignore[reportIndexIssue]
        actions = file["actions"][:]  # pyright: ignore[reportIndexIssue]
        recipe = json.loads(str(file.attrs["recipe"]))
    np.testing.assert_array_equal(actions, LOW + (HIGH - LOW) * (by_environment["action"] + 1) / 2)
    # a density of actions in other units: by the width of the unit
    np.testing.assert_allclose(densities, by_environment["action_log_prob"] - np.log(2 * 0.5), rtol=1e-6, atol=1e-6)
    episodes = hdf5.read(folder / "replay.hdf5")
    assert episodes.env_id == "SteerWithin-v0"
    assert attributes.action_bounds(episodes.attributes) == (
        tuple(LOW.tolist()),
        tuple(HIGH.tolist()),
    )  # so that nobody need name them
    np.testing.assert_array_equal(episodes.observations, by_environment["observation"])
    np.testing.assert_array_equal(episodes.terminals, by_environment["terminal"])
    ends = episodes.terminals | episodes.timeouts
    length = len(rows)
    assert ends[length - 1 :: length].all()  # an environment's unfinished last episode is cut
    assert not (episodes.terminals & episodes.timeouts).any()
    inside = ~ends[:-1]
    np.testing.assert_array_equal(episodes.observations[1:][inside], by_environment["next_observation"][:-1][inside])
    assert (recipe["steps"], recipe["config"]["env_id"]) == (300, "SteerWithin-v0")

    assert main(["sac", "replay", str(folder), "--steps", "100", "--out", str(tmp_path / "part.hdf5")]) == 0
    part = hdf5.read(tmp_path / "part.hdf5")
    np.testing.assert_array_equal(part.observations, rows[:25].T.reshape(-1)["observation"])


def test_the_curve_and_the_ladder(within: tuple[Path, SacRun]) -> None:
    folder = within[0]
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert [(row["step"], row["updates"], row["episodes"]) for row in curve] == [
        (0, 0, 3),
        (100, 0, 3),
        (200, 100, 3),
        (300, 200, 3),
    ]
    assert [path.name for path in sorted((folder / "policies").iterdir())] == [
        f"step_{row['step']:07d}.safetensors" for row in curve
    ]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert curve[-1]["entropy_weight"] != curve[-2]["entropy_weight"]


# --- updates ---------------------------------------------------------------------------------------------------------


def test_a_block_is_its_updates_one_by_one_on_the_rows_that_are_there() -> None:
    """Updates 3 and 4, on 40 rows of which the block itself puts in the last half; the rest of the buffer is NaN."""
    rng, key = np.random.default_rng(0), jax.random.key(7)
    rows = np.zeros(40, online_rows.row_type(SpaceSpec(2, 2)))
    for name in ("observation", "action", "reward", "next_observation"):
        rows[name] = rng.uniform(-1, 1, rows[name].shape)
    rows["terminal"], rows["timeout"] = rng.random(40) < 0.4, rng.random(40) < 0.4
    algorithm = sac.make(TINY, SpaceSpec(2, 2))
    state = jax.jit(algorithm.init)(jax.random.key(0))
    buffer = np.full((300, 2 + 2 + 1 + 1 + 2), np.nan, np.float32)
    buffer[:20] = online_updates.buffer_rows(rows[:20])
    learner = online_updates.Learner(
        jax.tree.map(jnp.array, state), jnp.asarray(buffer), *online_updates.fresh_sums(sac.AGENT)
    )
    block = online_updates.make_block(sac.AGENT, TINY, SpaceSpec(2, 2))
    after = block(learner, key, online_updates.buffer_rows(rows[20:]), np.arange(20, 40), 40, 3, 5)

    update, losses = jax.jit(algorithm.update), []
    for number in (3, 4):
        rows_key, update_key = jax.random.split(jax.random.fold_in(key, number))
        chosen = rows[np.asarray(jax.random.randint(rows_key, (16,), 0, 40))]
        continues = np.where(chosen["terminal"], np.float32(0), np.float32(1))
        columns = (chosen["observation"], chosen["action"], chosen["reward"], continues, chosen["next_observation"])
        state, metrics = update(state, Transition(*columns, 0 * chosen["action"]), update_key, number)
        losses.append(metrics["critic_loss"])
    for got, expected in zip(jax.tree.leaves(after.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.sums["critic_loss"], sum(losses), rtol=1e-4)
    assert after.count == 2


def test_updates_are_numbered_through_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No update happens twice, which would draw the same rows again."""
    bounds, make_block = [], online_run.make_block

    def noting(*given: Any) -> Any:
        block = make_block(*given)
        return lambda *arguments: bounds.append(arguments[-2:]) or block(*arguments)

    monkeypatch.setattr(online_run, "make_block", noting)
    online_run.run(config("SteerWithin-v0", updates_per_step=0.13), tmp_path / "run", QUIET)
    assert len(bounds) == 15  # blocks of 20 steps
    assert bounds[4] == (0, 0)  # the last with uniform actions
    assert [it[0] for it in bounds[1:]] == [it[1] for it in bounds[:-1]]
    assert bounds[-1][1] == 26


# --- the same bits ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_however_the_run_is_cut(
    within: tuple[Path, SacRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C in the middle of episodes, then extended. Blocks with one size of buffer are one program."""
    folder, it = within
    steps, step = 0, online_rows.Environments.step

    def step_and_interrupt(*given: Any) -> np.ndarray:
        nonlocal steps
        steps += 1
        if steps == 33:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*given)

    monkeypatch.setattr(online_rows.Environments, "step", step_and_interrupt)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 140; the same command continues"):
        online_run.run(it, tmp_path / "run", QUIET)
    online_run.run(replace(it, steps=200), tmp_path / "run", QUIET)
    online_run.run(it, tmp_path / "run", QUIET)
    block: Any = online_run.make_block(online_run.KINDS["sac"][1], it.sac, SpaceSpec(2, 2))
    assert block._cache_size() <= 2  # buffers of 200 and of 300 rows
    again, first = contents(tmp_path / "run"), contents(folder)
    assert [name for name in first if again[name] != first[name]] == []
    other = replace(it, seed=1)
    online_run.run(other, tmp_path / "other", QUIET)
    assert rows_of(tmp_path / "other", other)["action"].tolist() != rows_of(folder, it)["action"].tolist()


def test_a_run_of_td3_is_the_same_however_it_is_cut_and_its_replay_has_no_densities(tmp_path: Path) -> None:
    """Extended in the middle of episodes, at an odd number of updates, between two of the actor."""
    small = td3.Config(gamma=0.5, batch_size=16, policy_delay=3, policy_hidden=(8, 8), critic_hidden=(8, 8))
    it = Td3Run("SteerWithin-v0", 300, envs=4, uniform_steps=101, every=100, episodes=3, capacity=100, td3=small)
    online_run.run(replace(it, steps=140), tmp_path / "cut", QUIET)
    done = online_run.run(it, tmp_path / "cut", QUIET)
    online_run.run(it, tmp_path / "whole", QUIET)
    cut, whole = contents(tmp_path / "cut"), contents(tmp_path / "whole")
    assert [name for name in whole if cut[name] != whole[name] and name != "curve.jsonl"] == []  # which has 140 as well
    assert done.curve[-1]["policy_loss"] != 0
    rows = rows_of(tmp_path / "whole", it).reshape(-1)
    assert np.isfinite(rows["action_log_prob"]).sum() == 104  # the uniform actions', in whole steps
    episodes = hdf5.read(tmp_path / "whole" / "replay.hdf5")
    assert episodes.behavior_log_probs is None
    np.testing.assert_array_equal(episodes.rewards, rows_of(tmp_path / "whole", it).T.reshape(-1)["reward"])
    with pytest.raises(InputError, match="belongs to a run of another kind"):
        online_run.run(config("SteerWithin-v0"), tmp_path / "whole", QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sac", "td3"])
def test_a_run_killed_in_a_real_environment_goes_on_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    """HalfCheetah's episodes have 1000 steps: all are unfinished, in the middle of contacts and warm starts."""
    flags = ["--steps", "600", "--every", "300", "--envs", "2", "--episodes", "1", "--uniform-steps", "100"]
    flags += ["--policy-hidden", "8,8", "--critic-hidden", "8,8", "--batch-size", "8", "--steps-per-block", "10"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [kind, "HalfCheetah-v4", *flags, "--out"]
    script = f"""
import os, signal
from itrpo.cli import collection, main
from itrpo.collection.online_rows import Environments
step = Environments.step
def step_until_killed(self, time_step, *given):
    if time_step == 275:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, time_step, *given)
Environments.step = step_until_killed
main({[*command, str(killed)]!r})
"""
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE)
    assert died.returncode == -signal.SIGKILL
    assert (killed / "rows.bin").stat().st_size > 270 * 2 * 100
    assert max(path.name for path in (killed / "checkpoints").iterdir()) == "train_0000000300"
    with (killed / "rows.bin").open("ab") as file:
        file.write(b"torn")
    assert main([*command, str(killed)]) == 0
    assert main([*command, str(whole)]) == 0
    again, first = contents(killed), contents(whole)
    assert [name for name in first if again[name] != first[name]] == []


def test_capacity_keeps_the_newest_rows(tmp_path: Path) -> None:
    it = config("Steer-v0", capacity=200)
    spaces = spaces_of("Steer-v0")
    online_run.run(it, tmp_path / "run", QUIET)
    trainer = online_run.open_trainer(it, "Steer-v0", spaces, RunFolder(tmp_path / "run"), QUIET)
    trainer.rows.close()
    newest = rows_of(tmp_path / "run", it).reshape(-1)[-200:]
    kept = np.asarray(trainer.learner.buffer)
    assert sorted(kept[:, 0].tolist()) == sorted(newest["observation"][:, 0].tolist())


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CartPole-v1"], "CartPole-v1: actions are Discrete(2)"),
        (["FrozenLake-v1"], "FrozenLake-v1: observations are Discrete(16)"),
        (["Hoper-v4"], "unknown environment 'Hoper-v4' (did you mean 'Hopper-v4'?)"),
        (["no_such_module:Hopper-v4"], "environment 'no_such_module:Hopper-v4' can't be imported"),
        (["Steer-v0", "--gama", "0.9"], "unknown flag --gama (did you mean '--gamma'?)"),
        (["Steer-v0", "--gamma", "2"], "gamma must be in [0, 1), got 2.0"),
        (["Steer-v0", "--policy-hidden", "8"], "policy_hidden must have 2 widths"),
        (["Steer-v0", "--steps", "0"], "steps must be at least 1, got 0"),
        (["Steer-v0", "--updates-per-step", "0"], "updates_per_step must be positive"),
        (["Steer-v0", "--uniform-steps", "0"], "uniform_steps must be at least 1"),
        (["Steer-v0", "--capacity", "10"], "capacity must hold a block of envs * steps_per_block = 50 steps"),
        (["Steer-v0", "--seed", "-1"], "seed must be in [0, 2147483647]"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sac", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused(
    within: tuple[Path, SacRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, it = within
    with pytest.raises(InputError, match=r"belongs to another run \(sac.gamma: 0.5 -> 0.9; seed: 0 -> 7\)"):
        online_run.run(replace(it, seed=7, sac=replace(TINY, gamma=0.9)), folder, QUIET)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"holds other files and no config.json of a run"):
        online_run.run(it, tmp_path, QUIET)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="belongs to a run of another kind"):
        online_run.run(it, tmp_path, QUIET)
    assert main(["sac", "replay", str(tmp_path / "nowhere")]) == 2
    assert (
        "holds no run of `itrpo sac`, `itrpo td3`, `itrpo ppo`, `itrpo geppo` or `itrpo trpo`"
        in capsys.readouterr().err
    )
    assert main(["sac", "replay", str(folder), "--steps", "301"]) == 2
    assert "has 300 steps so far; asked for 301" in capsys.readouterr().err


def test_lost_rows_and_steps_that_do_not_repeat_are_said(tmp_path: Path) -> None:
    it = config("Drifts-v0")
    online_run.run(it, tmp_path / "run", QUIET)
    time.sleep(0.001)  # another time, another drift
    with pytest.raises(StorageError, match="does not repeat the steps of an unfinished episode"):
        online_run.run(replace(it, steps=400), tmp_path / "run", QUIET)
    os.truncate(tmp_path / "run" / "rows.bin", 1000)
    with pytest.raises(StorageError, match=r"rows.bin is damaged: 1,000 bytes, not"):
        online_run.run(replace(it, steps=400), tmp_path / "run", QUIET)


def test_a_folder_deleted_while_the_curve_is_drawn_leaves_nothing_and_the_command_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing takes longer than anything else between two looks at the folder."""
    it, draws = config("Steer-v0"), online_run.returns_curve

    def deleted_meanwhile(*given: Any) -> None:
        shutil.rmtree(tmp_path / "run")
        draws(*given)

    monkeypatch.setattr(online_run, "returns_curve", deleted_meanwhile)
    with pytest.raises(StorageError, match="run was deleted"):
        online_run.run(it, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    assert len(online_run.run(it, tmp_path / "run", QUIET).curve) == 4


def test_until_ends_at_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    done = online_run.run(config("Steer-v0", until=-1e9), tmp_path / "run", QUIET)
    assert [row["step"] for row in done.curve] == [0]
    done = online_run.run(config("Steer-v0", until=1e9), tmp_path / "run", QUIET)
    assert [row["step"] for row in done.curve] == [0, 100, 200, 300]


def test_an_environment_of_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium\ngymnasium.register('Swing-v0', 'gymnasium.envs.classic_control.pendulum:PendulumEnv',"
        " max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run, env_id = tmp_path / "run", "my_envs:Swing-v0"
    files.write_json(run / "config.json", {"sac": {"env_id": env_id, "envs": 2}})
    files.write_json(run / "provenance.json", {"versions": {}})
    np.zeros((3, 2), online_rows.row_type(SpaceSpec(3, 1))).tofile(run / "rows.bin")
    with pytest.raises(InputError, match=f"itrpo sac replay {run} --env {env_id}"):
        online_rows.write_replay(run, tmp_path / "replay.hdf5")
    assert "my_envs" not in sys.modules
    assert main(["sac", "replay", str(run), "--env", env_id]) == 0
    assert load_dataset(run / "replay.hdf5").env_id == env_id
    assert spaces_of(env_id).spec == (3, 1)


def test_each_kind_of_run_is_a_command():
    assert tuple(online_run.KINDS) == collection.KINDS
