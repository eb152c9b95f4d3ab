"""REM, random ensemble mixture (Agarwal, Schuurmans and Norouzi, ICML 2020, arXiv 1907.04543), offline.

    critic   min over Q_1..Q_K   mean over the batch of huber(sum_k w_k Q_k(s,a) - y)
    y        = r + gamma (1-d) max_a' sum_k w_k Q_k'(s',a'),   w_k = u_k / sum_j u_j,   u ~ U(0,1)^K, one a step
    acting   argmax_a   mean_k Q_k(s,a)

K heads on one network; each step trains one random mixture of them towards its own targets, so all mixtures have to
agree with their Bellman equations. Source: google-research/batch_rl (multi_head/multi_head_dqn_agent.py and
atari_helpers.py: STOCHASTIC, one mixture, the same for Q and Q'). `source`: K = 200 of the paper, networks and rates of
discrete BCQ's code (its own are for pictures). Departures: targets average, there they are copied; where there are
several networks (1 in the source), the least of their mixtures counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, State
from itrpo.algorithms.quick import quick
from itrpo.nn.export import value_arrays
from itrpo.nn.trainable import polyak
from itrpo.ops import td
from itrpo.ranges import Several
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Preset, Transition


@dataclass(frozen=True)
class Config:
    heads: Several = 200  # K (the paper: 200)
    backbone: Backbone = Backbone()


def draw_weights(key: Key[Array, ""], heads: int) -> Float[Array, "K"]:
    """w: even numbers, made to add to 1. The key is consumed."""
    numbers = jax.random.uniform(key, (heads,))
    return numbers / jnp.sum(numbers)


def mixed(networks: Networks, weights: Float[Array, "K"]) -> Networks:
    """The same networks, whose Q is the mixture of their heads."""
    heads = networks.critics

    def apply(params: Any, observation: Float[Array, "B O"]) -> Float[Array, "N B n"]:
        return heads.apply(params, observation) @ weights

    return networks._replace(critics=heads._replace(apply=apply))


def critic_targets(config: Config, mixture: Networks, state: State, batch: Transition) -> Float[Array, "B"]:
    """y of a mixture."""
    next_q = action_values.least_q(mixture, state.critic.target_params, batch.next_observation)
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, jnp.max(next_q, axis=-1))


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """A mixture of the critics' heads, then targets. The key is consumed."""
    mixture = mixed(networks, draw_weights(key, config.heads))
    targets = critic_targets(config, mixture, state, batch)
    critic, metrics = action_values.critic_step(config.backbone, mixture, state.critic, batch, targets)
    return State(polyak(critic, config.backbone.polyak_rate)), metrics


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = action_values.make_networks(config.backbone, spec, config.heads)
    even = jnp.full(config.heads, 1.0 / config.heads)

    def q(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        """The least of the networks' means over heads."""
        return action_values.q_of_state(mixed(networks, even), state, observation)

    def export(state: State) -> dict[str, Any]:
        return value_arrays(state.critic.params, jnp.kron(jnp.eye(spec.num_actions), even[None]))

    return Algorithm(
        init=partial(action_values.start, networks),
        update=partial(update, config, networks),
        acting=action_values.greedy_acting(q, export),
        probes=partial(action_values.greedy_probes, q),
        batch_size=config.backbone.batch_size,
        q_values=action_values.q_values(mixed(networks, even).critics),
    )


SOURCE = Preset(Config(backbone=Backbone(batch_size=64, huber_limit=1.0)))
PRESETS = {"source": SOURCE, "matched": Preset(Config()), "quick": quick(Preset(Config()), {"heads": 32}, tasks=None)}
REM = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
