"""pi_beta as one mixture of tanh-Gaussians per action dimension (behaviour model "factored_mixture"): Fisher-BRC's.

    b(a|s) = prod_d sum_k w_dk(s) N(u_d; m_dk(s), s_dk(s)) * |du/da|,   u = atanh(a)

Dimensions are independent given the state, so modes of different dimensions mix freely; `mixture` keeps them together.
Fitted as `gaussian` is. Source: google-research/fisher_brc/behavioral_cloning.py (Kostrikov et al. 2021,
arXiv:2103.08050), five components.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from itrpo.behavior.likelihood import LikelihoodFit, entropy_constrained_fit
from itrpo.nn.heads import FactoredMixturePolicy
from itrpo.nn.network import network
from itrpo.ops import distributions
from itrpo.types import Array, BehaviorEntry, BehaviorModel, Params, PRNGKey, SpaceSpec


@dataclass(frozen=True)
class Config:
    components: int = 5  # Gaussians per dimension (Fisher-BRC)
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers (Fisher-BRC)
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviations
    log_std_high: float = 2.0  # its upper end
    fit: LikelihoodFit = LikelihoodFit()


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> BehaviorModel:
    """fit_steps: length of the fit, for the learning rate's two drops."""
    policy = network(
        lambda draw: FactoredMixturePolicy(
            draw, spec, config.hidden, config.components, (config.log_std_low, config.log_std_high)
        )
    )

    def pre_tanh_log_prob(params: Params, observation: Array, pre_tanh: Array) -> Array:
        return distributions.factored_mixture_log_prob(pre_tanh, *policy.apply(params, observation))

    def sample(params: Params, observation: Array, key: PRNGKey) -> Array:
        return distributions.sample_factored_mixture(key, *policy.apply(params, observation))

    def mode(params: Params, observation: Array) -> Array:
        logits, means, _ = policy.apply(params, observation)
        return jnp.take_along_axis(means, jnp.argmax(logits, axis=1)[:, None], axis=1)[:, 0]

    def log_probs_of_data_and_sample(params: Params, observation: Array, pre_tanh: Array, key: PRNGKey):
        mixture = policy.apply(params, observation)
        own = distributions.sample_factored_mixture(key, *mixture)
        return (
            distributions.factored_mixture_log_prob(pre_tanh, *mixture) - distributions.tanh_log_det(pre_tanh),
            distributions.factored_mixture_log_prob(own, *mixture) - distributions.tanh_log_det(own),
        )

    def export(params: Params) -> dict[str, object]:
        layers = params.mlp.layers
        arrays: dict[str, object] = {"kind": "tanh_factored_mixture_mlp"}
        for i, layer in enumerate(layers):
            rows = 2 * config.components * spec.action_dim if i == len(layers) - 1 else layer.weight.shape[0]
            arrays[f"weight_{i}"], arrays[f"bias_{i}"] = layer.weight[:rows], layer.bias[:rows]
        return arrays

    fit = entropy_constrained_fit(config.fit, spec, fit_steps, policy.init, log_probs_of_data_and_sample)
    return BehaviorModel(
        init=fit.init,
        fit_step=fit.step,
        params=lambda state: state.policy.params,
        pre_tanh_log_prob=pre_tanh_log_prob,
        sample=sample,
        mode=mode,
        moments=None,
        export=export,
        batch_size=config.fit.fit_batch_size,
    )


FACTORED_MIXTURE = BehaviorEntry(Config, make)
