"""The pieces of an actor-critic held within an MMD of a model of the data, which BEAR and UWAC share.

    model    min over G, E   a conditional VAE, stepped along with the rest                      (itrpo.behavior.cvae)
    actor    MMD(s): between m samples of pi(.|s) and m of G(s, z), both before the tanh    (itrpo.ops.divergences.mmd)
    dual     max over l      exp(l) (MMD(s) - epsilon),   l in [-5, 10]
    acting   of 100 actions of pi the one with the largest Q_1

The paper's epsilon is `mmd_limit`; the kernel is exp(-d / (2 bandwidth)), d the squared or the absolute distance. The
critics, and what the actor makes of them, are each algorithm's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.behavior import cvae
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.export import layer_arrays
from itrpo.nn.network import Initializer
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import divergences, lagrange, td
from itrpo.ranges import Count, CountOrZero, Discount, NonNegative, NonNegativeOrInf, Positive, Rate, Share, Widths
from itrpo.types import Acting, LatentModel, Metrics, Params, SpaceSpec

ACTION_EDGE = 1e-6  # in `log_prob`: actions are clipped to +-(1 - edge); no loss asks for a density
CRITICS = 2


@dataclass(frozen=True)
class Backbone:
    """Fields that the two have in common; the defaults are those of BEAR's `source`."""

    kernel: Literal["gaussian", "laplacian"] = "gaussian"  # of the MMD (BEAR on Hopper and Walker2d: laplacian)
    bandwidth: Positive = 20.0  # sigma of the kernel, exp(-d / (2 sigma)) (README; the script's default is 50)
    mmd_samples: Count = 4  # m: actions of policy and model that are compared at a state
    min_weight: Share = 0.75  # the paper's lambda: weight of the smaller critic against the larger in targets
    target_actions: Count = 10  # n: actions at s' that the target's maximum runs over
    acting_actions: Count = 100  # actions that the greedy policy chooses from
    warm_up_steps: CountOrZero = 40_000  # of 1M: first steps in which the actor obeys the constraint and ignores Q
    multiplier_learning_rate: Positive = 1e-3  # Adam, of l
    log_multiplier_low: float = -5.0  # clip of l
    log_multiplier_high: float = 10.0  # its upper end
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 1e-4  # Adam
    critic_learning_rate: Positive = 3e-4  # Adam
    cvae_learning_rate: Positive = 3e-4  # Adam
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    cvae_hidden: Widths = (750, 750)  # of encoder and decoder
    kl_weight: NonNegative = 0.5  # of the model's mean KL against its mean squared error
    latent_clip: NonNegativeOrInf = 0.5  # z of the model's samples is clipped to +- this
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end
    initializer: Initializer = "rlkit_biased"  # see itrpo.nn.network.Linear


MATCHED = Backbone(policy_learning_rate=3e-4, cvae_hidden=(256, 256), initializer="fan_in")


class State(NamedTuple):
    cvae: cvae.FitState
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]; with a target
    log_multiplier: Trainable  # params: l, a scalar


class Networks(NamedTuple):
    """The networks, and what moves the parameters of the last two and the multiplier; the model moves its own."""

    model: LatentModel  # the CVAE
    actor: GaussianActor
    critics: Ensemble  # both: (observation, action) -> Q
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    multiplier_optimizer: optax.GradientTransformation


# --- samples, their MMD, and its multiplier ------------------------------------------------------------------------


class Draws(NamedTuple):
    """What the m samples at each state are made of."""

    noise: Float[Array, "B m A"]  # of the policy
    latents: Float[Array, "B m L"]  # of the model


def draw(
    config: Backbone,
    networks: Networks,
    action: Float[Array, "B A"],
    noise_key: Key[Array, ""],
    latent_key: Key[Array, ""],
) -> Draws:
    """For as many states, and actions of that size. The keys are consumed."""
    rows, action_dim = action.shape
    latents = jax.random.normal(latent_key, (rows, config.mmd_samples, networks.model.latent_dim))
    return Draws(
        jax.random.normal(noise_key, (rows, config.mmd_samples, action_dim)),
        cvae.prior_latents(latents, config.latent_clip),
    )


def action_and_mmd(
    config: Backbone,
    networks: Networks,
    policy_params: Params,
    cvae_params: Params,
    observation: Float[Array, "B O"],
    draws: Draws,
) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    """The first of the policy's samples at each state, as an action, and MMD(s) between all and the model's."""
    own = networks.actor.pre_tanh(policy_params, observation, draws.noise)
    data = networks.model.decode(cvae_params, observation, draws.latents)
    return jnp.tanh(own[:, 0]), divergences.mmd(data, own, config.bandwidth, config.kernel)


def multiplier_step(
    config: Backbone, networks: Networks, log_multiplier: Trainable, excess: Float[Array, ""]
) -> Trainable:
    """l after one step up exp(l) * excess, and its clip; excess: mean MMD - epsilon."""
    stepped, _ = gradient_step(
        log_multiplier, networks.multiplier_optimizer, lambda params: (lagrange.multiplier_loss(params, excess), {})
    )
    return stepped._replace(params=jnp.clip(stepped.params, config.log_multiplier_low, config.log_multiplier_high))


# --- networks, their start, acting, and what is measured -----------------------------------------------------------


def make_networks(config: Backbone, spec: SpaceSpec) -> Networks:
    log_std_range = (config.log_std_low, config.log_std_high)
    return Networks(
        cvae.stepped(spec, config.cvae_hidden, config.cvae_learning_rate, config.kl_weight, config.latent_clip),
        gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer),
        critic_ensemble(spec, config.critic_hidden, CRITICS, config.initializer),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.multiplier_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""]) -> State:
    """The state before the first step."""
    model_key, policy_key, critic_key = jax.random.split(key, 3)
    return State(
        networks.model.init(model_key),
        trainable(networks.policy_optimizer, networks.actor.init(policy_key)),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        trainable(networks.multiplier_optimizer, jnp.zeros(())),
    )


def acting(config: Backbone, networks: Networks, q1: Callable[[Any], Params]) -> Acting:
    """Greedy: the best of many actions, from the same noises in every state. Else one action of pi.

    q1: state -> parameters of Q_1.
    """
    actor, spec = networks.actor, networks.actor.spec
    sampled = actor.acting(ACTION_EDGE)

    def noises() -> Float[Array, "n A"]:
        return jax.random.normal(jax.random.key(0), (config.acting_actions, spec.action_dim))

    def act(state: Any, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
        if not greedy:
            return sampled.act(state, observation, key, greedy)
        noise = jnp.broadcast_to(noises(), (len(observation), config.acting_actions, spec.action_dim))
        actions = jnp.tanh(actor.pre_tanh(state.policy.params, observation, noise))
        return td.best_action(actions, networks.critics.apply_one(q1(state), observation, actions))

    def export(state: Any) -> dict[str, Any]:
        return {
            "kind": "best_of_gaussian",
            **layer_arrays(state.policy.params.mlp),
            **layer_arrays(q1(state).mlp, "critic_"),
            "log_std_range": jnp.array([config.log_std_low, config.log_std_high]),
            "noise": noises(),
        }

    return Acting(act, sampled.log_prob, export)


def probes(
    networks: Networks,
    policy_params: Params,
    observation: Float[Array, "B O"],
    q_data: Float[Array, "2 B"],
    q_policy: Float[Array, "2 B"],
    mmd: Float[Array, "B"],
) -> Metrics:
    """Means over fixed rows; q_policy: at one action of pi per state, not at the best of many."""
    _, log_std = networks.actor.moments(policy_params, observation)
    return {
        "probe_q_data": jnp.mean(td.ensemble_min(q_data)),
        "probe_q_policy": jnp.mean(td.ensemble_min(q_policy)),
        "probe_mmd": jnp.mean(mmd),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
    }
