"""What the phases of one run share, and how each of them goes from step to step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo.config import RunConfig
from itrpo.console import LiveLine
from itrpo.data.preprocess import Preprocess
from itrpo.errors import DivergenceError
from itrpo.evaluation.beside import Evaluations
from itrpo.results.run_folder import CHECKPOINT_SECONDS, RunFolder
from itrpo.results.schema import Row, State, Status
from itrpo.training import loop
from itrpo.training.divergence import divergence
from itrpo.types import Dataset, Transition

if TYPE_CHECKING:
    from rich.console import Console

# streams of randomness of one seed: fold_in(fold_in(key(seed), index of the seed), STREAM)
INIT_BEHAVIOR, FIT_BEHAVIOR, INIT, TRAIN, PROBES = range(5)
PROBE_ROWS = 1024  # fixed rows of the dataset on which probes are measured
TICK_SECONDS = 1.0  # between two looks at the clock and at Ctrl-C


@dataclass(frozen=True)
class Session:
    folder: RunFolder
    config: RunConfig
    seeds: range  # indices of the seeds that train here: all of the run's, or those that are added to it
    run_hash: str
    dataset: Dataset
    preprocess: Preprocess
    data: Transition  # on the device
    evaluations: Evaluations  # of these seeds; the one that goes on is settled before anything is written
    console: Console
    signals: list[int]  # received so far: Ctrl-C, or a request to terminate

    @property
    def env_id(self) -> str | None:
        return None if self.config.data.env == "none" else self.config.data.env

    def keys(self, stream: int) -> Array:
        """[S] random keys of one stream."""
        root = jax.random.key(self.config.train.seed)
        by_seed = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, jnp.asarray(self.seeds))
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(by_seed, stream)

    def append_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: name -> [S]. Raises StorageError."""
        self.folder.append_metrics(
            Row(self.run_hash, index, step, name, float(value))
            for name, values in metrics.items()
            for index, value in zip(self.seeds, np.asarray(values), strict=True)
        )

    def write_status(self, step: int, state: State, message: str = "") -> None:
        """Raises StorageError."""
        self.folder.write_status(
            Status(
                run=self.run_hash,
                algorithm=self.config.algorithm,
                dataset=self.dataset.name,
                env_id=self.env_id,
                seeds=len(self.seeds),
                episodes=self.config.evaluation.eval_episodes,
                step=step,
                steps=self.config.train.steps,
                state=state,
                message=message,
            )
        )

    def save(self, phase: str, step: int, carry: loop.Carry) -> None:
        """Writes a checkpoint. Raises StorageError."""
        meta = {"run": self.run_hash, "dataset_sha256": self.dataset.source.sha256}
        self.folder.save(phase, step, carry, meta)

    def check(self, phase: str, step: int, carry: loop.Carry) -> None:
        """Settles an evaluation. Raises DivergenceError if the run has diverged since, and its status says so."""
        self.evaluations.settle()
        message = divergence(carry, self.seeds, self.folder.checkpoints)
        if message is not None:
            self.write_status(step if phase == "train" else 0, "diverged", message)
            raise DivergenceError(message)

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


def probe_rows(columns: Any, count: int = PROBE_ROWS) -> Any:
    """`count` rows, spread evenly, of a pytree of [B, ...]."""
    stride = max(1, len(jax.tree.leaves(columns)[0]) // count)
    return jax.tree.map(lambda column: column[::stride][:count], columns)
