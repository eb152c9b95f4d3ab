"""BC, behaviour cloning: a tanh-Gaussian policy fitted to the data by maximum likelihood under an entropy floor.

    max over pi   E_D[log pi(a|s)]   subject to   E_D[H(pi(.|s))] >= H0

The same model, loss and code as iTRPO's pi_beta (`itrpo.behavior.gaussian`), trained for as long as the others and
acting by its mode. Source: the iTRPO author's bc_trainer.py and bc.yaml. First described by Pomerleau, "ALVINN" (1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import FitState
from itrpo.ops import distributions
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    Metrics,
    Params,
    Preset,
    PRNGKey,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    drop_after: int = 1_000_000  # the learning rate falls to a tenth at 80% and 90% of this many steps (author's code)
    policy: gaussian.Config = gaussian.Config()


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    model = gaussian.make(config.policy, spec, config.drop_after)
    edge = config.policy.fit.fit_action_edge

    def init(key: PRNGKey, behavior_params: Params | None) -> FitState:
        return model.init(key)

    def update(state: FitState, batch: Transition, key: PRNGKey, step: Array) -> tuple[FitState, Metrics]:
        return model.fit_step(state, batch, key)

    def act(state: FitState, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        params = model.params(state)
        return jnp.tanh(model.mode(params, observation) if greedy else model.sample(params, observation, key))

    def log_prob(state: FitState, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, edge)
        assert model.pre_tanh_log_prob is not None
        density = model.pre_tanh_log_prob(model.params(state), observation, pre_tanh)
        return density - distributions.tanh_log_det(pre_tanh)

    def probes(state: FitState, batch: Transition, key: PRNGKey) -> Metrics:
        log_probs = jax.vmap(log_prob, in_axes=(None, 0, 0))(state, batch.observation, batch.action)
        assert model.moments is not None
        _, log_std = jax.vmap(model.moments, in_axes=(None, 0))(model.params(state), batch.observation)
        return {"probe_log_prob": jnp.mean(log_probs), "probe_policy_std": jnp.mean(jnp.exp(log_std))}

    return Algorithm(
        init=init,
        update=update,
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=lambda state: model.export(model.params(state)),
        batch_size=model.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config, drop_after="[1, inf)")


PRESETS = {
    "source": Preset(Config(policy=gaussian.Config(initializer="rlkit")), scaled_fields=("drop_after",)),
    "matched": Preset(Config(), scaled_fields=("drop_after",)),
}
BC = AlgorithmEntry(Config, PRESETS, "matched", (), make, validate)
