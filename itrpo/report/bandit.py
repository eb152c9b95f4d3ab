"""What a score is worth where policies may be tried online: the expected score of the policy that UCB has picked.

The protocol of unifloral (Jackson et al., NeurIPS 2025, arXiv 2504.11453). Of a pool of trained policies one episode
is played at a time, each once in random order, then that with the largest

    mean of its episodes + sqrt(exploration * ln(episodes so far) / its episodes)

(UCB1 at exploration 2), and after each the policy with the best mean so far is the pick. A pull is a normal number with
the policy's own mean and deviation over episodes: single episodes are not in a run's rows. Scores are divided by
`scale` for the bonus, so that 0 to 100 becomes the 0 to 1 that UCB1 is made for.
"""

from __future__ import annotations

import numpy as np


def picked_score(
    means: np.ndarray,
    deviations: np.ndarray,
    budget: int = 200,
    *,
    exploration: float = 2.0,
    scale: float = 100.0,
    repetitions: int = 1_000,
    seed: int = 0,
) -> np.ndarray:
    """[budget]: the pick's own mean after 1, 2, ... episodes, averaged over repetitions. means, deviations: [P]."""
    generator = np.random.default_rng(seed)
    pool, every = len(means), np.arange(repetitions)
    order = generator.permuted(np.tile(np.arange(pool), (repetitions, 1)), axis=1)
    totals, counts = np.zeros((repetitions, pool)), np.zeros((repetitions, pool))
    curve = np.empty(budget)
    for episode in range(budget):
        if episode < pool:
            played = order[:, episode]
        else:
            bonus = scale * np.sqrt(exploration * np.log(episode) / counts)
            played = np.argmax(totals / counts + bonus, axis=1)
        totals[every, played] += generator.normal(means[played], deviations[played])
        counts[every, played] += 1
        best = np.argmax(np.where(counts > 0, totals / np.maximum(counts, 1), -np.inf), axis=1)
        curve[episode] = means[best].mean()
    return curve
