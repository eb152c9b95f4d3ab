"""CQL over n choices, "Conservative Q-learning" (Kumar, Zhou, Tucker and Levine, NeurIPS 2020, arXiv 2006.04779).

    critic   min over Q   conservative_weight E_D[log sum_a exp Q(s,a) - Q(s,a_D)] + E_D[huber(Q(s,a_D) - y)]   (Eq. 4)
    y        = r + gamma (1-d) Q'(s', argmax_a' Q(s',a'))

The sum over actions is exact. The paper's alpha is `conservative_weight` here; its value is that of d3rlpy's
DiscreteCQL, which has double Q-learning too. Networks are those of discrete BCQ's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, State, critic_export, least_q
from itrpo.algorithms.quick import quick
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import choices, pessimism, td
from itrpo.ranges import NonNegative
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    conservative_weight: NonNegative = 1.0  # the paper's alpha: how hard Q is pushed down off the data (d3rlpy: 1)
    backbone: Backbone = Backbone()


def critic_loss(
    config: Config, networks: Networks, critic_params: Params, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    loss, metrics = action_values.critic_loss(config.backbone, networks, critic_params, batch, targets)
    q = networks.critics.apply(critic_params, batch.observation)
    gap = pessimism.conservative_gap(q, jnp.zeros_like(q), choices.chosen(q, batch.action[None]))
    loss += config.conservative_weight * jnp.sum(jnp.mean(gap, axis=1))
    return loss, metrics | {"conservative_gap": jnp.mean(gap)}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then targets. Nothing is random."""
    q, target_q = (
        least_q(networks, params, batch.next_observation)
        for params in (state.critic.params, state.critic.target_params)
    )
    next_value = action_values.double_q(q, target_q)
    targets = jax.lax.stop_gradient(td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, next_value))
    critic, metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(config, networks, params, batch, targets),
    )
    return State(polyak(critic, config.backbone.polyak_rate)), metrics


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = action_values.make_networks(config.backbone, spec)
    q = partial(action_values.q_of_state, networks)
    return Algorithm(
        init=partial(action_values.start, networks),
        update=partial(update, config, networks),
        acting=action_values.greedy_acting(q, critic_export),
        probes=partial(action_values.greedy_probes, q),
        batch_size=config.backbone.batch_size,
        q_values=action_values.q_values(networks.critics),
    )


SOURCE = Preset(Config(backbone=Backbone(batch_size=64, huber_limit=1.0)))
PRESETS = {"source": SOURCE, "matched": Preset(Config()), "quick": quick(Preset(Config()), {}, tasks=None)}
CQL_DISCRETE = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
