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

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior import cvae
from itrpo.errors import InputError
from itrpo.nn import spectral
from itrpo.nn.dropout import Masks, draw_masks, masked
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import MLP, GaussianPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, lagrange, td
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    BehaviorModel,
    Metrics,
    Params,
    Preset,
    PRNGKey,
    SpaceSpec,
    Transition,
)

ACTION_EDGE = 1e-6  # in `log_prob`: actions are clipped to +-(1 - edge); no loss asks for a density


@dataclass(frozen=True)
class Config:
    uncertainty_weight: float = 0.5  # the paper's beta: how fast weights fall with the variance of Q
    masks: int = 100  # T: dropout masks that mean and variance of Q are taken over (authors' code; 10 to 20 for trials)
    masks_at_once: int = 1  # masks evaluated together, for memory and speed (1 is fastest on CPU); no other effect
    critic_dropout: float = 0.1  # share of the critics' hidden units that are silent
    spectral_norm: bool = True  # divide each weight of the critics by its largest singular value
    mmd_limit: float = 0.07  # epsilon: largest MMD between policy and model
    kernel: Literal["gaussian", "laplacian"] = "gaussian"  # of the MMD
    bandwidth: float = 20.0  # sigma of the kernel, exp(-d / (2 sigma))
    mmd_samples: int = 4  # m: actions of policy and model that are compared at a state
    min_weight: float = 0.75  # lambda: weight of the smaller critic against the larger in targets
    target_actions: int = 10  # n: actions at s' that the target's maximum runs over
    acting_actions: int = 100  # actions that the greedy policy chooses from
    warm_up_steps: int = 40_000  # of 1M: first steps in which the actor obeys the constraint and ignores Q
    multiplier_learning_rate: float = 1e-3  # Adam, of l
    log_multiplier_low: float = -5.0  # clip of l
    log_multiplier_high: float = 10.0  # its upper end
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 1e-4  # Adam
    critic_learning_rate: float = 3e-4  # Adam
    cvae_learning_rate: float = 3e-4  # Adam
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    cvae_hidden: tuple[int, ...] = (750, 750)  # of encoder and decoder
    kl_weight: float = 0.5  # of the model's mean KL against its mean squared error
    latent_clip: float = 0.5  # z of the model's samples is clipped to +- this
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end
    initializer: Initializer = "rlkit_biased"  # see itrpo.nn.network.Linear


class Directions(NamedTuple):
    """Power iteration's vectors, of both critics, stacked [2, ...]."""

    critic: spectral.Directions
    target: spectral.Directions


class State(NamedTuple):
    cvae: cvae.FitState
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]; weights before normalisation
    directions: Directions
    log_multiplier: Trainable  # params: l, a scalar


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O] and action [A] are single examples."""

    model: BehaviorModel  # the CVAE
    policy: Network  # observation -> pre-tanh (mean [A], log_std [A])
    critics: Network  # of both critics; only its `init` is used


# --- critics -------------------------------------------------------------------------------------------------------


def followed(config: Config, critic: Trainable, directions: Directions) -> Directions:
    """The directions of both kinds of critics after a step of power iteration on their weights."""
    if not config.spectral_norm:
        return directions
    iterate = jax.vmap(spectral.iterate)
    assert critic.target_params is not None
    return Directions(
        iterate(critic.params.mlp, directions.critic), iterate(critic.target_params.mlp, directions.target)
    )


def normalised(config: Config, critic_params: Params, directions: spectral.Directions) -> MLP:
    """The MLPs of both critics [2, ...] as they are used."""
    return jax.vmap(spectral.normalised)(critic_params.mlp, directions) if config.spectral_norm else critic_params.mlp


def q_values(critics: MLP, observation: Array, action: Array, masks: Masks | None) -> Array:
    """[2] for one state and action, with one mask [2, width] for each hidden layer, or without dropout."""
    inputs = jnp.concatenate([observation, action])
    if masks is None:
        return jax.vmap(lambda mlp: mlp(inputs)[0])(critics)
    return jax.vmap(lambda mlp, it: masked(mlp, inputs, it)[0])(critics, masks)


def q_moments(config: Config, critics: MLP, observation: Array, action: Array, masks: Masks) -> tuple[Array, Array]:
    """Mean and unbiased variance [R, 2] over masks [T, 2, width] for R states and actions.

    `masks_at_once` masks are a single batch of rows; only Q leaves the loop, and the backward pass runs it again.
    """
    rows = jax.vmap(q_values, in_axes=(None, 0, 0, None))

    @jax.checkpoint
    def of_one(it: Masks) -> Array:
        return rows(critics, observation, action, it)

    q = jax.lax.map(of_one, masks, batch_size=min(config.masks_at_once, config.masks))
    return jnp.mean(q, axis=0), jnp.var(q, axis=0, ddof=1)


def weight(config: Config, variance: Array) -> Array:
    """w: 1 where the critics are sure, towards 0 where their masks disagree."""
    return jnp.clip(jnp.exp(-config.uncertainty_weight * variance), 0.0, 1.0)


# --- losses --------------------------------------------------------------------------------------------------------


def policy_samples(networks: Networks, policy_params: Params, observation: Array, noise: Array) -> Array:
    """Pre-tanh actions [n, A] out of noise [n, A] ~ N(0, I); the network runs once."""
    mean, log_std = networks.policy.apply(policy_params, observation)
    return mean[None] + jnp.exp(log_std)[None] * noise


def critic_target(config: Config, it: Transition, mean: Array, variance: Array) -> tuple[Array, Array]:
    """(y, w_y) for one transition; mean and variance [n, 2] of the target critics at n actions at s'."""
    next_value = jnp.max(td.ensemble_mix(mean, config.min_weight))
    target = td.bellman_target(it.reward, it.continues, config.gamma, next_value)
    return target, weight(config, jnp.max(jnp.sum(variance, axis=-1)))


def critic_loss(
    config: Config,
    critic_params: Params,
    directions: spectral.Directions,
    batch: Transition,
    targets: Array,
    weights: Array,
    masks: Masks | None,
) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (w_y (Q_i(s,a) - y))^2. targets, weights [B]; masks [B, 2, width]."""
    critics = normalised(config, critic_params, directions)
    q = jax.vmap(q_values, in_axes=(None, 0, 0, 0))(critics, batch.observation, batch.action, masks)
    loss = jnp.mean(jnp.sum(jnp.square(weights[:, None] * (q - targets[:, None])), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets), "critic_weight": jnp.mean(weights)}


def policy_loss(
    networks: Networks,
    config: Config,
    q_weight: Array | float,
    policy_params: Params,
    critics: MLP,
    cvae_params: Params,
    log_multiplier: Array,
    observation: Array,
    noise: Array,
    latents: Array,
    masks: Masks,
) -> tuple[Array, Metrics]:
    """mean[-q_weight w_pi min_i E Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)] over observation [B, O].

    q_weight is 0 in the warm-up, then 1; noise [B, m, A], latents [B, m, L], masks [T, 2, width].
    """
    assert networks.model.decode is not None
    own = jax.vmap(partial(policy_samples, networks, policy_params))(observation, noise)
    decode = jax.vmap(jax.vmap(networks.model.decode, (None, None, 0)), (None, 0, 0))
    data = decode(cvae_params, observation, latents)
    mmd = jax.vmap(lambda x, y: divergences.mmd(x, y, config.bandwidth, config.kernel))(data, own)
    mean, variance = q_moments(config, critics, observation, jnp.tanh(own[:, 0]), masks)
    weights = jax.lax.stop_gradient(weight(config, jnp.sum(variance, axis=1)))
    value = q_weight * weights * td.ensemble_min(mean)
    loss = jnp.mean(-value + jnp.exp(log_multiplier) * (mmd - config.mmd_limit))
    return loss, {"policy_loss": loss, "mmd": jnp.mean(mmd), "policy_weight": jnp.mean(weights)}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation
    log_multiplier: optax.GradientTransformation


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Model; then critics, policy and multiplier, each from what the others were before; targets. batch: [B, ...]."""
    # the first four as in BEAR, so that without dropout and spectral norm the two are the same
    model_key, target_key, policy_key, latent_key = jax.random.split(key, 4)
    mask_keys = jax.random.split(jax.random.fold_in(key, 1), 3)
    rows, actions = batch.action.shape
    drop = partial(draw_masks, hidden=config.critic_hidden, rate=config.critic_dropout)
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)
    decoder = networks.model.params(fitted)
    directions = followed(config, state.critic, state.directions)

    noise = jax.random.normal(target_key, (rows, config.target_actions, actions))
    sample = partial(policy_samples, networks, state.policy.params)
    next_action = jnp.tanh(jax.vmap(sample)(batch.next_observation, noise)).reshape(-1, actions)
    next_observation = jnp.repeat(batch.next_observation, config.target_actions, axis=0)
    target_critics = normalised(config, state.critic.target_params, directions.target)
    moments = q_moments(
        config, target_critics, next_observation, next_action, drop(mask_keys[0], shape=(config.masks, 2))
    )
    mean, variance = (it.reshape(rows, config.target_actions, 2) for it in moments)
    targets, weights = jax.vmap(partial(critic_target, config))(batch, mean, variance)
    critic, metrics = gradient_step(
        state.critic,
        optimizers.critic,
        lambda params: critic_loss(
            config, params, directions.critic, batch, targets, weights, drop(mask_keys[1], shape=(rows, 2))
        ),
    )

    noise = jax.random.normal(policy_key, (rows, config.mmd_samples, actions))
    latents = jax.random.normal(latent_key, (rows, config.mmd_samples, networks.model.latent_dim))
    latents = cvae.prior_latents(latents, config.latent_clip)
    q_weight, multiplier = jnp.where(step < config.warm_up_steps, 0.0, 1.0), state.log_multiplier
    critics = normalised(config, state.critic.params, directions.critic)
    masks = drop(mask_keys[2], shape=(config.masks, 2))

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        fixed = (critics, decoder, multiplier.params, batch.observation, noise, latents, masks)
        return policy_loss(networks, config, q_weight, params, *fixed)

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)
    excess, used = policy_metrics["mmd"] - config.mmd_limit, jnp.exp(multiplier.params)
    multiplier, _ = gradient_step(
        multiplier, optimizers.log_multiplier, lambda it: (lagrange.multiplier_loss(it, excess), {})
    )
    low, high = config.log_multiplier_low, config.log_multiplier_high
    multiplier = multiplier._replace(params=jnp.clip(multiplier.params, low, high))
    state = State(fitted, policy, polyak(critic, config.polyak_rate), directions, multiplier)
    return state, metrics | policy_metrics | model_metrics | {"multiplier": used}


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    model = cvae.make(
        cvae.Config(
            kl_weight=config.kl_weight,
            latent_clip=config.latent_clip,
            fit_learning_rate=config.cvae_learning_rate,
            hidden=config.cvae_hidden,
        ),
        spec,
        fit_steps=0,
    )
    log_std_range = (config.log_std_low, config.log_std_high)
    policy = network(lambda draw: GaussianPolicy(draw, spec, config.policy_hidden, log_std_range, config.initializer))
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    return Networks(model, policy, ensemble(critic, 2))


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.multiplier_learning_rate),
    )

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        model_key, policy_key, critic_key = jax.random.split(key, 3)
        critic = trainable(optimizers.critic, networks.critics.init(critic_key), target=True)
        direction_keys = jax.random.split(jax.random.fold_in(key, 1), 2)
        directions = jax.vmap(spectral.init_directions)(direction_keys, critic.params.mlp)
        return State(
            networks.model.init(model_key),
            trainable(optimizers.policy, networks.policy.init(policy_key)),
            critic,
            Directions(directions, directions),
            trainable(optimizers.log_multiplier, jnp.zeros(())),
        )

    def greedy_noise() -> Array:
        return jax.random.normal(jax.random.key(0), (config.acting_actions, spec.action_dim))

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        """Greedy: the best of many actions. Else one action of pi."""
        noise = greedy_noise() if greedy else jax.random.normal(key, (1, spec.action_dim))
        actions = jnp.tanh(policy_samples(networks, state.policy.params, observation, noise))
        if not greedy:
            return actions[0]
        critics = normalised(config, state.critic.params, state.directions.critic)
        q = jax.vmap(q_values, (None, None, 0, None))(critics, observation, actions, None)
        return actions[jnp.argmax(q[:, 0])]

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, ACTION_EDGE)
        return distributions.tanh_normal_log_prob(pre_tanh, *networks.policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows, over masks that all rows share; at one action of pi per state."""
        noise_key, latent_key, mask_key = jax.random.split(key, 3)
        rows, actions = batch.action.shape
        noise = jax.random.normal(noise_key, (rows, config.mmd_samples, actions))
        latents = jax.random.normal(latent_key, (rows, config.mmd_samples, networks.model.latent_dim))
        latents = cvae.prior_latents(latents, config.latent_clip)
        masks = draw_masks(mask_key, config.critic_hidden, config.critic_dropout, (config.masks, 2))
        critics = normalised(config, state.critic.params, state.directions.critic)
        own = jax.vmap(partial(policy_samples, networks, state.policy.params))(batch.observation, noise)
        assert networks.model.decode is not None
        decode = jax.vmap(jax.vmap(networks.model.decode, (None, None, 0)), (None, 0, 0))
        data = decode(networks.model.params(state.cvae), batch.observation, latents)
        mmd = jax.vmap(lambda x, y: divergences.mmd(x, y, config.bandwidth, config.kernel))(data, own)
        q_data, variance_data = q_moments(config, critics, batch.observation, batch.action, masks)
        q_policy, variance_policy = q_moments(config, critics, batch.observation, jnp.tanh(own[:, 0]), masks)
        _, log_std = jax.vmap(networks.policy.apply, (None, 0))(state.policy.params, batch.observation)
        return {
            "probe_q_data": jnp.mean(td.ensemble_min(q_data)),
            "probe_q_policy": jnp.mean(td.ensemble_min(q_policy)),
            "probe_variance_data": jnp.mean(jnp.sum(variance_data, axis=1)),
            "probe_variance_policy": jnp.mean(jnp.sum(variance_policy, axis=1)),
            "probe_mmd": jnp.mean(mmd),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    def export(state: State) -> dict[str, object]:
        critics = normalised(config, state.critic.params, state.directions.critic)
        return {
            "kind": "best_of_gaussian",
            **layer_arrays(state.policy.params.mlp),
            **layer_arrays(first_member(critics), "critic_"),
            "log_std_range": jnp.array([config.log_std_low, config.log_std_high]),
            "noise": greedy_noise(),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=export,
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    if config.masks < 2:
        raise InputError(f"masks must be at least 2, got {config.masks}: a variance is taken over them")
    check_ranges(config, masks_at_once="[1, inf)", uncertainty_weight="[0, inf)", critic_dropout="[0, 1)")


MATCHED = replace(Config(), policy_learning_rate=3e-4, cvae_hidden=(256, 256), initializer="fan_in")
PRESETS = {
    "source": Preset(Config(), scaled_fields=("warm_up_steps",)),
    "matched": Preset(MATCHED, scaled_fields=("warm_up_steps",)),
}
UWAC = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
