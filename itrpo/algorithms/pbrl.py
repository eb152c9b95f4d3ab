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
tasks/pbrl.toml, those of `quick` in tasks/pbrl_quick.toml. The source has none for AntMaze: there the floor of 0, above
every return if rewards are shifted to r - 1, is off (ours). Departures: targets start as copies of the critics (there
from weights of their own); the policy is evaluated once per state for its 10 actions, not 10 times; the tanh's
log-determinant is exact (there 1e-6 inside the log). Without the source's quirks of its prior variant, which is not
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.quick import quick
from itrpo.algorithms.soft_actor_critic import ACTION_EDGE, Backbone
from itrpo.nn import soft
from itrpo.nn.critics import q_values
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import Trainable, cached_chunk, chunked_gradient_step, gradient_step, polyak
from itrpo.ops import pessimism, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, CountOrZero, Interval, NonNegative, Several
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition

RECORDS, RECENT = 20, 5  # of mean Q(s,a~): kept; compared with the rest (source's two queues)


DecayFactor = Annotated[float, Interval("[1, inf)")]


@dataclass(frozen=True)
class Config:
    target_weight: NonNegative = 0.01  # the paper's beta_in: standard deviations off the targets of logged actions
    ood_weight_start: NonNegative = 5.0  # the paper's beta_ood, off targets of actions of pi(.|s), at the first step
    ood_weight_end: NonNegative = 1.0  # and from ood_weight_steps on
    ood_weight_steps: Count = 50_000  # it falls along a line in so many steps
    ood_weight_decay: DecayFactor = 1.01  # divides it when sampled actions' values fall; 1: never (expert sets)
    ood_weight_low: NonNegative = 0.2  # not below this
    ood_record_every: Count = 1_000  # steps between records of those values
    ood_weight_next: NonNegative = 0.1  # off the targets of actions of pi(.|s')
    ood_actions: CountOrZero = 10  # sampled actions per state, of s and of s'; 0: no such term
    ood_floor: float = 0.0  # lowest target of a sampled action, in reward units; -inf: none
    critics: Several = 10  # the paper's K
    backbone: Backbone = Backbone()


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]; with a target
    log_entropy_weight: Trainable  # scalar
    ood_weight: Float[Array, ""]  # what ood_weight is once the first ood_weight_steps are over
    records: Float[Array, "20"]  # mean Q(s,a~), oldest first


class Rows(NamedTuple):
    """What the critics' loss reads of each transition, ready to be taken apart: n = ood_actions."""

    observation: Float[Array, "B 1+2*n O"]  # s, 1 + n times, then s'
    action: Float[Array, "B 1+2*n A"]  # the logged action, those of pi(.|s), those of pi(.|s')
    target: Float[Array, "B N"]


# --- targets and losses --------------------------------------------------------------------------------------------


def critic_targets(
    networks: Networks, config: Config, state: State, batch: Transition, noise: Float[Array, "B A"]
) -> Float[Array, "N B"]:
    """y_k; the noise ~ N(0, I) draws the next actions."""
    action, _ = networks.actor.sample(state.policy.params, batch.next_observation, noise)
    q = networks.critics.apply(state.critic.target_params, batch.next_observation, action)
    lower = pessimism.lower_bounds(q, config.target_weight)
    return td.bellman_target(batch.reward[None], batch.continues[None], config.backbone.gamma, lower)


def ood_targets(q: Float[Array, "N B n"], weight: Float[Array, "n"], floor: Scalar) -> Float[Array, "N B n"]:
    """z_k = max(floor, Q_k - weight * std_j Q_j), held constant."""
    return jax.lax.stop_gradient(jnp.maximum(pessimism.lower_bounds(q, weight[None]), floor))


def critic_loss(
    networks: Networks, config: Config, ood_weight: Float[Array, ""], critic_params: Params, rows: Rows
) -> tuple[Float[Array, ""], Metrics]:
    """Sum over members of the two mean squared errors."""
    flat = (each.reshape(-1, each.shape[-1]) for each in (rows.observation, rows.action))  # all actions in one product
    q = networks.critics.apply(critic_params, *flat).reshape(-1, *rows.action.shape[:2])
    q_data, q_ood = q[:, :, 0], q[:, :, 1:]
    loss = td.squared_error(q_data, rows.target.T)
    metrics = {"critic_loss": loss, "q_std": jnp.mean(jnp.std(q_data, axis=0)), "q_target": jnp.mean(rows.target)}
    if not config.ood_actions:
        return loss, metrics | {"ood_loss": jnp.zeros(()), "q_ood": jnp.zeros(())}
    weight = jnp.repeat(jnp.stack([ood_weight, jnp.asarray(config.ood_weight_next)]), config.ood_actions)
    error = q_ood - ood_targets(q_ood, weight, config.ood_floor)
    ood_loss = jnp.sum(jnp.mean(jnp.square(error), axis=(1, 2)))
    q_own = q_ood[:, :, : config.ood_actions]
    return loss + ood_loss, metrics | {"ood_loss": ood_loss, "q_ood": jnp.mean(q_own)}


# --- the weight of the penalty -------------------------------------------------------------------------------------


def ood_weight(config: Config, later: Float[Array, ""], step: Int[Array, ""]) -> Float[Array, ""]:
    """w at `step` (from 0): on the line from start to end, then `later`."""
    count = step + 1.0
    line = config.ood_weight_start + (config.ood_weight_end - config.ood_weight_start) * count / config.ood_weight_steps
    return jnp.where(count < config.ood_weight_steps, line, later)


def record(
    config: Config,
    later: Float[Array, ""],
    records: Float[Array, "20"],
    weight: Float[Array, ""],
    q_ood: Float[Array, ""],
    step: Int[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, "20"]]:
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
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Entropy weight, critics, actor with the new critics, targets. The key is consumed."""
    backbone = config.backbone
    policy_key, target_key, ood_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, batch.action.shape)
    log_entropy_weight = soft_actor_critic.entropy_step(backbone, networks, state, batch.observation, noise)
    entropy_weight = jnp.exp(log_entropy_weight.params)

    rows = make_rows(networks, config, state, batch, target_key, ood_key)
    weight = ood_weight(config, state.ood_weight, step)
    critic, critic_metrics = chunked_gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params, part: critic_loss(networks, config, weight, params, part),
        rows,
        cached_chunk(backbone.batch_size, 1 + 2 * config.ood_actions),
    )
    later, records = record(config, state.ood_weight, state.records, weight, critic_metrics["q_ood"], step)

    policy, policy_metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: soft.policy_loss(networks, entropy_weight, params, critic.params, batch.observation, noise),
    )
    metrics = critic_metrics | policy_metrics | {"entropy_weight": entropy_weight, "ood_weight": weight}
    return State(policy, polyak(critic, backbone.polyak_rate), log_entropy_weight, later, records), metrics


def make_rows(
    networks: Networks,
    config: Config,
    state: State,
    batch: Transition,
    target_key: Key[Array, ""],
    ood_key: Key[Array, ""],
) -> Rows:
    """The critics' side of a batch: targets, and the actions that pi samples at s and at s'."""
    policy, noise = state.policy.params, jax.random.normal(target_key, batch.action.shape)
    targets = critic_targets(networks, config, state, batch, noise)
    rows, action_dim = batch.action.shape
    noises = jax.random.normal(ood_key, (2, rows, config.ood_actions, action_dim))
    own, _ = networks.actor.sample(policy, batch.observation, noises[0])
    following, _ = networks.actor.sample(policy, batch.next_observation, noises[1])
    action = jnp.concatenate([batch.action[:, None], own, following], axis=1)
    observation = [batch.observation] * (1 + config.ood_actions) + [batch.next_observation] * config.ood_actions
    return Rows(jnp.stack(observation, axis=1), action, targets.T)


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = soft_actor_critic.make_networks(config.backbone, spec, config.critics)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        weight = jnp.asarray(config.ood_weight_end, jnp.float32)
        return State(*soft.start(networks, key), weight, jnp.zeros(RECORDS))

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=partial(soft_actor_critic.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


SOURCE = Config(backbone=soft_actor_critic.RLKIT)
COUNTS = ("ood_weight_steps", "ood_record_every")
MATCHED = Preset(Config(), tasks="pbrl", scaled_fields=COUNTS)
PRESETS = {
    "source": Preset(SOURCE, tasks="pbrl", scaled_fields=COUNTS),
    "matched": MATCHED,
    "quick": quick(MATCHED, {"critics": 5}, tasks="pbrl_quick"),
}
PBRL = AlgorithmEntry(Config, PRESETS, "source", (), make)
