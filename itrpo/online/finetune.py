"""`itrpo finetune`: the policies of a run go on learning in their environment, from its data and their own steps.

The protocol is CORL's (Tarasov et al., NeurIPS 2023, arXiv:2210.07105; algorithms/finetune): the dataset stays in the
replay buffer, each step of the environment is added to it, and followed by an update on a batch of both. For algorithms
whose papers fine-tune (IQL, CQL, SPOT), and for iTRPO. pi_beta stays the model of the offline data; with `refit_rate`
iTRPO's goes on being fitted, to what is in the buffer.

Each seed has a folder of its own, which the same command continues to the same bits, after a kill too: nothing random
has a state, rows.bin has every step, and an episode that had begun is played again (as in `collection.online_run`).

    seedK/config.json, provenance.json, checkpoints/, rows.bin, curve.jsonl, policy.npz

What the seeds' curves have is once more in the folder above, in the form of all runs: `itrpo runs list`, `itrpo plot`.

    config.json, provenance.json (the first seed's), status.json, metrics.jsonl
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import itrpo
from itrpo import files, registry, xla
from itrpo.collection.online_rows import ROWS, Environments, open_environments, row_type, rows_until
from itrpo.collection.online_run import read_curve, write_curve
from itrpo.config import RunConfig, leaves, override, replace_leaves, to_json
from itrpo.console import LiveLine, make_console
from itrpo.data.again import load_again, source_again
from itrpo.data.fit import same_bounds, users_env
from itrpo.data.preprocess import Preprocess, apply
from itrpo.errors import DivergenceError, InputError
from itrpo.evaluation import rollout
from itrpo.evaluation.environments import Spaces, allow, check_sizes, normalized_score, spaces_of
from itrpo.ops import td
from itrpo.policy import Policy, load_policy, save_policy
from itrpo.ranges import Count, NonNegative, Positive, Seed, Share, check_ranges
from itrpo.results.run_folder import CHECKPOINT_SECONDS, RunFolder
from itrpo.results.schema import Row, Status, row_to_json
from itrpo.results.store import CONFIG, METRICS, PROVENANCE, STATUS, read_provenance
from itrpo.signals import stop_on_signal
from itrpo.training import continuing
from itrpo.training.evaluate import load_policies, reference_of, spec_of
from itrpo.training.restore import recorded
from itrpo.training.scaling import behavior_of, scaled_config
from itrpo.types import Algorithm, Dataset, DensityModel, Metrics, Reference, Transition

if TYPE_CHECKING:
    from rich.console import Console

# algorithm -> the field that weighs its penalty, which `cool_to` lets fall (SPOT's lambda; the others' is ours)
WEIGHT = {"iql": None, "cql": "conservative_weight", "spot": "support_weight", "itrpo": "alpha"}
REFITTED = ("itrpo",)  # those whose state has pi_beta as `behavior_params`
NO_DROP = 2**31 - 1  # steps of a fit whose learning rate does not fall
INIT, ACT, UPDATE = range(3)  # streams of randomness: fold_in(fold_in(key(seed), index of the seed), STREAM)
NOISE_LIMIT = 0.5  # of the noise on a deterministic policy's actions (CORL's noise_clip)


@dataclass(frozen=True)
class Config:
    """All that the bits of one seed follow from, apart from machine and versions."""

    env_id: str
    parent: Mapping[str, Any]  # the run: hash, checkpoint, data, and index of the seed
    steps: Count = 1_000_000  # steps of the environment, for each seed (CORL)
    updates_per_step: Count = 1  # gradient steps after each (CORL)
    offline_share: Share | None = None  # of each batch from the offline data; none: rows are alike (CORL; Cal-QL 0.5)
    action_noise: NonNegative = 0.1  # standard deviation on the actions of a deterministic policy (SPOT in CORL)
    cool_to: Share = 1.0  # share of the penalty's weight that is left at the end, linearly (SPOT's lambd_end; 1: all)
    refit_rate: Positive | None = None  # Adam's rate for pi_beta, a step on each batch (ours); none: it stays as it is
    every: Count = 5_000  # steps between evaluations
    episodes: Count = 10  # of each evaluation
    seed: Seed = 0  # everything random comes from it, and from the index of the seed


class Finetuned(NamedTuple):
    """What `finetune` leaves."""

    folder: Path
    curves: list[list[dict[str, Any]]]  # by seed: the rows of curve.jsonl


def finetune(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    env: str | None = None,
    data: Any = None,
    fields: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Finetuned:
    """Fine-tunes each seed of a finished run, or continues `out`.

    `env` is the environment to learn in, by default the run's; `data` the run's dataset, if it lies elsewhere now.
    `fields` sets fields of `itrpo.online.finetune.Config` by name, e.g. {"steps": 100_000}. `console` None: progress
    goes to standard output. Raises InputError before any long work, DivergenceError if a seed blows up, StorageError.
    """
    folder, console = Path(run), console or make_console()
    about = recorded(folder)
    algorithm = about["config"]["algorithm"]
    if algorithm not in WEIGHT:
        raise InputError(f"{folder} is a run of {algorithm}; these can be fine-tuned: {', '.join(WEIGHT)}")
    config = continuing.read_parent(folder, algorithm)
    env_id = users_env(env) if env is not None else config.data.env
    if env_id is None or env_id == "none":
        raise InputError(f"{folder} was trained without an environment; name one with --env")
    own = override(Config(env_id, {}), dict(fields or {}), "finetune")
    check_ranges(own)
    if own.cool_to != 1 and WEIGHT[algorithm] is None:
        raise InputError(f"cool_to: {algorithm} has no penalty whose weight could fall")
    constants = {name: value for name, _, value in leaves(config.algorithm_config)}
    if own.cool_to != 1 and constants.get("divergence_target") is not None:
        raise InputError(
            f"cool_to: alpha adapts in {folder}, to a D_KL of {constants['divergence_target']:g}, and goes on doing "
            "so; only a constant weight can fall"
        )
    if own.refit_rate is not None and algorithm not in REFITTED:
        raise InputError(f"refit_rate: {algorithm} asks no pi_beta for its density; that does: {', '.join(REFITTED)}")
    policies = load_policies(folder)
    allow(env_id)
    spaces, first = spaces_of(env_id), policies[0]
    check_sizes(env_id, spaces, spec_of(first), str(folder))
    if first.stack > 1:
        raise InputError(f"{folder} was trained with --stack {first.stack}; such policies can't be fine-tuned yet")
    if not same_bounds(spaces, first.action_low, first.action_high):
        raise InputError(f"{folder}: its actions are on another scale than those of {env_id}")
    files.check_may_write(Path(out))
    dataset = read_data(folder, config, data, console)
    xla.prepare()
    setting = make_setting(folder, config, about, dataset, spaces, own, first)
    act = jax.jit(partial(action_of, setting.algorithm, own, setting.preprocess))
    programs = Programs(act, make_step(setting, own))
    with stop_on_signal(console) as signals:
        curves = [
            finetune_seed(setting, programs, Path(out), k, policies[k], signals, console) for k in range(len(policies))
        ]
    return Finetuned(Path(out), curves)


def read_data(folder: Path, config: RunConfig, data: Any, console: Console) -> Dataset:
    """The run's own. Raises InputError for another."""
    about = read_provenance(folder)
    known = source_again(about) if data is None else data
    if known is None:
        raise InputError(f"{folder} was trained on {about['dataset']['name']}, which has no file; give data")
    dataset = load_again(known, to_json(config.data), config.data.holdout or 0.0, console)
    if dataset.source.sha256 != about["dataset_sha256"]:
        raise InputError(f"{dataset.name} is not the data of {folder} (SHA-256 differs); give that with --data")
    return dataset


class Setting(NamedTuple):
    """What the seeds share."""

    algorithm: Algorithm
    weighed: Callable[[Any], Algorithm]  # the same with the penalty's weight times a share
    arrays: Mapping[str, np.ndarray]  # of the run's checkpoint
    offline: Transition  # as training sees them
    preprocess: Preprocess
    spaces: Spaces
    config: Config
    parent: dict[str, Any]
    some_behavior: Any  # params of pi_beta's model of the right shapes; None without one
    refit: DensityModel | None  # pi_beta, where it goes on being fitted
    first_step: int  # gradient steps of the run: warm-ups are over
    seeds: int
    dataset: str
    by_length: bool  # what a step does depends on how many there will be
    about: dict[str, Any]  # the run's data, for provenance.json: what they are, and how they are read


class Programs(NamedTuple):
    """Compiled once for all seeds."""

    act: Callable[..., Array]  # of `action_of`
    one_step: Callable[..., Learner]  # of `make_step`


def make_setting(
    folder: Path,
    config: RunConfig,
    about: Mapping[str, Any],
    dataset: Dataset,
    spaces: Spaces,
    own: Config,
    policy: Policy,
) -> Setting:
    entry = registry.algorithm(config.algorithm)
    behavior, refit = behavior_of(config, dataset.spec, about["behavior_steps"]), None
    if behavior is not None and own.refit_rate is not None:
        steady = replace_leaves(config.behavior_config, {"fit_learning_rate": own.refit_rate})
        refit = behavior_of(dataclasses.replace(config, behavior_config=steady), dataset.spec, NO_DROP)
        assert isinstance(refit, DensityModel)  # those of REFITTED ask it for densities
    constants = scaled_config(config, about["begun_steps"])
    scheduled = "schedule_steps" in {name for name, _, _ in leaves(constants)}
    if scheduled:  # IQL's cosine falls once more, over these updates
        constants = replace_leaves(constants, {"schedule_steps": own.steps * own.updates_per_step})
    name = WEIGHT[config.algorithm]
    weight = 0.0 if name is None else next(value for it, _, value in leaves(constants) if it == name)

    def weighed(share: Any) -> Algorithm:
        changed = constants if name is None else replace_leaves(constants, {name: weight * share})
        return entry.make(changed, dataset.spec, behavior)

    place = continuing.newest(folder)
    assert place is not None  # `read_parent` has seen it
    saved = files.read_json(place / "meta.json")
    parent = {
        "run": policy.metadata["run"],
        "algorithm": config.algorithm,
        "checkpoint_sha256": saved["sha256"],
        "dataset_sha256": dataset.source.sha256,
    }
    data = config.data
    empty = np.zeros(0, np.float32)  # ranges are the policy file's own
    preprocess = Preprocess(
        policy.observation_mean, policy.observation_std, empty, empty, data.reward_scale, data.reward_shift
    )
    return Setting(
        algorithm=entry.make(constants, dataset.spec, behavior),
        weighed=weighed,
        arrays=continuing.arrays_at(folder, str(parent["checkpoint_sha256"])),
        offline=apply(preprocess, dataset.transitions),
        preprocess=preprocess,
        spaces=spaces,
        config=own,
        parent=parent,
        some_behavior=None if behavior is None else behavior.params(behavior.init(jax.random.key(0))),
        refit=refit,
        first_step=saved["step"],
        seeds=about["config"]["train"]["seeds"],
        dataset=dataset.name,
        by_length=scheduled or own.cool_to != 1,
        about={"dataset": read_provenance(folder)["dataset"], "data": to_json(config.data)},
    )


# --- one seed ------------------------------------------------------------------------------------------------------


class Learner(NamedTuple):
    """What is on the device between two steps."""

    state: Any
    buffer: Transition  # the offline rows, then a place for each step
    sums: Any
    count: Any
    fit: Any = ()  # state of pi_beta's fit, where it goes on


class Saved(NamedTuple):
    """What a checkpoint holds besides its number of steps; the rows are in rows.bin."""

    state: Any
    sums: Any
    count: Any
    episodes: Any
    begun: Any
    fit: Any = ()


@dataclass
class Trainer:
    """One seed between two steps."""

    setting: Setting
    config: Config
    index: int
    folder: RunFolder
    old: Policy  # of the run that is fine-tuned
    learner: Learner
    programs: Programs
    keys: Array  # [streams]
    environments: Environments
    rows: io.FileIO
    step: int
    curve: list[dict[str, Any]]
    online: list[float]  # returns of the episodes that have ended while learning
    so_far: float  # return of the one that goes on


def finetune_seed(
    setting: Setting,
    programs: Programs,
    out: Path,
    index: int,
    old: Policy,
    signals: list[int],
    console: Console,
) -> list[dict[str, Any]]:
    """-> the rows of the seed's curve. Raises as `finetune`, KeyboardInterrupt after a signal."""
    config = dataclasses.replace(setting.config, parent=setting.parent | {"seed": index})
    folder = RunFolder(out / f"seed{index}")
    with folder.lock():
        folder.begin_or_continue(
            "finetune",
            to_json(config),
            console,
            reader="itrpo evaluate",
            free=() if setting.by_length else ("steps",),
            least={"steps": int(folder.reached().get("step", 0))},
            about={"dataset_sha256": setting.parent["dataset_sha256"], **setting.about},
        )
        pool = rollout.make_pool(config.env_id, 1, config.episodes)
        with closing(pool):
            trainer = open_trainer(setting, programs, config, index, folder, old, console)
            try:
                with trainer.rows:
                    train_steps(trainer, pool, signals, console)
            finally:
                trainer.environments.close()
    return trainer.curve


def open_trainer(
    setting: Setting,
    programs: Programs,
    config: Config,
    index: int,
    folder: RunFolder,
    old: Policy,
    console: Console,
) -> Trainer:
    """A fresh one, or what the folder's newest checkpoint and rows hold. Raises StorageError."""
    spec = setting.spaces.vectors
    root = jax.random.fold_in(jax.random.key(config.seed), index)
    keys = jnp.stack([jax.random.fold_in(root, stream) for stream in (INIT, ACT, UPDATE)])
    begun = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), initial(setting, index, keys[INIT]))
    fit = () if setting.refit is None else fit_from(setting.refit, begun.behavior_params)
    names = metric_names(setting, begun, fit)
    fresh = {name: jnp.zeros(()) for name in names}, jnp.zeros(())
    none, saved = np.zeros(1, np.int32), folder.newest(console)
    start = Saved(begun, *fresh, none, none, fit)
    step = 0
    if saved is not None:
        step, start = saved.step, folder.restored(saved, jax.tree.map(as_shape, start))
    path = folder.path / ROWS
    history = rows_until(path, row_type(spec), step, 1)
    seed = int(np.random.SeedSequence([config.seed, index]).generate_state(1)[0])
    environments = open_environments(
        config.env_id, seed, setting.spaces, np.array(start.episodes), np.array(start.begun), history
    )
    online, so_far = returns_of(history[:, 0])
    buffer = filled(setting, config, history[:, 0])
    learner = Learner(start.state, buffer, start.sums, start.count, start.fit)
    with files.storage_errors(path):
        rows = files.open_log(path, history.nbytes)  # without what a killed run wrote after its checkpoint
    curve = [row for row in read_curve(folder.path) if row["step"] <= step]
    return Trainer(
        setting=setting,
        config=config,
        index=index,
        folder=folder,
        old=old,
        learner=learner,
        programs=programs,
        keys=keys,
        environments=environments,
        rows=rows,
        step=step,
        curve=curve,
        online=online,
        so_far=so_far,
    )


def as_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def initial(setting: Setting, index: int, key: Array) -> Any:
    """The run's state [1, ...] with fresh optimisers, as SPOT's at the change (CORL). pi_beta is the run's."""
    fresh = jax.tree.map(
        lambda leaf: np.asarray(leaf)[None], jax.jit(setting.algorithm.init)(key, setting.some_behavior)
    )
    return continuing.carried(fresh, setting.arrays, range(index, index + 1), "the run", anew=())


def fit_from(model: DensityModel, params: Any) -> Any:
    """The state of a fit that goes on from `params`: a fresh optimiser, and an entropy floor that does not push yet."""
    fit = model.init(jax.random.key(0))
    fit = fit._replace(policy=fit.policy._replace(params=jax.tree.map(jnp.array, params)))  # a copy: a step donates it
    if not hasattr(fit, "multiplier"):  # flows have no such floor
        return fit
    return fit._replace(multiplier=fit.multiplier._replace(params=jnp.zeros_like(fit.multiplier.params)))


def returns_of(rows: np.ndarray) -> tuple[list[float], float]:
    """Returns of the episodes that have ended in rows [N], and of the one that has not."""
    ended, total = list[float](), 0.0
    for reward, terminal, timeout in zip(rows["reward"], rows["terminal"], rows["timeout"], strict=True):
        total += float(reward)
        if terminal or timeout:
            ended.append(total)
            total = 0.0
    return ended, total


# --- steps ---------------------------------------------------------------------------------------------------------


def action_of(
    algorithm: Algorithm, config: Config, preprocess: Preprocess, state: Any, raw: Array, key: Array
) -> Array:
    """Raw observation [O] -> action [A] in [-1, 1]: a sample, or that of a deterministic policy and noise."""
    observation = ((raw - preprocess.observation_mean) / preprocess.observation_std)[None]
    act_key, noise_key = jax.random.split(key)
    action = algorithm.acting.act(state, observation, act_key, False)[0]
    if algorithm.acting.log_prob is None:
        noise = jax.random.normal(noise_key, action.shape)
        action = td.smoothed_action(action, noise, config.action_noise, NOISE_LIMIT)
    return action


def as_transition(preprocess: Preprocess, rows: np.ndarray) -> Transition:
    """Rows of rows.bin [N] as training sees them. Nothing here asks for the next action, which is not known."""
    raw = Transition(
        rows["observation"],
        rows["action"],
        rows["reward"],
        1 - rows["terminal"].astype(np.float32),
        rows["next_observation"],
        np.zeros_like(rows["action"]),
    )
    return apply(preprocess, raw)


def filled(setting: Setting, config: Config, past: np.ndarray) -> Transition:
    """The buffer after the steps `past` [N]."""
    empty = np.zeros(config.steps, row_type(setting.spaces.vectors))
    empty[: len(past)] = past
    online = as_transition(setting.preprocess, empty)
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)), setting.offline, online)


def drawn_rows(key: Array, config: Config, batch_size: int, offline: int, step: Any) -> Array:
    """Places [batch_size] of a batch in the buffer after `step` steps, at least 1."""
    if config.offline_share is None:
        return jax.random.randint(key, (batch_size,), 0, offline + step)
    old_key, new_key = jax.random.split(key)
    old = round(config.offline_share * batch_size)
    return jnp.concatenate(
        [
            jax.random.randint(old_key, (old,), 0, offline),
            offline + jax.random.randint(new_key, (batch_size - old,), 0, step),
        ]
    )


def make_step(setting: Setting, config: Config) -> Callable[..., Learner]:
    """-> one_step(learner, key, row [1], step): puts a step's row into the buffer and does the updates that follow it.

    It consumes its learner.
    """
    offline, size = len(setting.offline.reward), setting.algorithm.batch_size

    @partial(jax.jit, donate_argnums=0)
    def one_step(learner: Learner, key: Array, row: Transition, step: Array) -> Learner:
        put = lambda held, new: jax.lax.dynamic_update_slice_in_dim(held, new, offline + step, 0)  # noqa: E731
        buffer = jax.tree.map(put, learner.buffer, row)
        share = jnp.maximum(config.cool_to, 1.0 - step / config.steps)
        algorithm = setting.algorithm if config.cool_to == 1 else setting.weighed(share)
        state, sums, count, fit = learner.state, learner.sums, learner.count, learner.fit
        for number in range(config.updates_per_step):
            total = step * config.updates_per_step + number
            rows_key, update_key = jax.random.split(jax.random.fold_in(key, total))
            places = drawn_rows(rows_key, config, size, offline, step + 1)
            batch = jax.tree.map(lambda held, at=places: held[at], buffer)
            fit_key = jax.random.fold_in(rows_key, 2)  # the first two are spent on places
            state, fit, of_fit = refitted(setting.refit, state, fit, batch, fit_key)
            state, metrics = algorithm.update(state, batch, update_key, setting.first_step + total)
            metrics = metrics | of_fit
            sums = {name: sums[name] + metrics[name] for name in sums}
            count = count + 1.0
        return Learner(state, buffer, sums, count, fit)

    return one_step


def refitted(
    model: DensityModel | None, state: Any, fit: Any, batch: Transition, key: Array
) -> tuple[Any, Any, Metrics]:
    """The algorithm's state with pi_beta after a step of its fit on the batch; without a model, all as it was."""
    if model is None:
        return state, fit, {}
    fit, metrics = model.fit_step(fit, batch, key)
    return state._replace(behavior_params=model.params(fit)), fit, metrics


def metric_names(setting: Setting, state: Any, fit: Any) -> list[str]:
    size, key = setting.algorithm.batch_size, jax.random.key(0)
    batch = jax.tree.map(lambda it: jax.ShapeDtypeStruct((size, *it.shape[1:]), it.dtype), setting.offline)
    _, metrics = jax.eval_shape(setting.algorithm.update, state, batch, key, jnp.zeros((), jnp.int32))
    of_fit = jax.eval_shape(partial(refitted, setting.refit), state, fit, batch, key)[2]
    return sorted({*metrics, *of_fit})


def train_steps(trainer: Trainer, pool: rollout.EvaluationPool, signals: list[int], console: Console) -> None:
    """Steps until all are done, with evaluations, policies and checkpoints between them."""
    config, setting = trainer.config, trainer.setting
    if not trainer.curve:
        record(trainer, pool)
        save(trainer)
    saved_at = time.monotonic()
    with LiveLine(console, f"finetuning seed {trainer.index}", config.steps, 1, trainer.step) as live:
        while trainer.step < config.steps:
            key = jax.random.fold_in(trainer.keys[ACT], trainer.step)
            observation = trainer.environments.observations[0]
            action = np.asarray(trainer.programs.act(trainer.learner.state, observation, key))
            if not np.isfinite(action).all():
                raise DivergenceError(f"seed {trainer.index}: the action at step {trainer.step:,} is not finite")
            rows = trainer.environments.step(trainer.step, action[None], np.full(1, np.nan, np.float32))
            with files.storage_errors(trainer.folder.path / ROWS, "; the checkpoint is intact"):
                files.add(trainer.rows, rows.tobytes())
            row, place = as_transition(setting.preprocess, rows), np.int32(trainer.step)
            trainer.learner = trainer.programs.one_step(trainer.learner, trainer.keys[UPDATE], row, place)
            trainer.step += 1
            trainer.so_far += float(rows["reward"][0])
            if rows["terminal"][0] or rows["timeout"][0]:
                trainer.online.append(trainer.so_far)
                trainer.so_far = 0.0
            due = trainer.step % config.every == 0 or trainer.step == config.steps
            if due:
                record(trainer, pool)
            if due or signals or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                save(trainer)
                saved_at = time.monotonic()
            if due or trainer.step % 100 == 0:
                live.update(trainer.step, {"return": trainer.curve[-1]["return"]}, evaluated=due)
            if signals:
                raise KeyboardInterrupt(f"stopped at step {trainer.step:,}; the same command continues from there")


def save(trainer: Trainer) -> None:
    """Raises StorageError."""
    learner, environments, path = trainer.learner, trainer.environments, trainer.folder.path / ROWS
    with files.storage_errors(path):
        files.sync(path)  # a checkpoint must not know of rows that a power cut takes
    begun, episodes = environments.begun, environments.episodes
    state = Saved(learner.state, learner.sums, learner.count, episodes, begun, learner.fit)
    trainer.folder.save("train", trainer.step, state, {"env_id": trainer.config.env_id})


def record(trainer: Trainer, pool: rollout.EvaluationPool) -> None:
    """Exports the policy, plays it, and adds a row to the curve; losses in it are means since the last multiple of
    `every`: a run that ends elsewhere may be given more steps.
    """
    config, old, path = trainer.config, trainer.old, trainer.folder.path / "policy.npz"
    export = trainer.setting.algorithm.acting.export(trainer.learner.state)
    if not all(np.isfinite(it).all() for name, it in export.items() if name != "kind"):
        raise DivergenceError(f"seed {trainer.index}: the policy is not finite at step {trainer.step:,}")
    reference = reference_of(old, config.env_id)
    kept = {key: it for key, it in old.metadata.items() if key != "reference" or reference is not None}
    step = old.metadata["step"] + trainer.step * config.updates_per_step  # evaluations and judgements know it by that
    about = kept | {"env_id": config.env_id, "itrpo": itrpo.__version__, "step": step, "finetuned_steps": trainer.step}
    save_policy(path, export, old.observation_mean, old.observation_std, old.action_low, old.action_high, about)
    act = rollout.acting([load_policy(path)])
    returns = rollout.evaluate(pool, act, config.seed, trainer.step, [trainer.index]).returns[0]
    row: dict[str, Any] = {"step": trainer.step, "return": float(returns.mean()), "return_std": float(returns.std())}
    score = normalized_score(config.env_id, returns.mean(), reference)
    earlier = [it for it in trainer.curve if it["step"] > 0]
    if score is not None:
        row["score"] = float(score)
        if trainer.step > 0:
            row["regret"] = regret([it["score"] for it in earlier] + [row["score"]])
    if trainer.online:
        row |= {"online_episodes": len(trainer.online), "online_return": float(np.mean(trainer.online))}
        scores = normalized_score(config.env_id, np.array(trainer.online), reference)
        if scores is not None:
            row["online_regret"] = regret(scores.tolist())
    if trainer.step:
        row |= {name: float(value / trainer.learner.count) for name, value in trainer.learner.sums.items()}
    trainer.curve.append(row)
    write_curve(trainer.folder.path, trainer.curve)
    write_together(trainer.setting, trainer.folder.path.parent, reference)
    if trainer.step % config.every == 0:
        zeros = jax.tree.map(jnp.zeros_like, (trainer.learner.sums, trainer.learner.count))
        trainer.learner = trainer.learner._replace(sums=zeros[0], count=zeros[1])


def write_together(setting: Setting, out: Path, reference: Reference | None) -> None:
    """What all seeds have reached, as the files of a run. Raises StorageError."""
    config = to_json(dataclasses.replace(setting.config, parent=setting.parent))
    same = json.dumps({name: it for name, it in config.items() if name != "steps"}, sort_keys=True)
    run = hashlib.sha256(same.encode()).hexdigest()[:8]
    curves = [read_curve(out / f"seed{index}") for index in range(setting.seeds)]
    rows = [
        Row(run, index, row["step"], name, value)
        for index, curve in enumerate(curves)
        for row in curve
        for name, value in row.items()
        if name != "step"
    ]
    step = min(curve[-1]["step"] if curve else 0 for curve in curves)
    status = Status(
        run=run,
        algorithm=f"{setting.parent['algorithm']}, online",
        dataset=setting.dataset,
        env_id=setting.config.env_id,
        seeds=setting.seeds,
        episodes=setting.config.episodes,
        step=step,
        steps=setting.config.steps,
        state="finished" if step == setting.config.steps else "unfinished",
        reference=reference,
    )
    files.write(out / METRICS, "".join(map(row_to_json, rows)).encode())
    files.write(out / PROVENANCE, (out / "seed0" / PROVENANCE).read_bytes())
    files.write_json(out / CONFIG, {"finetune": config})
    files.write_json(out / STATUS, status._asdict())


def regret(scores: list[float]) -> float:
    """Mean of 1 - score / 100, the score cut to [0, 100]: CORL's cumulative regret, of finetune/cql.py; 0 is best."""
    return float(np.mean(1 - np.clip(np.array(scores) / 100, 0, 1)))
