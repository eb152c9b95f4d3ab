"""Training an acting policy, from nothing to a ladder of policies and all steps as a dataset.

A folder holds `config.json`, `provenance.json`, `checkpoints/`, `rows.bin` (every step of every environment, in the
order in which they were made), `curve.jsonl`, `curve.png`, `timing.jsonl`, `policies/step_NNNNNNN.safetensors` and, at
the end, `replay.hdf5`.

Steps go in blocks: `steps_per_block` steps of each of `envs` environments, acting with NumPy on the host; then all
updates that are due, as one compiled program on the device, where the replay buffer is. So the host waits for the
device once per block, and the acting weights are at most one block old. Of PPO, GePPO and TRPO a block is a batch.

The same command on the same folder continues it to the same bits. Nothing random has a state: the noise of a step, the
rows of an update and the start of an episode follow from the seed and the number of the step, the update and the
episode. A checkpoint therefore needs no state of a simulator either: an episode that had begun is played again from its
seed with the actions in `rows.bin`, which must lead to the observations there.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo import files, xla
from itrpo.collection import on_policy, ppo, sac, td3, trpo
from itrpo.collection.agent import Agent
from itrpo.collection.online_rows import (
    ROWS,
    SHORT_NAMES,
    Environments,
    open_environments,
    row_type,
    rows_until,
    write_replay,
)
from itrpo.collection.online_updates import Block, Learner, buffer_rows, filled_buffer, fresh_sums, make_block
from itrpo.collection.rollout import ActingPolicy, acting_policy
from itrpo.config import override, to_json
from itrpo.console import LiveLine, make_console
from itrpo.errors import DivergenceError, InputError, StorageError
from itrpo.evaluation import rollout
from itrpo.evaluation.environments import Spaces, allow, spaces_of
from itrpo.plotting import returns_curve
from itrpo.ranges import Count, Positive, Seed, check_ranges
from itrpo.results.run_folder import CHECKPOINT_SECONDS, RunFolder
from itrpo.results.store import CONFIG
from itrpo.signals import stop_on_signal
from itrpo.types import DiscreteSpec, Metrics

if TYPE_CHECKING:
    from rich.console import Console

# Streams of randomness. Host: numpy seeded by (seed, STREAM, ...). Device: fold_in(key(seed), STREAM).
NOISE, EVALUATION_NOISE = 1, 2  # 0 is online_rows.EPISODE
INIT, UPDATE = range(2)
CURVE = "curve.jsonl"


@dataclass(frozen=True)
class OnlineConfig:
    """All that a run's bits follow from, apart from machine and versions."""

    env_id: str  # gymnasium id, also as "module:id", whose module registers it
    steps: Count = 1_000_000  # environment steps, summed over the environments
    until: float | None = None  # ends earlier, at the first evaluation whose mean return (sampled) is this much
    seed: Seed = 0  # everything random comes from it
    envs: Count = 10  # environments stepped together
    steps_per_block: Count = 5  # steps of each environment between two changes of the acting weights
    every: Count = 20_000  # environment steps between evaluations; each saves a policy and a checkpoint
    episodes: Count = 20  # per evaluation, of sampled actions and as many of the policy's mode

    @property
    def block(self) -> int:
        """Environment steps of a block."""
        return self.envs * self.steps_per_block


@dataclass(frozen=True)
class OffPolicyRun(OnlineConfig):
    updates_per_step: Positive = 1.0  # gradient steps per environment step, once the uniform steps are done
    uniform_steps: Count = 5_000  # first environment steps, with uniform actions and without updates
    capacity: Count = 1_000_000  # environment steps that updates sample from: the newest ones


@dataclass(frozen=True)
class SacRun(OffPolicyRun):
    sac: sac.Config = field(default_factory=sac.Config)


@dataclass(frozen=True)
class Td3Run(OffPolicyRun):
    uniform_steps: Count = 25_000  # first environment steps, with uniform actions and without updates (author's code)
    td3: td3.Config = field(default_factory=td3.Config)


@dataclass(frozen=True)
class OnPolicyRun(OnlineConfig):
    envs: Count = 8  # environments stepped together
    steps_per_block: Count = 256  # steps of each environment in a batch (with 8 of them GePPO's code's PPO: 2,048)

    @property
    def uniform_steps(self) -> int:
        """The first batch, which observations and rewards are first scaled by."""
        return self.block


@dataclass(frozen=True)
class PpoRun(OnPolicyRun):
    ppo: ppo.Config = field(default_factory=ppo.Config)


@dataclass(frozen=True)
class GeppoRun(OnPolicyRun):
    steps_per_block: Count = 128  # steps of each environment in a batch (with 8 of them GePPO's code: 1,024)
    geppo: ppo.Config = field(default_factory=lambda: ppo.GEPPO_CONFIG)


@dataclass(frozen=True)
class TrpoRun(OnPolicyRun):
    trpo: trpo.Config = field(default_factory=trpo.Config)


AnyRun = OffPolicyRun | OnPolicyRun
KINDS: dict[str, tuple[type[AnyRun], Agent]] = {
    "sac": (SacRun, sac.AGENT),
    "td3": (Td3Run, td3.AGENT),
    "ppo": (PpoRun, ppo.PPO),
    "geppo": (GeppoRun, ppo.GEPPO),
    "trpo": (TrpoRun, trpo.TRPO),
}


class Learning(NamedTuple):
    """What learns in a run."""

    kind: str  # of `KINDS`, also the key of config.json and the command's word
    agent: Agent
    config: Any  # the agent's own; on policy with the sizes of a batch


class Finished(NamedTuple):
    folder: Path
    config: AnyRun
    curve: list[dict[str, Any]]  # the rows of curve.jsonl


def train(
    env_id: str,
    out: str | os.PathLike[str],
    kind: str = "sac",
    *,
    fields: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Finished:
    """Trains in `env_id` by SAC, or by another of `KINDS` (`kind`), or continues `out`; more steps extend it.

    `fields` sets fields of `OnlineConfig` (`steps`, `seed`, ...) and of the algorithm's own `Config` by name.
    Raises InputError before any long work, DivergenceError if a loss is not finite, StorageError if the disk refuses.
    """
    config = override(KINDS[kind][0](SHORT_NAMES.get(env_id, env_id)), fields or {}, kind)
    return run(config, Path(out), console or make_console())


def learning(config: AnyRun) -> Learning:
    kind = next(name for name, (own, _) in KINDS.items() if isinstance(config, own))
    own: Any = getattr(config, kind)
    if isinstance(config, OnPolicyRun):
        own = on_policy.Sized(own, config.steps_per_block, config.envs)
    return Learning(kind, KINDS[kind][1], own)


def validate(config: AnyRun) -> None:
    """Raises InputError for a value outside its range."""
    check_ranges(config)
    kind, agent, _ = learning(config)
    own = getattr(config, kind)
    agent.validate(own)
    if isinstance(config, OnPolicyRun):
        rows = batches_of(config) * config.block
        if rows < own.shared.minibatches:
            raise InputError(
                f"minibatches: {own.shared.minibatches} can't be made of the {rows} steps of envs * steps_per_block "
                "that an iteration goes over"
            )
    elif config.capacity < config.block:
        raise InputError(
            f"capacity must hold a block of envs * steps_per_block = {config.block} steps, got {config.capacity}"
        )


# --- acting --------------------------------------------------------------------------------------------------------


def explore(
    config: AnyRun, agent: Agent, policy: ActingPolicy, observations: np.ndarray, time_step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Actions [E, A] in [-1, 1] and their log densities [E] at one step of all environments."""
    rng = np.random.default_rng([config.seed, NOISE, time_step])
    shape = (config.envs, policy.mean[1].shape[0])
    if time_step * config.envs < config.uniform_steps:
        return rng.uniform(-1, 1, shape).astype(np.float32), np.full(config.envs, -shape[1] * np.log(2))
    return agent.act(policy, observations, rng.standard_normal(shape, np.float32))


def updates_after(config: AnyRun, steps: int) -> int:
    """Updates that are done once `steps` environment steps are; on policy: iterations."""
    due = max(0, steps - config.uniform_steps)
    return due // config.block if isinstance(config, OnPolicyRun) else int(config.updates_per_step * due)


# --- one run -------------------------------------------------------------------------------------------------------


def run(config: AnyRun, out: Path, console: Console) -> Finished:
    """Trains, or continues where the folder left off. Raises what `train` does."""
    validate(config)
    xla.prepare()
    folder, (kind, agent, _) = RunFolder(out), learning(config)
    env_id = config.env_id
    allow(env_id)
    spaces = spaces_of(env_id)
    if isinstance(spaces.spec, DiscreteSpec):
        raise InputError(f"{env_id}: actions are Discrete({spaces.spec.num_actions}); {agent.name} learns vectors")
    pool = rollout.make_pool(env_id, 2, config.episodes)  # "seed" 0 acts with samples, 1 with modes
    with folder.lock(), stop_on_signal(console) as signals, closing(pool):
        folder.begin_or_continue(
            kind,
            to_json(config),
            console,
            reader=f"itrpo {kind} replay",
            free=("steps", "until"),
            least={"steps": folder.reached().get("step", 0)},
        )
        trainer = open_trainer(config, env_id, spaces, folder, console)
        try:
            with trainer.rows:
                train_blocks(trainer, pool, signals, console)
        finally:
            trainer.environments.close()
            draw_curve(trainer)
        if trainer.steps:
            folder.require()
            write_replay(out, out / "replay.hdf5")
    return Finished(out, config, trainer.curve)


@dataclass
class Trainer:
    """A run between two blocks."""

    config: AnyRun
    learning: Learning
    env_id: str
    spaces: Spaces
    folder: RunFolder
    learner: Learner
    policy: ActingPolicy  # the learner's, on the host
    block: Block
    key: Array  # of the updates
    environments: Environments
    rows: io.FileIO  # rows.bin, at its end
    time_step: int  # steps that each environment has done
    curve: list[dict[str, Any]]

    @property
    def steps(self) -> int:
        return self.time_step * self.config.envs


class Saved(NamedTuple):
    """What a checkpoint holds besides its number of steps; the rows are in rows.bin."""

    state: Any
    sums: Metrics
    count: Any
    episodes: Any  # of the environments
    begun: Any


def open_trainer(config: AnyRun, env_id: str, spaces: Spaces, folder: RunFolder, console: Console) -> Trainer:
    """A fresh run, or the one that the folder's newest checkpoint and rows hold. Raises StorageError."""
    key, own = jax.random.key(config.seed), learning(config)
    init, sums = jax.jit(own.agent.make(own.config, spaces.vectors).init), fresh_sums(own.agent)
    none = np.zeros(config.envs, np.int32)
    saved = folder.newest(console)
    if saved is None:
        time_step, start = 0, Saved(init(jax.random.fold_in(key, INIT)), *sums, none, none)
    else:
        shapes = Saved(jax.eval_shape(init, key), *sums, none, none)
        time_step, start = saved.step // config.envs, folder.restored(saved, shapes)
    path = folder.path / ROWS
    history = rows_until(path, row_type(spaces.vectors), time_step, config.envs)
    episodes, begun = np.array(start.episodes), np.array(start.begun)
    environments = open_environments(env_id, config.seed, spaces, episodes, begun, history)
    buffer = jnp.asarray(filled_buffer(buffer_size(config), history.reshape(-1), as_rows(config)))
    learner = Learner(start.state, buffer, start.sums, start.count)
    policy = acting_policy(own.agent.acting_arrays(start.state, own.config))
    of_kind = on_policy.make_block if isinstance(config, OnPolicyRun) else make_block
    block, updates = of_kind(own.agent, own.config, spaces.vectors), jax.random.fold_in(key, UPDATE)
    with files.storage_errors(path):
        rows = files.open_log(path, history.nbytes)  # without what a killed run wrote after its checkpoint
    curve = [row for row in read_curve(folder.path) if row["step"] <= time_step * config.envs]
    return Trainer(
        config, own, env_id, spaces, folder, learner, policy, block, updates, environments, rows, time_step, curve
    )


def save_checkpoint(trainer: Trainer) -> None:
    """Raises StorageError."""
    trainer.folder.require()
    path, learner, environments = trainer.folder.path / ROWS, trainer.learner, trainer.environments
    with files.storage_errors(path):
        files.sync(path)  # a checkpoint must not know of rows that a power cut takes
    state = Saved(learner.state, learner.sums, learner.count, environments.episodes, environments.begun)
    trainer.folder.save("train", trainer.steps, state, {"env_id": trainer.env_id})


def batches_of(config: OnPolicyRun) -> int:
    """That an iteration goes over."""
    kind, agent, _ = learning(config)
    assert agent.batches is not None
    return agent.batches(getattr(config, kind))


def buffer_size(config: AnyRun) -> int:
    """Rows of the buffer on the device: off policy no more than the run makes."""
    if isinstance(config, OnPolicyRun):
        return batches_of(config) * config.block
    return min(config.capacity, -(-config.steps // config.block) * config.block)


def as_rows(config: AnyRun) -> Callable[[np.ndarray], np.ndarray]:
    """What makes rows of the buffer from rows of `row_type`."""
    return on_policy.buffer_rows if isinstance(config, OnPolicyRun) else buffer_rows


def train_blocks(trainer: Trainer, pool: rollout.EvaluationPool, signals: list[int], console: Console) -> None:
    """Blocks until `steps` are done, with evaluations, policies and checkpoints between them."""
    config = trainer.config
    if not trainer.curve:
        record(trainer, pool)
        save_checkpoint(trainer)
    until = math.inf if config.until is None else config.until
    saved_at = measured_at = time.monotonic()
    measured, cpu_at = trainer.steps, time.process_time()
    with LiveLine(console, f"{trainer.learning.kind} {trainer.env_id}", config.steps, 1, trainer.steps) as live:
        while trainer.steps < config.steps and trainer.curve[-1]["sampled_mean"] < until:
            first = trainer.steps
            one_block(trainer)
            due = trainer.steps // config.every > first // config.every or trainer.steps >= config.steps
            overdue = time.monotonic() - saved_at > CHECKPOINT_SECONDS
            if due:
                trained_at, trained_cpu = time.monotonic(), time.process_time()
                record(trainer, pool)
                timing = {
                    "step": trainer.steps,
                    "updates": updates_after(config, trainer.steps),
                    "seconds": trained_at - measured_at,
                    "cpu_seconds": trained_cpu - cpu_at,
                    "steps_per_second": (trainer.steps - measured) / (trained_at - measured_at),
                    "evaluation_seconds": time.monotonic() - trained_at,
                }
                trainer.folder.append_timing(timing)
                measured_at, measured, cpu_at = time.monotonic(), trainer.steps, time.process_time()
            if due or overdue or signals:
                save_checkpoint(trainer)
                saved_at = time.monotonic()
            if overdue:
                draw_curve(trainer)
            shown = {"return": trainer.curve[-1]["sampled_mean"], "mode": trainer.curve[-1]["mode_mean"]}
            live.update(trainer.steps, shown, evaluated=due)
            if signals:
                raise KeyboardInterrupt(f"stopped at step {trainer.steps:,}; the same command continues from there")


def one_block(trainer: Trainer) -> None:
    """`steps_per_block` steps of each environment, and the updates that are then due."""
    config, first = trainer.config, trainer.steps
    parts = []
    for _ in range(config.steps_per_block):
        observations, agent = trainer.environments.observations, trainer.learning.agent
        actions, log_probs = explore(config, agent, trainer.policy, observations, trainer.time_step)
        parts.append(trainer.environments.step(trainer.time_step, actions, log_probs))
        trainer.time_step += 1
    rows = np.concatenate(parts)
    if not np.isfinite(rows["reward"]).all() or not np.isfinite(rows["next_observation"]).all():
        raise DivergenceError(f"{trainer.env_id} gave a reward or an observation that is not finite at step {first:,}")
    with files.storage_errors(trainer.folder.path / ROWS, "; the checkpoint is intact"):
        files.add(trainer.rows, rows.tobytes())
    size = len(trainer.learner.buffer)
    slots = np.arange(first, trainer.steps) % size
    bounds = (updates_after(config, first), updates_after(config, trainer.steps))
    trainer.learner = trainer.block(
        trainer.learner, trainer.key, as_rows(config)(rows), slots, min(trainer.steps, size), *bounds
    )
    arrays = policy_arrays(trainer)  # waits for the device
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise DivergenceError(
            f"training diverged: the policy is not finite after step {trainer.steps:,}; the last checkpoint in "
            f"{trainer.folder.path} is intact. A smaller learning rate may help"
        )
    trainer.policy = acting_policy(arrays)


def policy_arrays(trainer: Trainer) -> dict[str, np.ndarray]:
    """The policy as a file of it has it."""
    return trainer.learning.agent.acting_arrays(trainer.learner.state, trainer.learning.config)


def draw_curve(trainer: Trainer) -> None:
    if trainer.curve and (trainer.folder.path / CONFIG).exists():  # else the folder was deleted
        title = f"{trainer.learning.agent.name} in {trainer.env_id}, seed {trainer.config.seed}"
        returns_curve(trainer.curve, title, trainer.env_id, trainer.folder.path / "curve.png")


def record(trainer: Trainer, pool: rollout.EvaluationPool) -> None:
    """Evaluates the policy with sampled actions and with its mode, saves it, and adds a row to the curve.

    Losses in the row are means over the updates since the last one.
    """
    config, agent = trainer.config, trainer.learning.agent
    rng = np.random.default_rng([config.seed, EVALUATION_NOISE, trainer.steps])

    def both(observations: np.ndarray) -> np.ndarray:
        """[2, episodes, O] -> [2, episodes, A]"""
        actions = []
        for scale, kind_observations in zip((1, 0), observations, strict=True):  # sampled, mode
            noise = rng.standard_normal((len(kind_observations), trainer.spaces.vectors.action_dim), np.float32)
            actions.append(agent.act(trainer.policy, kind_observations, scale * noise)[0])
        return trainer.spaces.to_env(np.stack(actions))

    returns, lengths = rollout.evaluate(pool, both, config.seed, trainer.steps)
    trainer.folder.require()
    means = {name: float(value / max(trainer.learner.count, 1)) for name, value in trainer.learner.sums.items()}
    row = {
        "step": trainer.steps,
        "updates": updates_after(config, trainer.steps),
        "episodes": config.episodes,
    }
    for kind, kind_returns, kind_lengths in zip(("sampled", "mode"), returns, lengths, strict=True):
        row |= {f"{kind}_mean": float(kind_returns.mean()), f"{kind}_std": float(kind_returns.std())}
        row[f"{kind}_length"] = float(kind_lengths.mean())
    row |= {name: means[name] for name in agent.metrics} if trainer.learner.count else dict.fromkeys(agent.metrics)
    metadata = {
        "env_id": config.env_id,
        "algorithm": f"{agent.name}, seed {config.seed}",
        "environment_steps": str(trainer.steps),
    }
    metadata |= {name: repr(row[name]) for name in ("sampled_mean", "sampled_std", "mode_mean", "mode_std")}
    arrays = policy_arrays(trainer)
    path = trainer.folder.path / "policies" / f"step_{trainer.steps:07d}.safetensors"
    files.write(path, policy_file(arrays, metadata))
    trainer.curve.append(row)
    write_curve(trainer.folder.path, trainer.curve)
    sums, count = fresh_sums(agent)
    trainer.learner = trainer.learner._replace(sums=sums, count=count)


def policy_file(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file with its header sorted: the library orders metadata differently from run to run."""
    from safetensors.numpy import save

    content = save(arrays, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def write_curve(folder: Path, curve: Sequence[Mapping[str, Any]]) -> None:
    files.write(folder / CURVE, "".join(json.dumps(row) + "\n" for row in curve).encode())


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, none before its first evaluation. Raises StorageError."""
    path = folder / CURVE
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    except (OSError, ValueError) as error:
        raise StorageError(f"can't read {path}: {error}") from error
