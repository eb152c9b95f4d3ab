"""A run's seeds, when it is given more than it began with.

The new ones train in a folder inside the run's own and then become part of it. The run is, to the bit, one that had
them from the beginning.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jax
import numpy as np

from itrpo import files
from itrpo.console import say
from itrpo.errors import InputError
from itrpo.evaluation.beside import Evaluations
from itrpo.results.moments import moments_path
from itrpo.results.run_folder import Checkpoint, RunFolder
from itrpo.results.store import METRICS, STATUS, read_rows, read_timing
from itrpo.training.evaluate import policy_path
from itrpo.training.loop import Carry
from itrpo.training.session import Session

Train = Callable[[Session, Checkpoint | None], Carry]  # from where the folder of the session is to the end of the run


def train_all(session: Session, train: Train, saved: Checkpoint | None) -> None:
    """Trains every seed of the session, from `saved`. Raises InputError if its folder has more of them."""
    folder, wanted = session.folder, len(session.seeds)
    begun = wanted if saved is None or len(session.runs) > 1 else len(saved.arrays["count"])
    for left in folder.path.glob("adding_seeds_*"):  # of a kill just after its seeds had become part of the run
        if int(left.name.split("_")[2]) < begun:
            shutil.rmtree(left)
    if begun > wanted:
        raise InputError(f"{folder.path} has {begun} seeds; ask for --seeds {begun} or more")
    carry = train_some(session, range(begun), train, saved)
    if begun < wanted:
        added = range(begun, wanted)
        part = RunFolder(folder.path / f"adding_seeds_{added.start}_to_{added.stop - 1}")
        files.make_folder(part.path)
        session.write_status(session.config.train.steps, "unfinished")  # whatever happens: it has not all its seeds
        say(session.console, f"training {len(added)} more seeds for {folder.path}")
        alone = dataclasses.replace(session, runs=tuple(run._replace(folder=part) for run in session.runs))
        if not (part.path / STATUS).exists():
            dataclasses.replace(alone, seeds=added).write_status(0, "unfinished")
        new = train_some(alone, added, train, part.newest(session.console))
        join(session, carry, part, new, added)


def train_some(session: Session, seeds: range, train: Train, saved: Checkpoint | None) -> Carry:
    """Trains some of the seeds, with environments for as many."""
    some = dataclasses.replace(session, seeds=seeds)
    evaluations = Evaluations(session.env_id, len(some.members), session.config.evaluation.eval_episodes)
    with closing(evaluations):
        return train(dataclasses.replace(some, evaluations=evaluations), saved)


def join(session: Session, carry: Carry, part: RunFolder, new: Carry, added: range) -> None:
    """Policies, rows, and then the checkpoint, which is what counts: a kill before it, and all is done again."""
    folder, step = session.folder, session.config.train.steps
    for index in added:
        for of in (policy_path, moments_path):
            if of(part.path, index).exists():
                files.write(of(folder.path, index), of(part.path, index).read_bytes())
    folder.keep_metrics(lambda row: row.seed not in added)
    folder.append_metrics(read_rows(part.path / METRICS))
    both: Any = jax.tree.map(lambda *leaves: np.concatenate(leaves), carry, new)
    session.save("train", step, both)
    for record in joined_timing(read_timing(folder.path), read_timing(part.path), added.start):
        session.append_timing(record)
    session.write_status(step, "finished")
    shutil.rmtree(part.path)


def joined_timing(own: list[dict[str, Any]], new: list[dict[str, Any]], begun: int) -> list[dict[str, Any]]:
    """Records of timing of the added seeds, each with what the `begun` others took to the same step.

    The two may be of stretches that began at other steps.
    """
    olds, news = ({it["step"]: {"seeds": begun} | it for it in records} for records in (own, new))
    found: list[dict[str, Any]] = []
    for step, record in news.items():
        both = [record, *([olds[step]] if step in olds else [])]
        clocks = {name: sum(it.get(name, 0.0) for it in both) for name in record if name.endswith("_seconds")}
        seeds = sum(it["seeds"] for it in both)
        steps = sum(it["seeds"] * it["steps_per_second"] * it["train_seconds"] for it in both) / seeds
        memory = max(it.get("peak_memory_bytes", 0) for it in both)
        rate = steps / clocks["train_seconds"]
        found.append(record | clocks | {"seeds": seeds, "steps_per_second": rate, "peak_memory_bytes": memory})
    return found
