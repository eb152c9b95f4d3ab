"""pi_beta over n choices: a network of logits, by maximum likelihood (behaviour model "categorical").

    min over b   E_D[-log b(a|s)] + logit_penalty * mean over choices of logit^2

The penalty keeps log b of choices that were never made finite. Source: discrete BCQ's code (sfujim/BCQ,
discrete_BCQ.py: weight 1e-2, 2 x 256). Rates and their two drops are those of `itrpo.behavior.likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.behavior.likelihood import adam_with_drops
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import ActionValues
from itrpo.nn.network import Initializer, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import choices
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, Positive, Widths
from itrpo.types import BehaviorEntry, CategoricalModel, DiscreteSpec, Metrics, Params, Transition


@dataclass(frozen=True)
class Config:
    hidden: Widths = (256, 256)  # widths of the hidden layers
    initializer: Initializer = "fan_in"  # PyTorch's default
    fit_learning_rate: Positive = 1e-3  # Adam
    fit_batch_size: Count = 256  # transitions per step of the fit
    logit_penalty: NonNegative = 1e-2  # of the mean square of the logits (discrete BCQ's code)


def likelihood_loss(
    logits: Float[Array, "B n"], choice: Int[Array, "B"], penalty: Scalar
) -> tuple[Float[Array, ""], Metrics]:
    """-mean log b(a|s) + penalty mean logit^2."""
    log_probs = jax.nn.log_softmax(logits)
    nll = -jnp.mean(choices.chosen(log_probs, choice))
    entropy = -jnp.mean(choices.expected(log_probs, log_probs))
    return nll + penalty * jnp.mean(jnp.square(logits)), {"behavior_nll": nll, "behavior_entropy": entropy}


def make(config: Config, spec: DiscreteSpec, fit_steps: int) -> CategoricalModel:
    logits = network(lambda draw: ActionValues(draw, spec, config.hidden, config.initializer))
    optimizer = adam_with_drops(config.fit_learning_rate, fit_steps)

    def init(key: Key[Array, ""]) -> Trainable:
        return trainable(optimizer, logits.init(key))

    def fit_step(state: Trainable, batch: Transition, key: Key[Array, ""]) -> tuple[Trainable, Metrics]:
        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            return likelihood_loss(logits.apply(params, batch.observation), batch.action, config.logit_penalty)

        return gradient_step(state, optimizer, loss)

    return CategoricalModel(
        init=init,
        fit_step=fit_step,
        params=lambda state: state.params,
        export=lambda params: {"kind": "argmax", **layer_arrays(params.mlp)},
        batch_size=config.fit_batch_size,
        logits=logits.apply,
    )


CATEGORICAL = BehaviorEntry(Config, make, actions="discrete")
