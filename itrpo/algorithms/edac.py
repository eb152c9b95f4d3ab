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

import jax
import jax.numpy as jnp

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.kl_actor_critic import is_zero
from itrpo.algorithms.soft_actor_critic import Backbone, Networks, Optimizers, State
from itrpo.errors import InputError
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import pessimism
from itrpo.ranges import check_ranges
from itrpo.types import Algorithm, AlgorithmEntry, Array, Metrics, Params, Preset, PRNGKey, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    diversity_weight: float = 1.0  # the paper's eta, by task (CORL's default 1)
    critics: int = 10  # the paper's N, by task (CORL's default 10)
    backbone: Backbone = Backbone()


def diversity_loss(networks: Networks, critic_params: Params, batch: Transition) -> Array:
    """Mean over the batch of 1/(N-1) sum_{i != j} <g_i, g_j>, differentiable in the critics' parameters."""

    def action_gradient(member_params: Params) -> Array:
        """grad_a Q_i(s,a): [B, A]. A row of the sum depends on its own action alone."""
        return jax.grad(lambda action: jnp.sum(networks.critic(member_params, batch.observation, action)))(batch.action)

    gradients = jax.vmap(action_gradient)(critic_params)
    return jnp.mean(jax.vmap(pessimism.gradient_diversity, in_axes=1)(gradients))


def critic_loss(
    networks: Networks, diversity_weight: Array | float, critic_params: Params, batch: Transition, targets: Array
) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2, and the weighted diversity. targets: [B]."""
    q = networks.critics(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[None]), axis=0))
    metrics = {"critic_loss": loss, "q_std": jnp.mean(jnp.std(q, axis=0)), "q_target": jnp.mean(targets)}
    if is_zero(diversity_weight):
        return loss, metrics | {"diversity_loss": jnp.zeros(())}
    diversity = diversity_loss(networks, critic_params, batch)
    return loss + diversity_weight * diversity, metrics | {"diversity_loss": diversity}


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

    def mean_critic_loss(params: Params) -> tuple[Array, Metrics]:
        return critic_loss(networks, config.diversity_weight, params, batch, targets)

    critic, critic_metrics = gradient_step(state.critic, optimizers.critic, mean_critic_loss)

    metrics = critic_metrics | policy_metrics | {"entropy_weight": entropy_weight}
    return State(policy, polyak(critic, backbone.polyak_rate), log_entropy_weight), metrics


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    parts = soft_actor_critic.make_parts(config.backbone, spec, config.critics)
    step = partial(update, config, parts.networks, parts.optimizers)
    return soft_actor_critic.assemble(config.backbone, spec, parts, parts.init, step)


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    if config.critics < 2:
        raise InputError(f"critics must be at least 2, got {config.critics}: diversity is between critics")
    check_ranges(config, diversity_weight="[0, inf)")


SOURCE = Config(
    backbone=Backbone(policy_hidden=(256, 256, 256), critic_hidden=(256, 256, 256), initializer="edac"),
)
PRESETS = {
    "source": Preset(SOURCE, steps=3_000_000, tasks="edac"),
    "matched": Preset(Config(), tasks="edac_matched"),  # 10 critics on every task: what a CPU can train
}
EDAC = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
