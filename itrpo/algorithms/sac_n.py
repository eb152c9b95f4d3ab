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

import jax
import jax.numpy as jnp

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.soft_actor_critic import Backbone, Networks, Optimizers, State
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ranges import check_ranges
from itrpo.types import Algorithm, AlgorithmEntry, Array, Metrics, Params, Preset, PRNGKey, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    critics: int = 10  # the paper's N, by task (CORL's default 10)
    backbone: Backbone = Backbone()


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = networks.critics(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[None]), axis=0))
    return loss, {"critic_loss": loss, "q_std": jnp.mean(jnp.std(q, axis=0)), "q_target": jnp.mean(targets)}


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Entropy weight, then actor, then critics, then targets. batch: [B, ...]; the key is consumed."""
    backbone = config.backbone
    noises = jax.random.normal(key, (3, *batch.action.shape))

    _, log_prob = soft_actor_critic.sample(networks, state.policy.params, batch.observation, noises[0])
    log_entropy_weight = soft_actor_critic.entropy_step(
        backbone, optimizers, state.log_entropy_weight, log_prob, batch.action.shape[1]
    )
    entropy_weight = jnp.exp(log_entropy_weight.params)

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        return soft_actor_critic.policy_loss(
            networks, entropy_weight, params, state.critic.params, batch.observation, noises[1]
        )

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)

    targets = soft_actor_critic.soft_targets(
        networks, backbone.gamma, entropy_weight, policy.params, state.critic.target_params, batch, noises[2]
    )
    critic, critic_metrics = gradient_step(
        state.critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )

    metrics = critic_metrics | policy_metrics | {"entropy_weight": entropy_weight}
    return State(policy, polyak(critic, backbone.polyak_rate), log_entropy_weight), metrics


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    parts = soft_actor_critic.make_parts(config.backbone, spec, config.critics)
    step = partial(update, config, parts.networks, parts.optimizers)
    return soft_actor_critic.assemble(config.backbone, spec, parts, parts.init, step)


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config)


SOURCE = Config(
    backbone=Backbone(policy_hidden=(256, 256, 256), critic_hidden=(256, 256, 256), initializer="edac"),
)
PRESETS = {
    "source": Preset(SOURCE, steps=3_000_000, tasks="sac_n"),
    "matched": Preset(Config()),  # 10 critics on every task: what a CPU can train
}
SAC_N = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
