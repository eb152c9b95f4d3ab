"""Numbers about all rows that several checks, or a check and the facts, need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itrpo.types import Episodes

SAMPLE, QUERIES, SAMPLE_BLOCKS = 20_000, 300, 20  # rows from which actions in similar states are compared


def equal_columns(values: np.ndarray, candidates: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of equal columns; each later one is paired with the first that it equals."""
    probe = values[:: max(1, len(values) // 64)]
    seen: dict[bytes, list[int]] = {}
    pairs: list[tuple[int, int]] = []
    for index in candidates:
        alike = seen.setdefault(probe[:, index].tobytes(), [])
        first = next((other for other in alike if np.array_equal(values[:, other], values[:, index])), None)
        if first is None:
            alike.append(index)
        else:
            pairs.append((first, index))
    return pairs


def spectrum(episodes: Episodes, sound: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Eigenvalues of the correlation matrix of the observations that vary, from at most 200,000 rows."""
    chosen = np.flatnonzero(sound)
    observations = episodes.observations[chosen[:: max(1, len(chosen) // 200_000)]][:, std > 0]
    if not observations.size:
        return np.zeros(0)
    scaled = (observations - observations.mean(axis=0, dtype=np.float64)) / std[std > 0]
    return np.linalg.eigvalsh(scaled.T @ scaled / len(scaled))


def action_noise(episodes: Episodes, scaled: bool, sound: np.ndarray, std: np.ndarray) -> np.ndarray | None:
    """Standard deviation of the actions in one state, for some states: from the recorded log densities if there are
    any, else the residual of a linear fit among the nearest states. None where there are too few rows to tell.

    A density p of A independent actions has the entropy of a normal one with standard deviation
    (1 / p)^(1/A) / sqrt(2 pi e). The fit is too large where states are far apart, so noise is never understated.
    """
    if episodes.behavior_log_probs is not None and not scaled:
        log_probs = episodes.behavior_log_probs[sound]
        return np.exp(-log_probs / episodes.actions.shape[1]) / np.sqrt(2 * np.pi * np.e)
    varying = np.flatnonzero(std > 0)
    sound = np.flatnonzero(sound)
    neighbors = 3 * (len(varying) + 1)
    if not varying.size or len(sound) < 10 * neighbors or len(varying) > 100:
        return None
    size = min(SAMPLE, len(sound)) // SAMPLE_BLOCKS
    first = np.linspace(0, len(sound) - size, SAMPLE_BLOCKS).astype(np.int64)
    chosen = sound[np.unique(first[:, None] + np.arange(size))]  # blocks of rows in a row: near states are among them
    states = (episodes.observations[chosen][:, varying] / std[varying]).astype(np.float32)
    states -= states.mean(axis=0)
    actions = episodes.actions[chosen].astype(np.float64)
    queries = np.unique(np.linspace(0, len(chosen) - 1, QUERIES).astype(np.int64))
    squares = (states**2).sum(axis=1)
    spread = np.empty(len(queries))
    for block in (slice(at, at + 100) for at in range(0, len(queries), 100)):
        asked = queries[block]
        distances = squares - 2 * states[asked] @ states.T  # less the square of the query's own norm
        near = np.argpartition(distances, neighbors, axis=1)[:, :neighbors]
        inputs = np.concatenate([states[near].astype(np.float64), np.ones((*near.shape, 1))], axis=2)
        targets = actions[near]
        gram = np.einsum("qki,qkj->qij", inputs, inputs) + 1e-8 * np.eye(inputs.shape[2])
        fit = np.linalg.solve(gram, np.einsum("qki,qka->qia", inputs, targets))
        residual = targets - np.einsum("qki,qia->qka", inputs, fit)
        spread[block] = np.sqrt((residual**2).sum(axis=(1, 2)) / (neighbors - inputs.shape[2]) / targets.shape[2])
    return spread
