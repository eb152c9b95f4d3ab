"""SPOT, "Supported policy optimization for offline RL" (Wu et al., NeurIPS 2022, arXiv 2202.06239).

TD3 (arXiv 1802.09477) whose deterministic actor is kept where a frozen model of the data finds density:

    model    a conditional VAE, fitted first; L(s, a) = its loss at a, which bounds -log pi_beta(a|s)   (behavior.cvae)
    critic   min over Q_i  sum_i (Q_i(s,a) - y)^2,   y = r + gamma (1-d) min_i Q_i'(s', a~)
             a~ = clip(pi'(s') + clip(noise_scale * eps, -noise_limit, noise_limit), -1, 1),   eps ~ N(0, I)
    actor    max over pi   mean Q_1(s, pi(s)) / mean |Q_1(s, pi(s))|  -  support_weight * mean L(s, pi(s))
             L(s, a) = mean over dimensions of (tanh G(s,z) - a)^2 + beta KL(q(z|s,a) || N(0,1)),  z ~ q(z|s,a), one z
    targets  Q_i', pi' <- Polyak

Critics step every time; the actor, with the new critics, and all targets every `policy_delay` steps, first at step
`policy_delay`. The mean of |Q| is held constant. The actor has dropout wherever it learns, in its target as well, and
none where it acts. The paper's lambda is `support_weight`; its beta is the model's `kl_weight`.

`source` is the authors' code (thuml/SPOT) with its constants by task. Departures: their script ends a run whose mean Q
passes 1e4, ours at the limit that holds for every algorithm; their bound by several importance-weighted z (iwae, off in
every configuration of theirs) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import td3
from itrpo.algorithms.kl_actor_critic import is_zero
from itrpo.algorithms.quick import quick
from itrpo.algorithms.td3 import Backbone, Networks, State
from itrpo.behavior import cvae
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.dropout import Masks, draw_masks, masked
from itrpo.nn.ensemble import first_member
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import policy_losses
from itrpo.ranges import NonNegative, ShareBelowOne
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    LatentModel,
    Metrics,
    Params,
    Preset,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    support_weight: NonNegative = 0.1  # the paper's lambda: of L against normalised Q, by task; here hopper-medium's
    policy_dropout: ShareBelowOne = 0.1  # share of the actor's hidden units that are silent (MuJoCo; AntMaze 0)
    backbone: Backbone = Backbone()


class Draws(NamedTuple):
    """What is random in one use of the actor."""

    noise: Float[Array, "B size"]  # standard normal, of an action or of a latent
    masks: Masks | None  # of dropout, [B, width] each; None: no dropout


# --- losses --------------------------------------------------------------------------------------------------------


def policy_action(
    networks: Networks, policy_params: Params, observation: Float[Array, "B O"], masks: Masks | None
) -> Float[Array, "B A"]:
    """pi(s), with dropout where masks are given."""
    if masks is None:
        return networks.actor.apply(policy_params, observation)
    return jnp.tanh(masked(policy_params.mlp, observation, masks))


def policy_loss(
    config: Config,
    networks: Networks,
    model: LatentModel,
    policy_params: Params,
    critic_params: Params,
    behavior_params: Params,
    observation: Float[Array, "B O"],
    draws: Draws,
) -> tuple[Float[Array, ""], Metrics]:
    """-mean Q_1 / mean |Q_1| + support_weight mean L.

    critic_params are those of one critic, Q_1; draws.noise gives z.
    """
    action = policy_action(networks, policy_params, observation, draws.masks)
    q = networks.critics.apply_one(critic_params, observation, action)
    bound = jnp.mean(model.negative_elbo(behavior_params, observation, action, draws.noise))
    q_scale = policy_losses.inverse_magnitude(q)
    loss = -q_scale * jnp.mean(q) + config.support_weight * bound
    return loss, {"policy_loss": loss, "negative_elbo": bound, "q_scale": q_scale}


# --- one step ------------------------------------------------------------------------------------------------------


def random_draws(config: Config, key: Key[Array, ""], rows: int, size: int) -> Draws:
    """For one use of the actor at each of so many rows. The key is consumed."""
    noise_key, mask_key = jax.random.split(key)
    masks = None
    if not is_zero(config.policy_dropout):
        masks = draw_masks(mask_key, config.backbone.policy_hidden, config.policy_dropout, (rows,))
    return Draws(jax.random.normal(noise_key, (rows, size)), masks)


def update(
    config: Config,
    networks: Networks,
    model: LatentModel,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps the actor and all targets. The key is consumed."""
    backbone, rate, frozen = config.backbone, config.backbone.polyak_rate, state.behavior_params
    target_key, policy_key = jax.random.split(key)
    draws = random_draws(config, target_key, *batch.action.shape)
    next_action = policy_action(networks, state.policy.target_params, batch.next_observation, draws.masks)
    targets = td3.critic_targets(backbone, networks, state.critic.target_params, batch, next_action, draws.noise)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    def policy_step() -> State:
        first = first_member(critic.params)
        draws = random_draws(config, policy_key, len(batch.reward), model.latent_dim)
        policy, policy_metrics = gradient_step(
            state.policy,
            networks.policy_optimizer,
            lambda params: policy_loss(config, networks, model, params, first, frozen, batch.observation, draws),
        )
        return State(polyak(policy, rate), polyak(critic, rate), frozen, policy_metrics)

    is_due = (step + 1) % backbone.policy_delay == 0
    state = jax.lax.cond(is_due, policy_step, lambda: state._replace(critic=critic))
    return state, metrics | state.policy_metrics


def probes(networks: Networks, model: LatentModel, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Those of TD3, and means of L over the same rows, at the data's actions and at the policy's."""
    noise = jax.random.normal(key, (len(batch.reward), model.latent_dim))
    bound = partial(model.negative_elbo, state.behavior_params, batch.observation)
    action = networks.actor.apply(state.policy.params, batch.observation)
    return td3.probes(networks, state, batch, key) | {
        "probe_negative_elbo_data": jnp.mean(bound(batch.action, noise)),
        "probe_negative_elbo_policy": jnp.mean(bound(action, noise)),
    }


def make(config: Config, spec: SpaceSpec, behavior: LatentModel) -> Algorithm:
    networks = td3.make_networks(config.backbone, spec)
    return Algorithm(
        init=partial(td3.start, networks, ("policy_loss", "negative_elbo", "q_scale")),
        update=partial(update, config, networks, behavior),
        acting=networks.actor.acting(),
        probes=partial(probes, networks, behavior),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


# The source's agent has the shared networks, batch and rates; its model of the data is wider than that of `matched`.
SOURCE = Preset(
    Config(),
    "cvae",
    cvae.Config(),
    behavior_steps=100_000,
    normalize_observations=True,
    antmaze_rewards=RewardRule(shift=-1.0),
    tasks="spot",
)
PRESETS = {
    "source": SOURCE,
    "matched": SOURCE._replace(behavior_config=cvae.Config(hidden=(256, 256))),
    "quick": quick(SOURCE, {}),
}
SPOT = AlgorithmEntry(Config, PRESETS, "source", ("cvae",), make)
