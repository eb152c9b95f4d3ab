"""What algorithms share whose critics give Q of all n choices at once.

    critic   min over Q_i   mean over the batch of sum_i huber(Q_i(s,a) - y)
    target   Q_i' <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

Where there are several critics, the least counts. What y is, an algorithm's own file says. Expectations over actions
are exact sums, so nothing is random but the rows of a batch.

The constants of `source` are those of discrete BCQ's code for observations that are vectors (sfujim/BCQ, discrete_BCQ,
`regular_parameters`, DQN.py and discrete_BCQ.py): no other of the sources has any, their networks see pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.nn.ensemble import Ensemble, ensemble
from itrpo.nn.export import value_arrays
from itrpo.nn.heads import ActionValues
from itrpo.nn.network import Initializer, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import choices, td
from itrpo.ranges import Count, Discount, Positive, PositiveOrInf, Rate, Widths
from itrpo.types import Acting, DiscreteSpec, Metrics, Params, Transition


@dataclass(frozen=True)
class Backbone:
    gamma: Discount = 0.99  # discount per step (all sources)
    polyak_rate: Rate = 0.005  # target averaging per step (discrete BCQ's code; Atari's DQN copies every 8,000)
    batch_size: Count = 256  # transitions per step (discrete BCQ's code 64)
    critic_learning_rate: Positive = 3e-4  # Adam (discrete BCQ's code)
    critic_hidden: Widths = (256, 256)  # widths of the hidden layers (discrete BCQ's code)
    critics: Count = 1  # ensemble size; the least value counts (all sources 1)
    huber_limit: PositiveOrInf = math.inf  # errors count linearly from here on (discrete BCQ's code 1); inf: squares
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC)
    initializer: Initializer = "fan_in"  # PyTorch's default (discrete BCQ's code)


class State(NamedTuple):
    critic: Trainable  # parameters stacked over the ensemble [N, ...]


class Networks(NamedTuple):
    critics: Ensemble  # observation [B, O] -> Q [N, B, n], or quantiles [N, B, n, K]
    critic_optimizer: optax.GradientTransformation


def make_networks(config: Backbone, spec: DiscreteSpec, each: int = 1) -> Networks:
    hidden, norm = config.critic_hidden, config.critic_layer_norm
    one = network(lambda draw: ActionValues(draw, spec, hidden, config.initializer, norm, each))
    return Networks(ensemble(one, config.critics), optax.adam(config.critic_learning_rate))


def start_critic(networks: Networks, key: Key[Array, ""]) -> Trainable:
    return trainable(networks.critic_optimizer, networks.critics.init(key), target=True)


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step, of algorithms that have critics alone."""
    return State(start_critic(networks, key))


def least_q(networks: Networks, critic_params: Params, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
    """min_i Q_i(s, .)."""
    return td.ensemble_min(networks.critics.apply(critic_params, observation))


def double_q(q: Float[Array, "B n"], target_q: Float[Array, "B n"]) -> Float[Array, "B"]:
    """Q'(s, argmax_a Q(s,a)): the choice of the one, the value of the other (arXiv 1509.06461)."""
    return choices.chosen(target_q, jnp.argmax(q, axis=-1))


def critic_loss(
    config: Backbone, networks: Networks, critic_params: Params, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Float[Array, ""], Metrics]:
    q = networks.critics.apply(critic_params, batch.observation)
    errors = choices.chosen(q, batch.action[None]) - targets[None]
    loss = jnp.sum(jnp.mean(choices.huber(errors, config.huber_limit), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def critic_step(
    config: Backbone, networks: Networks, critic: Trainable, batch: Transition, targets: Float[Array, "B"]
) -> tuple[Trainable, Metrics]:
    """The critics after one step towards the targets, which are held constant."""
    targets = jax.lax.stop_gradient(targets)
    return gradient_step(
        critic, networks.critic_optimizer, lambda params: critic_loss(config, networks, params, batch, targets)
    )


# --- acting --------------------------------------------------------------------------------------------------------


Values = Callable[[Any, Float[Array, "B O"]], Float[Array, "B n"]]  # (state, observation)
Export = Callable[[Any], dict[str, Any]]  # a state's networks, as the policy kind "argmax" has them


def greedy_acting(values: Values, export: Export) -> Acting:
    """The choice of the largest value, and no density."""

    def act(state: Any, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Int[Array, "B"]:
        return jnp.argmax(values(state, observation), axis=-1).astype(jnp.int32)

    return Acting(act, None, lambda state: {"kind": "argmax", **export(state)})


def soft_acting(log_policy: Values, export: Export) -> Acting:
    """The likeliest choice, or one that is drawn."""

    def act(state: Any, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Int[Array, "B"]:
        log_probs = log_policy(state, observation)
        found = jnp.argmax(log_probs, axis=-1) if greedy else jax.random.categorical(key, log_probs)
        return found.astype(jnp.int32)

    def log_prob(state: Any, observation: Float[Array, "B O"], choice: Int[Array, "B"]) -> Float[Array, "B"]:
        return choices.chosen(log_policy(state, observation), choice)

    return Acting(act, log_prob, lambda state: {"kind": "argmax", **export(state)})


def critic_export(state: Any) -> dict[str, Any]:
    return value_arrays(state.critic.params)


def probes(q: Float[Array, "B n"], log_policy: Float[Array, "B n"], batch: Transition) -> Metrics:
    """Means over fixed rows, of the least Q and the policy that acts."""
    return {
        "probe_q_data": jnp.mean(choices.chosen(q, batch.action)),
        "probe_q_policy": jnp.mean(choices.expected(log_policy, q)),
        "probe_entropy": -jnp.mean(choices.expected(log_policy, log_policy)),
        "probe_agreement": jnp.mean(jnp.argmax(log_policy, axis=-1) == batch.action),
    }


def q_values(critics: Ensemble) -> Callable[[Any, Float[Array, "B O"], Int[Array, "B"]], Float[Array, "N B"]]:
    """`Algorithm.q_values` of critics whose parameters are the state's `critic`."""
    return lambda state, observation, choice: choices.chosen(
        critics.apply(state.critic.params, observation), choice[None]
    )


def q_of_state(networks: Networks, state: Any, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
    """The least of the newest critics."""
    return least_q(networks, state.critic.params, observation)


def greedy_probes(values: Values, state: Any, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """`probes` of the policy that chooses the largest value."""
    found = values(state, batch.observation)
    return probes(found, deterministic(found), batch)


SURE = -1e4  # in place of log 0, which times 0 would be NaN


def deterministic(values: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """log probabilities of choosing the largest."""
    return SURE * (1.0 - jax.nn.one_hot(jnp.argmax(values, axis=-1), values.shape[-1]))
