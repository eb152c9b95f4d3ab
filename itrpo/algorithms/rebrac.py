"""ReBRAC, "Revisiting the minimalist approach to offline RL" (Tarasov et al., NeurIPS 2023, arXiv 2305.09836).

TD3+BC with layer norm in the critics and a cloning penalty in actor and critic, each with a weight of its own:

    critic   min over Q_i  sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) (min_i Q_i'(s', a~) - critic_bc_weight ||a~ - a'||^2),   a' the action logged at s'
             a~ = clip(pi'(s') + clip(noise_scale * eps, -noise_limit, noise_limit), -1, 1),   eps ~ N(0, I)
    actor    max over pi   lambda min_i Q_i(s, pi(s)) - policy_bc_weight ||pi(s) - a||^2
             lambda = 1 / mean over the batch of |min_i Q_i(s, pi(s))|, held constant
    targets  Q_i', pi' <- Polyak

||.||^2 is a sum over dimensions (TD3+BC takes the mean). Critics step every time; the actor, with the new critics, and
all targets every `policy_delay` steps, first at the first step. The paper's beta_1 and beta_2 are `policy_bc_weight`
and `critic_bc_weight`.

`source` is the authors' code as it stands in CORL (tinkoff-ai/CORL, rebrac.py), with its constants by task. As there,
the actor's target averages the actor from before its step. No departures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior.gaussian import tanh_mlp_export
from itrpo.nn.ensemble import batched, ensemble
from itrpo.nn.heads import DeterministicPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import policy_losses, td
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    Metrics,
    Params,
    Preset,
    PRNGKey,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    policy_bc_weight: float = 0.01  # the paper's beta_1, by task; this default is hopper-medium's
    critic_bc_weight: float = 0.01  # the paper's beta_2, by task; this default is hopper-medium's
    noise_scale: float = 0.2  # standard deviation of the noise on the target's action (TD3)
    noise_limit: float = 0.5  # that noise is clipped to +- this (TD3)
    policy_delay: int = 2  # critic steps per step of the actor and the targets (TD3)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging, per step of the actor
    batch_size: int = 1024  # transitions per step
    policy_learning_rate: float = 1e-3  # Adam
    critic_learning_rate: float = 1e-3  # Adam
    policy_hidden: tuple[int, ...] = (256, 256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # of the critics
    critic_layer_norm: bool = True  # LayerNorm after each ReLU of the critics
    initializer: Initializer = "edac"  # as EDAC's; see itrpo.nn.network.Linear


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    policy_metrics: Metrics  # of the actor's last step


class Networks(NamedTuple):
    """All that the losses know of the networks: batches in, batches out."""

    policy: Network  # observation [B, O] -> action [B, A]
    critics: Network  # (observation [B, O], action [B, A]) -> [2, B]


# --- losses, for a batch -------------------------------------------------------------------------------------------


def critic_targets(
    networks: Networks,
    config: Config,
    target_policy_params: Params,
    target_critic_params: Params,
    batch: Transition,
    noise: Array,
) -> Array:
    """y: [B]; noise [B, A] ~ N(0, I)."""
    action = networks.policy.apply(target_policy_params, batch.next_observation)
    action = td.smoothed_action(action, noise, config.noise_scale, config.noise_limit)
    next_q = jnp.min(networks.critics.apply(target_critic_params, batch.next_observation, action), axis=0)
    penalty = config.critic_bc_weight * jnp.sum(jnp.square(action - batch.next_action), axis=1)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, next_q - penalty)


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = networks.critics.apply(critic_params, batch.observation, batch.action)
    loss = jnp.sum(jnp.mean(jnp.square(q - targets[None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def policy_loss(
    networks: Networks, config: Config, policy_params: Params, critic_params: Params, batch: Transition
) -> tuple[Array, Metrics]:
    """-lambda mean min_i Q_i(s, pi(s)) + policy_bc_weight mean ||pi(s) - a||^2."""
    action = networks.policy.apply(policy_params, batch.observation)
    q = jnp.min(networks.critics.apply(critic_params, batch.observation, action), axis=0)
    q_scale = policy_losses.inverse_magnitude(q)
    squared_errors = jnp.square(action - batch.action)
    loss = -q_scale * jnp.mean(q) + config.policy_bc_weight * jnp.mean(jnp.sum(squared_errors, axis=1))
    return loss, {"policy_loss": loss, "cloning_error": jnp.mean(squared_errors), "q_scale": q_scale}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps the actor and all targets. batch: [B, ...]; the key is consumed."""
    policy, critic = state.policy, state.critic
    noise = jax.random.normal(key, batch.action.shape)
    targets = critic_targets(networks, config, policy.target_params, critic.target_params, batch, noise)
    critic, metrics = gradient_step(
        critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )

    def policy_step() -> State:
        stepped, policy_metrics = gradient_step(
            policy, optimizers.policy, lambda params: policy_loss(networks, config, params, critic.params, batch)
        )
        lagging = polyak(policy, config.polyak_rate).target_params
        return State(stepped._replace(target_params=lagging), polyak(critic, config.polyak_rate), policy_metrics)

    def critic_alone() -> State:
        return State(policy, critic, state.policy_metrics)

    # `step` is one number for all seeds, so this computes one branch, not both
    state = jax.lax.cond(step % config.policy_delay == 0, policy_step, critic_alone)
    return state, metrics | state.policy_metrics


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    actor = network(lambda draw: DeterministicPolicy(draw, spec, config.policy_hidden, config.initializer))
    critic = network(
        lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer, config.critic_layer_norm)
    )
    policy = Network(actor.init, lambda params, observation: jnp.tanh(actor.apply(params, observation)))
    return Networks(batched(policy), ensemble(batched(critic), 2))


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    optimizers = Optimizers(optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate))

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(optimizers.policy, networks.policy.init(policy_key), target=True),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
            {name: jnp.zeros(()) for name in ("policy_loss", "cloning_error", "q_scale")},
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        return networks.policy.apply(state.policy.params, observation[None])[0]

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows."""
        action = networks.policy.apply(state.policy.params, batch.observation)
        q_data = networks.critics.apply(state.critic.params, batch.observation, batch.action)
        q_policy = networks.critics.apply(state.critic.params, batch.observation, action)
        return {
            "probe_q_data": jnp.mean(jnp.min(q_data, axis=0)),
            "probe_q_policy": jnp.mean(jnp.min(q_policy, axis=0)),
            "probe_cloning_error": jnp.mean(jnp.square(action - batch.action)),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=None,
        probes=probes,
        export=lambda state: tanh_mlp_export(state.policy.params, spec),
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config, policy_bc_weight="[0, inf)", critic_bc_weight="[0, inf)")


MATCHED = Config(
    batch_size=256,
    policy_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    policy_hidden=(256, 256),
    critic_hidden=(256, 256),
    initializer="fan_in",
)
HUNDREDFOLD = RewardRule(scale=100.0)
PRESETS = {
    "source": Preset(Config(), antmaze_rewards=HUNDREDFOLD, tasks="rebrac"),
    "matched": Preset(MATCHED, antmaze_rewards=HUNDREDFOLD, tasks="rebrac"),  # AntMaze: its gamma and critic rate, too
}
REBRAC = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
