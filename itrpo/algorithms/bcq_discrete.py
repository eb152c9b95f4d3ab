"""Discrete BCQ (Fujimoto, Conti, Ghavamzadeh and Pineau 2019, arXiv 1910.01708): the best of the likely choices.

    likely(s)  = {a : b(a|s) > threshold max_a' b(a'|s)}                                                     (Eq. 8)
    y          = r + gamma (1-d) Q'(s', argmax over likely(s') of Q(s',a'))
    b          max over b   E_D[log b(a|s)] - logit_penalty mean logit^2

b is learned beside Q, by a network of its own. threshold 0 is DQN, 1 clones the likeliest choice. `source` is the
authors' code for vectors (sfujim/BCQ, discrete_BCQ, `regular_parameters`). Departure: b has no target network; there
its copy is made and never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, least_q
from itrpo.algorithms.quick import quick
from itrpo.behavior.categorical import likelihood_loss
from itrpo.nn.export import arrays_of, layers_of, value_arrays
from itrpo.nn.heads import ActionValues
from itrpo.nn.network import Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import choices, td
from itrpo.ops.td import Scalar
from itrpo.ranges import NonNegative, ShareBelowOne
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    threshold: ShareBelowOne = 0.3  # least likelihood, of the likeliest choice (authors' code)
    logit_penalty: NonNegative = 1e-2  # of the mean square of b's logits (authors' code)
    backbone: Backbone = Backbone()


class State(NamedTuple):
    critic: Trainable
    imitation: Trainable  # b
    threshold: Float[Array, ""]  # the policy is nothing without it


def constrained(threshold: Scalar, values: Float[Array, "B n"], logits: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """The values of likely choices; others are below all of them."""
    least = jnp.min(values, axis=-1, keepdims=True)
    return jnp.where(choices.supported(logits, threshold), values, least - (1.0 + jnp.abs(least)))  # 2^24 - 1 is 2^24


def update(
    config: Config,
    networks: Networks,
    imitation: Network,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics and b, both from what they were; then targets. Nothing is random."""
    backbone = config.backbone
    q, target_q = (
        least_q(networks, params, batch.next_observation)
        for params in (state.critic.params, state.critic.target_params)
    )
    logits = imitation.apply(state.imitation.params, batch.next_observation)
    next_value = action_values.double_q(constrained(state.threshold, q, logits), target_q)
    targets = td.bellman_target(batch.reward, batch.continues, backbone.gamma, next_value)
    critic, metrics = action_values.critic_step(backbone, networks, state.critic, batch, targets)
    cloned, more = gradient_step(
        state.imitation,
        networks.critic_optimizer,
        lambda params: likelihood_loss(imitation.apply(params, batch.observation), batch.action, config.logit_penalty),
    )
    return State(polyak(critic, backbone.polyak_rate), cloned, state.threshold), metrics | more


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    backbone = config.backbone
    networks = action_values.make_networks(backbone, spec)
    imitation = network(lambda draw: ActionValues(draw, spec, backbone.critic_hidden, backbone.initializer))

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        critic_key, imitation_key = jax.random.split(key)
        critic = action_values.start_critic(networks, critic_key)
        cloned = trainable(networks.critic_optimizer, imitation.init(imitation_key))
        return State(critic, cloned, jnp.asarray(config.threshold, jnp.float32))

    def values(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        q = least_q(networks, state.critic.params, observation)
        return constrained(state.threshold, q, imitation.apply(state.imitation.params, observation))

    def export(state: State) -> dict[str, Any]:
        cloned = arrays_of(layers_of(state.imitation.params.mlp), "behavior_")
        limit = jnp.log(jnp.maximum(state.threshold, 1e-30))  # a policy's file has finite numbers
        return value_arrays(state.critic.params) | cloned | {"log_threshold": limit}

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        q = least_q(networks, state.critic.params, batch.observation)
        logits = imitation.apply(state.imitation.params, batch.observation)
        acting = action_values.deterministic(constrained(state.threshold, q, logits))
        likely = jnp.mean(choices.supported(logits, state.threshold))
        return action_values.probes(q, acting, batch) | {"probe_likely": likely}

    return Algorithm(
        init=init,
        update=partial(update, config, networks, imitation),
        acting=action_values.greedy_acting(values, export),
        probes=probes,
        batch_size=backbone.batch_size,
        q_values=action_values.q_values(networks.critics),
    )


SOURCE = Preset(Config(backbone=Backbone(batch_size=64, huber_limit=1.0)))
PRESETS = {"source": SOURCE, "matched": Preset(Config()), "quick": quick(Preset(Config()), {}, tasks=None)}
BCQ_DISCRETE = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
