"""seedK/moments.npz: the path of a Gaussian policy through training, on fixed rows of the dataset (Figure 1).

    step               [E] int64: 0 and each evaluation
    mean, log_std      [E, B, A] float32: of the policy then, before the tanh
    behavior_mean, behavior_log_std    [B, A]: of pi_beta, where that is a Gaussian

It is written whole at each evaluation, before its checkpoint: a run that was killed in between writes the same again.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import InputError, StorageError

Moments = tuple[np.ndarray, np.ndarray]


class PolicyPath(NamedTuple):
    step: np.ndarray  # [E]
    mean: np.ndarray  # [E, B, A]
    log_std: np.ndarray  # [E, B, A]
    behavior: Moments | None  # mean and log_std [B, A] of pi_beta


def moments_path(folder: Path | str, index: int) -> Path:
    return Path(folder) / f"seed{index}" / "moments.npz"


def read_moments(path: Path | str) -> PolicyPath:
    """Raises InputError if there is no such file, StorageError if it is damaged."""
    if not Path(path).exists():
        raise InputError(f"{path} does not exist: only runs of itrpo, brac_v, brac_p and itrpo_insample have it")
    try:
        with np.load(path, allow_pickle=False) as content:
            behavior = None
            if "behavior_mean" in content:
                behavior = content["behavior_mean"], content["behavior_log_std"]
            return PolicyPath(content["step"], content["mean"], content["log_std"], behavior)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise StorageError(f"{path}: not the path of a policy, or damaged ({error})") from error


def write_moments(path: Path, own: PolicyPath) -> None:
    arrays = {"step": own.step, "mean": own.mean, "log_std": own.log_std}
    if own.behavior is not None:
        arrays |= {"behavior_mean": own.behavior[0], "behavior_log_std": own.behavior[1]}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    files.write(path, content.getvalue())


def begin_moments(path: Path, moments: Moments, behavior: Moments | None) -> None:
    """The policy before the first step. moments, behavior: [B, A] each."""
    mean, log_std = moments
    write_moments(path, PolicyPath(np.zeros(1, np.int64), mean[None], log_std[None], behavior))


def add_moments(path: Path, step: int, moments: Moments) -> None:
    """The policy at an evaluation, after those of earlier steps; later ones, which a run has left behind, go."""
    old = read_moments(path)
    kept = old.step < step
    mean, log_std = (np.append(before[kept], now[None], 0) for before, now in zip(old[1:3], moments, strict=True))
    write_moments(path, PolicyPath(np.append(old.step[kept], step), mean, log_std, old.behavior))
