"""How close a fitted model of pi_beta is to the policy that acted, on data that know the density of each action."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from itrpo.ops.distributions import tanh_log_det
from itrpo.types import Array, Metrics, Params


def log_prob_gap(
    pre_tanh_log_prob: Callable[[Params, Array, Array], Array],
    params: Params,
    observation: Array,
    action: Array,
    true_log_prob: Array,
) -> Metrics:
    """Scalars of rows [B, O], [B, A], [B]; actions lie within (-1, 1), and densities are those of actions.

    behavior_log_prob_gap, the mean of log pi_beta(a|s) - log b(a|s) over actions that pi_beta took, estimates
    D_KL[pi_beta || b] in nats: 0 for the true model, and what maximum likelihood minimises up to a constant.
    """
    pre_tanh = jnp.arctanh(action)
    fitted = jax.vmap(pre_tanh_log_prob, in_axes=(None, 0, 0))(params, observation, pre_tanh)
    fitted -= jax.vmap(tanh_log_det)(pre_tanh)
    return {
        "behavior_true_log_prob": jnp.mean(true_log_prob),
        "behavior_log_prob_gap": jnp.mean(true_log_prob - fitted),
    }
