"""CQL, conservative Q-learning (Kumar, Zhou, Tucker and Levine, NeurIPS 2020, arXiv 2006.04779), its variant CQL(H).

    critics   min over Q_i   (Q_i(s,a) - y)^2 + conservative_weight * gap_i
              gap_i = log sum_j exp(Q_i(s,a_j) - log mu_j(a_j)) - Q_i(s,a)
              y = r + gamma (1-d) min_i Q_i'(s',a'),   a' ~ pi(.|s')                           no entropy in y
    actor     min over pi    entropy_weight * log pi(a|s) - min_i Q_i(s,a),   a ~ pi(.|s);
              for the first bc_steps    entropy_weight * log pi(a|s) - log pi(logged a|s)

The sum runs over 30 actions, 10 each from the uniform distribution, pi(.|s) and pi(.|s'), all of them at s: importance
sampling of the integral of exp Q over actions. Its gradient pushes Q down in proportion to exp Q, and the last term up
where the data is: Q falls where it is large and the data is not. Two variants, each a field of the same code:

    Lagrange (lagrange_threshold)   lambda * (conservative_weight * gap_i - threshold) in its place; lambda ascends it
    max-backup (backup_actions n)   y = r + gamma (1-d) min_i max_{j <= n} Q_i'(s',a_j'),   a_j' ~ pi(.|s')

`source` is the authors' code (aviralkumar2907/CQL, d4rl/) with its README's constants: conservative_weight 5 (it says
5 or 10), actor 1e-4; for AntMaze (tasks/cql.toml) rewards 4 r - 2 and the Lagrange form with threshold 5. Its order:
entropy weight; losses of actor and critics, both with the networks as they were (the actor's with the new weight); the
steps of both and of the multiplier; targets.

The constants of CORL (corl-team/CORL, cql.py), whose scores are often quoted, differ: weight 10, actor 3e-5, no
bc_steps, normalised observations, orthogonal initial critics, a learned affine map of the log standard deviation
clipped to [-20, 2]. On AntMaze weight 5, threshold 4 in these units (0.8 before the weight), lambda starting at e,
rewards 10 r - 5, 10 backup_actions but the minimum over critics first, gaps of at least -200, critics of five and of
three layers. The iTRPO author's (offorRL, cql.yaml) are those of `source` with 5,000 bc_steps.

Departures from the source: targets start as copies of the critics (there from weights of their own); the policy is
evaluated once per state for its 10 actions, not 10 times; the tanh's log-determinant is exact (there 1e-6 inside the
log); bc_steps count from 0 (there from 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import soft_actor_critic
from itrpo.algorithms.kl_actor_critic import is_zero
from itrpo.algorithms.quick import quick
from itrpo.algorithms.soft_actor_critic import ACTION_EDGE, Backbone
from itrpo.nn import soft
from itrpo.nn.critics import q_values
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import Trainable, cached_chunk, chunked_gradient_step, gradient_step, polyak, trainable
from itrpo.ops import distributions, lagrange, pessimism, policy_losses, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, CountOrZero, NonNegative, Positive
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, RewardRule, SpaceSpec, Transition

CRITICS = 2
CLONED_MEAN = 9.0  # the pre-tanh mean is clipped to +- this in the likelihood of logged actions (source's policies.py)


@dataclass(frozen=True)
class Config:
    conservative_weight: NonNegative = 5.0  # the paper's alpha, weight of the conservative term (source: 5 or 10)
    conservative_actions: Count = 10  # actions per state of each of the three kinds (source: 10)
    lagrange_threshold: Positive | None = None  # the paper's tau, of conservative_weight * gap; None: no multiplier
    backup_actions: Count = 1  # actions at s' that a target takes the best of; 1: plain (source's max_q_backup: 10)
    bc_steps: CountOrZero = 40_000  # first steps, in which the actor clones (source's policy_eval_start)
    backbone: Backbone = Backbone()


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters of both critics, stacked [2, ...]; with a target
    log_entropy_weight: Trainable  # scalar
    log_multiplier: Trainable  # scalar, log lambda; without lagrange_threshold nothing moves it


class Rows(NamedTuple):
    """What the critics' loss reads of each transition, ready to be taken apart: n = 3 * conservative_actions or 0."""

    observation: Float[Array, "B O"]
    action: Float[Array, "B 1+n A"]  # the logged action, then the sampled ones
    log_density: Float[Array, "B n"]  # of the sampled actions under what they were drawn from
    target: Float[Array, "B"]


# --- targets, samples and losses -----------------------------------------------------------------------------------


def critic_targets(
    networks: Networks, gamma: Scalar, state: State, batch: Transition, noise: Float[Array, "B n A"]
) -> Float[Array, "B"]:
    """y; noise ~ N(0, I) draws n next actions: the best for each critic, then the smaller critic."""
    action, _ = networks.actor.sample(state.policy.params, batch.next_observation, noise)
    q = networks.critics.apply(state.critic.target_params, batch.next_observation, action)
    return td.bellman_target(batch.reward, batch.continues, gamma, td.ensemble_min(jnp.max(q, axis=2)))


def critic_loss(
    networks: Networks, conservative_weight: Scalar, critic_params: Params, rows: Rows
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over rows of sum_i (Q_i(s,a) - y)^2 + conservative_weight * sum_i gap_i; in the Lagrange form the weight is
    lambda * conservative_weight, and the threshold, a constant, is left out.
    """
    q = networks.critics.apply(critic_params, rows.observation, rows.action)
    q_data = q[:, :, 0]
    loss = td.squared_error(q_data, rows.target[None])
    metrics = {"critic_loss": loss, "q_data": jnp.mean(q_data), "q_target": jnp.mean(rows.target)}
    if rows.action.shape[1] == 1:
        return loss, metrics | {"conservative_gap": jnp.zeros(())}
    gaps = pessimism.conservative_gap(q[:, :, 1:], rows.log_density[None], q_data)
    loss += conservative_weight * jnp.mean(jnp.sum(gaps, axis=0))
    return loss, metrics | {"conservative_gap": jnp.mean(gaps)}


def cloning_loss(
    networks: Networks, entropy_weight: Scalar, policy_params: Params, batch: Transition, noise: Float[Array, "B A"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of entropy_weight * log pi(a|s) - log pi(logged a|s): the actor's loss during `bc_steps`."""
    _, log_prob = networks.actor.sample(policy_params, batch.observation, noise)
    mean, log_std = networks.actor.moments(policy_params, batch.observation)
    pre_tanh = distributions.to_pre_tanh(batch.action, ACTION_EDGE)
    likelihood = distributions.tanh_normal_log_prob(pre_tanh, jnp.clip(mean, -CLONED_MEAN, CLONED_MEAN), log_std)
    loss = jnp.mean(policy_losses.soft_policy_loss(entropy_weight, log_prob, likelihood))
    return loss, {"policy_loss": loss, "entropy": -jnp.mean(log_prob)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Entropy weight; actor and critics, each against the other as it was; multiplier; targets. The key is consumed."""
    backbone = config.backbone
    policy_key, target_key, action_key = jax.random.split(key, 3)
    noise = jax.random.normal(policy_key, batch.action.shape)
    log_entropy_weight = soft_actor_critic.entropy_step(backbone, networks, state, batch.observation, noise)
    entropy_weight = jnp.exp(log_entropy_weight.params)

    def improve(policy: Trainable) -> tuple[Trainable, Metrics]:
        fixed = (state.critic.params, batch.observation, noise)
        return gradient_step(
            policy, networks.policy_optimizer, lambda params: soft.policy_loss(networks, entropy_weight, params, *fixed)
        )

    def clone(policy: Trainable) -> tuple[Trainable, Metrics]:
        return gradient_step(
            policy,
            networks.policy_optimizer,
            lambda params: cloning_loss(networks, entropy_weight, params, batch, noise),
        )

    if config.bc_steps:
        # `step` is one number for all seeds, so this computes one branch, not both
        policy, policy_metrics = jax.lax.cond(step < config.bc_steps, clone, improve, state.policy)
    else:
        policy, policy_metrics = improve(state.policy)

    rows = make_rows(networks, config, state, batch, target_key, action_key)
    constrained = config.lagrange_threshold is not None
    scale = lagrange.multiplier(state.log_multiplier.params) if constrained else jnp.ones(())
    critic, critic_metrics = chunked_gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params, part: critic_loss(networks, scale * config.conservative_weight, params, part),
        rows,
        cached_chunk(backbone.batch_size, rows.action.shape[1]),
    )
    log_multiplier = state.log_multiplier
    if config.lagrange_threshold is not None:
        # the gap is a mean over critics; the source halves a sum over its two
        excess = config.conservative_weight * critic_metrics["conservative_gap"] - config.lagrange_threshold
        log_multiplier, _ = gradient_step(
            log_multiplier, networks.critic_optimizer, lambda params: (lagrange.multiplier_loss(params, excess), {})
        )

    metrics = critic_metrics | policy_metrics | {"entropy_weight": entropy_weight, "multiplier": scale}
    critic = polyak(critic, backbone.polyak_rate)
    return State(policy, critic, log_entropy_weight, log_multiplier), metrics


def make_rows(
    networks: Networks,
    config: Config,
    state: State,
    batch: Transition,
    target_key: Key[Array, ""],
    action_key: Key[Array, ""],
) -> Rows:
    """The critics' side of a batch: targets, and logged and sampled actions in one piece."""
    noise = jax.random.normal(target_key, (batch.reward.shape[0], config.backup_actions, batch.action.shape[1]))
    targets = critic_targets(networks, config.backbone.gamma, state, batch, noise)
    action, log_density = batch.action[:, None], jnp.zeros((len(targets), 0))
    if not is_zero(config.conservative_weight):
        sampled, log_density = soft_actor_critic.conservative_actions(
            networks, config.conservative_actions, state.policy.params, batch, action_key
        )
        action = jnp.concatenate([action, sampled], axis=1)
    return Rows(batch.observation, action, log_density, targets)


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = soft_actor_critic.make_networks(config.backbone, spec, CRITICS)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        return State(*soft.start(networks, key), trainable(networks.critic_optimizer, jnp.zeros(())))

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=partial(soft_actor_critic.probes, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


SOURCE = Config(backbone=soft_actor_critic.RLKIT)
CENTRED = RewardRule(scale=4.0, shift=-2.0)  # 4 (r - 0.5), the source's load_hdf5 of its AntMaze script
MATCHED = Preset(Config(), antmaze_rewards=CENTRED, tasks="cql", scaled_fields=("bc_steps",))
PRESETS = {
    "source": Preset(SOURCE, steps=3_000_000, antmaze_rewards=CENTRED, tasks="cql", scaled_fields=("bc_steps",)),
    "matched": MATCHED,
    "quick": quick(MATCHED, {}),
}
CQL = AlgorithmEntry(Config, PRESETS, "source", (), make)
