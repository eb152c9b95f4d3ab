"""How close a fitted model of pi_beta is to the policy that acted, on data that know the density of each action."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from itrpo.ops import choices
from itrpo.ops.distributions import tanh_log_det
from itrpo.types import CategoricalModel, DensityModel, Metrics, Params


def log_prob_gap(
    model: DensityModel,
    params: Params,
    observation: Float[Array, "B O"],
    action: Float[Array, "B A"],
    true_log_prob: Float[Array, "B"],
) -> Metrics:
    """Scalars; actions lie within (-1, 1), and densities are those of actions.

    behavior_log_prob_gap, the mean of log pi_beta(a|s) - log b(a|s) over actions that pi_beta took, estimates
    D_KL[pi_beta || b] in nats: 0 for the true model, and what maximum likelihood minimises up to a constant.
    """
    pre_tanh = jnp.arctanh(action)
    fitted = model.pre_tanh_log_prob(params, observation, pre_tanh) - tanh_log_det(pre_tanh)
    return {
        "behavior_true_log_prob": jnp.mean(true_log_prob),
        "behavior_log_prob_gap": jnp.mean(true_log_prob - fitted),
    }


def choice_log_prob_gap(
    model: CategoricalModel,
    params: Params,
    observation: Float[Array, "B O"],
    choice: Int[Array, "B"],
    true_log_prob: Float[Array, "B"],
) -> Metrics:
    """The same of probabilities."""
    fitted = choices.chosen(jax.nn.log_softmax(model.logits(params, observation)), choice)
    return {
        "behavior_true_log_prob": jnp.mean(true_log_prob),
        "behavior_log_prob_gap": jnp.mean(true_log_prob - fitted),
    }
