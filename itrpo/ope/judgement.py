"""What judging gives, and its file: `judgement.json` in a run's folder, which `read` gives back as it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from itrpo import files
from itrpo.errors import StorageError
from itrpo.ope.reasons import Reason
from itrpo.ope.support import Region

FILE = "judgement.json"
VERSION = 3  # 2: a reason has its kind; 3: it says which rows were judged on
ESTIMATORS = {
    "fqe": "fitted Q",
    "wdr": "weighted doubly robust",
    "dr": "doubly robust",
    "wpdis": "self-normalised importance",
    "pdis": "importance",
    "log": "the episodes themselves",
}  # in the order of trust, where they disagree; as people write them


class Against(NamedTuple):
    """A difference to the log, by the same estimator in the same folds, and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A policy's discounted return by one estimator, with a 95% interval over resampled episodes."""

    estimator: str  # key of ESTIMATORS
    value: float  # discounted return of an episode, in units of the rewards
    low: float
    high: float
    per_step: float  # (1 - gamma) value: the mean reward of a step, weighted by gamma^t
    against_log: Against | None  # None: of the log itself
    folds: tuple[float, ...]  # the value in each bootstrap fold, the first of which is all episodes once
    reasons: tuple[Reason, ...]  # not to believe it


@dataclass(frozen=True)
class Support:
    """How far a policy's actions are from the log's. None: not measured."""

    unlikely: float | None  # share of its actions below the 1% quantile of log pi_beta of the log's own
    far: float | None  # share of (s, pi(s)) farther from known rows than 99% of the log's (s, a)
    # share of rows whose action is outside of what 98% of the log's keep to in a region's bin; that of the worst column
    outside: float
    regions: tuple[Region, ...]  # of each column of observations and each of its bins


@dataclass(frozen=True)
class Judged:
    """One policy."""

    name: str  # "seed 0", "BC", "log", or as it was given
    seed: int | None  # of the run; None: a reference
    estimates: tuple[Estimate, ...]  # in the order of ESTIMATORS
    missing: dict[str, str]  # estimator -> why there is none
    support: Support | None  # None: of the log itself
    sample_size: float | None  # of how many episodes the importance weights are worth; None: there are none
    mean_weight: float | None  # of the importance weights; should be 1
    reasons: tuple[Reason, ...]  # not to believe any estimate of it

    def by(self, estimator: str) -> Estimate | None:
        return next((it for it in self.estimates if it.estimator == estimator), None)


@dataclass(frozen=True)
class Judgement:
    """Of one run: its seeds, then references (BC, the log), all on the same episodes in the same folds."""

    run: str  # hash of its configuration; "": policies that are not of a run
    algorithm: str
    dataset: str
    step: int  # gradient steps of the policies
    gamma: float
    episodes: int  # that were judged on
    rows: int
    rows_sha256: str  # of what is in them; "": policies that are not of a run
    cut: float  # share of the episodes that did not end by themselves
    log_return: float  # mean undiscounted sum of rewards of these episodes
    unseen: str  # why these episodes are new to the run: "holdout 0.2", or the file
    settings: dict[str, Any]  # of the fit, the number of folds
    seconds: float  # that judging took
    policies: tuple[Judged, ...]
    reasons: tuple[Reason, ...]  # not to believe anything here

    def policy(self, name: str) -> Judged:
        return next(it for it in self.policies if it.name == name)


def write(folder: Path, judgement: Judgement) -> Path:
    """FOLDER/judgement.json, whole or not at all. Raises StorageError."""
    files.write_json(folder / FILE, to_json(judgement))
    return folder / FILE


def to_json(judgement: Judgement) -> dict[str, Any]:
    return {"version": VERSION} | asdict(judgement)


def read(folder: Path) -> Judgement:
    """What `write` wrote. Raises StorageError for what is none, or of another version."""
    path = folder / FILE
    found: dict[str, Any] = files.read_json(path)
    try:
        if found.pop("version") != VERSION:
            raise ValueError("it is of another version of itrpo; judge again")
        found["policies"] = tuple(map(_judged, found["policies"]))
        found["reasons"] = _reasons(found["reasons"])
        return Judgement(**found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: not a judgement ({error})") from error


def _judged(given: Any) -> Judged:
    own: dict[str, Any] = dict(given)
    if own["support"] is not None:
        support: dict[str, Any] = dict(own["support"])
        support["regions"] = tuple(Region(*it) for it in support["regions"])
        own["support"] = Support(**support)
    own |= {"estimates": tuple(_estimate(it) for it in own["estimates"]), "reasons": _reasons(own["reasons"])}
    return Judged(**own)


def _estimate(given: Any) -> Estimate:
    """JSON has no infinity: `files.strict` writes their names."""
    own: dict[str, Any] = dict(given)
    against = own["against_log"]
    own |= {name: float(own[name]) for name in ("value", "low", "high", "per_step")}
    own |= {"against_log": None if against is None else Against(*map(float, against))}
    own |= {"folds": tuple(map(float, own["folds"])), "reasons": _reasons(own["reasons"])}
    return Estimate(**own)


def _reasons(given: Any) -> tuple[Reason, ...]:
    return tuple(Reason(**it) for it in given)
