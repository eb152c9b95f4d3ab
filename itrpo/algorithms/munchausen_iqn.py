"""M-IQN, Munchausen implicit quantile networks (Vieillard, Pietquin and Geist 2020, arXiv 2007.14430), offline.

    critic   min over theta   mean over the batch of sum_i mean_j rho_i(y_j - theta(u_i; s,a)) / kappa
    y_j      = r + tau clip(alpha log pi(a|s), low, 0) + gamma (1-d) <pi, theta'(u_j) - alpha log pi>(s')
    pi       = softmax(Q' / alpha),   Q(s,a) = mean_k theta((k + 1/2) / K; s,a)
    rho_i    Huber's loss at kappa, weighed by |u_i - 1{error < 0}|;   u_i, u_j ~ U(0, 1), anew in each step

theta(u; s,a) is the u-quantile of the return for any u, from an implicit quantile network (Dabney et al. 2018, arXiv
1806.06923, Eq. 4). What is regularised, and the letters, are those of `munchausen_dqn`. `source` has the
constants of its code (google-research, munchausen_rl: 0.03, 0.9, low -1; 64 and 64 quantiles, 32 in Q, kappa 1) with
the networks of discrete BCQ's. One departure: its 32 quantiles in Q are drawn anew each time, here they are midpoints,
so that targets and the exported policy, which is a function of the observation, see one Q.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.quick import quick
from itrpo.errors import InputError
from itrpo.nn.export import quantile_arrays
from itrpo.nn.heads import ImplicitQuantiles
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import choices, td
from itrpo.ranges import Count, Discount, Positive, Rate, Share, Widths
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    alpha: Positive = 0.03  # the paper's tau: the temperature
    tau: Share = 0.9  # the paper's alpha: weight of the scaled log-policy in the reward
    log_policy_low: float = -1.0  # lower clip of alpha log pi, in units of reward (the paper's l_0)
    quantiles: Count = 64  # drawn in each step, of the critic (its code: 64)
    target_quantiles: Count = 64  # drawn in each step, of its target (its code: 64)
    q_quantiles: Count = 32  # K, whose mean is Q (its code: 32)
    cosines: Count = 64  # of u, that the network sees (its code: 64)
    kappa: Positive = 1.0  # where Huber's loss becomes linear (the paper: 1)
    gamma: Discount = 0.99  # discount per step (its code)
    polyak_rate: Rate = 0.005  # target averaging per step (discrete BCQ's code; its code copies every 8,000 steps)
    batch_size: Count = 256  # transitions per step (discrete BCQ's code 64, its own 32)
    critic_learning_rate: Positive = 3e-4  # Adam (discrete BCQ's code; its own 5e-5)
    critic_hidden: Widths = (256, 256)  # u joins before the last of them (discrete BCQ's code: widths)
    initializer: Initializer = "fan_in"  # PyTorch's default (discrete BCQ's code)


class State(NamedTuple):
    critic: Trainable


class Networks(NamedTuple):
    critic: Network  # observation [B, O], u [B, K] -> quantiles [B, K, n]
    critic_optimizer: optax.GradientTransformation


def make_networks(config: Config, spec: DiscreteSpec) -> Networks:
    hidden, cosines = config.critic_hidden, config.cosines
    critic = network(lambda draw: ImplicitQuantiles(draw, spec, hidden, cosines, config.initializer))
    return Networks(critic, optax.adam(config.critic_learning_rate))


# --- the policy, targets and losses --------------------------------------------------------------------------------


def midpoints(count: int) -> Float[Array, "K"]:
    return (jnp.arange(count) + 0.5) / count


def q_of(config: Config, networks: Networks, params: Params, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
    levels = jnp.broadcast_to(midpoints(config.q_quantiles), (len(observation), config.q_quantiles))
    return jnp.mean(networks.critic.apply(params, observation, levels), axis=1)


def log_policy(
    config: Config, networks: Networks, params: Params, observation: Float[Array, "B O"]
) -> Float[Array, "B n"]:
    return jax.nn.log_softmax(q_of(config, networks, params, observation) / config.alpha)


def critic_targets(
    config: Config, networks: Networks, state: State, batch: Transition, levels: Float[Array, "B M"]
) -> Float[Array, "B M"]:
    """y_j, for the levels u_j."""
    params, alpha = state.critic.target_params, config.alpha
    of_action = choices.chosen(log_policy(config, networks, params, batch.observation), batch.action)
    shaping = config.tau * jnp.clip(alpha * of_action, config.log_policy_low, 0.0)
    after = log_policy(config, networks, params, batch.next_observation)
    soft = networks.critic.apply(params, batch.next_observation, levels) - alpha * after[:, None]
    value = choices.expected(jnp.broadcast_to(after[:, None], soft.shape), soft)
    reward, continues = (batch.reward + shaping)[:, None], batch.continues[:, None]
    return td.bellman_target(reward, continues, config.gamma, value)


def critic_loss(
    config: Config,
    networks: Networks,
    params: Params,
    batch: Transition,
    levels: Float[Array, "B K"],
    targets: Float[Array, "B M"],
) -> tuple[Float[Array, ""], Metrics]:
    quantiles = networks.critic.apply(params, batch.observation, levels)
    own = choices.chosen(quantiles, jnp.broadcast_to(batch.action[:, None], quantiles.shape[:2]))
    loss = jnp.mean(choices.quantile_loss(own, targets, config.kappa, levels))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critic, then target."""
    own_key, target_key = jax.random.split(key)
    rows = len(batch.reward)
    target_levels = jax.random.uniform(target_key, (rows, config.target_quantiles))
    targets = jax.lax.stop_gradient(critic_targets(config, networks, state, batch, target_levels))
    levels = jax.random.uniform(own_key, (rows, config.quantiles))
    critic, metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(config, networks, params, batch, levels, targets),
    )
    return State(polyak(critic, config.polyak_rate)), metrics


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        return State(trainable(networks.critic_optimizer, networks.critic.init(key), target=True))

    def newest(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        return log_policy(config, networks, state.critic.params, observation)

    def q_values(state: State, observation: Float[Array, "B O"], choice: Int[Array, "B"]) -> Float[Array, "1 B"]:
        return choices.chosen(q_of(config, networks, state.critic.params, observation), choice)[None]

    def export(state: State) -> dict[str, Any]:
        return quantile_arrays(state.critic.params, midpoints(config.q_quantiles))

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        found = newest(state, batch.observation)
        q = q_of(config, networks, state.critic.params, batch.observation)
        log_prob = jnp.mean(choices.chosen(found, batch.action))
        return action_values.probes(q, found, batch) | {"probe_log_prob": log_prob}

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=action_values.soft_acting(newest, export),
        probes=probes,
        batch_size=config.batch_size,
        q_values=q_values,
    )


def validate(config: Config, behavior: None, behavior_config: None) -> None:
    """Raises InputError for a network without the layer that u joins."""
    if not config.critic_hidden:
        raise InputError("critic_hidden is empty, but u joins a hidden layer: give one width or more")


MATCHED = Preset(Config())
FEW = {"quantiles": 8, "target_quantiles": 8, "q_quantiles": 8}  # fewer, ours: a tenth of the arithmetic
PRESETS = {"source": Preset(Config(batch_size=64)), "matched": MATCHED, "quick": quick(MATCHED, FEW, tasks=None)}
MUNCHAUSEN_IQN = AlgorithmEntry(Config, PRESETS, "source", (), make, validate, actions="discrete")
