"""BC, behaviour cloning: a tanh-Gaussian policy fitted to the data by maximum likelihood under an entropy floor.

    max over pi   E_D[log pi(a|s)]   subject to   E_D[H(pi(.|s))] >= H0

The same model, loss and code as iTRPO's pi_beta (`itrpo.behavior.gaussian`), trained for as long as the others and
acting by its mode. Source: the iTRPO author's bc_trainer.py and bc.yaml. First described by Pomerleau, "ALVINN" (1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Key

from itrpo.algorithms.quick import quick
from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import FitState
from itrpo.ranges import Count
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    drop_after: Count = 1_000_000  # the learning rate falls to a tenth at 80% and 90% of so many steps (author's code)
    policy: gaussian.Config = gaussian.Config()


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    model = gaussian.make(config.policy, spec, config.drop_after)
    actor = gaussian.make_actor(config.policy, spec)
    acting = actor.acting(config.policy.fit.fit_action_edge)

    def init(key: Key[Array, ""], behavior_params: Params) -> FitState:
        return model.init(key)

    def update(
        state: FitState, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
    ) -> tuple[FitState, Metrics]:
        return model.fit_step(state, batch, key)

    def probes(state: FitState, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows."""
        params, edge = state.policy.params, config.policy.fit.fit_action_edge
        _, log_std = actor.moments(params, batch.observation)
        return {
            "probe_log_prob": jnp.mean(actor.log_prob(params, batch.observation, batch.action, edge)),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    return Algorithm(init, update, acting, probes, model.batch_size, value_metric=None)


MATCHED = Preset(Config(), scaled_fields=("drop_after",))
PRESETS = {
    "source": Preset(Config(policy=gaussian.Config(initializer="rlkit")), scaled_fields=("drop_after",)),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}, tasks=None),
}
BC = AlgorithmEntry(Config, PRESETS, "matched", (), make)
