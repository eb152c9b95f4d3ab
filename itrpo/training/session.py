"""What the phases of one run share, and how each of them goes from step to step."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo.config import RunConfig
from itrpo.console import LiveLine
from itrpo.data.preprocess import Preprocess, apply, fit_preprocess, kept_preprocess
from itrpo.errors import DivergenceError, InputError, ItrpoError, StorageError
from itrpo.evaluation.beside import Evaluations
from itrpo.results.run_folder import CHECKPOINT_SECONDS, RunFolder
from itrpo.results.schema import Row, State, Status
from itrpo.results.store import STATUS, read_status
from itrpo.training import loop
from itrpo.training.divergence import divergence
from itrpo.training.together import Values, unswept
from itrpo.types import Dataset, Transition

if TYPE_CHECKING:
    from rich.console import Console

# streams of randomness of one seed: fold_in(fold_in(key(seed), index of the seed), STREAM)
INIT_BEHAVIOR, FIT_BEHAVIOR, INIT, TRAIN, PROBES = range(5)
PROBE_ROWS = 1024  # fixed rows of the dataset on which probes are measured
TICK_SECONDS = 1.0  # between two looks at the clock and at Ctrl-C


class Own(NamedTuple):
    """What each of a session's runs has for itself."""

    folder: RunFolder
    config: RunConfig
    run_hash: str


@dataclass(frozen=True)
class Session:
    """Usually of one run; or of several that train as one program (`together`), each with the same seeds.

    [S] are all of their seeds: those of the first run, then those of the second, ...
    """

    runs: tuple[Own, ...]  # configs differ in numbers of the algorithm's config alone
    seeds: range  # indices of the seeds that train here: all of a run's, or those that are added to it
    dataset: Dataset
    preprocess: Preprocess
    data: Transition  # on the device
    evaluations: Evaluations  # of these seeds; the one that goes on is settled before anything is written
    console: Console
    signals: list[int]  # received so far: Ctrl-C, or a request to terminate
    values: Values | None = None  # [S]: the numbers in which several runs differ
    parent: Mapping[str, np.ndarray] | None = None  # arrays of the run that this one continues
    diverged: dict[int, str] = field(default_factory=dict[int, str])  # which of several runs has, and the message

    @property
    def folder(self) -> RunFolder:
        """Of the first run."""
        return self.runs[0].folder

    @property
    def config(self) -> RunConfig:
        """Of the first run: but for the numbers that differ, of all."""
        return self.runs[0].config

    @property
    def first(self) -> Session:
        """Of the first run alone."""
        return replace(self, runs=self.runs[:1], values=None, diverged={})

    @property
    def members(self) -> list[tuple[Own, int]]:
        """[S]: run and index of the seed."""
        return [(run, index) for run in self.runs for index in self.seeds]

    @property
    def going_on(self) -> list[tuple[int, Own, slice]]:
        """The runs that have not diverged: place, run, and where its seeds are among [S]."""
        size = len(self.seeds)
        return [
            (place, run, slice(place * size, (place + 1) * size))
            for place, run in enumerate(self.runs)
            if place not in self.diverged
        ]

    @property
    def env_id(self) -> str | None:
        return None if self.config.data.env == "none" else self.config.data.env

    def keys(self, stream: int) -> Array:
        """[S] random keys of one stream."""
        root = jax.random.key(self.config.train.seed)
        indices = jnp.asarray([index for _, index in self.members])
        by_seed = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, indices)
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(by_seed, stream)

    def require_folders(self) -> None:
        """Raises StorageError if one of the runs' folders was deleted."""
        for _, run, _ in self.going_on:
            run.folder.require()

    def append_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: name -> [S]. Raises StorageError."""
        self.require_folders()
        for _, run, own in self.going_on:
            run.folder.append_metrics(
                Row(run.run_hash, index, step, name, float(value))
                for name, values in metrics.items()
                for index, value in zip(self.seeds, np.asarray(values)[own], strict=True)
            )

    def drop_metrics_after(self, step: int) -> None:
        for _, run, _ in self.going_on:
            run.folder.drop_metrics_after(step)

    def append_timing(self, record: Mapping[str, Any]) -> None:
        """Raises StorageError."""
        for _, run, _ in self.going_on:
            run.folder.append_timing(record)

    def write_status(self, step: int, state: State, message: str = "") -> None:
        """Of the runs that go on. Raises StorageError."""
        for _, run, _ in self.going_on:
            self.write_status_of(run, step, state, message)

    def write_status_of(self, run: Own, step: int, state: State, message: str) -> None:
        begun = status_at_start(run, self.dataset, len(self.seeds))
        run.folder.write_status(begun._replace(step=step, state=state, message=message))

    def save(self, phase: str, step: int, carry: loop.Carry) -> None:
        """Writes a checkpoint of each run, as if it had trained alone. Raises StorageError."""
        plain = unswept(carry)
        for _, run, own in self.going_on:
            meta = {"run": run.run_hash, "dataset_sha256": self.dataset.source.sha256, "seeds": len(self.seeds)}
            part = plain if len(self.runs) == 1 else jax.tree.map(lambda leaf, own=own: leaf[own], plain)
            run.folder.save(phase, step, part, meta)

    def check(self, phase: str, step: int, carry: loop.Carry) -> None:
        """Settles an evaluation, and writes it into the status of a run that has diverged since.

        Raises DivergenceError if no run goes on, StorageError if a folder was deleted.
        """
        self.require_folders()
        self.evaluations.settle()
        plain = jax.device_get(unswept(carry).state)
        for place, run, own in self.going_on:
            bad = {name: np.asarray(steps)[own] for name, steps in carry.first_bad.items()}
            state = jax.tree.map(lambda leaf, own=own: leaf[own], plain)
            message = divergence(bad, self.seeds, run.folder.checkpoints, state, step)
            if message is not None:
                self.give_up(place, step if phase == "train" else 0, message)

    def give_up(self, place: int, step: int, message: str) -> None:
        """Writes into the status of a run that it has diverged. Raises DivergenceError if no other goes on."""
        self.write_status_of(self.runs[place], step, "diverged", message)
        self.diverged[place] = message
        if len(self.diverged) == len(self.runs):
            raise DivergenceError(next(iter(self.diverged.values())))

    def advance(
        self,
        phase: str,
        run_block: Any,
        carry: loop.Carry,
        step: int,
        stop: int,
        live: LiveLine,
        look: Callable[[loop.Carry], loop.Carry] | None = None,
        looks: Sequence[int] = (),
    ) -> loop.Carry:
        """`carry` from `step` to `stop`, in pieces of about a second so that Ctrl-C and the live line get a
        look in. `look` sees it, and may change what is watched, after each of the steps `looks`.

        The pieces change no bit. On a GPU nothing but an occasional checkpoint leaves the device.
        Raises DivergenceError, and KeyboardInterrupt once a checkpoint is written after a signal.
        """
        size, saved_at = 1, time.monotonic()
        while step < stop:
            piece = min(size, min((it for it in looks if it > step), default=stop) - step)
            started = time.monotonic()
            carry = run_block(carry, step, step + piece)
            jax.block_until_ready(carry.count)
            step += piece
            elapsed = time.monotonic() - started
            size = max(1, min(2 * size, int(piece * TICK_SECONDS / max(elapsed, 1e-6))))
            if look is not None and step in looks:
                carry = look(carry)
            live.update(step, {})
            self.evaluations.settle(wait=False)
            overdue = time.monotonic() - saved_at > CHECKPOINT_SECONDS
            if step < stop and (self.signals or overdue):  # at `stop` itself the caller has more to write
                self.check(phase, step, carry)
                self.save(phase, step, carry)
                saved_at = time.monotonic()
            if self.signals and step < stop:
                self.write_status(step if phase == "train" else 0, "stopped")
                raise KeyboardInterrupt(f"stopped at step {step:,} of {phase}; the same command continues from there")
        self.check(phase, step, carry)
        return carry


def status_at_start(run: Own, dataset: Dataset, seeds: int) -> Status:
    config = run.config
    return Status(
        run=run.run_hash,
        algorithm=config.algorithm,
        dataset=dataset.name,
        env_id=None if config.data.env == "none" else config.data.env,
        seeds=seeds,
        episodes=config.evaluation.eval_episodes,
        step=0,
        steps=config.train.steps,
        state="unfinished",
        reference=dataset.reference,
    )


@contextmanager
def leaving_a_status(runs: Sequence[Own], dataset: Dataset) -> Generator[None]:
    """However the block ends, the status of each run says how; a kill leaves it "unfinished"."""
    before = [read_status(run.folder.path) if (run.folder.path / STATUS).exists() else None for run in runs]
    begun = [
        status_at_start(run, dataset, run.config.train.seeds)
        if status is None
        else status._replace(state="unfinished", message="")
        if status.state in ("stopped", "failed")
        else status
        for run, status in zip(runs, before, strict=True)
    ]
    for run, status in zip(runs, begun, strict=True):
        run.folder.write_status(status)
    try:
        yield
    except BaseException as error:
        own = isinstance(error, ItrpoError)
        message = str(error) if own else f"{type(error).__name__}: {error}".splitlines()[0]
        kinds: dict[type[BaseException], State] = {KeyboardInterrupt: "stopped", DivergenceError: "diverged"}
        state = next((state for kind, state in kinds.items() if isinstance(error, kind)), "failed")
        with suppress(StorageError):
            for run, old, start in zip(runs, before, begun, strict=True):
                status = read_status(run.folder.path)
                if isinstance(error, InputError) and status == start and old is not None:
                    run.folder.write_status(old)  # a mistake that changed nothing
                elif status.state == "unfinished":
                    run.folder.write_status(status._replace(state=state, message="" if state == "stopped" else message))
        raise


def ready(config: RunConfig, dataset: Dataset) -> tuple[Preprocess, Transition]:
    """What is done to observations and rewards, and the rows as training sees them, on the device."""
    own = config.data
    if own.parent is not None:
        preprocess = kept_preprocess(own.parent, dataset.transitions, own.reward_scale, own.reward_shift)
    else:
        preprocess = fit_preprocess(
            dataset.transitions,
            own.normalize_observations,
            own.reward_scale,
            own.reward_shift,
            by_column=own.by_column is True,
        )
    return preprocess, jax.device_put(apply(preprocess, dataset.transitions))  # on a CPU no copy, unlike jnp.asarray


def probe_rows(columns: Any, count: int = PROBE_ROWS) -> Any:
    """`count` rows, spread evenly, of a pytree of [B, ...]."""
    stride = max(1, len(jax.tree.leaves(columns)[0]) // count)
    return jax.tree.map(lambda column: column[::stride][:count], columns)
