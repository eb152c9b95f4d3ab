"""Table 1: the least squares that identifies a run's regularisers."""

from __future__ import annotations

import numpy as np

from itrpo.theory.table1 import implicit_weights


def test_weights_of_an_unregularised_mixture_are_recovered():
    """On made-up weights: it must return them, and not those of a known scheme."""
    rng = np.random.default_rng(0)
    weights = np.array([0.7, 1.1, 0.4])
    log_behavior = np.log(rng.dirichlet(np.ones(3), size=(1, 4)))
    implied = rng.standard_normal((6, 1, 4, 3))
    log_policies = [np.log(rng.dirichlet(np.ones(3), size=(1, 4)))]
    for q in implied:
        logits = (q + weights[0] * log_policies[-1] + weights[1] * log_behavior) / weights.sum()
        log_policies.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    found = implicit_weights(implied, np.stack(log_policies), log_behavior)
    assert np.allclose(found[0], weights, rtol=1e-10)
