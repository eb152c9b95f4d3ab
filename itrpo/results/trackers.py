"""Metrics sent elsewhere as they are measured: TensorBoard and Weights & Biases (optional extras)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo.errors import InputError


class Tracker(NamedTuple):
    # (gradient step, metric name -> [S], indices [S] of the seeds)
    log: Callable[[int, Mapping[str, np.ndarray], Sequence[int]], None]
    close: Callable[[], None]


PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_trackers(names: Iterable[str]) -> None:
    """Raises InputError if a package, or wandb's login, is missing, before anything is written."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise InputError(f"--track {name} needs `pip install itrpo[{name}]`")
        if name == "wandb":
            with _saying(name):
                import wandb  # pyright: ignore[reportMissingImports]

                if wandb.setup().settings.mode == "online":
                    wandb.login()


def open_tracker(name: str, folder: Path, config: Any, resumed_at: int | None = None) -> Tracker:
    """A tracker that writes below `folder`. `resumed_at`: the step from which a run goes on; what was sent of later
    steps comes again. Raises InputError if it can't begin, such as wandb without a login.
    """
    with _saying(name):
        return _tensorboard(folder, resumed_at) if name == "tensorboard" else _wandb(folder, config)


@contextmanager
def _saying(name: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # whatever goes wrong in other people's packages
        how = "; WANDB_MODE=offline needs no login" if name == "wandb" else ""
        raise InputError(f"--track {name} can't begin: {type(error).__name__}: {error}{how}") from error


def scalars(metrics: Mapping[str, np.ndarray], seeds: Sequence[int]) -> dict[str, float]:
    """'metric/seedK' for each seed, and 'metric' for the mean of those that the run began with."""
    values: dict[str, float] = {}
    for name, per_seed in metrics.items():
        if seeds[0] == 0:
            values[name] = float(np.mean(per_seed))
        values |= {f"{name}/seed{index}": float(value) for index, value in zip(seeds, per_seed, strict=True)}
    return values


def _tensorboard(folder: Path, resumed_at: int | None) -> Tracker:
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    # TensorBoard leaves out what an earlier file has of steps from `purge_step` on
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1)

    def log(step: int, metrics: Mapping[str, np.ndarray], seeds: Sequence[int]) -> None:
        for name, value in scalars(metrics, seeds).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(log, writer.close)


def _wandb(folder: Path, config: Any) -> Tracker:
    import wandb  # pyright: ignore[reportMissingImports]

    # one id per folder, so that a resumed run continues its curves, and two folders of one name do not share them; mode
    # (online, offline) is wandb's own setting. Steps that it has already it does not take again
    path = folder.resolve()
    own = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    run = wandb.init(project="itrpo", id=own, name=path.name, dir=str(folder), config=config, resume="allow")
    return Tracker(lambda step, metrics, seeds: run.log(scalars(metrics, seeds), step=step), run.finish)
