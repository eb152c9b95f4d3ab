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
from itrpo.nn.heads import Perturbation
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import td
from itrpo.ranges import Count, Discount, NonNegative, NonNegativeOrInf, Positive, Rate, Share, Widths
from itrpo.types import Acting, Algorithm, AlgorithmEntry, LatentModel, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    phi: NonNegative = 0.05  # largest change of a proposed action, per dimension (the paper's Phi)
    min_weight: Share = 0.75  # the paper's lambda: weight of the smaller critic against the larger in targets
    target_actions: Count = 10  # n: proposals at s' that the target's maximum runs over
    acting_actions: Count = 100  # proposals that the greedy policy chooses from (author's code; the paper 10)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 100  # transitions per step
    policy_learning_rate: Positive = 1e-3  # Adam, of xi
    critic_learning_rate: Positive = 1e-3  # Adam
    cvae_learning_rate: Positive = 1e-3  # Adam
    policy_hidden: Widths = (400, 300)  # widths of the hidden layers of xi
    critic_hidden: Widths = (400, 300)  # of the critics
    cvae_hidden: Widths = (750, 750)  # of encoder and decoder
    kl_weight: NonNegative = 0.5  # of the model's mean KL against its mean squared error
    latent_clip: NonNegativeOrInf = 0.5  # z of proposals is clipped to +- this
    initializer: Initializer = "fan_in"  # PyTorch's default, as in the author's code; see itrpo.nn.network.Linear


class State(NamedTuple):
    cvae: cvae.FitState
    perturbation: Trainable  # xi
    critic: Trainable  # parameters of both critics, stacked [2, ...]


class Networks(NamedTuple):
    """The networks, and what moves their parameters."""

    model: LatentModel  # the CVAE
    perturbation: Network  # xi: (observation, action) -> pre-tanh direction, of one action at a state or of n
    critics: Ensemble
    perturbation_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


# --- losses --------------------------------------------------------------------------------------------------------


def proposed_action(
    config: Config,
    networks: Networks,
    cvae_params: Params,
    perturbation_params: Params,
    observation: Float[Array, "B O"],
    latent: Float[Array, "B *n L"],
) -> Float[Array, "B *n A"]:
    """a(s, z, xi)."""
    decoded = jnp.tanh(networks.model.decode(cvae_params, observation, latent))
    direction = networks.perturbation.apply(perturbation_params, observation, decoded)
    return td.perturbed_action(decoded, direction, config.phi)


def critic_targets(
    config: Config,
    networks: Networks,
    cvae_params: Params,
    state: State,
    batch: Transition,
    latents: Float[Array, "B n L"],
) -> Float[Array, "B"]:
    """y. The two critics are mixed first, then the best action is taken."""
    observation, xi = batch.next_observation, state.perturbation.target_params
    actions = proposed_action(config, networks, cvae_params, xi, observation, latents)
    q = td.ensemble_mix(networks.critics.apply(state.critic.target_params, observation, actions), config.min_weight)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, jnp.max(q, axis=1))


def policy_loss(
    config: Config,
    networks: Networks,
    perturbation_params: Params,
    cvae_params: Params,
    critic_params: Params,
    observation: Float[Array, "B O"],
    latent: Float[Array, "B L"],
) -> tuple[Float[Array, ""], Metrics]:
    """-mean Q_1(s, a(s, z, xi)). critic_params are those of one critic, Q_1."""
    action = proposed_action(config, networks, cvae_params, perturbation_params, observation, latent)
    loss = -jnp.mean(networks.critics.apply_one(critic_params, observation, action))
    return loss, {"policy_loss": loss}


# --- one step ------------------------------------------------------------------------------------------------------


def draw_latents(config: Config, networks: Networks, key: Key[Array, ""], *shape: int) -> Float[Array, "*shape L"]:
    """z of proposals. The key is consumed."""
    return cvae.prior_latents(jax.random.normal(key, (*shape, networks.model.latent_dim)), config.latent_clip)


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Model, critics, xi, targets. The key is consumed."""
    model_key, target_key, policy_key = jax.random.split(key, 3)
    rows, rate = len(batch.reward), config.polyak_rate
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)
    model_params = networks.model.params(fitted)

    latents = draw_latents(config, networks, target_key, rows, config.target_actions)
    targets = critic_targets(config, networks, model_params, state, batch, latents)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    latent, first = draw_latents(config, networks, policy_key, rows), first_member(critic.params)
    perturbation, policy_metrics = gradient_step(
        state.perturbation,
        networks.perturbation_optimizer,
        lambda params: policy_loss(config, networks, params, model_params, first, batch.observation, latent),
    )
    state = State(fitted, polyak(perturbation, rate), polyak(critic, rate))
    return state, metrics | policy_metrics | model_metrics


# --- networks, acting, and what is measured ------------------------------------------------------------------------


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    return Networks(
        cvae.stepped(spec, config.cvae_hidden, config.cvae_learning_rate, config.kl_weight, config.latent_clip),
        network(lambda draw: Perturbation(draw, spec, config.policy_hidden, config.initializer)),
        critic_ensemble(spec, config.critic_hidden, 2, config.initializer),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )


def start(networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    """The state before the first step."""
    model_key, perturbation_key, critic_key = jax.random.split(key, 3)
    return State(
        networks.model.init(model_key),
        trainable(networks.perturbation_optimizer, networks.perturbation.init(perturbation_key), target=True),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
    )


def acting(config: Config, networks: Networks) -> Acting:
    """The best of `acting_actions` proposals; greedy, from the same z in every state."""
    count = config.acting_actions

    def greedy_latents() -> Float[Array, "n L"]:
        return draw_latents(config, networks, jax.random.key(0), count)

    def act(state: State, observation: Float[Array, "B O"], key: Key[Array, ""], greedy: bool) -> Float[Array, "B A"]:
        rows = len(observation)
        if greedy:
            latents = jnp.broadcast_to(greedy_latents(), (rows, count, networks.model.latent_dim))
        else:
            latents = draw_latents(config, networks, key, rows, count)
        model_params, perturbation_params = networks.model.params(state.cvae), state.perturbation.params
        actions = proposed_action(config, networks, model_params, perturbation_params, observation, latents)
        q = networks.critics.apply_one(first_member(state.critic.params), observation, actions)
        return td.best_action(actions, q)

    def export(state: State) -> dict[str, Any]:
        return {
            "kind": "best_of_decoder",
            **layer_arrays(networks.model.params(state.cvae).decoder),
            **layer_arrays(state.perturbation.params.mlp, "perturbation_"),
            **layer_arrays(first_member(state.critic.params).mlp, "critic_"),
            "phi": config.phi,
            "latents": greedy_latents(),
        }

    return Acting(act, None, export)


def probes(config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows; probe_q_policy is at one proposal per state, not at the best of many."""
    latent, params = draw_latents(config, networks, key, len(batch.reward)), networks.model.params(state.cvae)
    action = proposed_action(config, networks, params, state.perturbation.params, batch.observation, latent)
    decoded = jnp.tanh(networks.model.decode(params, batch.observation, latent))
    return critics.probes(networks.critics, state.critic.params, batch, action) | {
        "probe_perturbation": jnp.mean(jnp.abs(action - decoded))
    }


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = make_networks(config, spec)
    return Algorithm(
        init=partial(start, networks),
        update=partial(update, config, networks),
        acting=acting(config, networks),
        probes=partial(probes, config, networks),
        batch_size=config.batch_size,
        q_values=q_values(networks.critics),
    )


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
PRESETS = {"source": Preset(Config()), "matched": Preset(MATCHED), "quick": quick(Preset(MATCHED), {})}
BCQ = AlgorithmEntry(Config, PRESETS, "source", (), make)
