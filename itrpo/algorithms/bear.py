"""BEAR, "Stabilizing off-policy Q-learning via bootstrapping error reduction" (Kumar et al., 2019, arXiv 1906.00949).

An actor-critic whose policy stays within a distance, MMD, of a model of the data that is blind to densities and sees
little more than supports when few samples are compared:

    model    min over G, E   a conditional VAE, stepped along with the rest                      (itrpo.behavior.cvae)
    critic   min over Q_i    sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) max_{j <= n} [ lambda min_i Q_i' + (1 - lambda) max_i Q_i' ](s', a_j),   a_j ~ pi(.|s')
    actor    min over pi     -1{step >= warm_up_steps} min_i Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)
    dual     max over l      exp(l) (MMD(s) - epsilon),   l in [-5, 10]
             MMD(s): between m samples of pi(.|s) and m of G(s, z), both before the tanh    (itrpo.ops.divergences.mmd)
    targets  Q_i' <- Polyak
    acting   of 100 actions of pi the one with the largest Q_1

All losses see the model just stepped and the critics, policy and multiplier of before this step. The paper's epsilon is
`mmd_limit`, its lambda `min_weight`; the kernel is exp(-d / (2 bandwidth)), d the squared or the absolute distance.

`source` is the version that the paper's author recommends, D4RL-Evaluations/bear, with the kernels of its README by
task; it runs for up to 3M steps, ours for 1M. The warm-up takes the same share of a run of any length. Departures: the
targets start as copies (there as networks of their own); the greedy policy tries the same 100 noises in every state, so
that an exported policy is a function of the observation. The older code (aviralkumar2907/BEAR) has a target policy, 5
to 10 samples, and acts by the best of 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior import cvae
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import GaussianPolicy, QValue
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
    mmd_limit: float = 0.05  # the paper's epsilon: largest MMD between policy and model
    kernel: Literal["gaussian", "laplacian"] = "gaussian"  # of the MMD (HalfCheetah; Hopper and Walker2d laplacian)
    bandwidth: float = 20.0  # sigma of the kernel, exp(-d / (2 sigma)) (README; the script's default is 50)
    mmd_samples: int = 4  # m: actions of policy and model that are compared at a state
    min_weight: float = 0.75  # the paper's lambda: weight of the smaller critic against the larger in targets
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


class State(NamedTuple):
    cvae: cvae.FitState
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    log_multiplier: Trainable  # params: l, a scalar


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O] and action [A] are single examples."""

    model: BehaviorModel  # the CVAE
    policy: Network  # observation -> pre-tanh (mean [A], log_std [A])
    critic: Network  # of one: (observation, action) -> scalar
    critics: Network  # of both: (observation, action) -> [2]


# --- losses --------------------------------------------------------------------------------------------------------


def policy_samples(networks: Networks, policy_params: Params, observation: Array, noise: Array) -> Array:
    """Pre-tanh actions [n, A] out of noise [n, A] ~ N(0, I); the network runs once."""
    mean, log_std = networks.policy.apply(policy_params, observation)
    return mean[None] + jnp.exp(log_std)[None] * noise


def critic_target(
    networks: Networks,
    config: Config,
    policy_params: Params,
    target_critic_params: Params,
    it: Transition,
    noise: Array,
) -> Array:
    """y for one transition; noise [n, A]. The two critics are mixed first, then the best action is taken."""
    actions = jnp.tanh(policy_samples(networks, policy_params, it.next_observation, noise))
    q = jax.vmap(networks.critics.apply, in_axes=(None, None, 0))(target_critic_params, it.next_observation, actions)
    return td.bellman_target(it.reward, it.continues, config.gamma, jnp.max(td.ensemble_mix(q, config.min_weight)))


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[:, None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def value_and_mmd(
    networks: Networks,
    config: Config,
    policy_params: Params,
    critic_params: Params,
    cvae_params: Params,
    observation: Array,
    noise: Array,
    latents: Array,
) -> tuple[Array, Array]:
    """(min_i Q_i(s, a_1), MMD(s)) for one state; noise [m, A], latents [m, L]."""
    assert networks.model.decode is not None
    own = policy_samples(networks, policy_params, observation, noise)
    data = jax.vmap(networks.model.decode, in_axes=(None, None, 0))(cvae_params, observation, latents)
    q = networks.critics.apply(critic_params, observation, jnp.tanh(own[0]))
    return td.ensemble_min(q), divergences.mmd(data, own, config.bandwidth, config.kernel)


def policy_loss(
    networks: Networks,
    config: Config,
    q_weight: Array | float,
    policy_params: Params,
    critic_params: Params,
    cvae_params: Params,
    log_multiplier: Array,
    observation: Array,
    noise: Array,
    latents: Array,
) -> tuple[Array, Metrics]:
    """mean[-q_weight min_i Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)] over observation [B, O].

    q_weight is 0 in the warm-up, then 1; noise [B, m, A], latents [B, m, L].
    """
    each = partial(value_and_mmd, networks, config, policy_params, critic_params, cvae_params)
    q, mmd = jax.vmap(each)(observation, noise, latents)
    loss = jnp.mean(-q_weight * q + jnp.exp(log_multiplier) * (mmd - config.mmd_limit))
    return loss, {"policy_loss": loss, "mmd": jnp.mean(mmd)}


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
    model_key, target_key, policy_key, latent_key = jax.random.split(key, 4)
    rows, actions = batch.action.shape
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)
    decoder = networks.model.params(fitted)

    noise = jax.random.normal(target_key, (rows, config.target_actions, actions))
    target = partial(critic_target, networks, config, state.policy.params, state.critic.target_params)
    targets = jax.vmap(target)(batch, noise)
    critic, metrics = gradient_step(
        state.critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )

    noise = jax.random.normal(policy_key, (rows, config.mmd_samples, actions))
    latents = jax.random.normal(latent_key, (rows, config.mmd_samples, networks.model.latent_dim))
    latents = cvae.prior_latents(latents, config.latent_clip)
    q_weight, multiplier = jnp.where(step < config.warm_up_steps, 0.0, 1.0), state.log_multiplier

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        fixed = (state.critic.params, decoder, multiplier.params, batch.observation, noise, latents)
        return policy_loss(networks, config, q_weight, params, *fixed)

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)
    excess, used = policy_metrics["mmd"] - config.mmd_limit, jnp.exp(multiplier.params)
    multiplier, _ = gradient_step(
        multiplier, optimizers.log_multiplier, lambda it: (lagrange.multiplier_loss(it, excess), {})
    )
    low, high = config.log_multiplier_low, config.log_multiplier_high
    multiplier = multiplier._replace(params=jnp.clip(multiplier.params, low, high))
    state = State(fitted, policy, polyak(critic, config.polyak_rate), multiplier)
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
    return Networks(model, policy, critic, ensemble(critic, 2))


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.multiplier_learning_rate),
    )

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        model_key, policy_key, critic_key = jax.random.split(key, 3)
        return State(
            networks.model.init(model_key),
            trainable(optimizers.policy, networks.policy.init(policy_key)),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
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
        first = first_member(state.critic.params)
        return actions[jnp.argmax(jax.vmap(networks.critic.apply, (None, None, 0))(first, observation, actions))]

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, ACTION_EDGE)
        return distributions.tanh_normal_log_prob(pre_tanh, *networks.policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows; probe_q_policy is at one action of pi per state, not at the best of many."""
        noise_key, latent_key = jax.random.split(key)
        rows, actions = batch.action.shape
        noise = jax.random.normal(noise_key, (rows, config.mmd_samples, actions))
        latents = jax.random.normal(latent_key, (rows, config.mmd_samples, networks.model.latent_dim))
        latents = cvae.prior_latents(latents, config.latent_clip)
        params = (state.policy.params, state.critic.params, networks.model.params(state.cvae))
        q_policy, mmd = jax.vmap(partial(value_and_mmd, networks, config, *params))(batch.observation, noise, latents)
        q_data = jax.vmap(networks.critics.apply, (None, 0, 0))(params[1], batch.observation, batch.action)
        _, log_std = jax.vmap(networks.policy.apply, (None, 0))(params[0], batch.observation)
        return {
            "probe_q_data": jnp.mean(td.ensemble_min(q_data)),
            "probe_q_policy": jnp.mean(q_policy),
            "probe_mmd": jnp.mean(mmd),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    def export(state: State) -> dict[str, object]:
        return {
            "kind": "best_of_gaussian",
            **layer_arrays(state.policy.params.mlp),
            **layer_arrays(first_member(state.critic.params).mlp, "critic_"),
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
    check_ranges(config)


MATCHED = replace(Config(), policy_learning_rate=3e-4, cvae_hidden=(256, 256), initializer="fan_in")
PRESETS = {
    "source": Preset(Config(), tasks="bear", scaled_fields=("warm_up_steps",)),
    "matched": Preset(MATCHED, tasks="bear", scaled_fields=("warm_up_steps",)),
}
BEAR = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
