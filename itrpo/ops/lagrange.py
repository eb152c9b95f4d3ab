"""Lagrange multipliers of constraints `excess <= 0`, learned as logarithms (BEAR, UWAC, CQL) or as they are (BRAC)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

LARGEST = 1e6  # upper clip of a multiplier (CQL's code; BEAR and UWAC clip the logarithm far below it)


def multiplier(log_multiplier: Float[Array, ""]) -> Float[Array, ""]:
    """exp(log_multiplier), at most LARGEST."""
    return jnp.clip(jnp.exp(log_multiplier), 0.0, LARGEST)


def multiplier_loss(log_multiplier: Float[Array, ""], excess: Float[Array, ""]) -> Float[Array, ""]:
    """-multiplier * excess: descending it raises the multiplier while the constraint is violated, else lowers it."""
    return -multiplier(log_multiplier) * excess


LARGEST_WEIGHT = 500.0  # upper clip of BRAC's alpha, whose lower one is 0 (its code)


def weight_loss(weight: Float[Array, ""], excess: Float[Array, ""]) -> Float[Array, ""]:
    """-weight * excess: the same for a multiplier that is learned as it is; after a step it is cut to its range.

    Source: BRAC's code (Wu et al. 2019, arXiv 1911.11361), `train_alpha`.
    """
    return -weight * excess
