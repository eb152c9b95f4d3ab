from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.behavior.truth import log_prob_gap
from itrpo.ops.distributions import normal_log_prob
from itrpo.types import SpaceSpec

ROWS = 20_000
MEAN, LOG_STD = jnp.array([0.3, -0.2]), jnp.array([-0.5, -1.0])


def density(params, observation, pre_tanh):
    """N(mean + observation, exp(log_std)^2) of u."""
    mean, log_std = params
    return normal_log_prob(pre_tanh, mean[None] + observation, log_std[None])


MODEL = GAUSSIAN.make(GAUSSIAN.config(), SpaceSpec(2, 2), 1)._replace(pre_tanh_log_prob=density)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions a = tanh(u) of the model with MEAN and LOG_STD, and log densities of the actions: those of
    u over the slope of tanh, in float64."""
    random = np.random.default_rng(0)
    observation = random.normal(size=(ROWS, 2)) / 5
    mean, std = np.asarray(MEAN, np.float64) + observation, np.exp(np.asarray(LOG_STD, np.float64))
    noise = random.normal(size=(ROWS, 2))
    action = np.tanh(mean + std * noise)
    log_density = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
    return observation.astype(np.float32), action.astype(np.float32), log_density.sum(1).astype(np.float32)


def gap(params, rows) -> float:
    return float(log_prob_gap(MODEL, params, *map(jnp.asarray, rows))["behavior_log_prob_gap"])


def test_the_true_model_has_no_gap(rows):
    assert abs(gap((MEAN, LOG_STD), rows)) < 1e-5


@pytest.mark.parametrize(("shift", "widening"), [((0.3, 0.0), 0.0), ((-0.1, 0.4), 0.0), ((0.0, 0.0), 0.5)])
def test_a_wrong_model_has_the_kl_divergence_as_its_gap(rows, shift, widening):
    wrong = (MEAN + jnp.array(shift), LOG_STD + widening)
    std = np.exp(np.asarray(LOG_STD, np.float64))
    # of two Gaussians of u, summed over dimensions; tanh, being a bijection, changes nothing
    terms = widening + (std**2 + np.square(shift)) / (2 * (std * np.exp(widening)) ** 2) - 0.5
    # log ratio of the two densities at mean + std * noise, whose standard deviation tells the error of a mean of ROWS
    noise = np.random.default_rng(1).normal(size=(ROWS, 2))
    ratio = widening - 0.5 * noise**2 + 0.5 * ((std * noise - shift) / (std * np.exp(widening))) ** 2
    error = ratio.sum(1).std() / np.sqrt(ROWS)
    assert abs(gap(wrong, rows) - terms.sum()) < 4 * error
    assert terms.sum() > 20 * error  # the test can tell it from none


def test_densities_are_those_of_actions(rows):
    """Their mean is minus the entropy of the actions, which the entropy of u misses by the mean log slope of tanh."""
    observation, action, _ = rows
    metrics = log_prob_gap(MODEL, (MEAN, LOG_STD), *map(jnp.asarray, rows))
    of_u = density((MEAN, LOG_STD), jnp.asarray(observation), jnp.asarray(np.arctanh(action)))
    expected = float(np.mean(np.asarray(of_u)) - np.log(1 - action.astype(np.float64) ** 2).sum(1).mean())
    assert float(metrics["behavior_true_log_prob"]) == pytest.approx(expected, abs=1e-4)
