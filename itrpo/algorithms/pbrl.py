"""PBRL, pessimistic bootstrapping ("Pessimistic Bootstrapping for Uncertainty-Driven Offline Reinforcement Learning",
Bai, Wang, Yang, Deng, Garg, Liu and Wang, ICLR 2022, arXiv 2202.11566).

K critics, each with targets of its own; what they disagree on, std_j Q_j, is taken off the targets of logged actions
and, more of it, off those of actions that pi samples:

    critics   min over Q_k   mean (Q_k(s,a) - y_k)^2 + mean over a~ of (Q_k(s_,a~) - z_k)^2
              y_k = r + gamma (1-d) ( Q_k'(s',a') - target_weight * std_j Q_j'(s',a') ),   a' ~ pi(.|s')
              z_k = max( floor, Q_k(s_,a~) - w * std_j Q_j(s_,a~) ), held constant
              a~: ood_actions from pi(.|s) at s_ = s with w = ood_weight, as many from pi(.|s') at s_ = s' with
              w = ood_weight_next
    actor     min over pi    entropy_weight * log pi(a|s) - min_k Q_k(s,a),   a ~ pi(.|s)

No entropy in y. ood_weight falls from 5 to 1 over 50,000 steps. After that, once in 1,000 steps while it is above 0.2,
it is divided by 1.01 if the mean of the last 5 records of mean Q(s,a~) is below that of the 15 before: sampled actions
are being driven down, so the penalty gives way. Not on medium-expert, where it stays at 1; on expert it is always 2.

`source` is the authors' code (Baichenjia/PBRL, d4rl/, pevi.py and pevi_mujoco.py). One step: the entropy weight; the
critics, with the actor as it was; the actor, with the new critics and the new weight; targets. Constants by task are in
tasks/pbrl.toml. The source has none for AntMaze: there the floor of 0, above every return if rewards are shifted to r -
1, is off (ours). Departures: targets start as copies of the critics (there from weights of their own); the policy is
evaluated once per state for its 10 actions, not 10 times; the tanh's log-determinant is exact (there 1e-6 inside the
log). Without the source's quirks of its prior variant, which is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.soft_actor_critic import Backbone, Networks, Optimizers
from itrpo.errors import InputError
from itrpo.nn.trainable import Trainable, cached_chunk, chunked_gradient_step, gradient_step, polyak
from itrpo.ops import pessimism, td
from itrpo.ranges import check_ranges
from itrpo.types import Algorithm, AlgorithmEntry, Array, Metrics, Params, Preset, PRNGKey, SpaceSpec, Transition

RECORDS, RECENT = 20, 5  # of mean Q(s,a~): kept; compared with the rest (source's two queues)


@dataclass(frozen=True)
class Config:
    target_weight: float = 0.01  # the paper's beta_in: standard deviations off the targets of logged actions
    ood_weight_start: float = 5.0  # the paper's beta_ood, off the targets of actions of pi(.|s), at the first step
    ood_weight_end: float = 1.0  # and from ood_weight_steps on
    ood_weight_steps: int = 50_000  # it falls along a line in so many steps
    ood_weight_decay: float = 1.01  # divides it when sampled actions' values fall; 1: never (medium-expert, expert)
    ood_weight_low: float = 0.2  # not below this
    ood_record_every: int = 1_000  # steps between records of those values
    ood_weight_next: float = 0.1  # off the targets of actions of pi(.|s')
    ood_actions: int = 10  # sampled actions per state, of s and of s'; 0: no such term
    ood_floor: float = 0.0  # lowest target of a sampled action, in reward units; -inf: none
    critics: int = 10  # the paper's K
    backbone: Backbone = Backbone()


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [critics, ...]; with a target
    log_entropy_weight: Trainable  # scalar
    ood_weight: Array  # scalar: what ood_weight is once the first ood_weight_steps are over
    records: Array  # [RECORDS]: mean Q(s,a~), oldest first


class Rows(NamedTuple):
    """What the critics' loss reads of each transition, ready to be taken apart: n = ood_actions."""

    observation: Array  # [B, 1 + 2n, O]: s, 1 + n times, then s'
    action: Array  # [B, 1 + 2n, A]: the logged action, those of pi(.|s), those of pi(.|s')
    target: Array  # [B, critics]


# --- targets and losses, for a batch -------------------------------------------------------------------------------


def critic_targets(
    networks: Networks,
    config: Config,
    policy_params: Params,
    target_critic_params: Params,
    batch: Transition,
    noise: Array,
) -> Array:
    """y_k: [B, critics]; noise [B, A] ~ N(0, I) draws the next actions."""
    action, _ = soft_actor_critic.sample(networks, policy_params, batch.next_observation, noise)
    q = networks.critics(target_critic_params, batch.next_observation, action)
    lower = jax.vmap(pessimism.lower_bounds, in_axes=(1, None))(q, config.target_weight)
    return td.bellman_target(batch.reward[:, None], batch.continues[:, None], config.backbone.gamma, lower)


def ood_targets(q: Array, weight: Array, floor: Array | float) -> Array:
    """z_k = max(floor, Q_k - weight * std_j Q_j), held constant. q [critics, B, n], weight [n] -> [critics, B, n]."""
    of_actions = jax.vmap(pessimism.lower_bounds, in_axes=(1, 0), out_axes=1)
    lower = jax.vmap(of_actions, in_axes=(1, None), out_axes=1)(q, weight)
    return jax.lax.stop_gradient(jnp.maximum(lower, floor))


def critic_loss(
    networks: Networks, config: Config, ood_weight: Array, critic_params: Params, rows: Rows
) -> tuple[Array, Metrics]:
    """Sum over members of the two mean squared errors."""
    flat = (it.reshape(-1, it.shape[-1]) for it in (rows.observation, rows.action))  # every action in one product
    q = networks.critics(critic_params, *flat).reshape(-1, *rows.action.shape[:2])
    q_data, q_ood = q[:, :, 0], q[:, :, 1:]
    loss = jnp.sum(jnp.mean(jnp.square(q_data - rows.target.T), axis=1))
    metrics = {"critic_loss": loss, "q_std": jnp.mean(jnp.std(q_data, axis=0)), "q_target": jnp.mean(rows.target)}
    if not config.ood_actions:
        return loss, metrics | {"ood_loss": jnp.zeros(()), "q_ood": jnp.zeros(())}
    weight = jnp.repeat(jnp.stack([ood_weight, jnp.asarray(config.ood_weight_next)]), config.ood_actions)
    error = q_ood - ood_targets(q_ood, weight, config.ood_floor)
    ood_loss = jnp.sum(jnp.mean(jnp.square(error), axis=(1, 2)))
    q_own = q_ood[:, :, : config.ood_actions]
    return loss + ood_loss, metrics | {"ood_loss": ood_loss, "q_ood": jnp.mean(q_own)}


# --- the weight of the penalty -------------------------------------------------------------------------------------


def ood_weight(config: Config, later: Array, step: Array) -> Array:
    """w at `step` (from 0): on the line from start to end, then `later`."""
    count = step + 1.0
    line = config.ood_weight_start + (config.ood_weight_end - config.ood_weight_start) * count / config.ood_weight_steps
    return jnp.where(count < config.ood_weight_steps, line, later)


def record(
    config: Config, later: Array, records: Array, weight: Array, q_ood: Array, step: Array
) -> tuple[Array, Array]:
    """(weight after this step, records): one record, and one decision on those before it, in ood_record_every steps."""
    before = step // config.ood_record_every  # records made so far
    kept = jnp.arange(RECORDS) >= RECORDS - before
    recent = jnp.arange(RECORDS) >= RECORDS - RECENT
    mean_recent = jnp.mean(records[-RECENT:])
    earlier = jnp.sum(jnp.where(kept & ~recent, records, 0.0)) / jnp.sum(kept & ~recent)  # NaN if there are none
    falling = mean_recent < earlier
    decays = (step + 1 > config.ood_weight_steps) & (weight > config.ood_weight_low) & falling
    now = step % config.ood_record_every == 0
    later = jnp.where(now & decays, weight / config.ood_weight_decay, later)
    return later, jnp.where(now, jnp.roll(records, -1).at[-1].set(q_ood), records)


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config,
    networks: Networks,
    optimizers: Optimizers,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Entropy weight, critics, actor with the new critics, targets. batch: [B, ...]; the key is consumed."""
    backbone = config.backbone
    policy_key, target_key, ood_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, batch.action.shape)

    _, log_prob = soft_actor_critic.sample(networks, state.policy.params, batch.observation, noise)
    log_entropy_weight = soft_actor_critic.entropy_step(
        backbone, optimizers, state.log_entropy_weight, log_prob, batch.action.shape[1]
    )
    entropy_weight = jnp.exp(log_entropy_weight.params)

    rows = make_rows(networks, config, state, batch, target_key, ood_key)
    weight = ood_weight(config, state.ood_weight, step)
    critic, critic_metrics = chunked_gradient_step(
        state.critic,
        optimizers.critic,
        lambda params, part: critic_loss(networks, config, weight, params, part),
        rows,
        cached_chunk(backbone.batch_size, 1 + 2 * config.ood_actions),
    )
    later, records = record(config, state.ood_weight, state.records, weight, critic_metrics["q_ood"], step)

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        return soft_actor_critic.policy_loss(networks, entropy_weight, params, critic.params, batch.observation, noise)

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)

    metrics = critic_metrics | policy_metrics | {"entropy_weight": entropy_weight, "ood_weight": weight}
    return State(policy, polyak(critic, backbone.polyak_rate), log_entropy_weight, later, records), metrics


def make_rows(
    networks: Networks, config: Config, state: State, batch: Transition, target_key: PRNGKey, ood_key: PRNGKey
) -> Rows:
    """The critics' side of a batch: targets, and the actions that pi samples at s and at s'."""
    policy, noise = state.policy.params, jax.random.normal(target_key, batch.action.shape)
    targets = critic_targets(networks, config, policy, state.critic.target_params, batch, noise)
    rows, action_dim = batch.action.shape
    noises = jax.random.normal(ood_key, (2, rows, config.ood_actions, action_dim))
    own, _ = soft_actor_critic.sample(networks, policy, batch.observation, noises[0])
    following, _ = soft_actor_critic.sample(networks, policy, batch.next_observation, noises[1])
    action = jnp.concatenate([batch.action[:, None], own, following], axis=1)
    observation = [batch.observation] * (1 + config.ood_actions) + [batch.next_observation] * config.ood_actions
    return Rows(jnp.stack(observation, axis=1), action, targets)


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    parts = soft_actor_critic.make_parts(config.backbone, spec, config.critics)

    def init(key: PRNGKey) -> State:
        weight = jnp.asarray(config.ood_weight_end, jnp.float32)
        return State(*parts.init(key), weight, jnp.zeros(RECORDS))

    step = partial(update, config, parts.networks, parts.optimizers)
    return soft_actor_critic.assemble(config.backbone, spec, parts, init, step)


def validate(config: Config, behavior: str | None, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    if config.critics < 2:
        raise InputError(f"critics must be at least 2, got {config.critics}: the penalty is what they disagree on")
    if config.ood_weight_decay < 1:
        raise InputError(f"ood_weight_decay must be at least 1, got {config.ood_weight_decay}: it divides the weight")
    names = ("target_weight", "ood_weight_start", "ood_weight_end", "ood_weight_low", "ood_weight_next", "ood_actions")
    check_ranges(config, ood_weight_steps="[1, inf)", ood_record_every="[1, inf)", **dict.fromkeys(names, "[0, inf)"))


SOURCE = Config(
    backbone=Backbone(
        policy_learning_rate=1e-4,
        entropy_learning_rate=1e-4,
        policy_hidden=(256, 256, 256),
        critic_hidden=(256, 256, 256),
        initializer="rlkit_biased",
    ),
)
COUNTS = ("ood_weight_steps", "ood_record_every")
PRESETS = {
    "source": Preset(SOURCE, tasks="pbrl", scaled_fields=COUNTS),
    "matched": Preset(Config(), tasks="pbrl", scaled_fields=COUNTS),
}
PBRL = AlgorithmEntry(Config, PRESETS, "source", (), make, validate)
