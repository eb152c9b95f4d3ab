"""M-DQN, Munchausen reinforcement learning (Vieillard, Pietquin and Geist, NeurIPS 2020, arXiv 2007.14430), offline.

    y = r + tau clip(alpha log pi(a|s), low, 0) + gamma (1-d) <pi, Q' - alpha log pi>(s'),   pi = softmax(Q' / alpha)

The left column of the paper's Table 1 beside iTRPO's right one: the same shaping with the policy's logarithm itself in
place of its ratio to pi_beta, so it regularises towards the last policy and to entropy, not to the data. In letters of
this library: the paper's temperature tau is alpha, its Munchausen factor alpha is tau. `source` has its constants
(0.03, 0.9, low -1) with the networks of discrete BCQ's code; its rewards are those of Atari, clipped to [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values, exact_kl
from itrpo.algorithms.action_values import Backbone, Networks
from itrpo.algorithms.exact_kl import Penalty, State
from itrpo.algorithms.quick import quick
from itrpo.ops import choices, td
from itrpo.ranges import Share
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    tau: Share = 0.9  # the paper's alpha: weight of the scaled log-policy in the reward
    log_policy_low: float = -1.0  # lower clip of alpha log pi, in units of reward (the paper's l_0)
    penalty: Penalty = Penalty(0.03)  # the paper's tau: the temperature
    backbone: Backbone = Backbone()


def critic_targets(config: Config, networks: Networks, state: State, batch: Transition) -> Float[Array, "B"]:
    alpha, params = state.alpha, state.critic.target_params
    at = partial(exact_kl.improved, networks, no_prior, alpha, params, None)
    log_policy = choices.chosen(at(batch.observation).log_policy, batch.action)
    shaping = config.tau * jnp.clip(alpha * log_policy, config.log_policy_low, 0.0)
    next_value = at(batch.next_observation).value  # alpha log sum exp(Q / alpha) = <pi, Q - alpha log pi>
    return td.bellman_target(batch.reward + shaping, batch.continues, config.backbone.gamma, next_value)


def no_prior(params: Params, observation: Float[Array, "B O"]) -> Float[Array, "B 1"]:
    """The logarithm of a prior of 1 for every choice, which makes a KL a negative entropy."""
    return jnp.zeros((len(observation), 1))


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then targets. Nothing is random."""
    targets = critic_targets(config, networks, state, batch)
    critic, metrics = action_values.critic_step(config.backbone, networks, state.critic, batch, targets)
    return exact_kl.after(config.penalty, config.backbone, state, critic, targets), metrics


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = action_values.make_networks(config.backbone, spec)

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        found = exact_kl.improved(networks, no_prior, state.alpha, state.critic.params, None, batch.observation)
        log_prob = jnp.mean(choices.chosen(found.log_policy, batch.action))
        return action_values.probes(found.q, found.log_policy, batch) | {"probe_log_prob": log_prob}

    return Algorithm(
        init=partial(exact_kl.start, config.penalty, networks),
        update=partial(update, config, networks),
        acting=exact_kl.acting(networks, no_prior, None),
        probes=probes,
        batch_size=config.backbone.batch_size,
        q_values=action_values.q_values(networks.critics),
    )


MATCHED = Preset(Config())
PRESETS = {
    "source": Preset(Config(backbone=Backbone(batch_size=64))),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}, tasks=None),
}
MUNCHAUSEN_DQN = AlgorithmEntry(Config, PRESETS, "source", (), make, exact_kl.validate, actions="discrete")
