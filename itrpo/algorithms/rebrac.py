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

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import td3
from itrpo.algorithms.quick import quick
from itrpo.algorithms.td3 import Backbone, Networks, State
from itrpo.nn.critics import critic_step, least_q, q_values
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import policy_losses, td
from itrpo.ranges import NonNegative
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, RewardRule, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    policy_bc_weight: NonNegative = 0.01  # the paper's beta_1, by task; this default is hopper-medium's
    critic_bc_weight: NonNegative = 0.01  # the paper's beta_2, by task; this default is hopper-medium's
    backbone: Backbone = Backbone(
        batch_size=1024,
        policy_learning_rate=1e-3,
        critic_learning_rate=1e-3,
        policy_hidden=(256, 256, 256),
        critic_hidden=(256, 256, 256),
        critic_layer_norm=True,
        initializer="edac",
    )


# --- losses --------------------------------------------------------------------------------------------------------


def critic_targets(
    config: Config, networks: Networks, state: State, batch: Transition, noise: Float[Array, "B A"]
) -> Float[Array, "B"]:
    """y; noise ~ N(0, I)."""
    action = networks.actor.apply(state.policy.target_params, batch.next_observation)
    action = td.smoothed_action(action, noise, config.backbone.noise_scale, config.backbone.noise_limit)
    next_q = least_q(networks.critics, state.critic.target_params, batch.next_observation, action)
    penalty = config.critic_bc_weight * jnp.sum(jnp.square(action - batch.next_action), axis=1)
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, next_q - penalty)


def policy_loss(
    config: Config, networks: Networks, policy_params: Params, critic_params: Params, batch: Transition
) -> tuple[Float[Array, ""], Metrics]:
    """-lambda mean min_i Q_i(s, pi(s)) + policy_bc_weight mean ||pi(s) - a||^2."""
    action = networks.actor.apply(policy_params, batch.observation)
    q = least_q(networks.critics, critic_params, batch.observation, action)
    q_scale = policy_losses.inverse_magnitude(q)
    squared_errors = jnp.square(action - batch.action)
    loss = -q_scale * jnp.mean(q) + config.policy_bc_weight * jnp.mean(jnp.sum(squared_errors, axis=1))
    return loss, {"policy_loss": loss, "cloning_error": jnp.mean(squared_errors), "q_scale": q_scale}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps the actor and all targets. The key is consumed."""
    rate = config.backbone.polyak_rate
    noise = jax.random.normal(key, batch.action.shape)
    targets = critic_targets(config, networks, state, batch, noise)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    def policy_step() -> State:
        policy, policy_metrics = gradient_step(
            state.policy,
            networks.policy_optimizer,
            lambda params: policy_loss(config, networks, params, critic.params, batch),
        )
        lagging = polyak(state.policy, rate).target_params
        return State(policy._replace(target_params=lagging), polyak(critic, rate), None, policy_metrics)

    is_due = step % config.backbone.policy_delay == 0
    state = jax.lax.cond(is_due, policy_step, lambda: state._replace(critic=critic))
    return state, metrics | state.policy_metrics


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = td3.make_networks(config.backbone, spec)
    return Algorithm(
        init=partial(td3.start, networks, ("policy_loss", "cloning_error", "q_scale")),
        update=partial(update, config, networks),
        acting=networks.actor.acting(),
        probes=partial(td3.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


HUNDREDFOLD = RewardRule(scale=100.0)
MATCHED = Preset(Config(backbone=Backbone(critic_layer_norm=True)), antmaze_rewards=HUNDREDFOLD, tasks="rebrac")
PRESETS = {
    "source": Preset(Config(), antmaze_rewards=HUNDREDFOLD, tasks="rebrac"),
    # AntMaze: its gamma and critic rate, too
    "matched": MATCHED,
    "quick": quick(MATCHED, {}),
}
REBRAC = AlgorithmEntry(
    Config, PRESETS, "source", (), make, reads_next_action=lambda config: config.critic_bc_weight > 0
)
