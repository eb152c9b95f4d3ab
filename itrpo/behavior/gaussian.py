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

from itrpo.behavior.likelihood import Distribution, LikelihoodFit, density_model, gaussian_sample
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.network import Initializer, Network
from itrpo.ops import distributions
from itrpo.ranges import Widths
from itrpo.types import BehaviorEntry, DensityModel, SpaceSpec


@dataclass(frozen=True)
class Config:
    hidden: Widths = (256, 256)  # widths of the hidden layers
    log_std_low: float = -5.0  # clip of the pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    log_std_squash: bool = False  # map onto the range by a tanh instead of clipping (BRAC's policies)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit, glorot
    fit: LikelihoodFit = LikelihoodFit()


GAUSSIAN_DISTRIBUTION = Distribution(distributions.normal_log_prob, gaussian_sample, lambda mean, log_std: mean)


def make_actor(config: Config, spec: SpaceSpec) -> GaussianActor:
    log_std_range = (config.log_std_low, config.log_std_high)
    return gaussian_actor(spec, config.hidden, log_std_range, config.initializer, config.log_std_squash)


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> DensityModel:
    actor = make_actor(config, spec)
    network = Network(actor.init, actor.moments)
    return density_model(config.fit, spec, fit_steps, network, GAUSSIAN_DISTRIBUTION, actor.export, is_gaussian=True)


GAUSSIAN = BehaviorEntry(Config, make)
