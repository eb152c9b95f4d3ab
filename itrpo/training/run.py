"""One run, from a complete configuration to trained, evaluated and saved policies.

The same call on the same folder continues it, to the same bits. What its folder holds: `results.schema`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from itrpo import registry, xla
from itrpo.config import RunConfig, config_hash, to_json
from itrpo.console import LiveLine
from itrpo.errors import DivergenceError, InputError, ItrpoError
from itrpo.evaluation.beside import Evaluated, Evaluations
from itrpo.evaluation.environments import normalized_score
from itrpo.plotting import learning_curve
from itrpo.policy import Policy, load_policy
from itrpo.report.aggregate import final_score
from itrpo.results.moments import add_moments, begin_moments, moments_path
from itrpo.results.run_folder import Checkpoint, RunFolder
from itrpo.results.store import METRICS, STATUS, read_metrics, read_rows, read_status
from itrpo.results.trackers import Tracker, open_tracker
from itrpo.signals import stop_on_signal
from itrpo.training import behavior_fit, continuing, divergence, loop, together, watch
from itrpo.training.added_seeds import train_all
from itrpo.training.evaluate import EVALUATED, policies_are_whole, policy_path, save_policies, start_evaluation
from itrpo.training.identity import begin_or_continue
from itrpo.training.outlook import announce, print_header
from itrpo.training.scaling import behavior_of, scaled_config
from itrpo.training.seeds import members, over_seeds, parts
from itrpo.training.session import INIT, PROBES, TRAIN, Own, Session, leaving_a_status, probe_rows, ready
from itrpo.types import Algorithm, AlgorithmEntry, BehaviorModel, Dataset, DensityModel

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    returns: np.ndarray | None  # [S]: mean of the last evaluations of each seed; None without an environment
    policies: dict[int, Policy] = field(default_factory=dict, repr=False, compare=False)  # by seed, as they are read

    def __fspath__(self) -> str:
        """Its folder: what takes the folder of a run takes the run."""
        return str(self.folder)

    def policy(self, observation: Any) -> np.ndarray:
        """The first seed's action [..., A] for observations [..., O], in the dataset's units."""
        return self.policy_of_seed(0)(observation)

    def policy_of_seed(self, index: int) -> Policy:
        """Seed `index`'s policy, from its policy.npz. Raises what `itrpo.load_policy` raises."""
        if index not in self.policies:
            self.policies[index] = load_policy(policy_path(self.folder, index))
        return self.policies[index]


def usual_folder(config: RunConfig, dataset: Dataset) -> Path:
    """Where a run goes that is told nowhere else."""
    return Path("runs") / f"{name_in_folder(dataset)}-{registry.folder_name(config.algorithm)}-{config_hash(config)}"


def name_in_folder(dataset: Dataset) -> str:
    """A dataset's name; arrays have none, so that of theirs says which they are."""
    which = f"-{dataset.source.sha256[:8]}" if dataset.source.kind == "arrays" and dataset.source.sha256 else ""
    return dataset.name.replace("/", "-") + which


def run(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    console: Console,
    track: Sequence[str] = (),
    parent: Path | None = None,
) -> Run:
    """Trains, evaluates and saves what `config` says, or continues where its folder left off.

    `parent` is the folder of the run that this one continues: `continuing`.
    Raises InputError before any long work, DivergenceError if the run blows up, StorageError if the disk refuses.
    """
    train_together([(config, folder)], dataset, console, track, parent)
    final = final_score(read_metrics(folder))
    return Run(folder.resolve(), config, final.per_seed if final else None)


def train_together(
    wanted: Sequence[tuple[RunConfig, Path]],
    dataset: Dataset,
    console: Console,
    track: Sequence[str] = (),
    parent: Path | None = None,
) -> None:
    """Trains runs as one program (`together`), each into a folder of its own, as `run` does with one.

    Their configs differ in `together.differing` numbers alone. Those whose folders are at different steps train one
    after another. A run that diverges says so in its status, and the others go on.
    Raises DivergenceError if none goes on; otherwise as `run`.
    """
    xla.prepare()
    config = wanted[0][0]
    fields = together.differing([own for own, _ in wanted])
    if fields is None:
        raise InputError(
            "runs train together only if they differ in numbers of one algorithm's config alone, none of which decides"
            " which rows train"
        )
    entry: AlgorithmEntry = registry.algorithm(config.algorithm)
    dataset = announce([own for own, _ in wanted], dataset, console)
    with ExitStack() as stack, enough_memory():
        runs = [Own(RunFolder(path), own, hash_of(own, path)) for own, path in wanted]
        for each in runs:
            stack.enter_context(each.folder.lock())
        signals = stack.enter_context(stop_on_signal(console))
        lengths = [begin_or_continue(each.folder, each.config, dataset, console) for each in runs]
        stack.enter_context(leaving_a_status(runs, dataset))
        carried_over = None if parent is None else continuing.arrays_of(parent, config)
        print_header(config, dataset, [each.folder.path for each in runs], console)
        preprocess, data = ready(config, dataset)
        saved = [each.folder.newest(console) for each in runs]
        newest = saved[0]
        resumed_at = None if newest is None else newest.step if newest.phase == "train" else 0
        trackers = [open_tracker(name, runs[0].folder.path, to_json(config), resumed_at) for name in track]
        for tracker in trackers:
            stack.callback(tracker.close)
        groups, diverged = alike(saved, lengths, config.train.seeds), list[DivergenceError]()
        for some in groups:
            own, length = tuple(runs[place] for place in some), lengths[some[0]]
            behavior = behavior_of(config, dataset.spec, length["behavior_steps"])

            def make(given: Any, behavior: BehaviorModel | None = behavior) -> Algorithm:
                return entry.make(given, dataset.spec, behavior)

            scaled = [scaled_config(each.config, length["begun_steps"]) for each in own]
            algorithm, values, seeds = make(scaled[0]), None, range(config.train.seeds)
            if len(own) > 1:
                algorithm, values = together.swept(make, scaled[0]), together.values_of(scaled, fields, len(seeds))
            session = Session(
                own, seeds, dataset, preprocess, data, Evaluations(), console, signals, values, carried_over
            )
            phases = partial(train_phases, behavior, algorithm, length["behavior_steps"], trackers)
            try:
                with leaving_a_status(own, dataset):  # of these alone: the others' turn is over, or comes
                    train_all(session, phases, together.joined([saved[place] for place in some]))
            except DivergenceError as error:
                diverged.append(error)
                continue
            for each in own:
                learning_curve(each.folder.path, each.folder.path / "learning_curve.png")
        if len(diverged) == len(groups):
            raise diverged[0]


@contextmanager
def enough_memory() -> Generator[None]:
    """Says what to do where the device has not the memory that a run takes."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ItrpoError(
            f"there is not enough memory for this run ({reason}): give it fewer seeds at a time, or a smaller"
            " batch_size or hidden layers"
        ) from error


def hash_of(config: RunConfig, folder: Path) -> str:
    """What its rows are signed with: as when the run began, whatever the file of its data is called by now."""
    return read_status(folder).run if (folder / STATUS).exists() else config_hash(config)


def alike(saved: Sequence[Checkpoint | None], lengths: Sequence[dict[str, Any]], seeds: int) -> list[list[int]]:
    """Places of the runs that one program can train: at the same step, and as long as one another."""
    groups: dict[Any, list[int]] = {}
    for place, (own, length) in enumerate(zip(saved, lengths, strict=True)):
        at = own if own is not None and own.phase == "train" else None
        alone = None if at is None or len(at.arrays["count"]) == seeds else place  # seeds are added to it
        groups.setdefault((at and at.step, alone, *length.values()), []).append(place)
    return list(groups.values())


def train_phases(
    behavior: BehaviorModel | None,
    algorithm: Algorithm,
    fit_steps: int,
    trackers: list[Tracker],
    session: Session,
    saved: Checkpoint | None,
) -> loop.Carry:
    """Fits pi_beta, then trains, from wherever the newest checkpoint is. -> the carry at the end."""
    training = saved is not None and saved.phase == "train"
    fitted, params = None, None if behavior is None else behavior_fit.params_shapes(session, behavior)
    if not training:
        session.drop_metrics_after(-1)
    if behavior is not None and not training:
        # runs that train together differ in nothing that pi_beta depends on
        fitted = behavior_fit.behavior(session.first, behavior, fit_steps, saved).repeated(len(session.runs))
        params = fitted.params
    given = params if session.values is None else (params, session.values)
    shapes = jax.eval_shape(jax.vmap(algorithm.init), session.keys(INIT), given)
    names = loop.metric_names(algorithm.update, shapes, session.data, algorithm.batch_size)
    watching = partial(watch.begin, algorithm), probe_rows(session.data, watch.ROWS), session.keys(PROBES)
    if saved is not None and training:
        session.drop_metrics_after(saved.step)
        carry_shapes = together.unswept(jax.eval_shape(partial(loop.start, names=names), shapes))
        watched = jax.eval_shape(jax.vmap(watching[0], (0, None, 0)), shapes, *watching[1:])
        carry = session.folder.restored(saved, carry_shapes._replace(watched=watched))
        carry = together.with_values(carry, session.values)
        due = saved.step == session.config.train.steps or saved.step % session.config.evaluation.eval_every == 0
        if saved.step and due and not policies_are_whole(session, saved.step):  # someone's hand, or a disk
            save_policies(session, [algorithm.acting.export(own) for own in members(carry.state)], saved.step)
        if saved.step or behavior is not None:
            evaluate_what_is_saved(session, saved.step, trackers if saved.step else [])  # as in `begin`
        return train_algorithm(session, algorithm, names, carry, saved.step, trackers)
    state = over_seeds(algorithm.init, [True, True])(session.keys(INIT), given)
    if session.parent is not None:
        relative = continuing.is_relative(session.config)
        state = continuing.carried(state, session.parent, session.seeds, "the run that is continued", relative=relative)
    carry = loop.start(state, names)
    carry = carry._replace(watched=over_seeds(watching[0], [True, False, True])(carry.state, *watching[1:]))
    begin(session, behavior, fitted, jax.device_get(carry))
    return train_algorithm(session, algorithm, names, carry, 0, trackers)


def begin(session: Session, behavior: BehaviorModel | None, fitted: behavior_fit.Fit | None, carry: loop.Carry) -> None:
    """Writes what is known of pi_beta, and the checkpoint that training begins from; then plays pi_beta."""
    if has_path(carry):
        of_behavior = None
        if isinstance(behavior, DensityModel) and behavior.moments is not None and fitted is not None:
            observation = probe_rows(session.data, watch.ROWS).observation
            of_behavior = jax.device_get(over_seeds(behavior.moments, [True, False])(fitted.params, observation))
        for (run, index), own in zip(session.members, parts((carry.watched.evaluated, of_behavior)), strict=True):
            begin_moments(moments_path(run.folder.path, index), *own)
    if behavior is not None and fitted is not None:
        session.append_metrics(0, fitted.metrics)
        if session.env_id is not None:
            save_policies(session, [behavior.export(own) for own in members(fitted.params)], 0)
    session.save("train", 0, carry)
    if behavior is not None:
        evaluate_what_is_saved(session, 0, [])


def has_path(carry: loop.Carry) -> bool:
    """Whether the policy's moments are kept: those of a Gaussian are."""
    return bool(carry.watched) and len(carry.watched.evaluated) == 2


def evaluate_what_is_saved(session: Session, step: int, trackers: list[Tracker]) -> None:
    """Begins the evaluation of a checkpoint's step if its rows are not there: the run ended before it did."""
    if session.env_id is None or all(evaluated_at(run.folder.path, step, session) for _, run, _ in session.going_on):
        return
    prefix = "behavior_" if step == 0 else ""
    for _, run, _ in session.going_on:
        run.folder.keep_metrics(lambda row: row.step < step or row.metric.removeprefix(prefix) not in EVALUATED)
    paths = [policy_path(run.folder.path, index) for run, index in session.members]
    if not policies_are_whole(session, step):
        return

    def write(returns: dict[str, np.ndarray], evaluated: Evaluated) -> None:
        session.append_metrics(step, {prefix + name: values for name, values in returns.items()})
        for tracker in trackers:
            tracker.log(step, returns, session.seeds)

    start_evaluation(session, paths, step, write)


def evaluated_at(folder: Path, step: int, session: Session) -> bool:
    """Whether the last row of the evaluation is there."""
    scored = normalized_score(session.config.data.env, 0.0, session.dataset.reference) is not None
    last = EVALUATED[-1 if scored else -2]
    wanted = ("behavior_" if step == 0 else "") + last
    rows = read_rows(folder / METRICS) if (folder / METRICS).exists() else []
    return any((row.step, row.seed, row.metric) == (step, session.seeds[-1], wanted) for row in rows)


def train_algorithm(
    session: Session, algorithm: Algorithm, names: list[str], carry: loop.Carry, step: int, trackers: list[Tracker]
) -> loop.Carry:
    """From `step` to the end: blocks of updates, and between them probes, policies, evaluations, rows, checkpoints."""
    config, data = session.config, session.data
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    limits = divergence.limits(names, algorithm.value_metric, config.train, data.reward)
    seed_keys = session.keys(TRAIN)
    probe = over_seeds(algorithm.probes, [True, False, True])
    probe_batch, probe_keys = probe_rows(data), session.keys(PROBES)
    watched_rows, watching = probe_rows(data, watch.ROWS), algorithm.watch is not None
    look_once = over_seeds(partial(watch.look, algorithm), [True, True, False, True])
    measure = over_seeds(watch.measure, [True, False])

    def run_block(carry: loop.Carry, start: int, stop: int) -> loop.Carry:
        trained = block(carry._replace(watched=()), data, seed_keys, limits, start, stop)
        return trained._replace(watched=carry.watched)

    def look(carry: loop.Carry) -> loop.Carry:
        return carry._replace(watched=look_once(carry.watched, carry.state, watched_rows, probe_keys))

    title = f"training {config.algorithm}"
    with LiveLine(session.console, title, config.train.steps, len(session.seeds), step) as live:
        started = time.perf_counter()
        carry = run_block(carry, step, step)  # no step: this compiles, as do the next lines, whose results are dropped
        unused = [carry.count, probe(carry.state, probe_batch, probe_keys)]
        if watching:
            unused += [look(carry).watched, measure(carry.watched, 0)]
        jax.block_until_ready(unused)
        compile_seconds = time.perf_counter() - started
        while step < config.train.steps:
            every = config.evaluation.eval_every
            stop = min((step // every + 1) * every, config.train.steps)
            started, first, waited = time.perf_counter(), step, session.evaluations.waited
            begun = step - int(np.asarray(carry.count)[0])
            looks = watch.steps(begun, stop) if watching else []
            carry = session.advance("train", run_block, carry, step, stop, live, look, looks)
            step, trained = stop, time.perf_counter()
            train_seconds = trained - started - (session.evaluations.waited - waited)
            metrics: dict[str, Any] = {name: np.asarray(carry.sums[name] / carry.count) for name in names}
            metrics |= probe(carry.state, probe_batch, probe_keys)
            watched = carry.watched
            if watching:
                lags = watch.lags_since(begun, stop)
                watched, more = measure(carry.watched, lags)
                metrics |= watch.measured(more, lags)
            if step % every == 0:  # what is measured up to here is; a run that ends elsewhere may be given more steps
                carry = loop.fresh_sums(carry)._replace(watched=watched)
            paths = save_policies(session, [algorithm.acting.export(own) for own in members(carry.state)], step)
            write_step(session, step, metrics, *jax.device_get((carry, watched)))
            timing = {
                "step": step,
                "seeds": len(session.seeds),
                "compile_seconds": compile_seconds,
                "train_seconds": train_seconds,
                "steps_per_second": (step - first) / train_seconds,
                "waited_seconds": time.perf_counter() - trained,
            }
            start_evaluation(session, paths, step, partial(write_evaluation, session, trackers, live, metrics, timing))
        session.evaluations.settle()
    session.write_status(step, "finished")
    return carry


def write_step(session: Session, step: int, metrics: dict[str, Any], carry: loop.Carry, watched: Any) -> None:
    """Writes all about a step but its evaluation: rows, and then the checkpoint that knows of them.

    `watched` is as of this step, which that of a `carry` between two evaluations is not.
    """
    session.append_metrics(step, metrics)
    if has_path(carry):
        moments = parts(watched.evaluated)
        for _, run, own in session.going_on:
            for index, newest in zip(session.seeds, moments[own], strict=True):
                add_moments(moments_path(run.folder.path, index), step, newest)
    session.save("train", step, carry)
    session.write_status(step, "unfinished")


def write_evaluation(
    session: Session,
    trackers: list[Tracker],
    live: LiveLine,
    metrics: dict[str, Any],
    timing: dict[str, Any],
    returns: dict[str, np.ndarray],
    evaluated: Evaluated,
) -> None:
    """Writes what a step's evaluation measured, once it is over."""
    step, metrics = timing["step"], metrics | returns
    session.append_metrics(step, returns)
    for tracker in trackers:
        tracker.log(step, {name: np.asarray(values) for name, values in metrics.items()}, session.seeds)
    # how long it was played beside training, and how long training stood still for it and for what is written
    timing["evaluation_seconds"] = evaluated.seconds
    timing["waited_seconds"] += time.perf_counter() - evaluated.waited_since
    session.append_timing(timing | {"peak_memory_bytes": peak_memory()})
    live.update(step, shown(metrics), evaluated=True)


def shown(metrics: dict[str, Any]) -> dict[str, float]:
    """The few metrics of the live line, as means over seeds."""
    order = ("score", "return", "critic_loss", "policy_loss", "kl", "behavior_nll")
    names = [name for name in order if name in metrics and not (name == "return" and "score" in metrics)]
    return {name: float(np.mean(np.asarray(metrics[name]))) for name in names}


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
