"""pi_beta as a joint mixture of tanh-Gaussians (behaviour model "mixture"), for data of several policies at once.

    b(a|s) = sum_k w_k(s) N(u; m_k(s), s_k(s)) * |du/da|,   u = atanh(a)

One mixture over the whole action vector, not one per dimension (Fisher-BRC's is factorised): modes stay together. KL to
a Gaussian has no closed form, so algorithms estimate it from samples. Fitted as `gaussian` is; the number of components
is ours (the paper and its author use one Gaussian).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from itrpo.behavior.likelihood import LikelihoodFit, entropy_constrained_fit
from itrpo.nn.heads import MixturePolicy
from itrpo.nn.network import network
from itrpo.ops import distributions
from itrpo.types import Array, BehaviorEntry, BehaviorModel, Params, PRNGKey, SpaceSpec


@dataclass(frozen=True)
class Config:
    components: int = 5  # Gaussians in the mixture (ours)
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviations
    log_std_high: float = 2.0  # its upper end
    fit: LikelihoodFit = LikelihoodFit()


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> BehaviorModel:
    """fit_steps: length of the fit, for the learning rate's two drops."""
    policy = network(
        lambda draw: MixturePolicy(
            draw, spec, config.hidden, config.components, (config.log_std_low, config.log_std_high)
        )
    )

    def pre_tanh_log_prob(params: Params, observation: Array, pre_tanh: Array) -> Array:
        return distributions.mixture_log_prob(pre_tanh, *policy.apply(params, observation))

    def sample(params: Params, observation: Array, key: PRNGKey) -> Array:
        return distributions.sample_mixture(key, *policy.apply(params, observation))

    def mode(params: Params, observation: Array) -> Array:
        logits, means, _ = policy.apply(params, observation)
        return means[jnp.argmax(logits)]

    def log_probs_of_data_and_sample(params: Params, observation: Array, pre_tanh: Array, key: PRNGKey):
        mixture = policy.apply(params, observation)
        own = distributions.sample_mixture(key, *mixture)
        return (
            distributions.mixture_log_prob(pre_tanh, *mixture) - distributions.tanh_log_det(pre_tanh),
            distributions.mixture_log_prob(own, *mixture) - distributions.tanh_log_det(own),
        )

    def export(params: Params) -> dict[str, object]:
        layers = params.mlp.layers
        arrays: dict[str, object] = {"kind": "tanh_mixture_mlp"}
        for i, layer in enumerate(layers):
            rows = config.components * (1 + spec.action_dim) if i == len(layers) - 1 else layer.weight.shape[0]
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


MIXTURE = BehaviorEntry(Config, make)
