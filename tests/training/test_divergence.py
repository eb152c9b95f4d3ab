"""What is named when numbers are no longer finite: the metric that shows it, or an array of the state."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from itrpo.training.divergence import divergence
from itrpo.training.loop import NEVER

GOOD = {"critic_loss": np.array([NEVER, NEVER]), "policy_loss": np.array([NEVER, NEVER])}


def state(**changes: np.ndarray) -> dict[str, np.ndarray]:
    whole = {
        "weight": np.ones((2, 3, 4), np.float32),
        "count": np.ones(2, np.int32),
        "none": np.ones((2, 0), np.float32),
    }
    return whole | changes


def test_the_earliest_metric_is_named_with_its_seed_and_step():
    bad = GOOD | {"critic_loss": np.array([NEVER, 1_200]), "policy_loss": np.array([1_500, NEVER])}
    said = divergence(bad, range(4, 6), Path("run/checkpoints"), state(), 2_000)
    assert said is not None
    assert "critic_loss of seed 5 was not finite, or beyond its limit, at step 1,200." in said


def test_an_infinity_in_the_state_is_named_though_every_metric_is_finite():
    """As in Adam's second moment: the weight never moves again, and no loss shows it."""
    weight = np.ones((2, 3, 4), np.float32)
    weight[1, 2, 0] = np.inf
    said = divergence(GOOD, range(4, 6), Path("run/checkpoints"), state(weight=weight), 2_000)
    assert said is not None
    assert "weight of seed 5 holds a number that is not finite at step 2,000" in said
    assert divergence(GOOD, range(4, 6), Path("run/checkpoints"), state(), 2_000) is None
