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
import optax

from itrpo.algorithms.kl_actor_critic import is_zero
from itrpo.behavior import cvae
from itrpo.nn.dropout import Masks, draw_masks, masked
from itrpo.nn.ensemble import ensemble, first_member
from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import DeterministicPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import policy_losses, td
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
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    support_weight: float = 0.1  # the paper's lambda: of L against the normalised Q, by task; here hopper-medium's
    noise_scale: float = 0.2  # standard deviation of the noise on the target's action (TD3)
    noise_limit: float = 0.5  # that noise is clipped to +- this (TD3)
    policy_delay: int = 2  # critic steps per step of the actor and the targets (TD3)
    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging, per step of the actor
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam
    critic_learning_rate: float = 3e-4  # Adam
    policy_dropout: float = 0.1  # share of the actor's hidden units that are silent (MuJoCo; AntMaze 0)
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    initializer: Initializer = "fan_in"  # PyTorch's default; AntMaze has small heads; see itrpo.nn.network.Linear


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]
    behavior_params: Params  # of the model; frozen
    policy_metrics: Metrics  # of the actor's last step


class Networks(NamedTuple):
    """All that the losses know of the networks; observation [O] and action [A] are single examples."""

    policy: Network  # observation -> pre-tanh action [A]
    critic: Network  # of one: (observation, action) -> scalar
    critics: Network  # of both: (observation, action) -> [2]
    model: BehaviorModel  # its `negative_elbo` is L


class Draws(NamedTuple):
    """What is random in one use of the actor; rows [B], or one row."""

    noise: Array  # [A] or [L], standard normal
    masks: Masks | None  # of dropout; None: no dropout


# --- losses --------------------------------------------------------------------------------------------------------


def policy_action(networks: Networks, policy_params: Params, observation: Array, masks: Masks | None) -> Array:
    """pi(s): [A], with dropout where masks are given."""
    if masks is None:
        return jnp.tanh(networks.policy.apply(policy_params, observation))
    return jnp.tanh(masked(policy_params.mlp, observation, masks))


def critic_target(
    networks: Networks,
    config: Config,
    target_policy_params: Params,
    target_critic_params: Params,
    it: Transition,
    draws: Draws,
) -> Array:
    """y for one transition; draws.noise is eps."""
    action = policy_action(networks, target_policy_params, it.next_observation, draws.masks)
    action = td.smoothed_action(action, draws.noise, config.noise_scale, config.noise_limit)
    next_value = td.ensemble_min(networks.critics.apply(target_critic_params, it.next_observation, action))
    return td.bellman_target(it.reward, it.continues, config.gamma, next_value)


def critic_loss(networks: Networks, critic_params: Params, batch: Transition, targets: Array) -> tuple[Array, Metrics]:
    """Mean over the batch of sum_i (Q_i(s,a) - y)^2. targets: [B]."""
    q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))(critic_params, batch.observation, batch.action)
    loss = jnp.mean(jnp.sum(jnp.square(q - targets[:, None]), axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(targets)}


def policy_loss(
    networks: Networks,
    config: Config,
    policy_params: Params,
    critic_params: Params,
    behavior_params: Params,
    observation: Array,
    draws: Draws,
) -> tuple[Array, Metrics]:
    """-mean Q_1 / mean |Q_1| + support_weight mean L over observation [B, O].

    critic_params are those of one critic, Q_1; draws.noise [B, L] gives z.
    """
    assert networks.model.negative_elbo is not None
    action = jax.vmap(partial(policy_action, networks, policy_params))(observation, draws.masks)
    q = jax.vmap(networks.critic.apply, in_axes=(None, 0, 0))(critic_params, observation, action)
    bound = jax.vmap(partial(networks.model.negative_elbo, behavior_params))(observation, action, draws.noise)
    q_scale, bound = policy_losses.inverse_magnitude(q), jnp.mean(bound)
    loss = -q_scale * jnp.mean(q) + config.support_weight * bound
    return loss, {"policy_loss": loss, "negative_elbo": bound, "q_scale": q_scale}


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation


def random_draws(config: Config, key: PRNGKey, shape: tuple[int, int]) -> Draws:
    """Noise of this shape [B, .] and masks [B, width] for as many uses of the actor. The key is consumed."""
    noise_key, mask_key = jax.random.split(key)
    masks = None
    if not is_zero(config.policy_dropout):
        masks = draw_masks(mask_key, config.policy_hidden, config.policy_dropout, shape[:1])
    return Draws(jax.random.normal(noise_key, shape), masks)


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps the actor and all targets. batch: [B, ...]; the key is consumed."""
    policy, critic, frozen = state.policy, state.critic, state.behavior_params
    target_key, policy_key = jax.random.split(key)
    target = partial(critic_target, networks, config, policy.target_params, critic.target_params)
    targets = jax.vmap(target)(batch, random_draws(config, target_key, batch.action.shape))
    critic, metrics = gradient_step(
        critic, optimizers.critic, lambda params: critic_loss(networks, params, batch, targets)
    )

    def policy_step() -> State:
        first = first_member(critic.params)
        draws = random_draws(config, policy_key, (len(batch.reward), networks.model.latent_dim))
        stepped, policy_metrics = gradient_step(
            policy,
            optimizers.policy,
            lambda params: policy_loss(networks, config, params, first, frozen, batch.observation, draws),
        )
        rate = config.polyak_rate
        return State(polyak(stepped, rate), polyak(critic, rate), frozen, policy_metrics)

    def critic_alone() -> State:
        return State(policy, critic, frozen, state.policy_metrics)

    # `step` is one number for all seeds, so this computes one branch, not both
    state = jax.lax.cond((step + 1) % config.policy_delay == 0, policy_step, critic_alone)
    return state, metrics | state.policy_metrics


def make_networks(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Networks:
    policy = network(lambda draw: DeterministicPolicy(draw, spec, config.policy_hidden, config.initializer))
    critic = network(lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer))
    return Networks(policy, critic, ensemble(critic, 2), behavior)


def make(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    networks = make_networks(config, spec, behavior)
    optimizers = Optimizers(optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate))

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(optimizers.policy, networks.policy.init(policy_key), target=True),
            trainable(optimizers.critic, networks.critics.init(critic_key), target=True),
            behavior_params,
            {name: jnp.zeros(()) for name in ("policy_loss", "negative_elbo", "q_scale")},
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        return policy_action(networks, state.policy.params, observation, None)

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows, L among them: at the data's actions and at the policy's."""
        assert networks.model.negative_elbo is not None
        action = jax.vmap(lambda it: policy_action(networks, state.policy.params, it, None))(batch.observation)
        noise = jax.random.normal(key, (len(batch.reward), networks.model.latent_dim))
        q = jax.vmap(networks.critics.apply, in_axes=(None, 0, 0))
        bound = jax.vmap(networks.model.negative_elbo, in_axes=(None, 0, 0, 0))
        return {
            "probe_q_data": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, batch.action))),
            "probe_q_policy": jnp.mean(td.ensemble_min(q(state.critic.params, batch.observation, action))),
            "probe_negative_elbo_data": jnp.mean(bound(state.behavior_params, batch.observation, batch.action, noise)),
            "probe_negative_elbo_policy": jnp.mean(bound(state.behavior_params, batch.observation, action, noise)),
            "probe_cloning_error": jnp.mean(jnp.square(action - batch.action)),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks, optimizers),
        act=act,
        log_prob=None,
        probes=probes,
        export=lambda state: {"kind": "tanh_mlp", **layer_arrays(state.policy.params.mlp)},
        batch_size=config.batch_size,
    )


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config, support_weight="[0, inf)", policy_dropout="[0, 1)")


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
PRESETS = {"source": SOURCE, "matched": SOURCE._replace(behavior_config=cvae.Config(hidden=(256, 256)))}
SPOT = AlgorithmEntry(Config, PRESETS, "source", ("cvae",), make, validate)
