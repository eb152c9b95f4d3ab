"""SAC-N, a soft actor-critic with N clipped critics ("Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble", An, Moon, Kim and Song, NeurIPS 2021, arXiv 2110.01548).

    y       = r + gamma (1-d) (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s')),   a' ~ pi(.|s')
    critics   min over Q_i   sum_i (Q_i(s,a) - y)^2
    actor     min over pi    entropy_weight * log pi(a|s) - min_i Q_i(s,a),   a ~ pi(.|s)

The smallest of N critics is low where they disagree, which is away from the data: nothing else holds the policy there.
N = 2 is the clipped soft actor-critic. It takes N in the hundreds on Hopper; `edac` is the authors' way around that.

One step, each part with samples of its own: entropy weight; actor, with the new weight; critics, with the new weight
and the new actor; targets. That is the order of CORL (corl-team/CORL, sac_n.py, the codebase of `source`, whose scores
are published); the authors' code (snu-mllab/EDAC) forms all losses before it steps any of them. `source` has CORL's
constants, the same as the authors' defaults; N by task is in tasks/sac_n.toml. Departures from CORL: hidden weights of
the critics start within 1/sqrt(fan-in), the authors' law (CORL's ensemble layers read the output width), and the tanh's
log-determinant is exact (CORL adds 1e-6 inside the log).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jax import Array
from jaxtyping import Int, Key

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.quick import quick
from itrpo.algorithms.soft_actor_critic import ACTION_EDGE, Backbone
from itrpo.nn import soft
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.soft import Networks, State
from itrpo.nn.trainable import polyak
from itrpo.ranges import Count
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    critics: Count = 10  # the paper's N, by task (CORL's default 10)
    backbone: Backbone = Backbone()


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Entropy weight, then actor, then critics, then targets. The key is consumed."""
    state, targets, metrics = soft_actor_critic.step_before_critics(config.backbone, networks, state, batch, key)
    critic, critic_metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    return state._replace(critic=polyak(critic, config.backbone.polyak_rate)), metrics | critic_metrics


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = soft_actor_critic.make_networks(config.backbone, spec, config.critics)
    return Algorithm(
        init=lambda key, behavior_params: soft.start(networks, key),
        update=partial(update, config, networks),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=partial(soft_actor_critic.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


PRESETS = {
    "source": Preset(Config(backbone=soft_actor_critic.CORL), steps=3_000_000, tasks="sac_n"),
    "quick": quick(Preset(Config()), {}),
    "matched": Preset(Config()),  # 10 critics on every task: what a CPU can train
}
SAC_N = AlgorithmEntry(Config, PRESETS, "source", (), make)
