"""EDAC, ensemble-diversified actor-critic ("Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble", An, Moon, Kim and Song, NeurIPS 2021, arXiv 2110.01548).

SAC-N whose critics are made to disagree in their action gradients, so that a tenth of the critics will do:

    y       = r + gamma (1-d) (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s')),   a' ~ pi(.|s')
    critics   min over Q_i   sum_i (Q_i(s,a) - y)^2 + diversity_weight * 1/(N-1) sum_{i != j} <g_i, g_j>
              g_i = grad_a Q_i(s,a) / ||grad_a Q_i(s,a)||   at logged (s,a); pairs are ordered, each counts twice
    actor     min over pi    entropy_weight * log pi(a|s) - min_i Q_i(s,a),   a ~ pi(.|s)

diversity_weight is the paper's eta; at 0 this is `sac_n` to the bit. One step, each part with samples of its own:
entropy weight; actor, with the new weight; critics, with the new weight and the new actor; targets. That is the order
of CORL (corl-team/CORL, edac.py, the codebase of `source`, whose scores are published); the authors' code
(snu-mllab/EDAC) forms all losses before it steps any of them. `source` has CORL's constants, the same as the authors'
defaults; N and eta by task are in tasks/edac.toml. The diversity counts all pairs, as in both; an older commit of the
authors' draws min(N, A) members per step, with which the same eta weighs less. Departures from CORL: hidden weights of
the critics start within 1/sqrt(fan-in), the authors' law (CORL's ensemble layers read the output width), and the tanh's
log-determinant is exact (CORL adds 1e-6 inside the log).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.kl_actor_critic import is_zero
from itrpo.algorithms.quick import quick
from itrpo.algorithms.soft_actor_critic import ACTION_EDGE, Backbone
from itrpo.nn import critics, soft
from itrpo.nn.ensemble import action_gradients
from itrpo.nn.soft import Networks, State
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import pessimism
from itrpo.ops.td import Scalar
from itrpo.ranges import NonNegative, Several
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    diversity_weight: NonNegative = 1.0  # the paper's eta, by task (CORL's default 1)
    critics: Several = 10  # the paper's N, by task (CORL's default 10)
    backbone: Backbone = Backbone()


def critic_loss(
    networks: Networks, diversity_weight: Scalar, critic_params: Params, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    """SAC-N's, and the weighted mean over the batch of 1/(N-1) sum_{i != j} <g_i, g_j>."""
    loss, metrics = critics.critic_loss(networks.critics, critic_params, batch, targets)
    if is_zero(diversity_weight):
        return loss, metrics | {"diversity_loss": jnp.zeros(())}
    gradients = action_gradients(networks.critics, critic_params, batch.observation, batch.action)
    diversity = jnp.mean(pessimism.gradient_diversity(gradients))
    return loss + diversity_weight * diversity, metrics | {"diversity_loss": diversity}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Entropy weight, then actor, then critics, then targets. The key is consumed."""
    state, targets, metrics = soft_actor_critic.step_before_critics(config.backbone, networks, state, batch, key)
    critic, critic_metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(networks, config.diversity_weight, params, batch, targets),
    )
    return state._replace(critic=polyak(critic, config.backbone.polyak_rate)), metrics | critic_metrics


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = soft_actor_critic.make_networks(config.backbone, spec, config.critics)
    return Algorithm(
        init=lambda key, behavior_params: soft.start(networks, key),
        update=partial(update, config, networks),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=partial(soft_actor_critic.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=critics.q_values(networks.critics),
    )


MATCHED = Preset(Config(), tasks="edac_matched")
PRESETS = {
    "source": Preset(Config(backbone=soft_actor_critic.CORL), steps=3_000_000, tasks="edac"),
    "matched": MATCHED,  # 10 critics on every task: what a CPU can train
    "quick": quick(MATCHED, {}),
}
EDAC = AlgorithmEntry(Config, PRESETS, "source", (), make)
