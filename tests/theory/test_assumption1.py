"""Concentrability against brute force."""

from __future__ import annotations

import itertools

import numpy as np

from itrpo.theory.assumption1 import assumed_concentrability, data_distribution, path_concentrability
from itrpo.theory.instances import draw
from itrpo.theory.mdp import occupancy, soft_optimum


def test_concentrability_against_every_deterministic_policy():
    """The maximum over policies is at a deterministic one: enumerate all of them, and all policy sequences for C(t)."""
    instance = draw(11, 1)
    mdp, behavior = instance.mdp, instance.behavior
    data = data_distribution(mdp, behavior)
    deterministic = [np.eye(3)[list(choice)] for choice in itertools.product(range(3), repeat=3)]
    optimal = np.exp(soft_optimum(mdp, behavior, 0.5).log_policy)

    def step(pairs, policy):
        return np.einsum("sa,sat->t", pairs, mdp.transition)[:, None] * policy

    assumed, full = np.zeros(2), np.zeros(2)
    for policy in deterministic:
        visits = occupancy(mdp, policy)
        pairs = visits[:, None] * policy
        assumed = np.maximum(assumed, [(pairs / data).max(), (step(pairs, optimal) / data).max()])
        for first in deterministic:
            crossed = visits[:, None] * first
            full[0] = max(full[0], (crossed / data).max())
            full[1] = max(full[1], *((step(crossed, second) / data).max() for second in deterministic))
    assert np.allclose(assumed_concentrability(mdp, behavior, 0.5, 2), assumed, rtol=1e-11)
    assert np.allclose(path_concentrability(mdp, behavior, 2), full, rtol=1e-11)
