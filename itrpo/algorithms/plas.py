"""PLAS, "PLAS: Latent action space for offline RL" (Zhou, Bajracharya and Held, CoRL 2020, arXiv 2011.07213).

A deterministic actor whose output is decoded by a frozen model of the data, so that its actions are likely ones:

    model    a conditional VAE, decoder G, fitted first                                      (itrpo.behavior.cvae)
    action   a(s, pi) = tanh G(s, z),   z = max_latent tanh f(s)
             with a perturbation layer xi, clip(a0 + phi tanh xi(s, a0), -1, 1) of that a0
    critic   min over Q_i       sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) [ lambda min_i Q_i' + (1 - lambda) max_i Q_i' ](s', a(s', pi'))
    actor    max over f and xi  Q_1(s, a(s, pi))
    targets  Q_i', pi' <- Polyak

Critics, actor (with the new critics) and targets at every step. z is not clipped: max_latent bounds it. The paper's
lambda is `min_weight`.

`source` is the authors' code (Wenxuan-Zhou/PLAS) without the perturbation layer, as its script runs by default;
`perturbed` adds the layer, phi by task from d3rlpy, as the authors give none but the 0.05 of their README. No
departures. d3rlpy's reproduction takes min_weight 1, and a narrower model on medium-replay (--behavior-hidden 128,128).
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
from itrpo.nn.heads import MLP, Perturbation, QValue
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
    max_latent: float = 2.0  # largest |z| that the actor can choose, per dimension (authors' code)
    perturbation: bool = False  # whether decoded actions are perturbed (the paper has both; authors' script: no)
    phi: float = 0.05  # with it: largest change of a decoded action, per dimension (authors' README)
    min_weight: float = 0.75  # the paper's lambda: weight of the smaller critic against the larger (authors' code)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 100  # transitions per step
    policy_learning_rate: float = 1e-4  # Adam, of f and xi
    critic_learning_rate: float = 1e-3  # Adam
    policy_hidden: tuple[int, ...] = (400, 300)  # widths of the hidden layers of f, and of xi
    critic_hidden: tuple[int, ...] = (400, 300)  # of the critics
    initializer: Initializer = "fan_in"  # PyTorch's default, as in the authors' code; see itrpo.nn.network.Linear


class Actor(NamedTuple):
    """Parameters of the policy."""

    latent: Params  # f
    perturbation: Params | None  # xi


class State(NamedTuple):
    actor: Trainable  # params: Actor
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    behavior_params: Params  # of the model; frozen


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O], z [L] and action [A] are single examples."""

    model: BehaviorModel  # its `decode` is G
    latent: Network  # f: observation -> [L], before the tanh
    perturbation: Network | None  # xi: (observation, action) -> pre-tanh direction [A]
    critic: Network  # of one: (observation, action) -> scalar
    critics: Network  # of both: (observation, action) -> [2]


# --- losses --------------------------------------------------------------------------------------------------------


def decoded_action(
    networks: Networks, config: Config, actor: Actor, behavior_params: Params, observation: Array
) -> Array:
    """tanh G(s, z): [A], before any perturbation."""
    assert networks.model.decode is not None
    latent = config.max_latent * jnp.tanh(networks.latent.apply(actor.latent, observation))
    return jnp.tanh(networks.model.decode(behavior_params, observation, latent))


def policy_action(
    networks: Networks, config: Config, actor: Actor, behavior_params: Params, observation: Array
) -> Array:
    """a(s, pi): [A]."""
    action = decoded_action(networks, config, actor, behavior_params, observation)
    if networks.perturbation is None:
        return action
    direction = networks.perturbation.apply(actor.perturbation, observation, action)
    return td.perturbed_action(action, direction, config.phi)


def critic_target(
    networks: Networks,
    config: Config,
    target_actor: Actor,
    target_critic_params: Params,
    behavior_params: Params,
    it: Transition,
) -> Array:
    """y for one transition."""
    action = policy_action(networks, config, target_actor, behavior_params, it.next_observation)
    q = networks.critics.apply(target_critic_params, it.next_observation, action)
    return td.bellman_target(it.reward, it.continues, config.gamma, td.ensemble_mix(q, config.min_weight))


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[:, None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def policy_loss(
    networks: Networks,
    config: Config,
    actor: Actor,
    critic_params: Params,
    behavior_params: Params,
    observation: Array,
) -> tuple[Array, Metrics]:
    """-mean Q_1(s, a(s, pi)) over observation [B, O]. critic_params are those of one critic, Q_1."""
    action = jax.vmap(partial(policy_action, networks, config, actor, behavior_params))(observation)
    loss = -jnp.mean(jax.vmap(networks.critic.apply, in_axes=(None, 0, 0))(critic_params, observation, action))
    return loss, {"policy_loss": loss}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    actor: optax.GradientTransformation
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
    """Critics, actor, targets. batch: [B, ...]; nothing is random."""
    frozen, rate, target_actor = state.behavior_params, config.polyak_rate, state.actor.target_params
    assert target_actor is not None
    target = partial(critic_target, networks, config, target_actor, state.critic.target_params, frozen)
    targets = jax.vmap(target)(batch)
    critic, metrics = gradient_step(
        state.critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )
    first = first_member(critic.params)
    actor, policy_metrics = gradient_step(
        state.actor,
        optimizers.actor,
        lambda params: policy_loss(networks, config, params, first, frozen, batch.observation),
    )
    return State(polyak(actor, rate), polyak(critic, rate), frozen), metrics | policy_metrics


def make_networks(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Networks:
    sizes = (spec.observation_dim, *config.policy_hidden, behavior.latent_dim)
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    perturbation = None
    if config.perturbation:
        perturbation = network(lambda draw: Perturbation(draw, spec, config.policy_hidden, config.initializer))
    latent = network(lambda draw: MLP(draw, sizes, config.initializer, head_scale=1e-3))
    return Networks(behavior, latent, perturbation, critic, ensemble(critic, 2))


def make(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    networks = make_networks(config, spec, behavior)
    optimizers = Optimizers(optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate))

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        latent_key, perturbation_key, critic_key = jax.random.split(key, 3)
        perturbation = networks.perturbation.init(perturbation_key) if networks.perturbation else None
        actor = Actor(networks.latent.init(latent_key), perturbation)
        return State(
            trainable(optimizers.actor, actor, target=True),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
            behavior_params,
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        return policy_action(networks, config, state.actor.params, state.behavior_params, observation)

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows. probe_latent: of |z| as a share of max_latent; 1 is the edge of what is allowed."""
        actor, frozen = state.actor.params, state.behavior_params
        action = jax.vmap(partial(policy_action, networks, config, actor, frozen))(batch.observation)
        decoded = jax.vmap(partial(decoded_action, networks, config, actor, frozen))(batch.observation)
        latent = jnp.tanh(jax.vmap(networks.latent.apply, in_axes=(None, 0))(actor.latent, batch.observation))
        q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))
        return {
            "probe_q_data": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, batch.action))),
            "probe_q_policy": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, action))),
            "probe_latent": jnp.mean(jnp.abs(latent)),
            "probe_perturbation": jnp.mean(jnp.abs(action - decoded)),
            "probe_cloning_error": jnp.mean(jnp.square(action - batch.action)),
        }

    def export(state: State) -> dict[str, object]:
        actor = state.actor.params
        arrays: dict[str, object] = {
            "kind": "latent_decoder",
            **layer_arrays(actor.latent),
            **layer_arrays(state.behavior_params.decoder, "decoder_"),
            "max_latent": config.max_latent,
        }
        if networks.perturbation is not None:
            arrays |= layer_arrays(actor.perturbation.mlp, "perturbation_") | {"phi": config.phi}
        return arrays

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
    check_ranges(config, max_latent="(0, inf)")


SOURCE = Preset(
    Config(), "cvae", cvae.Config(fit_learning_rate=1e-4, fit_batch_size=100), steps=500_000, behavior_steps=500_000
)
MATCHED = Config(
    batch_size=256,
    policy_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    policy_hidden=(256, 256),
    critic_hidden=(256, 256),
)
PRESETS = {
    "source": SOURCE,
    "perturbed": SOURCE._replace(config=replace(SOURCE.config, perturbation=True), tasks="plas"),
    "matched": Preset(MATCHED, "cvae", cvae.Config(hidden=(256, 256)), behavior_steps=500_000),
}
PLAS = AlgorithmEntry(Config, PRESETS, "source", ("cvae",), make, validate)
