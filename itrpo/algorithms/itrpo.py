"""iTRPO: an implicit trust region for behaviour-regularised offline RL (Zhang and Tan, AAAI 2024, paper 29637).

    pi_{k+1} = argmax_pi <pi, Q_k - alpha log(pi/pi_beta)>                                                   (Eqs. 3, 5)
    Q_{k+1}  = r + tau alpha log(pi_{k+1}/pi_beta) + gamma P <pi_{k+1}, Q_k - alpha log(pi_{k+1}/pi_beta)>   (Eq. 5)

that is BRAC plus a shaping reward on every dataset sample. Theorem 1: with Q' = Q - tau alpha log(pi/pi_beta) this is a
trust region, tau alpha D_KL[pi || pi_k], next to the behaviour regularisation, (1 - tau) alpha D_KL[pi || pi_beta].

    symbol      field                        unit
    alpha       alpha                        reward units per nat of D_KL[pi || pi_beta]
    tau         tau                          none, in [0, 1]
    gamma       gamma                        per step
    Q_theta     State.critic                 reward units; two of them, the minimum counts
    pi_phi      State.policy                 tanh-Gaussian
    pi_beta     State.behavior_params        fitted first, then frozen

The deep version (the paper's appendix is not public; `source` is the author's code, offorRL ikl_trainer.py, where the
letters alpha and tau are swapped): pi in the target is the current online actor, dataset actions enter the ratio before
the tanh. Departures from the text, each a field with its neutral value in the comment; the `paper` preset has them all
neutral. Departure from the author's code that no field undoes: its log pi_beta at sampled actions goes back through
atanh(clip(a)); here the sampled u is kept, so saturated actions are counted right.

With a `divergence_target` alpha adapts, as BRAC's: it rises while D_KL of the actor's batch is above the target, and
falls while it is below, whatever the size of Q. What `quick` does in larger mazes (docs/experiments.md, Table 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import kl_actor_critic as kl
from itrpo.algorithms.kl_actor_critic import Backbone, Networks, Parts, State, is_zero
from itrpo.algorithms.quick import WARM, quick
from itrpo.behavior import gaussian
from itrpo.nn.critics import q_values
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import NonNegative, Positive, Share
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    DensityModel,
    Metrics,
    Params,
    Preset,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    alpha: Positive = 0.9  # weight of the KL to pi_beta, in actor and critic (author's code: 0.9)
    tau: Share = 0.5  # shaping factor in [0, 1]; 0 is BRAC (author's code: 0.03; the text gives no value)
    log_ratio_low: float = -math.inf  # lower clip of the log-ratio, before tau * alpha (author's code -1; neutral -inf)
    log_ratio_high: float = math.inf  # upper clip (ours; neutral inf)
    divergence_target: NonNegative | None = None  # nats of D_KL that alpha adapts to hold, from its value; none: fixed
    shaping_policy: Literal["online", "target"] = "online"  # whose ratio and a'; target: a Polyak copy (Munchausen DQN)
    backbone: Backbone = Backbone()


# --- Eq. (5) -------------------------------------------------------------------------------------------------------


def shaped_reward(
    config: Config, networks: Networks, alpha: Scalar, policy_params: Params, behavior_params: Params, batch: Transition
) -> Float[Array, "B"]:
    """r + tau alpha clip(log pi(a|s) - log pi_beta(a|s)), at the dataset's own actions."""
    if shaping_is_off(config):
        return batch.reward
    log_ratio = networks.log_ratio(policy_params, behavior_params, batch.observation, batch.action)
    shaping = td.shaping_reward(log_ratio, alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
    return batch.reward + shaping


def shaping_is_off(config: Config) -> bool:
    """True where the shaping is 0 whatever the ratio: then it is left out, and the program is BRAC's, to the bit.

    Adding a computed zero would not do: it changes how XLA fuses what stands around it, and with that the last bits.
    """
    return is_zero(config.tau) or (is_zero(config.log_ratio_low) and is_zero(config.log_ratio_high))


def critic_targets(
    config: Config, networks: Networks, alpha: Scalar, state: State, batch: Transition, noise: Float[Array, "B draws A"]
) -> Float[Array, "B"]:
    """Eq. (5): r + tau alpha clip(log ratio(s,a)) + gamma (1-d) (E[min Q'] - alpha KL)(s')."""
    policy_params = state.policy.params if config.shaping_policy == "online" else state.policy.target_params
    reward = shaped_reward(config, networks, alpha, policy_params, state.behavior_params, batch)
    next_value = kl.penalised_value(networks, alpha, policy_params, state, batch.next_observation, noise)
    return td.bellman_target(reward, batch.continues, config.backbone.gamma, next_value)


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics towards Eq. (5), then the actor by Eq. (3) with the new critics, alpha, targets. The key is consumed."""
    backbone = config.backbone
    alpha = kl.alpha_now(config.alpha, state.weight, backbone.alpha_scale, state.q_scale)
    target_noise, policy_noise, penalty_noise = kl.draw_noise(networks, batch, key)
    targets = critic_targets(config, networks, alpha, state, batch, target_noise)
    critic, metrics = kl.critic_step(backbone, networks, state, batch, targets, penalty_noise)
    policy, policy_metrics = kl.policy_step(backbone, networks, alpha, state, critic.params, batch, policy_noise, step)
    weight = kl.weight_step(state.weight, policy_metrics["kl"], config.divergence_target)
    state = kl.averaged(backbone, state, policy, critic, targets)._replace(weight=weight)
    return state, metrics | policy_metrics


def shaping(config: Config, networks: Networks, state: State, batch: Transition) -> Float[Array, "B"]:
    """What Eq. (5) adds to the rewards, by the online policy."""
    alpha = kl.alpha_now(config.alpha, state.weight, config.backbone.alpha_scale, state.q_scale)
    log_ratio = networks.log_ratio(state.policy.params, state.behavior_params, batch.observation, batch.action)
    return td.shaping_reward(log_ratio, alpha, config.tau, config.log_ratio_low, config.log_ratio_high)


def probes(config: Config, parts: Parts, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Those of the actor-critic, and the shaping reward: means over fixed data."""
    low, high = config.log_ratio_low, config.log_ratio_high
    alpha = kl.alpha_now(config.alpha, state.weight, config.backbone.alpha_scale, state.q_scale)
    log_ratio = parts.networks.log_ratio(state.policy.params, state.behavior_params, batch.observation, batch.action)
    return kl.probes(config.backbone, parts, state, batch, key) | {
        "probe_shaping_reward": jnp.mean(td.shaping_reward(log_ratio, alpha, config.tau, low, high)),
        "probe_clipped_fraction": jnp.mean((log_ratio < low) | (log_ratio > high)),
    }


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    parts = kl.make_parts(config.backbone, spec, behavior)

    def targets(state: State, batch: Transition, noise: Array) -> Array:
        alpha = kl.alpha_now(config.alpha, state.weight, config.backbone.alpha_scale, state.q_scale)
        return critic_targets(config, parts.networks, alpha, state, batch, noise)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        weight = kl.start_weight(config.alpha, config.divergence_target)
        target_policy = config.shaping_policy == "target"
        return kl.start(config.backbone, parts, key, behavior_params, target_policy, weight)

    return Algorithm(
        init=init,
        update=partial(update, config, parts.networks),
        acting=parts.actor.acting(config.backbone.action_edge),
        probes=partial(probes, config, parts),
        batch_size=config.backbone.batch_size,
        watch=partial(kl.watch, parts, targets, partial(shaping, config, parts.networks)),
        q_values=q_values(parts.networks.critics),
    )


AUTHOR = Config(
    alpha=0.9,
    tau=0.03,
    log_ratio_low=-1.0,
    backbone=Backbone(
        policy_hidden=(256, 256, 256),
        critic_hidden=(256, 256, 256),
        initializer="rlkit",
        kl="sampled",
        action_samples=10,
        action_edge=1e-6,
        gradient_penalty=0.1,
    ),
)
UNCLIPPED = (
    "Eq. (5) has no clip of the log-ratio, and can run away without one (docs/experiments.md); the author's code has "
    "--log-ratio-low -1"
)
MATCHED = Preset(Config(backbone=Backbone(warm_start=True)), "gaussian")
PRESETS = {
    # The author adds 5 to every reward. Where episodes end at a goal that would make avoiding the goal optimal.
    "source": Preset(AUTHOR, "gaussian", gaussian.Config(initializer="rlkit"), rewards=RewardRule(shift=5.0)),
    # Eqs. 2-5 alone; alpha, tau, widths, rates are ours: the text has none
    "paper": Preset(Config(), "gaussian", note=UNCLIPPED),
    "matched": MATCHED,
    "quick": quick(
        MATCHED._replace(behavior_config=gaussian.Config()),
        WARM | {"alpha": 0.03, "alpha_scale": "relative"},
        tasks="itrpo_quick",
    ),
}
ITRPO = AlgorithmEntry(Config, PRESETS, "quick", ("gaussian", "mixture", "flow", "flow_matching"), make, kl.validate)
