"""What the files of a run folder hold.

    config.json       the whole configuration, and what a run keeps from its beginning
    provenance.json   versions, device, git, dataset: `provenance.provenance` and what the run adds
    status.json       one `Status`: how far the run is and how it ended
    metrics.jsonl     one `Row` per line: bit-identical for identical runs, so no clock is in it
    timing.jsonl      wall-clock records, one object per line
    checkpoints/      the two newest: `checkpoint`
    seedK/policy.npz  the newest policies: `itrpo.policy`
    seedK/moments.npz the path of the policies, one moment for each evaluation: `moments`
    learning_curve.png

Every JSON file is strict. JSON has no NaN and no infinity: a row with such a value has `"value": null` and the value's
name in `"text"` ("NaN", "Infinity" or "-Infinity"); in any other file such a number is written as that name.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from itrpo.files import number_name

if TYPE_CHECKING:
    import numpy as np

    from itrpo.types import Reference

State = Literal["unfinished", "finished", "stopped", "diverged", "failed"]


class Row(NamedTuple):
    """One number that a run measured."""

    run: str  # identity of the run: hash of its configuration
    seed: int
    step: int  # gradient steps done when it was measured; 0 is before training
    metric: str
    value: float


class Status(NamedTuple):
    """What `itrpo runs list` says about a run. A killed run stays "unfinished"."""

    run: str
    algorithm: str
    dataset: str
    env_id: str | None
    seeds: int
    episodes: int  # per seed and evaluation
    step: int
    steps: int
    state: State
    message: str = ""  # for "diverged": the quantity and the step; for "failed": what went wrong
    reference: Reference | None = None  # returns that score 0 and 100 by the dataset's own word


class Evaluation(NamedTuple):
    """What `itrpo evaluate` measured, for S seeds x E episodes."""

    env_id: str
    step: int  # gradient steps of the policies
    returns: np.ndarray  # [S, E]: undiscounted sums of rewards
    lengths: np.ndarray  # [S, E]: environment steps
    scores: np.ndarray | None  # [S, E]: normalised; None where there is no reference
    reference: Reference | None = None  # the dataset's own, where it has one


def row_to_json(row: Row) -> str:
    """One line of metrics.jsonl."""
    value = float(row.value)
    plain = {"run": row.run, "seed": int(row.seed), "step": int(row.step), "metric": row.metric}
    last = {"value": value} if math.isfinite(value) else {"value": None, "text": number_name(value)}
    return json.dumps(plain | last, allow_nan=False) + "\n"


def row_from_json(line: bytes) -> Row:
    """Inverse of `row_to_json`. Raises KeyError, TypeError or ValueError for a line that is not a row."""
    fields = json.loads(line)
    value = fields["value"] if fields["value"] is not None else fields["text"]
    return Row(str(fields["run"]), int(fields["seed"]), int(fields["step"]), str(fields["metric"]), float(value))
