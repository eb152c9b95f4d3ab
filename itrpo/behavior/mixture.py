"""pi_beta as a joint mixture of tanh-Gaussians (behaviour model "mixture"), for data of several policies at once.

    b(a|s) = sum_k w_k(s) N(u; m_k(s), s_k(s)) * |du/da|,   u = atanh(a)

One mixture over the whole action vector, not one per dimension (Fisher-BRC's is factorised): modes stay together. KL to
a Gaussian has no closed form, so algorithms estimate it from samples. Fitted as `gaussian` is; the number of components
is ours (the paper and its author use one Gaussian).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.behavior.likelihood import Distribution, LikelihoodFit, density_model
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import MixturePolicy
from itrpo.nn.network import network
from itrpo.ops import distributions
from itrpo.ranges import Count, Widths
from itrpo.types import BehaviorEntry, DensityModel, Params, SpaceSpec


@dataclass(frozen=True)
class Config:
    components: Count = 5  # Gaussians in the mixture (ours)
    hidden: Widths = (256, 256)  # widths of the hidden layers
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviations
    log_std_high: float = 2.0  # its upper end
    fit: LikelihoodFit = LikelihoodFit()


def mode(
    logits: Float[Array, "B K"], means: Float[Array, "B K A"], log_stds: Float[Array, "B K A"]
) -> Float[Array, "B A"]:
    """The mean of the component with the largest weight."""
    likeliest = jnp.argmax(logits, axis=-1)[:, None, None]
    return jnp.take_along_axis(means, likeliest, axis=1)[:, 0]


DISTRIBUTION = Distribution(distributions.mixture_log_prob, distributions.mixture_sample, mode)


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(lambda draw: MixturePolicy(draw, spec, config.hidden, config.components, log_std_range))

    def export(params: Params) -> dict[str, Any]:
        needed = config.components * (1 + spec.action_dim)  # weights and means
        return {"kind": "tanh_mixture_mlp", **layer_arrays(params.mlp, outputs=needed)}

    return density_model(config.fit, spec, fit_steps, policy, DISTRIBUTION, export)


MIXTURE = BehaviorEntry(Config, make)
