"""EMaQ, "Expected-max Q-learning" (Ghasemipour, Schuurmans and Gu, ICML 2021, arXiv 2007.11091).

Q-learning whose maximum runs over n actions drawn from a model b of pi_beta, which is fitted first and frozen:

    critics   min over Q_i   sum_i (Q_i(s,a) - y)^2
              y = r + gamma (1-d) max_{j <= n} [lambda min_i Q_i' + (1 - lambda) max_i Q_i'](s', a_j),   a_j ~ b(.|s')
    targets   Q_i' <- Polyak
    acting    of n actions a_j ~ b(.|s) the one with the largest Q_1

There is no actor: n alone says how far the policy goes, from pi_beta at 1 to the best action of its support. This is
BCQ without the perturbation and with a better model, one whose dimensions depend on each other: here `flow`. The
paper's lambda is `min_weight`.

No code of the authors was found; docs/constants.md says which constants are ours. Departures: the greedy policy draws
with the same noise in every state, so that an exported policy is a function of the observation, and goes by Q_1, not
by the ensemble.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.behavior import flow
from itrpo.nn import critics
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.ensemble import Ensemble, critic_ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.network import Initializer
from itrpo.nn.trainable import Trainable, polyak, trainable
from itrpo.ops import td
from itrpo.ranges import Count, Discount, Positive, Rate, Share, Widths
from itrpo.types import (
    Acting,
    Algorithm,
    AlgorithmEntry,
    DensityModel,
    Metrics,
    Params,
    Preset,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    target_actions: Count = 100  # n: actions of b at s' that the target's maximum runs over
    acting_actions: Count = 100  # actions of b that the policy chooses from: the paper's n again
    min_weight: Share = 1.0  # the paper's lambda: weight of the smallest critic against the largest in targets
    critics: Count = 2  # ensemble size
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    critic_learning_rate: Positive = 3e-4  # Adam
    critic_hidden: Widths = (256, 256, 256)  # widths of the hidden layers
    initializer: Initializer = "fan_in"  # see itrpo.nn.network.Linear


class State(NamedTuple):
    critic: Trainable  # parameters of the critics, stacked [critics, ...]
    behavior_params: Params  # of b, frozen


class Networks(NamedTuple):
    """The networks, and what moves the critics' parameters."""

    transport: Callable[[Params, Array, Array], Array]  # of b: (params, observation [B, O], noise [B, n, A]) -> u
    critics: Ensemble
    critic_optimizer: optax.GradientTransformation


# --- targets and one step ------------------------------------------------------------------------------------------


def proposed_actions(
    networks: Networks, behavior_params: Params, observation: Float[Array, "B O"], noise: Float[Array, "B n A"]
) -> Float[Array, "B n A"]:
    """n actions a ~ b(.|s) for each observation, noise ~ N(0, I)."""
    return jnp.tanh(networks.transport(behavior_params, observation, noise))


def critic_targets(
    config: Config, networks: Networks, state: State, batch: Transition, actions: Float[Array, "B n A"]
) -> Float[Array, "B"]:
    """y. The critics are mixed first, then the best action is taken."""
    q = networks.critics.apply(state.critic.target_params, batch.next_observation, actions)
    best = jnp.max(td.ensemble_mix(q, config.min_weight), axis=1)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, best)


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics and their targets. The key is consumed."""
    noise = jax.random.normal(key, (len(batch.reward), config.target_actions, batch.action.shape[1]))
    actions = proposed_actions(networks, state.behavior_params, batch.next_observation, noise)
    targets = critic_targets(config, networks, state, batch, actions)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    return state._replace(critic=polyak(critic, config.polyak_rate)), metrics


# --- networks, acting, and what is measured ------------------------------------------------------------------------


def make_networks(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Networks:
    assert behavior.transport is not None, "AlgorithmEntry.behaviors lists models that have it"
    return Networks(
        behavior.transport,
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer),
        optax.adam(config.critic_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step."""
    critic = trainable(networks.critic_optimizer, networks.critics.init(key), target=True)
    return State(critic, behavior_params)


def acting(config: Config, spec: SpaceSpec, networks: Networks, behavior: DensityModel) -> Acting:
    """The best of `acting_actions` draws; greedy, from the same noise in every state."""
    shape = config.acting_actions, spec.action_dim

    def greedy_noise() -> Float[Array, "n A"]:
        return jax.random.normal(jax.random.key(0), shape)

    def act(state: State, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
        rows = (len(observation), *shape)
        noise = jnp.broadcast_to(greedy_noise(), rows) if greedy else jax.random.normal(key, rows)
        actions = proposed_actions(networks, state.behavior_params, observation, noise)
        return td.best_action(
            actions, networks.critics.apply_one(first_member(state.critic.params), observation, actions)
        )

    def export(state: State) -> dict[str, Any]:
        return {
            **behavior.export(state.behavior_params),
            **layer_arrays(first_member(state.critic.params).mlp, "critic_"),
            "kind": "best_of_spline",
            "noise": greedy_noise(),
        }

    return Acting(act, None, export)


def probes(networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows; probe_q_policy is at one draw of b per state, not at the best of many."""
    noise = jax.random.normal(key, batch.action[:, None].shape)
    action = proposed_actions(networks, state.behavior_params, batch.observation, noise)[:, 0]
    return critics.probes(networks.critics, state.critic.params, batch, action)


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    networks = make_networks(config, spec, behavior)
    return Algorithm(
        init=partial(start, networks),
        update=partial(update, config, networks),
        acting=acting(config, spec, networks, behavior),
        probes=partial(probes, networks),
        batch_size=config.batch_size,
        q_values=q_values(networks.critics),
    )


SOURCE = Preset(Config(), "flow", flow.Config(hidden=(750, 750)), antmaze_rewards=RewardRule(shift=-1.0))
MATCHED = SOURCE._replace(config=replace(Config(), critic_hidden=(256, 256)), behavior_config=flow.Config())
PRESETS = {"source": SOURCE, "matched": MATCHED, "quick": quick(MATCHED, {})}
EMAQ = AlgorithmEntry(Config, PRESETS, "source", ("flow",), make)
