"""pi_beta as one mixture of tanh-Gaussians per action dimension (behaviour model "factored_mixture"): Fisher-BRC's.

    b(a|s) = prod_d sum_k w_dk(s) N(u_d; m_dk(s), s_dk(s)) * |du/da|,   u = atanh(a)

Dimensions are independent given the state, so modes of different dimensions mix freely; `mixture` keeps them together.
Fitted as `gaussian` is. Source: google-research/fisher_brc/behavioral_cloning.py (Kostrikov et al. 2021,
arXiv:2103.08050), five components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.behavior.likelihood import Distribution, LikelihoodFit, density_model
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import FactoredMixturePolicy
from itrpo.nn.network import network
from itrpo.ops import distributions
from itrpo.ranges import Count, Widths
from itrpo.types import BehaviorEntry, DensityModel, Params, SpaceSpec


@dataclass(frozen=True)
class Config:
    components: Count = 5  # Gaussians per dimension (Fisher-BRC)
    hidden: Widths = (256, 256)  # widths of the hidden layers (Fisher-BRC)
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviations
    log_std_high: float = 2.0  # its upper end
    fit: LikelihoodFit = LikelihoodFit()


def mode(
    logits: Float[Array, "B A K"], means: Float[Array, "B A K"], log_stds: Float[Array, "B A K"]
) -> Float[Array, "B A"]:
    """In each dimension the mean of the component with the largest weight."""
    likeliest = jnp.argmax(logits, axis=-1)[..., None]
    return jnp.take_along_axis(means, likeliest, axis=-1)[..., 0]


DISTRIBUTION = Distribution(distributions.factored_mixture_log_prob, distributions.factored_mixture_sample, mode)


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(lambda draw: FactoredMixturePolicy(draw, spec, config.hidden, config.components, log_std_range))

    def export(params: Params) -> dict[str, Any]:
        needed = 2 * config.components * spec.action_dim  # weights and means
        return {"kind": "tanh_factored_mixture_mlp", **layer_arrays(params.mlp, outputs=needed)}

    return density_model(config.fit, spec, fit_steps, policy, DISTRIBUTION, export)


FACTORED_MIXTURE = BehaviorEntry(Config, make)
