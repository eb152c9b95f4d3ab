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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.behavior import cvae
from itrpo.nn import critics
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.ensemble import Ensemble, critic_ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import MLP, Perturbation
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import td
from itrpo.ranges import Count, Discount, NonNegative, Positive, Rate, Share, Widths
from itrpo.types import Acting, Algorithm, AlgorithmEntry, LatentModel, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    max_latent: Positive = 2.0  # largest |z| that the actor can choose, per dimension (authors' code)
    perturbation: bool = False  # whether decoded actions are perturbed (the paper has both; authors' script: no)
    phi: NonNegative = 0.05  # with it: largest change of a decoded action, per dimension (authors' README)
    min_weight: Share = 0.75  # the paper's lambda: weight of the smaller critic against the larger (authors' code)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 100  # transitions per step
    policy_learning_rate: Positive = 1e-4  # Adam, of f and xi
    critic_learning_rate: Positive = 1e-3  # Adam
    policy_hidden: Widths = (400, 300)  # widths of the hidden layers of f, and of xi
    critic_hidden: Widths = (400, 300)  # of the critics
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ours)
    initializer: Initializer = "fan_in"  # PyTorch's default, as in the authors' code; see itrpo.nn.network.Linear


class Actor(NamedTuple):
    """Parameters of the policy."""

    latent: Params  # f
    perturbation: Params  # xi; None without


class State(NamedTuple):
    actor: Trainable  # params: Actor
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    behavior_params: Params  # of the model; frozen


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    model: LatentModel  # its `decode` is G
    latent: Network  # f: observation -> [B, L], before the tanh
    perturbation: Network | None  # xi: (observation, action) -> pre-tanh direction [B, A]
    critics: Ensemble
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


# --- losses --------------------------------------------------------------------------------------------------------


def decoded_action(
    config: Config, networks: Networks, actor: Actor, behavior_params: Params, observation: Float[Array, "B O"]
) -> Float[Array, "B A"]:
    """tanh G(s, z), before any perturbation."""
    latent = config.max_latent * jnp.tanh(networks.latent.apply(actor.latent, observation))
    return jnp.tanh(networks.model.decode(behavior_params, observation, latent))


def policy_action(
    config: Config, networks: Networks, actor: Actor, behavior_params: Params, observation: Float[Array, "B O"]
) -> Float[Array, "B A"]:
    """a(s, pi)."""
    action = decoded_action(config, networks, actor, behavior_params, observation)
    if networks.perturbation is None:
        return action
    direction = networks.perturbation.apply(actor.perturbation, observation, action)
    return td.perturbed_action(action, direction, config.phi)


def critic_targets(config: Config, networks: Networks, state: State, batch: Transition) -> Float[Array, "B"]:
    """y."""
    action = policy_action(config, networks, state.actor.target_params, state.behavior_params, batch.next_observation)
    q = networks.critics.apply(state.critic.target_params, batch.next_observation, action)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, td.ensemble_mix(q, config.min_weight))


def policy_loss(
    config: Config,
    networks: Networks,
    actor: Actor,
    critic_params: Params,
    behavior_params: Params,
    observation: Float[Array, "B O"],
) -> tuple[Float[Array, ""], Metrics]:
    """-mean Q_1(s, a(s, pi)). critic_params are those of one critic, Q_1."""
    action = policy_action(config, networks, actor, behavior_params, observation)
    loss = -jnp.mean(networks.critics.apply_one(critic_params, observation, action))
    return loss, {"policy_loss": loss}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, actor, targets. Nothing is random."""
    frozen, rate = state.behavior_params, config.polyak_rate
    targets = critic_targets(config, networks, state, batch)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)
    first = first_member(critic.params)
    actor, policy_metrics = gradient_step(
        state.actor,
        networks.actor_optimizer,
        lambda params: policy_loss(config, networks, params, first, frozen, batch.observation),
    )
    return State(polyak(actor, rate), polyak(critic, rate), frozen), metrics | policy_metrics


# --- networks, acting, and what is measured ------------------------------------------------------------------------


def make_networks(config: Config, spec: SpaceSpec, behavior: LatentModel) -> Networks:
    sizes = (spec.observation_dim, *config.policy_hidden, behavior.latent_dim)
    perturbation = None
    if config.perturbation:
        perturbation = network(lambda draw: Perturbation(draw, spec, config.policy_hidden, config.initializer))
    return Networks(
        behavior,
        network(lambda draw: MLP(draw, sizes, config.initializer, head_scale=1e-3)),
        perturbation,
        critic_ensemble(spec, config.critic_hidden, 2, config.initializer, config.critic_layer_norm),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step."""
    latent_key, perturbation_key, critic_key = jax.random.split(key, 3)
    perturbation = networks.perturbation.init(perturbation_key) if networks.perturbation else None
    return State(
        trainable(networks.actor_optimizer, Actor(networks.latent.init(latent_key), perturbation), target=True),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        behavior_params,
    )


def export(config: Config, networks: Networks, state: State) -> dict[str, Any]:
    actor = state.actor.params
    arrays = {
        "kind": "latent_decoder",
        **layer_arrays(actor.latent),
        **layer_arrays(state.behavior_params.decoder, "decoder_"),
        "max_latent": config.max_latent,
    }
    if networks.perturbation is None:
        return arrays
    return arrays | layer_arrays(actor.perturbation.mlp, "perturbation_") | {"phi": config.phi}


def probes(config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows. probe_latent: of |z| as a share of max_latent; 1 is the edge of what is allowed."""
    given = (config, networks, state.actor.params, state.behavior_params, batch.observation)
    action, decoded = policy_action(*given), decoded_action(*given)
    latent = jnp.tanh(networks.latent.apply(state.actor.params.latent, batch.observation))
    return critics.probes(networks.critics, state.critic.params, batch, action) | {
        "probe_latent": jnp.mean(jnp.abs(latent)),
        "probe_perturbation": jnp.mean(jnp.abs(action - decoded)),
        "probe_cloning_error": jnp.mean(jnp.square(action - batch.action)),
    }


def make(config: Config, spec: SpaceSpec, behavior: LatentModel) -> Algorithm:
    networks = make_networks(config, spec, behavior)

    def act(state: State, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
        return policy_action(config, networks, state.actor.params, state.behavior_params, observation)

    return Algorithm(
        init=partial(start, networks),
        update=partial(update, config, networks),
        acting=Acting(act, None, partial(export, config, networks)),
        probes=partial(probes, config, networks),
        batch_size=config.batch_size,
        q_values=q_values(networks.critics),
    )


SOURCE = Preset(
    Config(), "cvae", cvae.Config(fit_learning_rate=1e-4, fit_batch_size=100), steps=500_000, behavior_steps=500_000
)
MATCHED_CONFIG = Config(
    batch_size=256,
    policy_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    policy_hidden=(256, 256),
    critic_hidden=(256, 256),
)
MATCHED = Preset(MATCHED_CONFIG, "cvae", cvae.Config(hidden=(256, 256)), behavior_steps=500_000)
PRESETS = {
    "source": SOURCE,
    "perturbed": SOURCE._replace(config=replace(SOURCE.config, perturbation=True), tasks="plas"),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}),
}
PLAS = AlgorithmEntry(Config, PRESETS, "source", ("cvae",), make)
