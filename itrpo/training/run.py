"""From a configuration to a trained, evaluated, saved run: what the command line, the Python API and the tests call.

A run folder holds `config.json`, `provenance.json`, `status.json`, `metrics.jsonl`, `timing.jsonl`, `checkpoints/`,
`seedK/policy.npz` and `learning_curve.png`. The same call on the same folder continues it, to the same bits.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import itrpo
from itrpo import registry
from itrpo.behavior.truth import log_prob_gap
from itrpo.config import RunConfig, TrainConfig, config_hash, differences, to_json
from itrpo.console import LiveLine
from itrpo.data.behavior_policy import saturated
from itrpo.data.preprocess import Preprocess, apply, fit_preprocess
from itrpo.errors import DivergenceError, InputError, StorageError
from itrpo.evaluation import rollout
from itrpo.evaluation.environments import check_compatible, normalized_score
from itrpo.evaluation.rollout import EvaluationPool, make_pool
from itrpo.plotting import learning_curve
from itrpo.policy import Policy, load_policy, save_policy
from itrpo.report.aggregate import final_score
from itrpo.results import store
from itrpo.results.schema import Evaluation, Row, State, Status
from itrpo.results.trackers import Tracker, open_tracker
from itrpo.training import checkpoint, loop, phases
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    BehaviorModel,
    Dataset,
    DensityModel,
    Metrics,
    Params,
    Preset,
    Transition,
)

if TYPE_CHECKING:
    from rich.console import Console

# streams of randomness of one seed: fold_in(fold_in(key(seed), index of the seed), STREAM)
INIT_BEHAVIOR, FIT_BEHAVIOR, INIT, TRAIN, PROBES = range(5)
PROBE_ROWS = 1024  # fixed rows of the dataset on which probes are measured
CHECKPOINT_SECONDS = 120.0  # between evaluations, at the longest
TICK_SECONDS = 0.5  # between two looks at the clock and at Ctrl-C
FLOAT_MAX = float(np.finfo(np.float32).max)
EVALUATE_STEP = 2**31  # the "step" of `evaluate`'s start states: no run gets there
LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    returns: np.ndarray | None  # [S]: mean of the last evaluations of each seed; None without an environment
    policies: dict[int, Policy] = field(default_factory=dict, repr=False, compare=False)  # by seed, as they are read

    def policy(self, observation: Any) -> np.ndarray:
        """The first seed's action [..., A] for observations [..., O], in the dataset's units."""
        return self.policy_of_seed(0)(observation)

    def policy_of_seed(self, index: int) -> Policy:
        if index not in self.policies:
            self.policies[index] = load_policy(self.folder / f"seed{index}" / "policy.npz")
        return self.policies[index]


# --- one run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """What the phases of one run share."""

    folder: Path
    config: RunConfig
    run_hash: str
    dataset: Dataset
    preprocess: Preprocess
    data: Transition  # on the device
    pool: EvaluationPool | None  # None: there is no environment to evaluate in
    console: Console
    signals: list[int]  # received so far: Ctrl-C, or a request to terminate
    trackers: list[Tracker]  # where metrics go besides the run folder

    def keys(self, stream: int) -> Array:
        """[S] random keys of one stream."""
        root = jax.random.key(self.config.train.seed)
        of_seeds = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, jnp.arange(self.config.train.seeds))
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(of_seeds, stream)

    def rows(self, step: int, metrics: Mapping[str, Any]) -> list[Row]:
        """metrics: name -> [S]."""
        return [
            Row(self.run_hash, index, step, name, float(value))
            for name, values in metrics.items()
            for index, value in enumerate(np.asarray(values))
        ]

    def status(self, step: int, state: State, message: str = "") -> None:
        train = self.config.train
        status = Status(
            run=self.run_hash,
            algorithm=self.config.algorithm,
            dataset=self.dataset.name,
            env_id=self.pool.env_id if self.pool else None,
            seeds=train.seeds,
            episodes=self.config.evaluation.eval_episodes,
            step=step,
            steps=train.steps,
            state=state,
            message=message,
        )
        store.write_status(self.folder, status)


def run(config: RunConfig, dataset: Dataset, out: Path | None, console: Console, track: Sequence[str] = ()) -> Run:
    """Trains, evaluates and saves what `config` says, or continues where its folder left off."""
    entry: AlgorithmEntry = registry.algorithm(config.algorithm)
    run_hash = config_hash(config)
    folder = (
        out or Path("runs") / f"{dataset.name.replace('/', '-')}-{registry.folder_name(config.algorithm)}-{run_hash}"
    )
    env_id = None if config.data.env in (None, "none") else config.data.env
    pool = None
    if env_id is not None:
        check_compatible(env_id, *dataset.spec)
        pool = make_pool(env_id, config.train.seeds, config.evaluation.eval_episodes)
    with lock(folder), stop_on_signal(console) as signals, closing_pool(pool):
        preset = entry.presets[config.preset]
        fit_steps, begun_steps = begin_or_continue(folder, config, dataset, preset, console)
        told = config.data
        preprocess = fit_preprocess(
            dataset.transitions, told.normalize_observations, told.reward_scale, told.reward_shift
        )
        data = jax.device_put(apply(preprocess, dataset.transitions))  # on a CPU without a copy, unlike jnp.asarray
        trackers = [open_tracker(name, folder, to_json(config)) for name in track]
        session = Session(folder, config, run_hash, dataset, preprocess, data, pool, console, signals, trackers)
        behavior: BehaviorModel | None = None
        if config.behavior is not None:
            model = registry.lookup(config.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
            behavior = model.make(config.behavior_config, dataset.spec, fit_steps)
        algorithm_config = phases.scaled_config(config, preset.steps, begun_steps)
        train_phases(session, behavior, entry.make(algorithm_config, dataset.spec, behavior), fit_steps)
        for tracker in trackers:
            tracker.close()
        learning_curve(folder, folder / "learning_curve.png")
    final = final_score(store.read_metrics(folder))
    return Run(folder.resolve(), config, final.per_seed if final else None)


def train_phases(session: Session, behavior: BehaviorModel | None, algorithm: Algorithm, fit_steps: int) -> None:
    """Fits pi_beta, then trains, from wherever the newest checkpoint is."""
    phase, step, arrays = newest_checkpoint(session) or ("behavior", 0, {})
    behavior_params = None
    if behavior is not None:
        fitting = jax.eval_shape(jax.vmap(behavior.init), session.keys(INIT_BEHAVIOR))
        behavior_params = jax.eval_shape(jax.vmap(behavior.params), fitting)
        if phase == "behavior":
            store.truncate_after(session.folder, -1)
            behavior_params = fit_behavior(session, behavior, fitting, fit_steps, step, arrays)

    init = jax.jit(jax.vmap(algorithm.init))
    shapes = jax.eval_shape(init, session.keys(INIT), behavior_params)
    names = loop.metric_names(algorithm.update, shapes, session.data, algorithm.batch_size)
    if phase == "train":
        store.truncate_after(session.folder, step)
        carry = restored(session, jax.eval_shape(partial(loop.start, names=names), shapes), arrays)
    else:
        step, carry = 0, loop.start(init(session.keys(INIT), behavior_params), names)
        save(session, "train", 0, carry)
    train_algorithm(session, algorithm, names, carry, step)


def fit_behavior(
    session: Session, model: BehaviorModel, fitting: Any, fit_steps: int, step: int, arrays: dict[str, np.ndarray]
) -> Params:
    """pi_beta's parameters [S, ...]: from the cache, or fitted on from `step`, where `arrays` are the checkpoint's."""

    def update(state: Any, batch: Transition, key: Array, step: Array) -> tuple[Any, Metrics]:
        return model.fit_step(state, batch, key)

    names = loop.metric_names(update, fitting, session.data, model.batch_size)
    cache_key = phases.fit_key(session.config, session.dataset.source.sha256 or "", fit_steps)
    cached = phases.read_fit(cache_key, jax.eval_shape(jax.vmap(model.params), fitting))
    if cached is not None:
        params, metrics = cached
        session.console.print(f"pi_beta: this fit of {fit_steps:,} steps is in the cache")
    else:
        carry = (
            restored(session, jax.eval_shape(partial(loop.start, names=names), fitting), arrays)
            if arrays
            else loop.start(jax.jit(jax.vmap(model.init))(session.keys(INIT_BEHAVIOR)), names)
        )
        block = loop.make_block(update, model.batch_size)
        limits = dict.fromkeys(names, FLOAT_MAX)
        with LiveLine(session.console, "fitting pi_beta", fit_steps, session.config.train.seeds, step) as live:
            run_block = partial(block, data=session.data, seed_keys=session.keys(FIT_BEHAVIOR), limits=limits)
            settled = int(0.9 * fit_steps)  # what is reported is the mean of the last tenth
            if step <= settled:
                carry = loop.fresh_sums(advance(session, "behavior", run_block, carry, step, settled, live))
                step = settled
            carry = advance(session, "behavior", run_block, carry, step, fit_steps, live)
            check_diverged(session, carry, fit_steps)
            metrics = {name: np.asarray(carry.sums[name] / carry.count).tolist() for name in names}
            live.update(fit_steps, {name: float(np.mean(values)) for name, values in metrics.items()})
        params = jax.jit(jax.vmap(model.params))(carry.state)
        phases.write_fit(cache_key, params, metrics)
    measured = dict(metrics) | compared_with_truth(session, model, params)
    if session.pool is not None:
        exports = [model.export(member(params, index)) for index in range(session.config.train.seeds)]
        evaluated = evaluate_policies(session, save_policies(session, exports, 0), 0)
        measured |= {f"behavior_{name}": values for name, values in evaluated.items()}
    store.append_metrics(session.folder, session.rows(0, measured))
    return params


def compared_with_truth(session: Session, model: BehaviorModel, params: Params) -> Metrics:
    """How far pi_beta's fit [S, ...] is from the policy that acted, if the dataset knows the densities of its actions.

    Rows with a saturated action are left out, and their share is told: what u = atanh(a) was is lost there.
    """
    known = session.dataset.behavior_log_probs
    if known is None or not isinstance(model, DensityModel):
        return {}
    rows, known = probe_rows(session.data), probe_rows(known)
    usable = np.isfinite(known) & ~saturated(np.asarray(rows.action))
    if not usable.any():
        return {}
    gap = jax.jit(jax.vmap(partial(log_prob_gap, model), in_axes=(0, None, None, None)))
    left_out = np.full(session.config.train.seeds, 1 - usable.mean())
    return gap(params, rows.observation[usable], rows.action[usable], known[usable]) | {
        "behavior_rows_left_out": left_out
    }


def probe_rows(columns: Any) -> Any:
    """PROBE_ROWS rows, spread evenly, of a pytree of [B, ...]."""
    stride = max(1, len(jax.tree.leaves(columns)[0]) // PROBE_ROWS)
    return jax.tree.map(lambda it: it[::stride][:PROBE_ROWS], columns)


def train_algorithm(session: Session, algorithm: Algorithm, names: list[str], carry: loop.Carry, step: int) -> None:
    """From `step` to the end: blocks of updates, and between them probes, policies, evaluations, rows, checkpoints."""
    config, num_seeds = session.config, session.config.train.seeds
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    limits = dict.fromkeys(names, FLOAT_MAX)
    if algorithm.value_metric is not None:
        limits[algorithm.value_metric] = divergence_limit(config.train, session.data.reward)
    run_block = partial(block, data=session.data, seed_keys=session.keys(TRAIN), limits=limits)
    probe = jax.jit(jax.vmap(algorithm.probes, in_axes=(0, None, 0)))
    probe_batch = probe_rows(session.data)

    started = time.perf_counter()
    carry = run_block(carry, start=step, stop=step)  # no step: this compiles
    jax.block_until_ready(carry.count)
    compile_seconds = time.perf_counter() - started
    with LiveLine(session.console, f"training {config.algorithm}", config.train.steps, num_seeds, step) as live:
        while step < config.train.steps:
            every = config.evaluation.eval_every
            stop = min((step // every + 1) * every, config.train.steps)
            started, first = time.perf_counter(), step
            carry = advance(session, "train", run_block, carry, step, stop, live)
            step = stop
            check_diverged(session, carry, step)
            trained = time.perf_counter()
            metrics = {name: np.asarray(carry.sums[name] / carry.count) for name in names}
            carry = loop.fresh_sums(carry)
            metrics |= probe(carry.state, probe_batch, session.keys(PROBES))
            exports = [algorithm.acting.export(member(carry.state, index)) for index in range(num_seeds)]
            policies = save_policies(session, exports, step)
            if session.pool is not None:
                metrics |= evaluate_policies(session, policies, step)
            store.append_metrics(session.folder, session.rows(step, metrics))
            save(session, "train", step, carry)
            for tracker in session.trackers:
                tracker.log(step, {name: np.asarray(values) for name, values in metrics.items()})
            store.append_timing(
                session.folder,
                {
                    "step": step,
                    "compile_seconds": compile_seconds,
                    "train_seconds": trained - started,
                    "steps_per_second": (step - first) / (trained - started),
                    "evaluation_seconds": time.perf_counter() - trained,
                    "peak_memory_bytes": peak_memory(),
                },
            )
            session.status(step, "unfinished")
            live.update(step, shown(metrics), evaluated=True)
    session.status(step, "finished")


def advance(
    session: Session, phase: str, run_block: Any, carry: loop.Carry, step: int, stop: int, live: LiveLine
) -> loop.Carry:
    """`carry` from `step` to `stop`, in pieces of about half a second so that Ctrl-C and the live line get a look in.

    The pieces change no bit, and nothing but an occasional checkpoint leaves the device.
    """
    size, saved_at = 1, time.monotonic()
    while step < stop:
        piece = min(size, stop - step)
        started = time.monotonic()
        carry = run_block(carry, start=step, stop=step + piece)
        jax.block_until_ready(carry.count)
        step += piece
        elapsed = time.monotonic() - started
        size = max(1, min(2 * size, int(piece * TICK_SECONDS / max(elapsed, 1e-6))))
        live.update(step, {})
        overdue = time.monotonic() - saved_at > CHECKPOINT_SECONDS
        if session.signals or (overdue and step < stop):
            check_diverged(session, carry, step)
            save(session, phase, step, carry)
            saved_at = time.monotonic()
        if session.signals:
            session.status(step if phase == "train" else 0, "stopped")
            raise KeyboardInterrupt(f"stopped at step {step:,} of {phase}; the same command continues from there")
    return carry


# --- checks, saving, evaluating --------------------------------------------------------------------------------------


def divergence_limit(config: TrainConfig, rewards: Array) -> float:
    """Largest |Q| that is still believed: far above any discounted sum of the rewards in the data."""
    if config.divergence_limit is not None:
        return config.divergence_limit
    return 1e5 * max(1.0, float(np.abs(rewards).max()))


def check_diverged(session: Session, carry: loop.Carry, step: int) -> None:
    """Raises DivergenceError naming the first quantity, seed and step that was not finite or beyond its limit."""
    first = min(
        (int(at), name, index) for name, ats in carry.first_bad.items() for index, at in enumerate(np.asarray(ats))
    )
    if first[0] == loop.NEVER:
        return
    at, name, index = first
    message = (
        f"training diverged: {name} of seed {index} was not finite, or beyond its limit, at step {at:,}."
        f" The last good checkpoint in {session.folder / 'checkpoints'} is intact."
        " A larger alpha, a smaller learning rate or critic_layer_norm = true may help"
    )
    session.status(step, "diverged", message)
    raise DivergenceError(message)


def member(tree: Any, index: int) -> Any:
    """One seed's part of a pytree of [S, ...]."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def save_policies(session: Session, exports: list[dict[str, Any]], step: int) -> list[Policy]:
    """Writes seedK/policy.npz and reads them back: what is evaluated is what ships."""
    dataset, config = session.dataset, session.config
    policies = []
    for index, export in enumerate(exports):
        path = session.folder / f"seed{index}" / "policy.npz"
        metadata = {
            "algorithm": config.algorithm,
            "dataset": dataset.name,
            "env_id": session.pool.env_id if session.pool else None,
            "itrpo": itrpo.__version__,
            "run": session.run_hash,
            "seed": index,
            "step": step,
        }
        mean, std = session.preprocess.observation_mean, session.preprocess.observation_std
        save_policy(path, export, mean, std, dataset.action_low, dataset.action_high, metadata)
        policies.append(load_policy(path))
    return policies


def evaluate_policies(session: Session, policies: list[Policy], step: int) -> dict[str, np.ndarray]:
    """One episode per seed and slot -> metric name -> [S]."""
    assert session.pool is not None
    returns, lengths = rollout.evaluate(session.pool, acting(policies), session.config.train.seed, step)
    return evaluation_metrics(session.pool.env_id, returns, lengths)


def acting(policies: list[Policy]) -> Callable[[np.ndarray], np.ndarray]:
    """observations [S, E, O] -> actions [S, E, A]."""
    return lambda observations: np.stack([policy(it) for policy, it in zip(policies, observations, strict=True)])


def evaluation_metrics(env_id: str, returns: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    metrics = {"return": returns.mean(1), "return_std": returns.std(1), "episode_length": lengths.mean(1)}
    score = normalized_score(env_id, returns.mean(1))
    return metrics if score is None else metrics | {"score": score}


def shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The few metrics of the live line, as means over seeds."""
    order = ("score", "return", "critic_loss", "policy_loss", "kl", "behavior_nll")
    names = [name for name in order if name in metrics]
    if "score" in names:
        names.remove("return")
    return {name: float(np.mean(np.asarray(metrics[name]))) for name in names}


def save(session: Session, phase: str, step: int, carry: loop.Carry) -> None:
    meta = {"run": session.run_hash, "dataset_sha256": session.dataset.source.sha256}
    checkpoint.save(session.folder / "checkpoints", phase, step, carry, meta)


def restored(session: Session, shapes: Any, arrays: dict[str, np.ndarray]) -> loop.Carry:
    """The carry that a checkpoint's arrays hold. Raises StorageError if they don't fit this version's state."""
    try:
        return checkpoint.unflatten(shapes, arrays)
    except ValueError as error:
        raise StorageError(f"the checkpoint in {session.folder} is of another version of itrpo: {error}") from error


def newest_checkpoint(session: Session) -> tuple[str, int, dict[str, np.ndarray]] | None:
    """(phase, step, arrays) of the newest checkpoint that is whole; None if there is none yet."""
    found = checkpoint.sorted_checkpoints(session.folder / "checkpoints")
    for path in found:
        try:
            arrays, meta = checkpoint.load(path)
        except ValueError as error:
            session.console.print(f"checkpoint {path} is damaged ({error}); falling back to the one before it")
            continue
        session.console.print(f"resuming {meta['phase']} at step {meta['step']:,}")
        return meta["phase"], meta["step"], arrays
    if found:
        raise StorageError(
            f"every checkpoint in {session.folder / 'checkpoints'} is damaged; delete {session.folder} to train anew"
        )
    return None


def begin_or_continue(
    folder: Path, config: RunConfig, dataset: Dataset, preset: Preset, console: Console
) -> tuple[int, int]:
    """Writes config.json and provenance.json, or checks that the folder's own fit this run.

    -> (steps of pi_beta's fit, steps that the run began with): what scales with a run's length is as it was at the
    beginning, however many more steps a run that is continued is given.
    """
    fit_steps = phases.behavior_steps(config, preset.steps, preset.behavior_steps)
    here = {"machine": phases.machine(), "dataset_sha256": dataset.source.sha256}
    path = folder / "config.json"
    if not path.exists():
        if any(it.name != LOCK for it in folder.iterdir()):
            raise InputError(f"{folder} holds other files and no config.json of a run; choose another --out")
        about = store.provenance() | here | {"dataset": describe(dataset), "resumed_on": []}
        store.write_json_atomic(folder / "provenance.json", about)
        lengths = {"behavior_steps": fit_steps, "begun_steps": config.train.steps}
        store.write_json_atomic(path, {"config": to_json(config)} | lengths)
        return fit_steps, config.train.steps
    recorded, about = store.read_json(path), store.read_json(folder / "provenance.json")
    changed = differences(recorded["config"], to_json(config))
    changed = [it for it in changed if not it.startswith(("train.steps:", "data.dataset:"))]
    if changed:
        listed = "; ".join(changed)
        raise InputError(f"{folder} belongs to another run ({listed}); choose another --out, or the flags of that run")
    if about["dataset_sha256"] != dataset.source.sha256:
        raise InputError(
            f"{folder} was trained on another version of {dataset.name} (SHA-256 differs); choose another --out"
        )
    moved = differences(about["machine"], here["machine"])
    if moved:
        console.print(f"this run began on another machine ({'; '.join(moved)}): it continues, but not to the same bits")
        about["resumed_on"].append(here["machine"])
        store.write_json_atomic(folder / "provenance.json", about)
    store.write_json_atomic(path, recorded | {"config": to_json(config)})
    return recorded["behavior_steps"], recorded["begun_steps"]


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a report needs to know of the dataset once its file is gone."""
    returns = dataset.episode_returns
    about: dict[str, Any] = {
        "name": dataset.name,
        "source": dataclasses.asdict(dataset.source),
        "env_id": dataset.env_id,
        "transitions": len(dataset),
        "episodes": len(returns),
    }
    if len(returns):
        about |= {"return_mean": returns.mean(), "return_std": returns.std(), "return_max": returns.max()}
        score = normalized_score(dataset.env_id, returns.mean()) if dataset.env_id else None
        if score is not None:
            about["score_mean"] = float(score)
    return about


@contextmanager
def closing_pool(pool: EvaluationPool | None) -> Generator[None]:
    try:
        yield
    finally:
        if pool is not None:
            pool.close()


@contextmanager
def lock(folder: Path) -> Generator[None]:
    """Makes the folder and holds it for this process.

    Raises InputError if another process holds it, StorageError if it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise StorageError(f"can't write into {folder}: {error.strerror or error}; choose another --out") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is training in {folder}; wait for it, or choose another --out") from None
        yield


@contextmanager
def stop_on_signal(console: Console) -> Generator[list[int]]:
    """Turns the first Ctrl-C (or SIGTERM) into an entry of the list; the second ends the program at once, as safely."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])
        console.print("stopping at the next checkpoint; once more to stop at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


# --- evaluating a finished run ---------------------------------------------------------------------------------------


def evaluate(
    folder: str | os.PathLike[str], *, episodes: int = 100, seed: int = 0, env: str | None = None
) -> Evaluation:
    """Plays `episodes` episodes with each seed's policy in a run folder, from start states that training never used.

    Raises InputError if there is no run, or no environment to evaluate in.
    """
    path = Path(folder)
    files = sorted(path.glob("seed*/policy.npz"), key=lambda it: int(it.parent.name[4:]))
    if not files:
        raise InputError(f"{path} holds no trained policy (seedK/policy.npz); `itrpo runs list` shows the runs")
    policies = [load_policy(it) for it in files]
    env_id = env or policies[0].metadata.get("env_id")
    if not env_id:
        raise InputError(f"{path} was trained without an environment; name one with --env")
    check_compatible(env_id, len(policies[0].observation_mean), len(policies[0].action_low))
    pool = make_pool(env_id, len(policies), episodes)
    try:
        returns, lengths = rollout.evaluate(pool, acting(policies), seed, EVALUATE_STEP)
    finally:
        pool.close()
    return Evaluation(env_id, policies[0].metadata["step"], returns, lengths, normalized_score(env_id, returns))
