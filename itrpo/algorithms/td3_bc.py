"""TD3+BC, "A minimalist approach to offline reinforcement learning" (Fujimoto and Gu, NeurIPS 2021, arXiv 2106.06860).

TD3 (arXiv 1802.09477) whose deterministic actor also clones the data, on normalised observations:

    critic   min over Q_i  sum_i (Q_i(s,a) - y)^2,   y = r + gamma (1-d) min_i Q_i'(s', a~)
             a~ = clip(pi'(s') + clip(noise_scale * eps, -noise_limit, noise_limit), -1, 1),   eps ~ N(0, I)
    actor    max over pi   lambda Q_1(s, pi(s)) - mean over dimensions of (pi(s) - a)^2                       (Eq. 3)
             lambda = q_weight / mean over the batch of |Q_1(s, pi(s))|, held constant                        (Eq. 5)
    targets  Q_i', pi' <- Polyak

Critics step every time; the actor, with the new critics, and all targets every `policy_delay` steps, first at step
`policy_delay`. The paper's alpha is `q_weight` here: in this library alpha weighs a KL.

`source` is the author's code (sfujim/TD3_BC). On AntMaze it uses no normalisation of observations, which the author
names as the only difference there (issue 2 of that repository), and rewards as they are. No departures.
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
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.ensemble import first_member
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import policy_losses
from itrpo.ranges import NonNegative
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    q_weight: NonNegative = 2.5  # the paper's alpha: weight of the normalised Q against the cloning error (Section 5)
    backbone: Backbone = Backbone()


def policy_loss(
    config: Config, networks: Networks, policy_params: Params, critic_params: Params, batch: Transition
) -> tuple[Float[Array, ""], Metrics]:
    """-lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2. critic_params are those of one critic, Q_1."""
    action = networks.actor.apply(policy_params, batch.observation)
    q = networks.critics.apply_one(critic_params, batch.observation, action)
    q_scale = config.q_weight * policy_losses.inverse_magnitude(q)
    cloning_error = jnp.mean(jnp.square(action - batch.action))
    loss = -q_scale * jnp.mean(q) + cloning_error
    return loss, {"policy_loss": loss, "cloning_error": cloning_error, "q_scale": q_scale}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps the actor and all targets. The key is consumed."""
    backbone, rate = config.backbone, config.backbone.polyak_rate
    noise = jax.random.normal(key, batch.action.shape)
    next_action = networks.actor.apply(state.policy.target_params, batch.next_observation)
    targets = td3.critic_targets(backbone, networks, state.critic.target_params, batch, next_action, noise)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    def policy_step() -> State:
        first = first_member(critic.params)
        policy, policy_metrics = gradient_step(
            state.policy, networks.policy_optimizer, lambda params: policy_loss(config, networks, params, first, batch)
        )
        return State(polyak(policy, rate), polyak(critic, rate), None, policy_metrics)

    is_due = (step + 1) % backbone.policy_delay == 0
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


# The source's networks, batch and rates are the shared ones, and normalised observations are a part of TD3+BC.
SOURCE = Preset(Config(), normalize_observations=True)
PRESETS = {"source": SOURCE, "matched": SOURCE, "quick": quick(SOURCE, {"q_weight": 1.0})}
TD3_BC = AlgorithmEntry(Config, PRESETS, "source", (), make)
