"""BC over n choices: a network of logits fitted to the data by maximum likelihood, acting by the likeliest choice.

    max over pi   E_D[log pi(a|s)] - logit_penalty * mean over choices of logit^2

The same model and code as pi_beta of the other algorithms (`itrpo.behavior.categorical`), trained for as long as they
are. The source of the penalty, and of `source`, is the code of discrete BCQ (arXiv 1910.01708, sfujim/BCQ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.quick import quick
from itrpo.behavior import categorical
from itrpo.nn.trainable import Trainable
from itrpo.ops import choices
from itrpo.ranges import Count
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    drop_after: Count = 1_000_000  # the learning rate falls to a tenth at 80% and 90% of so many steps (author's BC)
    policy: categorical.Config = categorical.Config()


class State(NamedTuple):
    policy: Trainable


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    model = categorical.make(config.policy, spec, config.drop_after)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        return State(model.init(key))

    def update(state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]) -> tuple[State, Metrics]:
        policy, metrics = model.fit_step(state.policy, batch, key)
        return State(policy), metrics

    def log_policy(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        return jax.nn.log_softmax(model.logits(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows."""
        log_probs = log_policy(state, batch.observation)
        return {
            "probe_log_prob": jnp.mean(choices.chosen(log_probs, batch.action)),
            "probe_entropy": -jnp.mean(choices.expected(log_probs, log_probs)),
        }

    acting = action_values.soft_acting(log_policy, lambda state: model.export(state.policy.params))
    return Algorithm(init, update, acting, probes, model.batch_size, value_metric=None)


MATCHED = Preset(Config(), scaled_fields=("drop_after",))
PRESETS = {
    "source": MATCHED._replace(config=Config(policy=categorical.Config(fit_learning_rate=3e-4, fit_batch_size=64))),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}, tasks=None),
}
BC_DISCRETE = AlgorithmEntry(Config, PRESETS, "matched", (), make, actions="discrete")
