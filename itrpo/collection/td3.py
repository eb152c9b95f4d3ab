"""TD3: a deterministic policy that learns in its environment (Fujimoto, van Hoof and Meger 2018, arXiv 1802.09477).

    critic   min over Q_i   sum_i (Q_i(s,a) - y)^2,   y = r + gamma (1-d) min_i Q_i'(s', a~)
             a~ = clip(pi'(s') + clip(noise_scale * eps, -noise_limit, noise_limit), -1, 1),   eps ~ N(0, I)
    actor    min over pi    -Q_1(s, pi(s)),   and Q_i', pi' <- Polyak, every `policy_delay` updates
    acting   a = clip(pi(s) + exploration_noise * eps, -1, 1)

Constants are those of the author's code (sfujim/TD3). Actions that are cut have no density, so a run's replay has none.
A file of the policy is a tanh-Gaussian's, as that format has it: its mode is pi, and before the tanh its spread is
`exploration_noise` everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.collection import rollout
from itrpo.collection.agent import Agent, Updates, check_policy_hidden, file_arrays
from itrpo.nn.actors import DeterministicActor, deterministic_actor
from itrpo.nn.critics import critic_step, least_q
from itrpo.nn.ensemble import Ensemble, critic_ensemble, first_member
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import td
from itrpo.ranges import Count, Discount, NonNegative, NonNegativeOrInf, Positive, Rate, Widths, check_ranges
from itrpo.types import Metrics, Params, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    gamma: Discount = 0.99  # discount per step (the paper's)
    polyak_rate: Rate = 0.005  # target averaging per update of the actor (the paper's)
    batch_size: Count = 256  # transitions per update (author's code; paper 100)
    policy_learning_rate: Positive = 3e-4  # Adam (author's code; paper 1e-3)
    critic_learning_rate: Positive = 3e-4  # Adam (author's code; paper 1e-3)
    policy_hidden: Widths = (256, 256)  # widths of the hidden ReLU layers (author's code; paper 400, 300)
    critic_hidden: Widths = (256, 256)  # of the critics
    exploration_noise: Positive = 0.1  # standard deviation of the noise on actions (the paper's)
    noise_scale: NonNegative = 0.2  # standard deviation of the noise on the target's action (the paper's)
    noise_limit: NonNegativeOrInf = 0.5  # that noise is clipped to +- this (the paper's)
    policy_delay: Count = 2  # updates of the critics per update of the actor and of all targets (the paper's)


class State(NamedTuple):
    policy: Trainable  # with a target
    critic: Trainable  # parameters of both critics, stacked [2, ...]; with a target
    policy_metrics: Metrics  # of the actor's last update


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    actor: DeterministicActor
    critics: Ensemble
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


def validate(config: Config) -> None:
    """Raises InputError for a value outside its range."""
    check_ranges(config)
    check_policy_hidden(config.policy_hidden)


def critic_targets(
    config: Config, networks: Networks, state: State, batch: Transition, noise: Float[Array, "B A"]
) -> Float[Array, "B"]:
    """y; noise ~ N(0, I)."""
    action = networks.actor.apply(state.policy.target_params, batch.next_observation)
    action = td.smoothed_action(action, noise, config.noise_scale, config.noise_limit)
    next_q = least_q(networks.critics, state.critic.target_params, batch.next_observation, action)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, next_q)


def policy_loss(
    networks: Networks, policy_params: Params, first_critic: Params, observation: Float[Array, "B O"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of -Q_1(s, pi(s))."""
    action = networks.actor.apply(policy_params, observation)
    loss = -jnp.mean(networks.critics.apply_one(first_critic, observation, action))
    return loss, {"policy_loss": loss}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], number: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics; then, if it is time, the actor with the new critics, and all targets. The key is consumed."""
    targets = critic_targets(config, networks, state, batch, jax.random.normal(key, batch.action.shape))
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    def policy_step() -> State:
        first = first_member(critic.params)
        policy, policy_metrics = gradient_step(
            state.policy,
            networks.policy_optimizer,
            lambda params: policy_loss(networks, params, first, batch.observation),
        )
        return State(polyak(policy, config.polyak_rate), polyak(critic, config.polyak_rate), policy_metrics)

    is_due = (number + 1) % config.policy_delay == 0
    state = jax.lax.cond(is_due, policy_step, lambda: state._replace(critic=critic))
    return state, metrics | state.policy_metrics


def start(networks: Networks, key: Key[Array, ""]) -> State:
    policy_key, critic_key = jax.random.split(key)
    return State(
        trainable(networks.policy_optimizer, networks.actor.init(policy_key), target=True),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        {"policy_loss": jnp.zeros(())},
    )


def make(config: Config, spec: SpaceSpec) -> Updates:
    """TD3 for observations and actions of these sizes, as pure functions."""
    networks = Networks(
        deterministic_actor(spec, config.policy_hidden, "fan_in"),
        critic_ensemble(spec, config.critic_hidden, 2, "fan_in"),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )
    return Updates(partial(start, networks), partial(update, config, networks))


# --- acting on the host --------------------------------------------------------------------------------------------


def acting_arrays(state: State, config: Config) -> dict[str, np.ndarray]:
    *hidden, head = state.policy.params.mlp.layers
    weight, bias = np.asarray(head.weight), np.asarray(head.bias)
    noise = np.full_like(bias, np.log(config.exploration_noise))
    return file_arrays(hidden, {"mean": (weight, bias), "log_std": (np.zeros_like(weight), noise)})


def act(policy: rollout.ActingPolicy, observations: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mode, _ = rollout.act(policy, observations, np.zeros_like(noise))
    actions = np.clip(mode + np.exp(policy.log_std[1])[None] * noise, -1, 1)
    return actions, np.full(len(actions), np.nan, np.float32)


AGENT = Agent("TD3", ("critic_loss", "policy_loss", "q_target"), validate, make, acting_arrays, act)
