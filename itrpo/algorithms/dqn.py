"""DQN (Mnih et al. 2015) with double Q-learning (van Hasselt, Guez and Silver, AAAI 2016, arXiv 1509.06461), offline.

    y = r + gamma (1-d) Q'(s', argmax_a' Q(s',a'))

No regularisation towards the data at all: what happens without one (Fujimoto et al. 2019, arXiv 1910.01708).
`source` is the DQN of discrete BCQ's code (sfujim/BCQ, discrete_BCQ/DQN.py), which takes the largest Q' itself:
`double` false. Departure from Mnih et al.: targets average instead of being copied, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, State, critic_export, least_q
from itrpo.algorithms.quick import quick
from itrpo.nn.trainable import polyak
from itrpo.ops import td
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Preset, Transition


@dataclass(frozen=True)
class Config:
    double: bool = True  # the choice of Q and the value of Q'; false: the largest Q'
    backbone: Backbone = Backbone()


def critic_targets(config: Config, networks: Networks, state: State, batch: Transition) -> Float[Array, "B"]:
    target_q = least_q(networks, state.critic.target_params, batch.next_observation)
    q = least_q(networks, state.critic.params, batch.next_observation) if config.double else target_q
    next_value = action_values.double_q(q, target_q)
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, next_value)


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then targets. Nothing is random."""
    targets = critic_targets(config, networks, state, batch)
    critic, metrics = action_values.critic_step(config.backbone, networks, state.critic, batch, targets)
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


SOURCE = Preset(Config(double=False, backbone=Backbone(batch_size=64, huber_limit=1.0)))
PRESETS = {"source": SOURCE, "matched": Preset(Config()), "quick": quick(Preset(Config()), {}, tasks=None)}
DQN = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
