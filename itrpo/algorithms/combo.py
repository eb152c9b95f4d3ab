"""COMBO, "Conservative offline model-based policy optimization" (Yu et al., NeurIPS 2021, arXiv 2102.08363).

CQL (`itrpo.algorithms.cql`) on data and on what a model of the environment makes of the policy (`itrpo.dynamics`): Q
falls at states and actions that the model leads to, and rises at those of the data alone.

    model     fitted for the first `dynamics_steps` steps, then frozen
    rows      data_share of them from the data D; the others from rollouts of the model: a state of D, rollout_length
              steps with a ~ pi. Both together: d_f
    actor     min over pi    E_{s~d_f, a~pi}[entropy_weight * log pi(a|s) - min_i Q_i(s,a)]
    critics   min over Q_i   E_{d_f}[(Q_i(s,a) - y)^2]
                 + conservative_weight * (E_{s~d_f}[log sum_j exp(Q_i(s,a_j) - log mu_j(a_j))] - E_D[Q_i(s,a)])
              y = r + gamma (1-d) min_i Q_i'(s',a'),   a' ~ pi(.|s')                           no entropy in y

The paper's beta is `conservative_weight`, its f `data_share`, its h `rollout_length`. The a_j are those of CQL. Where
nothing but Q's values is free, Q = y - conservative_weight (rho - d) / (2 d_f) (the paper's Eq. 3, whose squared error
is halved): rho is where sampled actions are, d where the data is.

`source` is OfflineRL-Kit (yihaosun1124/OfflineRL-Kit), whose constants by task are in tasks/combo.toml; no code of the
authors is public. Their paper lets log sum exp run over the model's states alone or over d_f; the kit has d_f.

Departures from the source: every step rolls out anew, with the policy as it is, from states of its own batch (there
50,000 states every 1,000 steps, kept for 5,000), so a step trains on no rollout of an older policy and nothing has to
be stored; a rollout that ends begins again at its first state (there it stops); the end of an episode is learned, for
any environment (there known for a few); fits and departures of the model are in its own file; the fit takes a sixth of
the run (there until it no longer helps, before it); the actor's learning rate does not fall (there by a cosine); no
Lagrange form, no max-backup, no actor in its rollouts but pi.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo import dynamics
from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.quick import quick
from itrpo.algorithms.soft_actor_critic import ACTION_EDGE, Backbone
from itrpo.dynamics import DynamicsFit, DynamicsModel, FitState
from itrpo.nn import soft
from itrpo.nn.critics import least_q, q_values
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import Trainable, cached_chunk, chunked_gradient_step, gradient_step, polyak
from itrpo.ops import pessimism, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, Rate
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition

CRITICS = 2


@dataclass(frozen=True)
class Config:
    conservative_weight: NonNegative = 5.0  # the paper's beta (its 0.5, 1 or 5; source by task)
    data_share: Rate = 0.5  # the paper's f: share of a batch that is the data's (source)
    rollout_length: Count = 5  # the paper's h: steps of the model from a state of the data (its 1 or 5; source by task)
    conservative_actions: Count = 10  # actions per state of each of the three kinds (source)
    dynamics_steps: Count = 200_000  # first steps, in which the model is fitted, and nothing else (ours)
    model: DynamicsFit = DynamicsFit()
    backbone: Backbone = Backbone()


class State(NamedTuple):
    dynamics: FitState
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]; with a target
    log_entropy_weight: Trainable  # scalar
    metrics: Metrics  # each of its last step: the model and the policy never step together


class Rows(NamedTuple):
    """What the critics' loss reads of each row, ready to be taken apart: n = 3 * conservative_actions."""

    observation: Float[Array, "B O"]
    action: Float[Array, "B 1+n A"]  # the row's action, then the sampled ones
    log_density: Float[Array, "B n"]  # of the sampled actions under what they were drawn from
    target: Float[Array, "B"]
    data_weight: Float[Array, "B"]  # the mean of data_weight * x is the mean of x over the data's rows


# --- rows of the data and of the model -----------------------------------------------------------------------------


def rollouts(
    networks: Networks,
    model: DynamicsModel,
    fitted: Params,
    policy_params: Params,
    start: Float[Array, "n O"],
    length: int,
    key: Key[Array, ""],
) -> Transition:
    """`length` steps from each state, a ~ pi [n * length rows], one rollout after the other. One that ends begins again
    where it started.
    """

    def step(observation: Float[Array, "n O"], step_key: Key[Array, ""]) -> tuple[Float[Array, "n O"], Transition]:
        noise_key, sample_key = jax.random.split(step_key)
        noise = jax.random.normal(noise_key, (len(start), networks.actor.spec.action_dim))
        action, _ = networks.actor.sample(policy_params, observation, noise)
        rows = model.sample(fitted, observation, action, sample_key)
        return jnp.where(rows.continues[:, None] > 0, rows.next_observation, start), rows

    _, rows = jax.lax.scan(step, start, jax.random.split(key, length))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), rows)


def mixed_rows(
    config: Config, networks: Networks, model: DynamicsModel, state: State, batch: Transition, key: Key[Array, ""]
) -> tuple[Transition, Float[Array, "B"]]:
    """As many rows as the batch has, drawn from d_f, and their `data_weight`: the first rows of the batch, then
    rollouts from its last states.
    """
    count, length = len(batch.reward), config.rollout_length
    starts = -(-count // length)  # enough for any share: `data_share` may be traced
    fitted, states = model.fitted(state.dynamics), batch.observation[count - starts :]
    made = rollouts(networks, model, fitted, state.policy.params, states, length, key)
    of_data = jnp.maximum(1, jnp.round(config.data_share * count))
    is_data = jnp.arange(count) < of_data

    def mixed(own: Array, new: Array) -> Array:
        return jnp.where(is_data.reshape(-1, *[1] * (own.ndim - 1)), own, new[:count])

    return jax.tree.map(mixed, batch, made), jnp.where(is_data, count / of_data, 0.0)


# --- losses --------------------------------------------------------------------------------------------------------


def critic_loss(
    networks: Networks, conservative_weight: Scalar, critic_params: Params, rows: Rows
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over rows of sum_i (Q_i(s,a) - y)^2 + conservative_weight * sum_i gap_i; Q counts in the gap as the data's
    alone.
    """
    q = networks.critics.apply(critic_params, rows.observation, rows.action)
    own = q[:, :, 0]
    q_data = rows.data_weight[None] * own
    gaps = pessimism.conservative_gap(q[:, :, 1:], rows.log_density[None], q_data)
    loss = td.squared_error(own, rows.target[None]) + conservative_weight * jnp.mean(jnp.sum(gaps, axis=0))
    return loss, {
        "critic_loss": loss,
        "q_data": jnp.mean(q_data),
        "q_target": jnp.mean(rows.target),
        "conservative_gap": jnp.mean(gaps),
    }


# --- one step ------------------------------------------------------------------------------------------------------


def fit(model: DynamicsModel, state: State, batch: Transition) -> State:
    """A step of the model."""
    fitted, metrics = model.fit_step(state.dynamics, batch)
    return state._replace(dynamics=fitted, metrics=state.metrics | metrics)


def learn(
    config: Config, networks: Networks, model: DynamicsModel, state: State, batch: Transition, key: Key[Array, ""]
) -> State:
    """Rollouts; actor and entropy weight against the critics as they were; critics against the new actor; targets."""
    backbone = config.backbone
    rollout_key, policy_key, target_key, action_key = jax.random.split(key, 4)
    mixed, data_weight = mixed_rows(config, networks, model, state, batch, rollout_key)
    noise, next_noise = (jax.random.normal(it, mixed.action.shape) for it in (policy_key, target_key))
    entropy_weight = jnp.exp(state.log_entropy_weight.params)
    policy, policy_metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: soft.policy_loss(
            networks, entropy_weight, params, state.critic.params, mixed.observation, noise
        ),
    )
    log_entropy_weight = soft.entropy_step(
        networks, state.log_entropy_weight, policy_metrics["entropy"], backbone.target_entropy * noise.shape[-1]
    )

    next_action, _ = networks.actor.sample(policy.params, mixed.next_observation, next_noise)
    next_q = least_q(networks.critics, state.critic.target_params, mixed.next_observation, next_action)
    targets = td.bellman_target(mixed.reward, mixed.continues, backbone.gamma, next_q)
    sampled, log_density = soft_actor_critic.conservative_actions(
        networks, config.conservative_actions, policy.params, mixed, action_key
    )
    actions = jnp.concatenate([mixed.action[:, None], sampled], axis=1)
    critic, metrics = chunked_gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params, part: critic_loss(networks, config.conservative_weight, params, part),
        Rows(mixed.observation, actions, log_density, targets, data_weight),
        cached_chunk(len(targets), actions.shape[1]),
    )
    of_model = jnp.sum(jnp.where(data_weight > 0, 0.0, mixed.reward)) / jnp.maximum(jnp.sum(data_weight == 0), 1)
    metrics |= policy_metrics | {"entropy_weight": entropy_weight, "model_reward": of_model}
    return state._replace(
        policy=policy,
        critic=polyak(critic, backbone.polyak_rate),
        log_entropy_weight=log_entropy_weight,
        metrics=state.metrics | metrics,
    )


def update(
    config: Config,
    networks: Networks,
    model: DynamicsModel,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """A step of the model, or one of the rest. The key is consumed."""
    state = jax.lax.cond(
        step < config.dynamics_steps,
        lambda: fit(model, state, batch),
        lambda: learn(config, networks, model, state, batch, key),
    )
    return state, state.metrics


def start(networks: Networks, model: DynamicsModel, key: Key[Array, ""]) -> State:
    names = ("dynamics_nll", "dynamics_held_out", "critic_loss", "q_data", "q_target", "conservative_gap")
    names += ("policy_loss", "entropy", "entropy_weight", "model_reward")
    model_key, key = jax.random.split(key)
    return State(model.init(model_key), *soft.start(networks, key), {name: jnp.zeros(()) for name in names})


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = soft_actor_critic.make_networks(config.backbone, spec, CRITICS)
    model = dynamics.make(config.model, spec)
    return Algorithm(
        init=lambda key, behavior_params: start(networks, model, key),
        update=partial(update, config, networks, model),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=partial(soft_actor_critic.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


def validate(config: Config, behavior: None, behavior_config: None) -> None:
    """Raises InputError for a model that can't be made."""
    dynamics.validate(config.model)


KIT = Backbone(
    policy_learning_rate=1e-4,
    entropy_learning_rate=1e-4,
    policy_hidden=(256, 256, 256),
    critic_hidden=(256, 256, 256),
)
SOURCE = Preset(replace(Config(), backbone=KIT), steps=1_200_000, tasks="combo", scaled_fields=("dynamics_steps",))
MATCHED = SOURCE._replace(config=Config(), steps=1_000_000)
PRESETS = {"source": SOURCE, "matched": MATCHED, "quick": quick(MATCHED, {})}
COMBO = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
