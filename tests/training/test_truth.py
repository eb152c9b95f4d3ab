"""Training on data that know their own densities says how close the fit of pi_beta came."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import itrpo
from itrpo.results.store import read_metrics

ROWS, STD = 4000, 0.4
PROBED = np.arange(ROWS - 1)[:: (ROWS - 1) // 1024][:1024]  # the last row of the data is no transition


def dataset() -> dict[str, np.ndarray]:
    """u = atanh(a) ~ N(s, STD^2) in one dimension, with the density of a. Two of the probed rows are saturated, with
    densities that would pull the mean far down if they counted."""
    random = np.random.default_rng(0)
    state, noise = random.uniform(-1, 1, ROWS), random.normal(size=ROWS)
    action = np.tanh(state + STD * noise)
    density = -0.5 * noise**2 - np.log(STD * np.sqrt(2 * np.pi)) - np.log(1 - action**2)
    action[PROBED[5:7]], density[PROBED[5:7]] = 1, -500
    return {
        "observations": state[:, None],
        "actions": action[:, None],
        "rewards": np.ones(ROWS),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.zeros(ROWS, bool),
        "infos/action_log_probs": density,
    }


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    fields = {"policy_hidden": (16,), "critic_hidden": (8,), "behavior_hidden": (16,), "batch_size": 8}
    sizes = {"steps": 1, "seeds": 2, "behavior_steps": 500, "eval_every": 1}
    options = itrpo.RunOptions(preset="quick", env="none", out=folder, **sizes)
    itrpo.train(dataset(), "brac_v", options, fields=fields)
    rows = read_metrics(folder).filter(pl.col("step") == 0).sort("seed")
    return {name: group["value"].to_numpy() for (name,), group in rows.group_by("metric")}


def test_the_fit_is_close_to_the_truth_and_the_gap_says_so(metrics: dict[str, np.ndarray]) -> None:
    # The standard deviation of log pi_beta - log b over rows is about sqrt(2 KL): 1024 rows tell 0.02 nats from 0.
    gap = metrics["behavior_log_prob_gap"]
    assert gap.shape == (2,)
    assert (gap > -0.01).all()
    assert (gap < 0.15).all()
    np.testing.assert_allclose(metrics["behavior_rows_left_out"], 2 / 1024)


def test_the_true_density_is_that_of_the_usable_rows(metrics: dict[str, np.ndarray]) -> None:
    rows = dataset()
    usable = np.delete(PROBED, [5, 6])
    expected = rows["infos/action_log_probs"][usable].mean()
    np.testing.assert_allclose(metrics["behavior_true_log_prob"], [expected, expected], rtol=1e-5)
