"""pi_beta as one tanh-Gaussian with an entropy floor (behaviour model "gaussian").

    min over b of  E_D[-log b(a|s)]   subject to   E_D[H(b(.|s))] >= H0
    loss(b)    = -log b(a|s) + k * log b(a~|s),   a~ ~ b(.|s)
    k          <- max(0, k + lr * (H0 - H)),      H estimated by -log b(a~|s)

Densities are those of actions, tanh included, so H0 = -A keeps about 0.09 of standard deviation per dimension on nearly
deterministic data; where the data has more entropy than that, k falls to 0 and the fit is maximum likelihood.

Source: the iTRPO author's bc_trainer.py and bc.yaml (2 x 256, batch 256, Adam 1e-3, x 0.1 after 80% and 90% of the
steps); the same loss is in BRAC and Fisher-BRC. All move k by Adam. Departure: the author and Fisher-BRC step log k,
at a rate that falls with the model's; here, as in BRAC, k itself is stepped, at a constant rate, and kept >= 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from itrpo.behavior.likelihood import LikelihoodFit, entropy_constrained_fit
from itrpo.nn.heads import GaussianPolicy
from itrpo.nn.network import Initializer, network
from itrpo.ops import distributions
from itrpo.types import Array, BehaviorEntry, BehaviorModel, Params, PRNGKey, SpaceSpec


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    log_std_squash: bool = False  # map onto the range by a tanh instead of clipping (BRAC's policies)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit, glorot
    fit: LikelihoodFit = LikelihoodFit()


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> BehaviorModel:
    """fit_steps: length of the fit, for the learning rate's two drops."""
    policy = network(
        lambda draw: GaussianPolicy(
            draw,
            spec,
            config.hidden,
            (config.log_std_low, config.log_std_high),
            config.initializer,
            config.log_std_squash,
        )
    )

    def pre_tanh_log_prob(params: Params, observation: Array, pre_tanh: Array) -> Array:
        return distributions.normal_log_prob(pre_tanh, *policy.apply(params, observation))

    def sample(params: Params, observation: Array, key: PRNGKey) -> Array:
        return distributions.sample_normal(key, *policy.apply(params, observation))

    def log_probs_of_data_and_sample(params: Params, observation: Array, pre_tanh: Array, key: PRNGKey):
        mean, log_std = policy.apply(params, observation)
        own = distributions.sample_normal(key, mean, log_std)
        return (
            distributions.tanh_normal_log_prob(pre_tanh, mean, log_std),
            distributions.tanh_normal_log_prob(own, mean, log_std),
        )

    fit = entropy_constrained_fit(config.fit, spec, fit_steps, policy.init, log_probs_of_data_and_sample)
    return BehaviorModel(
        init=fit.init,
        fit_step=fit.step,
        params=lambda state: state.policy.params,
        pre_tanh_log_prob=pre_tanh_log_prob,
        sample=sample,
        mode=lambda params, observation: policy.apply(params, observation)[0],
        moments=policy.apply,
        export=lambda params: tanh_mlp_export(params, spec),
        batch_size=config.fit.fit_batch_size,
    )


def tanh_mlp_export(params: Params, spec: SpaceSpec) -> dict[str, object]:
    """A GaussianPolicy's arrays as `itrpo.policy` wants them: the last layer cut down to the mean."""
    layers = params.mlp.layers
    arrays: dict[str, object] = {"kind": "tanh_mlp"}
    for i, layer in enumerate(layers):
        rows = spec.action_dim if i == len(layers) - 1 else layer.weight.shape[0]
        arrays[f"weight_{i}"], arrays[f"bias_{i}"] = layer.weight[:rows], layer.bias[:rows]
    return arrays


GAUSSIAN = BehaviorEntry(Config, make)
