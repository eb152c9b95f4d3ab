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
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from itrpo.algorithms import kl_actor_critic
from itrpo.algorithms.kl_actor_critic import Backbone, CriticTarget, Networks
from itrpo.behavior import gaussian
from itrpo.ops import td
from itrpo.ranges import check_ranges
from itrpo.types import (
    Algorithm,
    AlgorithmEntry,
    Array,
    BehaviorModel,
    Params,
    Preset,
    PRNGKey,
    RewardRule,
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    alpha: float = 0.9  # weight of the KL to pi_beta, in actor and critic (author's code: 0.9)
    tau: float = 0.5  # shaping factor in [0, 1]; 0 is BRAC (author's code: 0.03; the text gives no value)
    log_ratio_low: float = -math.inf  # lower clip of the log-ratio, before tau * alpha (author's code -1; neutral -inf)
    log_ratio_high: float = math.inf  # upper clip (ours; neutral inf)
    shaping_policy: Literal["online", "target"] = "online"  # whose ratio and a'; target: a Polyak copy (Munchausen DQN)
    backbone: Backbone = Backbone()


def critic_target(
    config: Config,
    networks: Networks,
    alpha: Array,
    policy_params: Params,
    behavior_params: Params,
    target_critic_params: Params,
    transition: Transition,
    key: PRNGKey,
) -> Array:
    """Eq. (5) for one transition: r + tau alpha clip(log ratio(s,a)) + gamma (1-d) (E[min Q'] - alpha KL)(s')."""
    reward = transition.reward
    if not shaping_is_off(config):
        log_ratio = networks.log_ratio(policy_params, behavior_params, transition.observation, transition.action)
        reward = reward + td.shaping_reward(log_ratio, alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
    next_value = kl_actor_critic.penalised_next_value(
        networks, alpha, policy_params, behavior_params, target_critic_params, transition.next_observation, key
    )
    return td.bellman_target(reward, transition.continues, config.backbone.gamma, next_value)


def shaping_is_off(config: Config) -> bool:
    """True where the shaping is 0 whatever the ratio: then it is left out, and the program is BRAC's, to the bit.

    Adding a computed zero would not do: it changes how XLA fuses what stands around it, and with that the last bits.
    """
    is_zero = kl_actor_critic.is_zero
    return is_zero(config.tau) or (is_zero(config.log_ratio_low) and is_zero(config.log_ratio_high))


def make(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    def target(networks: Networks) -> CriticTarget:
        return lambda *arguments: critic_target(config, networks, *arguments)

    def shaping(alpha: Array, log_ratio: Array) -> tuple[Array, Array]:
        reward = td.shaping_reward(log_ratio, alpha, config.tau, config.log_ratio_low, config.log_ratio_high)
        clipped = (log_ratio < config.log_ratio_low) | (log_ratio > config.log_ratio_high)
        return reward, clipped.astype(jnp.float32)

    return kl_actor_critic.make(
        config.backbone, config.alpha, spec, behavior, target, shaping, target_policy=config.shaping_policy == "target"
    )


def validate(config: Config, behavior: str, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config)
    kl_actor_critic.validate(config.backbone, behavior, behavior_config)


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
PRESETS = {
    # The author adds 5 to every reward. Where episodes end at a goal that would make avoiding the goal optimal.
    "source": Preset(AUTHOR, "gaussian", gaussian.Config(initializer="rlkit"), rewards=RewardRule(shift=5.0)),
    "paper": Preset(Config(), "gaussian"),  # Eqs. 2-5 alone; alpha, tau, widths, rates are ours: the text has none
    "matched": Preset(Config(backbone=Backbone(warm_start=True)), "gaussian"),
    "quick": Preset(
        Config(alpha=6.0, backbone=kl_actor_critic.QUICK),
        "gaussian",
        kl_actor_critic.QUICK_BEHAVIOR,
        normalize_observations=True,
        antmaze_normalize_observations=True,
    ),
}
ITRPO = AlgorithmEntry(Config, PRESETS, "quick", ("gaussian", "mixture"), make, validate)
