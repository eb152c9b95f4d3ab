"""UWAC, "Uncertainty weighted actor-critic for offline RL" (Wu et al., ICML 2021, arXiv 2105.08140).

BEAR (`itrpo.algorithms.bear`, arXiv 1906.00949) with samples weighted by how sure the critics are. Each critic has
dropout, always on; E and Var are over its masks (Var unbiased), and w(v) = clip(exp(-uncertainty_weight v), 0, 1):

    critic   min over Q_i   sum_i (w_y (Q_i(s,a) - y))^2,   one mask per row;   w_y = w(max_j sum_i Var Q_i'(s', a_j))
             y = r + gamma (1-d) max_{j <= n} [ lambda min_i E Q_i' + (1 - lambda) max_i E Q_i' ](s', a_j),   a_j ~ pi
    actor    min over pi    -1{step >= warm_up_steps} w_pi min_i E Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)
             w_pi = w(sum_i Var Q_i(s, a_1)), held constant
    model, dual, targets, acting as in BEAR

The layers of the critics have spectral norm 1 (itrpo.nn.spectral), so without masks |grad Q| <= 1. The paper's beta is
`uncertainty_weight`; w_y stands inside the square, as in the authors' code (the paper has it outside).

`source` is the authors' code (apple/ml-uwac), whose script gives the same constants for every task; it runs 3M steps,
ours 1M. The warm-up takes the same share of a run of any length. Departures: the `masks` masks over which E and Var are
taken are shared by all rows and actions of a batch (in the source each row draws its own: with random numbers for 100
masks per row a step would spend most of its time on them; per row, the law is the same); one step of power iteration
per training step and network, the source's one per forward pass, two for the online critics; the greedy policy ranks
its actions by Q_1 without dropout, the source by E Q_1, and tries the same 100 noises in every state; targets start as
copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import mmd_actor_critic
from itrpo.algorithms.mmd_actor_critic import CRITICS, Backbone, Draws, Networks
from itrpo.algorithms.quick import quick
from itrpo.behavior import cvae
from itrpo.nn import spectral
from itrpo.nn.dropout import Masks, draw_masks, masked
from itrpo.nn.ensemble import first_member
from itrpo.nn.heads import with_observation
from itrpo.nn.trainable import Trainable, gradient_step, polyak
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, Several, ShareBelowOne
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    uncertainty_weight: NonNegative = 0.5  # the paper's beta: how fast weights fall with the variance of Q
    masks: Several = 100  # T: dropout masks that mean and variance of Q go over (authors' code; 10 to 20 for trials)
    masks_at_once: Count = 1  # masks evaluated together, for memory and speed (1 is fastest on CPU); no other effect
    critic_dropout: ShareBelowOne = 0.1  # share of the critics' hidden units that are silent
    spectral_norm: bool = True  # divide each weight of the critics by its largest singular value
    mmd_limit: NonNegative = 0.07  # epsilon: largest MMD between policy and model
    backbone: Backbone = Backbone()


class Directions(NamedTuple):
    """Power iteration's vectors, of both critics, stacked [2, ...]."""

    critic: spectral.Directions
    target: spectral.Directions


class State(NamedTuple):
    cvae: cvae.FitState
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...], before normalisation; with a target
    log_multiplier: Trainable  # params: l, a scalar
    directions: Directions


# --- critics -------------------------------------------------------------------------------------------------------


def followed(config: Config, critic: Trainable, directions: Directions) -> Directions:
    """The directions of both kinds of critics after a step of power iteration on their weights."""
    if not config.spectral_norm:
        return directions
    iterate = jax.vmap(spectral.iterate)
    return Directions(
        iterate(critic.params.mlp, directions.critic), iterate(critic.target_params.mlp, directions.target)
    )


def normalised(config: Config, critic_params: Params, directions: spectral.Directions) -> Params:
    """Parameters of both critics [2, ...] as they are used."""
    if not config.spectral_norm:
        return critic_params
    mlps = jax.vmap(spectral.normalised)(critic_params.mlp, directions)
    return eqx.tree_at(lambda params: params.mlp, critic_params, mlps)


def masked_q(
    critics: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"], masks: Masks
) -> Float[Array, "2 B *n"]:
    """Q with dropout, of normalised critics; masks: [2, width] for all rows, or [2, B, width]."""
    inputs = with_observation(observation, action)
    return jax.vmap(lambda mlp, own: masked(mlp, inputs, own)[..., 0])(critics.mlp, masks)


def q_moments(
    config: Config, critics: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"], masks: Masks
) -> tuple[Float[Array, "2 B *n"], Float[Array, "2 B *n"]]:
    """Mean and unbiased variance over masks [T, 2, width], which all rows share.

    `masks_at_once` masks are a single batch of rows; only Q leaves the loop, and the backward pass runs it again.
    """

    @jax.checkpoint
    def one_mask(one: Masks) -> Float[Array, "2 B *n"]:
        return masked_q(critics, observation, action, one)

    q = jax.lax.map(one_mask, masks, batch_size=min(config.masks_at_once, config.masks))
    return jnp.mean(q, axis=0), jnp.var(q, axis=0, ddof=1)


def weight(config: Config, variance: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """w: 1 where the critics are sure, towards 0 where their masks disagree."""
    return jnp.clip(jnp.exp(-config.uncertainty_weight * variance), 0.0, 1.0)


# --- targets and losses --------------------------------------------------------------------------------------------


def critic_targets(
    config: Config, batch: Transition, mean: Float[Array, "2 B n"], variance: Float[Array, "2 B n"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """(y, w_y), from mean and variance of the target critics at n actions at s'."""
    backbone = config.backbone
    next_value = jnp.max(td.ensemble_mix(mean, backbone.min_weight), axis=1)
    targets = td.bellman_target(batch.reward, batch.continues, backbone.gamma, next_value)
    return targets, weight(config, jnp.max(jnp.sum(variance, axis=0), axis=1))


def critic_loss(
    config: Config,
    critic_params: Params,
    directions: spectral.Directions,
    batch: Transition,
    targets: Float[Array, "B"],
    weights: Float[Array, "B"],
    masks: Masks,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over the batch of sum_i (w_y (Q_i(s,a) - y))^2; masks [2, B, width]."""
    q = masked_q(normalised(config, critic_params, directions), batch.observation, batch.action, masks)
    loss = jnp.sum(jnp.mean(jnp.square(weights[None] * (q - targets[None])), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets), "critic_weight": jnp.mean(weights)}


def policy_loss(
    networks: Networks,
    config: Config,
    q_weight: Scalar,
    policy_params: Params,
    critics: Params,
    cvae_params: Params,
    log_multiplier: Float[Array, ""],
    observation: Float[Array, "B O"],
    draws: Draws,
    masks: Masks,
) -> tuple[Float[Array, ""], Metrics]:
    """mean[-q_weight w_pi min_i E Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)]; masks [T, 2, width].

    q_weight is 0 in the warm-up, then 1.
    """
    action, mmd = mmd_actor_critic.action_and_mmd(
        config.backbone, networks, policy_params, cvae_params, observation, draws
    )
    mean, variance = q_moments(config, critics, observation, action, masks)
    weights = jax.lax.stop_gradient(weight(config, jnp.sum(variance, axis=0)))
    value = q_weight * weights * td.ensemble_min(mean)
    loss = jnp.mean(-value + jnp.exp(log_multiplier) * (mmd - config.mmd_limit))
    return loss, {"policy_loss": loss, "mmd": jnp.mean(mmd), "policy_weight": jnp.mean(weights)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Model; then critics, policy and multiplier, each from what the others were before; targets."""
    backbone = config.backbone
    # the first four as in BEAR, so that without dropout and spectral norm the two are the same
    model_key, target_key, policy_key, latent_key = jax.random.split(key, 4)
    mask_keys = jax.random.split(jax.random.fold_in(key, 1), 3)
    rows, action_dim = batch.action.shape
    drop = partial(draw_masks, hidden=backbone.critic_hidden, rate=config.critic_dropout)
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)
    directions = followed(config, state.critic, state.directions)

    noise = jax.random.normal(target_key, (rows, backbone.target_actions, action_dim))
    next_action = jnp.tanh(networks.actor.pre_tanh(state.policy.params, batch.next_observation, noise))
    target_critics = normalised(config, state.critic.target_params, directions.target)
    moments = q_moments(
        config, target_critics, batch.next_observation, next_action, drop(mask_keys[0], shape=(config.masks, CRITICS))
    )
    targets, weights = critic_targets(config, batch, *moments)
    row_masks = tuple(jnp.moveaxis(masks, 0, 1) for masks in drop(mask_keys[1], shape=(rows, CRITICS)))
    critic, metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(config, params, directions.critic, batch, targets, weights, row_masks),
    )

    draws = mmd_actor_critic.draw(backbone, networks, batch.action, policy_key, latent_key)
    q_weight = td.switched_on(step, backbone.warm_up_steps)
    critics = normalised(config, state.critic.params, directions.critic)
    masks = drop(mask_keys[2], shape=(config.masks, CRITICS))
    old = state.log_multiplier
    fixed = (critics, networks.model.params(fitted), old.params, batch.observation, draws, masks)
    policy, policy_metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(networks, config, q_weight, params, *fixed)
    )
    log_multiplier = mmd_actor_critic.multiplier_step(backbone, networks, old, policy_metrics["mmd"] - config.mmd_limit)
    metrics |= policy_metrics | model_metrics | {"multiplier": jnp.exp(old.params)}
    return State(fitted, policy, polyak(critic, backbone.polyak_rate), log_multiplier, directions), metrics


def probes(config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows, over masks that all rows share."""
    backbone, observation = config.backbone, batch.observation
    noise_key, latent_key, mask_key = jax.random.split(key, 3)
    draws = mmd_actor_critic.draw(backbone, networks, batch.action, noise_key, latent_key)
    masks = draw_masks(mask_key, backbone.critic_hidden, config.critic_dropout, (config.masks, CRITICS))
    critics = normalised(config, state.critic.params, state.directions.critic)
    action, mmd = mmd_actor_critic.action_and_mmd(
        backbone, networks, state.policy.params, networks.model.params(state.cvae), observation, draws
    )
    q_data, variance_data = q_moments(config, critics, observation, batch.action, masks)
    q_policy, variance_policy = q_moments(config, critics, observation, action, masks)
    return mmd_actor_critic.probes(networks, state.policy.params, observation, q_data, q_policy, mmd) | {
        "probe_variance_data": jnp.mean(jnp.sum(variance_data, axis=0)),
        "probe_variance_policy": jnp.mean(jnp.sum(variance_policy, axis=0)),
    }


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = mmd_actor_critic.make_networks(config.backbone, spec)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        state = mmd_actor_critic.start(networks, key)
        keys = jax.random.split(jax.random.fold_in(key, 1), CRITICS)
        directions = jax.vmap(spectral.init_directions)(keys, state.critic.params.mlp)
        return State(*state, Directions(directions, directions))

    def critics(state: State) -> Params:
        return normalised(config, state.critic.params, state.directions.critic)

    def q_values(state: State, observation: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "2 B"]:
        return networks.critics.apply(critics(state), observation, action)  # without dropout, as for acting

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=mmd_actor_critic.acting(config.backbone, networks, lambda state: first_member(critics(state))),
        probes=partial(probes, config, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values,
    )


MATCHED = Preset(Config(backbone=mmd_actor_critic.MATCHED), scaled_fields=("warm_up_steps",))
PRESETS = {
    "source": Preset(Config(), scaled_fields=("warm_up_steps",)),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}),
}
UWAC = AlgorithmEntry(Config, PRESETS, "source", (), make)
