"""BRAC, behaviour-regularised actor-critic (Wu, Tucker and Nachum 2019, arXiv 1911.11361), in its two variants.

    brac_v   y = r + gamma (1-d) ( E_{a'~pi}[min_i Q_i'(s',a')] - alpha D_KL[pi || pi_beta](s') )   (Eq. 2)
    brac_p   y = r + gamma (1-d)   E_{a'~pi}[min_i Q_i'(s',a')]                                     (Eq. 1)
    both     max over pi   E_{a~pi}[min_i Q_i(s,a)] - alpha D_KL[pi || pi_beta](s)                  (Eq. 3)

brac_v penalises the value as well, brac_p the policy alone (the original's `value_penalty`). brac_v is iTRPO at
tau = 0, to the bit. `source` holds the constants of the original run scripts (google-research,
behavior_regularized_offline_rl). Departures from that code: it draws 4 actions for D and one for Q, here the same draws
serve both; its targets start from weights of their own, here from copies; its fit of pi_beta keeps one learning rate,
ours ends with a hundredth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from itrpo.algorithms import kl_actor_critic
from itrpo.algorithms.kl_actor_critic import Backbone, CriticTarget, Networks
from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import LikelihoodFit
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
    SpaceSpec,
    Transition,
)


@dataclass(frozen=True)
class Config:
    alpha: float = 0.9  # weight of the KL to pi_beta
    backbone: Backbone = Backbone()


def value_penalty_target(
    config: Config,
    networks: Networks,
    alpha: Array,
    policy_params: Params,
    behavior_params: Params,
    target_critic_params: Params,
    transition: Transition,
    key: PRNGKey,
) -> Array:
    """Eq. (2) for one transition: brac_v's critic target."""
    next_value = kl_actor_critic.penalised_next_value(
        networks, alpha, policy_params, behavior_params, target_critic_params, transition.next_observation, key
    )
    return td.bellman_target(transition.reward, transition.continues, config.backbone.gamma, next_value)


def unpenalised_target(
    config: Config,
    networks: Networks,
    alpha: Array,
    policy_params: Params,
    behavior_params: Params,
    target_critic_params: Params,
    transition: Transition,
    key: PRNGKey,
) -> Array:
    """Eq. (1) for one transition: brac_p's critic target, the value of pi itself. alpha is not used."""
    actions = networks.policy_actions(policy_params, behavior_params, transition.next_observation, key)
    next_value = kl_actor_critic.expected_q(networks, target_critic_params, transition.next_observation, actions)
    return td.bellman_target(transition.reward, transition.continues, config.backbone.gamma, next_value)


def make_v(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    return make_with_target(config, spec, behavior, value_penalty_target)


def make_p(config: Config, spec: SpaceSpec, behavior: BehaviorModel) -> Algorithm:
    return make_with_target(config, spec, behavior, unpenalised_target)


def make_with_target(
    config: Config, spec: SpaceSpec, behavior: BehaviorModel, critic_target: Callable[..., Array]
) -> Algorithm:
    def target(networks: Networks) -> CriticTarget:
        return lambda *arguments: critic_target(config, networks, *arguments)

    def no_shaping(alpha: Array, log_ratio: Array) -> tuple[Array, Array]:
        return jnp.zeros(()), jnp.zeros(())

    return kl_actor_critic.make(config.backbone, config.alpha, spec, behavior, target, no_shaping)


def validate(config: Config, behavior: str, behavior_config: object) -> None:
    """Raises InputError for values outside their range."""
    check_ranges(config)
    kl_actor_critic.validate(config.backbone, behavior, behavior_config)


SOURCE = Config(
    alpha=0.1,
    backbone=Backbone(
        critic_learning_rate=1e-3,
        policy_hidden=(200, 200),
        critic_hidden=(300, 300),
        initializer="glorot",
        log_std_high=0.0,
        log_std_squash=True,
        kl="sampled",
        kl_samples=4,
        kl_only_steps=20_000,
    ),
)
SOURCE_BEHAVIOR = gaussian.Config(
    hidden=(200, 200),
    log_std_high=0.0,
    log_std_squash=True,
    initializer="glorot",
    fit=LikelihoodFit(fit_learning_rate=5e-4, dual_learning_rate=5e-4, fit_action_edge=1e-3),
)
PRESETS = {
    "source": Preset(SOURCE, "gaussian", SOURCE_BEHAVIOR, steps=500_000, behavior_steps=300_000),
    "paper": Preset(Config(), "gaussian"),  # Eqs. 1-3 alone, with the constants of iTRPO's preset of that name
    "matched": Preset(Config(backbone=Backbone(warm_start=True)), "gaussian"),
    "quick": Preset(
        Config(alpha=6.0, backbone=kl_actor_critic.QUICK),
        "gaussian",
        kl_actor_critic.QUICK_BEHAVIOR,
        normalize_observations=True,
        antmaze_normalize_observations=True,
    ),
}
BRAC_V = AlgorithmEntry(Config, PRESETS, "quick", ("gaussian", "mixture"), make_v, validate)
BRAC_P = AlgorithmEntry(Config, PRESETS, "quick", ("gaussian", "mixture"), make_p, validate)
