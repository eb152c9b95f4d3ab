"""Training an acting policy with SAC, from nothing to a ladder of policies and the replay buffer as a dataset.

A folder holds `config.json`, `provenance.json`, `checkpoints/`, `rows.bin` (every step of every environment, in the
order in which they were made), `curve.jsonl`, `curve.png`, `timing.jsonl`, `policies/step_NNNNNNN.safetensors` and, at
the end, `replay.hdf5`.

Steps go in blocks: `steps_per_block` steps of each of `envs` environments, acting with NumPy on the host; then all
updates that are due, as one compiled program on the device, where the replay buffer is. So the host waits for the
device once per block, and the acting weights are at most one block old.

The same command on the same folder continues it to the same bits. Nothing random has a state: the noise of a step, the
rows of an update and the start of an episode follow from the seed and the number of the step, the update and the
episode. A checkpoint therefore needs no state of a simulator either: an episode that had begun is played again from its
seed with the actions in `rows.bin`, which must lead to the observations there.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo.collection import sac
from itrpo.collection.rollout import ActingPolicy, act
from itrpo.collection.sac_rows import (
    ROWS,
    Environments,
    Spaces,
    find_env,
    open_environments,
    row_type,
    spaces_of,
    truncated_rows,
    write_replay,
)
from itrpo.config import differences, override, to_json
from itrpo.console import LiveLine, make_console
from itrpo.errors import DivergenceError, InputError, StorageError
from itrpo.evaluation import rollout
from itrpo.plotting import returns_curve
from itrpo.results import store
from itrpo.training import checkpoint, phases
from itrpo.training.run import CHECKPOINT_SECONDS, LOCK, closing_pool, lock, stop_on_signal
from itrpo.types import Metrics, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

# Streams of randomness. Host: numpy seeded by (seed, STREAM, ...). Device: fold_in(key(seed), STREAM).
NOISE, EVALUATION_NOISE = 1, 2  # 0 is sac_rows.EPISODE
INIT, UPDATE = range(2)
SHORT_NAMES = {"goal-ant": "itrpo.collection.goal_ant:GoalAnt-v0"}
CURVE, CHECKPOINTS = "curve.jsonl", "checkpoints"
ROWS_READ = 10_000  # at a time


@dataclass(frozen=True)
class RunConfig:
    """All that a run's bits follow from, apart from machine and versions."""

    env_id: str  # gymnasium id, also as "module:id", whose module registers it
    steps: int = 1_000_000  # environment steps, summed over the environments
    until: float | None = None  # ends earlier, at the first evaluation whose mean return (sampled) is this much
    seed: int = 0  # everything random comes from it
    envs: int = 10  # environments stepped together
    updates_per_step: float = 1.0  # gradient steps per environment step, once the uniform steps are done
    uniform_steps: int = 5_000  # first environment steps, with uniform actions and without updates
    steps_per_block: int = 5  # steps of each environment between two changes of the acting weights
    every: int = 20_000  # environment steps between evaluations; each saves a policy and a checkpoint
    episodes: int = 20  # per evaluation, of sampled actions and as many of the policy's mode
    capacity: int = 1_000_000  # environment steps that updates sample from: the newest ones
    sac: sac.Config = field(default_factory=sac.Config)


class Finished(NamedTuple):
    folder: Path
    config: RunConfig
    curve: list[dict[str, Any]]  # the rows of curve.jsonl


def train(
    env_id: str,
    out: str | os.PathLike[str],
    *,
    steps: int = 1_000_000,
    seed: int = 0,
    fields: dict[str, Any] | None = None,
    console: Console | None = None,
) -> Finished:
    """Trains SAC in `env_id` for `steps` environment steps, or continues `out`; more steps extend it.

    `fields` sets fields of `RunConfig` and of `sac.Config` by name; text is parsed.
    Raises InputError before any long work, DivergenceError if a loss is not finite, StorageError if the disk refuses.
    """
    config = override(RunConfig(SHORT_NAMES.get(env_id, env_id), steps, seed=seed), fields or {}, "sac")
    return run(config, Path(out), console or make_console())


def validate(config: RunConfig) -> None:
    """Raises InputError for a value outside its range."""
    for name in ("steps", "envs", "steps_per_block", "every", "episodes", "capacity"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.uniform_steps < 1:
        raise InputError(f"uniform_steps must be at least 1: updates need rows; got {config.uniform_steps}")
    if not 0 < config.updates_per_step < np.inf:
        raise InputError(f"updates_per_step must be positive, got {config.updates_per_step}")
    if not 0 <= config.seed < 2**31:
        raise InputError(f"seed must be in [0, 2^31), got {config.seed}")
    if config.capacity < config.envs * config.steps_per_block:
        raise InputError(
            f"capacity must hold a block of envs * steps_per_block = {config.envs * config.steps_per_block} steps, "
            f"got {config.capacity}"
        )
    sac.validate(config.sac)


# --- acting --------------------------------------------------------------------------------------------------------


def acting_policy(arrays: dict[str, np.ndarray]) -> ActingPolicy:
    pairs = [(arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in ("hidden0", "hidden1", "mean", "log_std")]
    return ActingPolicy((pairs[0], pairs[1]), pairs[2], pairs[3])


def explore(
    config: RunConfig, policy: ActingPolicy, observations: np.ndarray, time_step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Actions [E, A] in [-1, 1] and their log densities [E] at one step of all environments."""
    rng = np.random.default_rng([config.seed, NOISE, time_step])
    shape = (config.envs, policy.mean[1].shape[0])
    if time_step * config.envs < config.uniform_steps:
        return rng.uniform(-1, 1, shape).astype(np.float32), np.full(config.envs, -shape[1] * np.log(2))
    return act(policy, observations, rng.standard_normal(shape, np.float32))


# --- updating ------------------------------------------------------------------------------------------------------


class Learner(NamedTuple):
    """What is on the device."""

    state: sac.State
    buffer: Any  # [capacity, 2O + A + 2] float32: observation, action, reward, continues, next observation
    sums: Metrics  # metrics added up over `count` updates
    count: Any


Block = Callable[..., Learner]


def buffer_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of `row_type` [N] -> [N, 2O + A + 2] float32."""
    continues = 1 - rows["terminal"].astype(np.float32)
    columns = (rows["observation"], rows["action"], rows["reward"][:, None], continues[:, None])
    return np.concatenate([*columns, rows["next_observation"]], axis=1)


def make_block(config: sac.Config, spec: SpaceSpec) -> Block:
    """-> block(learner, key, rows [n, 2O + A + 2], slots [n], filled, first, last): puts rows into the buffer's slots,
    then does the updates numbered from `first` to before `last` on its first `filled` rows. It consumes its learner.
    """
    update = sac.make(config, spec).update
    ends = np.cumsum([spec.observation_dim, spec.action_dim, 1, 1])

    def one_update(buffer: Any, filled: Any, key: Array, state: sac.State) -> tuple[sac.State, Metrics]:
        rows_key, update_key = jax.random.split(key)
        rows = buffer[jax.random.randint(rows_key, (config.batch_size,), 0, filled)]
        observation, action, reward, continues, following = jnp.split(rows, ends, axis=1)
        batch = sac.Experience(observation, action, reward[:, 0], continues[:, 0], following)
        return update(state, batch, update_key)

    @partial(jax.jit, donate_argnums=0)
    def block(learner: Learner, key: Array, rows: Any, slots: Any, filled: Any, first: Any, last: Any) -> Learner:
        buffer = learner.buffer.at[slots].set(rows)

        def body(number: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, sums, count = carry
            state, metrics = one_update(buffer, filled, jax.random.fold_in(key, number), state)
            return state, {name: sums[name] + metrics[name] for name in sums}, count + 1.0

        state, sums, count = jax.lax.fori_loop(first, last, body, (learner.state, learner.sums, learner.count))
        return Learner(state, buffer, sums, count)

    return block


METRICS = ("critic_loss", "policy_loss", "entropy", "q_target", "entropy_weight")


def fresh_sums() -> tuple[Metrics, Any]:
    return {name: jnp.zeros(()) for name in METRICS}, jnp.zeros(())


def updates_after(config: RunConfig, steps: int) -> int:
    """Updates that are done once `steps` environment steps are."""
    return int(config.updates_per_step * max(0, steps - config.uniform_steps))


# --- one run -------------------------------------------------------------------------------------------------------


def run(config: RunConfig, folder: Path, console: Console) -> Finished:
    """Trains, or continues where the folder left off."""
    validate(config)
    env_id = find_env(config.env_id)
    spaces = spaces_of(env_id)
    pool = rollout.make_pool(env_id, 2, config.episodes)  # "seed" 0 acts with samples, 1 with modes
    with lock(folder), stop_on_signal(console) as signals, closing_pool(pool):
        begin_or_continue(folder, config, console)
        trainer = open_trainer(config, env_id, spaces, folder, console)
        try:
            with trainer.rows:
                train_blocks(trainer, pool, signals, console)
        finally:
            trainer.environments.close()
            draw_curve(trainer)
        if trainer.steps:
            write_replay(folder, folder / "replay.hdf5")
    return Finished(folder, config, trainer.curve)


@dataclass
class Trainer:
    """A run between two blocks."""

    config: RunConfig
    env_id: str
    spaces: Spaces
    folder: Path
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

    state: sac.State
    sums: Metrics
    count: Any
    episodes: Any  # of the environments
    begun: Any


def open_trainer(config: RunConfig, env_id: str, spaces: Spaces, folder: Path, console: Console) -> Trainer:
    """A fresh run, or the one that the folder's newest checkpoint and rows hold."""
    key = jax.random.key(config.seed)
    init = jax.jit(sac.make(config.sac, spaces.spec).init)
    none = np.zeros(config.envs, np.int32)
    time_step, arrays = newest_checkpoint(folder, config.envs, console)
    if arrays is None:
        it = Saved(init(jax.random.fold_in(key, INIT)), *fresh_sums(), none, none)
    else:
        try:
            it = checkpoint.unflatten(Saved(jax.eval_shape(init, key), *fresh_sums(), none, none), arrays)
        except ValueError as error:
            raise StorageError(f"the checkpoint in {folder} is of another version of itrpo: {error}") from error
    history = truncated_rows(folder / ROWS, row_type(spaces.spec), time_step, config.envs)
    environments = open_environments(env_id, config.seed, spaces, np.array(it.episodes), np.array(it.begun), history)
    buffer = np.zeros((buffer_size(config), 2 * spaces.spec.observation_dim + spaces.spec.action_dim + 2), np.float32)
    past = history.reshape(-1)
    for start in range(max(0, len(past) - len(buffer)), len(past), ROWS_READ):
        part = past[start : start + ROWS_READ]
        buffer[np.arange(start, start + len(part)) % len(buffer)] = buffer_rows(part)
    learner = Learner(it.state, jnp.asarray(buffer), it.sums, it.count)
    curve = [row for row in read_curve(folder) if row["step"] <= time_step * config.envs]
    return Trainer(
        config,
        env_id,
        spaces,
        folder,
        learner,
        acting_policy(sac.acting_arrays(it.state.policy.params)),
        make_block(config.sac, spaces.spec),
        jax.random.fold_in(key, UPDATE),
        environments,
        (folder / ROWS).open("ab", buffering=0),
        time_step,
        curve,
    )


def newest_checkpoint(folder: Path, envs: int, console: Console) -> tuple[int, dict[str, np.ndarray] | None]:
    """(steps of each environment, arrays) of the newest checkpoint that is whole; (0, None) if there is none yet."""
    found = checkpoint.sorted_checkpoints(folder / CHECKPOINTS)
    for path in found:
        try:
            arrays, meta = checkpoint.load(path)
        except ValueError as error:
            console.print(f"checkpoint {path} is damaged ({error}); falling back to the one before it")
            continue
        console.print(f"resuming at step {meta['step']:,}")
        return meta["step"] // envs, arrays
    if found:
        raise StorageError(f"every checkpoint in {folder / CHECKPOINTS} is damaged; delete {folder} to train anew")
    return 0, None


def append(it: Trainer, rows: np.ndarray) -> None:
    """Adds rows to rows.bin."""
    content = rows.tobytes()
    try:
        written = it.rows.write(content)
    except OSError as error:
        raise StorageError(
            f"can't write {it.folder / ROWS}: {error.strerror or error}; the checkpoint is intact"
        ) from error
    if written != len(content):
        raise StorageError(f"can't write {it.folder / ROWS}: the disk is full; the checkpoint is intact")


def save_checkpoint(it: Trainer) -> None:
    os.fsync(it.rows.fileno())
    environments = it.environments
    state = Saved(it.learner.state, it.learner.sums, it.learner.count, environments.episodes, environments.begun)
    checkpoint.save(it.folder / CHECKPOINTS, "train", it.steps, state, {"env_id": it.env_id})


def buffer_size(config: RunConfig) -> int:
    """Rows of the buffer on the device: no more than the run makes."""
    of_block = config.envs * config.steps_per_block
    return min(config.capacity, -(-config.steps // of_block) * of_block)


def train_blocks(it: Trainer, pool: rollout.EvaluationPool, signals: list[int], console: Console) -> None:
    """Blocks until `steps` are done, with evaluations, policies and checkpoints between them."""
    config = it.config
    if not it.curve:
        record(it, pool)
        save_checkpoint(it)
    saved_at = measured_at = time.monotonic()
    measured, cpu_at = it.steps, time.process_time()
    with LiveLine(console, f"sac {it.env_id}", config.steps, 1, it.steps) as live:
        while it.steps < config.steps and not reached(config, it.curve):
            first = it.steps
            one_block(it)
            due = it.steps // config.every > first // config.every or it.steps >= config.steps
            overdue = time.monotonic() - saved_at > CHECKPOINT_SECONDS
            if due:
                trained_at, trained_cpu = time.monotonic(), time.process_time()
                record(it, pool)
                timing = {
                    "step": it.steps,
                    "updates": updates_after(config, it.steps),
                    "seconds": trained_at - measured_at,
                    "cpu_seconds": trained_cpu - cpu_at,
                    "steps_per_second": (it.steps - measured) / (trained_at - measured_at),
                    "evaluation_seconds": time.monotonic() - trained_at,
                }
                store.append_timing(it.folder, timing)
                measured_at, measured, cpu_at = time.monotonic(), it.steps, time.process_time()
            if due or overdue or signals:
                save_checkpoint(it)
                saved_at = time.monotonic()
            if overdue:
                draw_curve(it)
            shown = {"return": it.curve[-1]["sampled_mean"], "mode": it.curve[-1]["mode_mean"]}
            live.update(it.steps, shown, evaluated=due)
            if signals:
                raise KeyboardInterrupt(f"stopped at step {it.steps:,}; the same command continues from there")


def one_block(it: Trainer) -> None:
    """`steps_per_block` steps of each environment, and the updates that are then due."""
    config, first = it.config, it.steps
    parts = []
    for _ in range(config.steps_per_block):
        actions, log_probs = explore(config, it.policy, it.environments.observations, it.time_step)
        parts.append(it.environments.step(it.time_step, actions, log_probs))
        it.time_step += 1
    rows = np.concatenate(parts)
    if not np.isfinite(rows["reward"]).all() or not np.isfinite(rows["next_observation"]).all():
        raise DivergenceError(f"{it.env_id} gave a reward or an observation that is not finite at step {first:,}")
    append(it, rows)
    size = len(it.learner.buffer)
    slots = np.arange(first, it.steps) % size
    bounds = (updates_after(config, first), updates_after(config, it.steps))
    it.learner = it.block(it.learner, it.key, buffer_rows(rows), slots, min(it.steps, size), *bounds)
    arrays = sac.acting_arrays(it.learner.state.policy.params)  # waits for the device
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise DivergenceError(
            f"training diverged: the policy is not finite after step {it.steps:,}; the last checkpoint in {it.folder} "
            "is intact. A smaller learning rate may help"
        )
    it.policy = acting_policy(arrays)


def draw_curve(it: Trainer) -> None:
    if it.curve:
        title = f"SAC in {it.env_id}, seed {it.config.seed}"
        returns_curve(it.curve, title, it.env_id, it.folder / "curve.png")


def reached(config: RunConfig, curve: list[dict[str, Any]]) -> bool:
    return config.until is not None and bool(curve) and curve[-1]["sampled_mean"] >= config.until


def record(it: Trainer, pool: rollout.EvaluationPool) -> None:
    """Evaluates the policy with sampled actions and with its mode, saves it, and adds a row to the curve.

    Losses in the row are means over the updates since the last one.
    """
    config = it.config
    rng = np.random.default_rng([config.seed, EVALUATION_NOISE, it.steps])

    def both(observations: np.ndarray) -> np.ndarray:
        """[2, episodes, O] -> [2, episodes, A]"""
        actions = []
        for scale, of_kind in zip((1, 0), observations, strict=True):  # sampled, mode
            noise = rng.standard_normal((len(of_kind), it.spaces.spec.action_dim), np.float32)
            actions.append(act(it.policy, of_kind, scale * noise)[0])
        return it.spaces.to_env(np.stack(actions))

    returns, lengths = rollout.evaluate(pool, both, config.seed, it.steps)
    means = {name: float(value / max(it.learner.count, 1)) for name, value in it.learner.sums.items()}
    row = {
        "step": it.steps,
        "updates": updates_after(config, it.steps),
        "episodes": config.episodes,
        "sampled_mean": float(returns[0].mean()),
        "sampled_std": float(returns[0].std()),
        "sampled_length": float(lengths[0].mean()),
        "mode_mean": float(returns[1].mean()),
        "mode_std": float(returns[1].std()),
        "mode_length": float(lengths[1].mean()),
    }
    row |= {name: means[name] for name in METRICS} if it.learner.count else dict.fromkeys(METRICS)
    metadata = {"env_id": config.env_id, "algorithm": f"SAC, seed {config.seed}", "environment_steps": str(it.steps)}
    metadata |= {name: repr(row[name]) for name in ("sampled_mean", "sampled_std", "mode_mean", "mode_std")}
    arrays = sac.acting_arrays(it.learner.state.policy.params)
    store.write_atomic(it.folder / "policies" / f"step_{it.steps:07d}.safetensors", policy_file(arrays, metadata))
    it.curve.append(row)
    write_curve(it.folder, it.curve)
    sums, count = fresh_sums()
    it.learner = it.learner._replace(sums=sums, count=count)


def policy_file(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file with its header sorted: the library orders metadata differently from run to run."""
    from safetensors.numpy import save

    content = save(arrays, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def read_curve(folder: Path) -> list[dict[str, Any]]:
    path = folder / CURVE
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    except (OSError, ValueError) as error:
        raise StorageError(f"can't read {path}: {error}") from error


def write_curve(folder: Path, curve: list[dict[str, Any]]) -> None:
    store.write_atomic(folder / CURVE, "".join(json.dumps(row) + "\n" for row in curve).encode())


def begin_or_continue(folder: Path, config: RunConfig, console: Console) -> None:
    """Writes config.json and provenance.json, or checks that the folder's own fit this run."""
    path, machine = folder / "config.json", phases.machine()
    if not path.exists():
        if any(it.name != LOCK for it in folder.iterdir()):
            raise InputError(f"{folder} holds other files and no config.json of a run; choose another --out")
        about = store.provenance() | {"machine": machine, "resumed_on": []}
        store.write_json_atomic(folder / "provenance.json", about)
        store.write_json_atomic(path, {"sac": to_json(config)})
        return
    recorded = store.read_json(path)
    if "sac" not in recorded:
        raise InputError(f"{folder} belongs to a run of another kind; choose another --out")
    about = store.read_json(folder / "provenance.json")
    changed = [it for it in differences(recorded["sac"], to_json(config)) if not it.startswith(("steps:", "until:"))]
    if changed:
        listed = "; ".join(changed)
        raise InputError(f"{folder} belongs to another run ({listed}); choose another --out, or the flags of that run")
    moved = differences(about["machine"], machine)
    if moved:
        console.print(f"this run began on another machine ({'; '.join(moved)}): it continues, but not to the same bits")
        about["resumed_on"].append(machine)
        store.write_json_atomic(folder / "provenance.json", about)
    store.write_json_atomic(path, {"sac": to_json(config)})
