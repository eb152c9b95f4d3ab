"""BCQ, "Off-policy deep RL without exploration" (Fujimoto, Meger and Precup, ICML 2019, arXiv 1812.02900).

Q-learning whose maximum runs over actions that a model of the data proposes, each moved by at most phi:

    model    min over G, E  MSE(tanh G(s,z), a) + KL(q_E(z|s,a) || N(0, I)) / 2, both means   (itrpo.behavior.cvae)
    action   a(s, z, xi) = clip(a0 + phi tanh xi(s, a0), -1, 1),   a0 = tanh G(s, z),  z ~ clip(N(0, I), +-0.5)
    critic   min over Q_i   sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) max_{j <= n} [ lambda min_i Q_i' + (1 - lambda) max_i Q_i' ](s', a(s', z_j, xi'))
    actor    max over xi    Q_1(s, a(s, z, xi))                                              (moves xi alone, not G)
    targets  Q_i', xi' <- Polyak
    acting   of 100 actions a(s, z_j, xi) the one with the largest Q_1

One batch serves all parts in this order, at every step; G in the target is the one just stepped, the actor sees the new
critics. The paper's lambda is `min_weight`.

`source` is the author's code (sfujim/BCQ, continuous_BCQ). Departure: the greedy policy tries the same 100 z in every
state (drawn once), so that an exported policy is a function of the observation; the source draws them anew, as `act`
does when it is not greedy. BRAC's reimplementation uses phi = 0.15.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior import cvae
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import Perturbation, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import td
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


@dataclass(frozen=True)
class Config:
    phi: float = 0.05  # largest change of a proposed action, per dimension (the paper's Phi)
    min_weight: float = 0.75  # the paper's lambda: weight of the smaller critic against the larger in targets
    target_actions: int = 10  # n: proposals at s' that the target's maximum runs over
    acting_actions: int = 100  # proposals that the greedy policy chooses from (author's code; the paper 10)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 100  # transitions per step
    policy_learning_rate: float = 1e-3  # Adam, of xi
    critic_learning_rate: float = 1e-3  # Adam
    cvae_learning_rate: float = 1e-3  # Adam
    policy_hidden: tuple[int, ...] = (400, 300)  # widths of the hidden layers of xi
    critic_hidden: tuple[int, ...] = (400, 300)  # of the critics
    cvae_hidden: tuple[int, ...] = (750, 750)  # of encoder and decoder
    kl_weight: float = 0.5  # of the model's mean KL against its mean squared error
    latent_clip: float = 0.5  # z of proposals is clipped to +- this
    initializer: Initializer = "fan_in"  # PyTorch's default, as in the author's code; see itrpo.nn.network.Linear


class State(NamedTuple):
    cvae: cvae.FitState
    perturbation: Trainable  # xi
    critic: Trainable  # parameters of both critics, stacked [2, ...]


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O] and action [A] are single examples."""

    model: BehaviorModel  # the CVAE
    perturbation: Network  # xi: (observation, action) -> pre-tanh direction [A]
    critic: Network  # of one: (observation, action) -> scalar
    critics: Network  # of both: (observation, action) -> [2]


# --- losses --------------------------------------------------------------------------------------------------------


def proposed_action(
    networks: Networks,
    config: Config,
    cvae_params: Params,
    perturbation_params: Params,
    observation: Array,
    latent: Array,
) -> Array:
    """a(s, z, xi): [A]."""
    assert networks.model.decode is not None
    decoded = jnp.tanh(networks.model.decode(cvae_params, observation, latent))
    direction = networks.perturbation.apply(perturbation_params, observation, decoded)
    return td.perturbed_action(decoded, direction, config.phi)


def critic_target(
    networks: Networks,
    config: Config,
    cvae_params: Params,
    target_perturbation_params: Params,
    target_critic_params: Params,
    it: Transition,
    latents: Array,
) -> Array:
    """y for one transition; latents [n, L]. The two critics are mixed first, then the best action is taken."""

    def value(latent: Array) -> Array:
        action = proposed_action(networks, config, cvae_params, target_perturbation_params, it.next_observation, latent)
        q = networks.critics.apply(target_critic_params, it.next_observation, action)
        return td.ensemble_mix(q, config.min_weight)

    return td.bellman_target(it.reward, it.continues, config.gamma, jnp.max(jax.vmap(value)(latents)))


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[:, None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def policy_loss(
    networks: Networks,
    config: Config,
    perturbation_params: Params,
    cvae_params: Params,
    critic_params: Params,
    observation: Array,
    latent: Array,
) -> tuple[Array, Metrics]:
    """-mean Q_1(s, a(s, z, xi)) over observation [B, O], latent [B, L]. critic_params are those of one critic, Q_1."""
    propose = partial(proposed_action, networks, config, cvae_params, perturbation_params)
    action = jax.vmap(propose)(observation, latent)
    loss = -jnp.mean(jax.vmap(networks.critic.apply, in_axes=(None, 0, 0))(critic_params, observation, action))
    return loss, {"policy_loss": loss}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    perturbation: optax.GradientTransformation
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
    """Model, critics, xi, targets. batch: [B, ...]; the key is consumed."""
    model_key, target_key, policy_key = jax.random.split(key, 3)
    rows, latent_dim = len(batch.reward), networks.model.latent_dim
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)
    decoder = networks.model.params(fitted)

    noise = jax.random.normal(target_key, (rows, config.target_actions, latent_dim))
    latents = cvae.prior_latents(noise, config.latent_clip)
    target = partial(
        critic_target, networks, config, decoder, state.perturbation.target_params, state.critic.target_params
    )
    targets = jax.vmap(target)(batch, latents)
    critic, metrics = gradient_step(
        state.critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )

    latent = cvae.prior_latents(jax.random.normal(policy_key, (rows, latent_dim)), config.latent_clip)
    first = first_member(critic.params)
    perturbation, policy_metrics = gradient_step(
        state.perturbation,
        optimizers.perturbation,
        lambda params: policy_loss(networks, config, params, decoder, first, batch.observation, latent),
    )
    rate = config.polyak_rate
    state = State(fitted, polyak(perturbation, rate), polyak(critic, rate))
    return state, metrics | policy_metrics | model_metrics


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
    perturbation = network(lambda draw: Perturbation(draw, spec, config.policy_hidden, config.initializer))
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    return Networks(model, perturbation, critic, ensemble(critic, 2))


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    optimizers = Optimizers(optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate))

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        model_key, perturbation_key, critic_key = jax.random.split(key, 3)
        return State(
            networks.model.init(model_key),
            trainable(optimizers.perturbation, networks.perturbation.init(perturbation_key), target=True),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
        )

    def draw_latents(key: PRNGKey) -> Array:
        noise = jax.random.normal(key, (config.acting_actions, networks.model.latent_dim))
        return cvae.prior_latents(noise, config.latent_clip)

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        latents = draw_latents(jax.random.key(0) if greedy else key)
        propose = partial(
            proposed_action, networks, config, networks.model.params(state.cvae), state.perturbation.params
        )
        actions = jax.vmap(propose, in_axes=(None, 0))(observation, latents)
        q = jax.vmap(networks.critic.apply, in_axes=(None, None, 0))(
            first_member(state.critic.params), observation, actions
        )
        return actions[jnp.argmax(q)]

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows; probe_q_policy is at one proposal per state, not at the best of many."""
        noise = jax.random.normal(key, (len(batch.reward), networks.model.latent_dim))
        latent = cvae.prior_latents(noise, config.latent_clip)
        params = networks.model.params(state.cvae)
        propose = partial(proposed_action, networks, config, params, state.perturbation.params)
        action = jax.vmap(propose)(batch.observation, latent)
        assert networks.model.decode is not None
        decoded = jnp.tanh(jax.vmap(networks.model.decode, in_axes=(None, 0, 0))(params, batch.observation, latent))
        q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))
        return {
            "probe_q_data": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, batch.action))),
            "probe_q_policy": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, action))),
            "probe_perturbation": jnp.mean(jnp.abs(action - decoded)),
        }

    def export(state: State) -> dict[str, object]:
        return {
            "kind": "best_of_decoder",
            **layer_arrays(networks.model.params(state.cvae).decoder),
            **layer_arrays(state.perturbation.params.mlp, "perturbation_"),
            **layer_arrays(first_member(state.critic.params).mlp, "critic_"),
            "phi": config.phi,
            "latents": draw_latents(jax.random.key(0)),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=None,
        probes=probes,
        export=export,
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config)


MATCHED = replace(
    Config(),
    batch_size=256,
    policy_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    cvae_learning_rate=3e-4,
    policy_hidden=(256, 256),
    critic_hidden=(256, 256),
    cvae_hidden=(256, 256),
)
PRESETS = {"source": Preset(Config()), "matched": Preset(MATCHED)}
BCQ = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
