"""BRAC, behaviour-regularised actor-critic (Wu, Tucker and Nachum 2019, arXiv 1911.11361), in its two variants.

    brac_v   y = r + gamma (1-d) ( E_{a'~pi}[min_i Q_i'(s',a')] - alpha D_KL[pi || pi_beta](s') )   (Eq. 2)
    brac_p   y = r + gamma (1-d)   E_{a'~pi}[min_i Q_i'(s',a')]                                     (Eq. 1)
    both     max over pi   E_{a~pi}[min_i Q_i(s,a)] - alpha D_KL[pi || pi_beta](s)                  (Eq. 3)

brac_v penalises the value as well, brac_p the policy alone (the original's `value_penalty`). brac_v is iTRPO at
tau = 0, to the bit. With a `divergence_target` alpha adapts, from its value on (the original's `train_alpha`):

    weight   max over alpha in [0, 500]   alpha (D_KL - divergence_target)

`source` holds the constants of the original run scripts (google-research, behavior_regularized_offline_rl). Departures
from that code: it draws 4 actions for D and one for Q, here the same draws serve both; its targets start from weights
of their own, here from copies; its fit of pi_beta keeps one learning rate, ours ends with a hundredth of it; its alpha
sees D of the actor just stepped and may overshoot its range by a step, here it sees D of the actor's loss and is cut.
Its other divergences are `brac_mmd` and `brac_dual`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import kl_actor_critic as kl
from itrpo.algorithms.kl_actor_critic import Backbone, Networks, State
from itrpo.algorithms.quick import WARM, quick
from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import LikelihoodFit
from itrpo.nn.critics import q_values
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import NonNegative, Positive
from itrpo.types import Algorithm, AlgorithmEntry, DensityModel, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    alpha: Positive = 0.9  # weight of the KL to pi_beta
    divergence_target: NonNegative | None = None  # nats of D_KL that alpha adapts to hold, from its value; none: fixed
    backbone: Backbone = Backbone()


def penalised_targets(
    config: Config, networks: Networks, alpha: Scalar, state: State, batch: Transition, noise: Float[Array, "B draws A"]
) -> Float[Array, "B"]:
    """Eq. (2): y of brac_v."""
    next_value = kl.penalised_value(networks, alpha, state.policy.params, state, batch.next_observation, noise)
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, next_value)


def plain_targets(
    config: Config, networks: Networks, state: State, batch: Transition, noise: Float[Array, "B draws A"]
) -> Float[Array, "B"]:
    """Eq. (1): y of brac_p, from the value of pi itself."""
    actions = networks.policy_actions(state.policy.params, state.behavior_params, batch.next_observation, noise)
    next_value = kl.expected_q(networks, state.critic.target_params, batch.next_observation, actions)
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, next_value)


def critic_targets(
    value_penalty: bool, config: Config, networks: Networks, state: State, batch: Transition, noise: Array
) -> Float[Array, "B"]:
    if value_penalty:
        alpha = kl.alpha_now(config.alpha, state.weight, config.backbone.alpha_scale, state.q_scale)
        return penalised_targets(config, networks, alpha, state, batch, noise)
    return plain_targets(config, networks, state, batch, noise)


def update(
    value_penalty: bool,
    config: Config,
    networks: Networks,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics, then the actor by Eq. (3) with the new critics, then alpha and targets. The key is consumed.

    value_penalty: whether the targets are those of brac_v; else of brac_p.
    """
    backbone = config.backbone
    alpha = kl.alpha_now(config.alpha, state.weight, backbone.alpha_scale, state.q_scale)
    target_noise, policy_noise, penalty_noise = kl.draw_noise(networks, batch, key)
    targets = critic_targets(value_penalty, config, networks, state, batch, target_noise)
    critic, metrics = kl.critic_step(backbone, networks, state, batch, targets, penalty_noise)
    policy, policy_metrics = kl.policy_step(backbone, networks, alpha, state, critic.params, batch, policy_noise, step)
    weight = kl.weight_step(state.weight, policy_metrics["kl"], config.divergence_target)
    state = kl.averaged(backbone, state, policy, critic, targets)._replace(weight=weight)
    return state, metrics | policy_metrics


def make(value_penalty: bool, config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    parts = kl.make_parts(config.backbone, spec, behavior)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        weight = kl.start_weight(config.alpha, config.divergence_target)
        return kl.start(config.backbone, parts, key, behavior_params, weight=weight)

    return Algorithm(
        init=init,
        update=partial(update, value_penalty, config, parts.networks),
        acting=parts.actor.acting(config.backbone.action_edge),
        probes=partial(kl.probes, config.backbone, parts),
        batch_size=config.backbone.batch_size,
        watch=partial(kl.watch, parts, partial(critic_targets, value_penalty, config, parts.networks), None),
        q_values=q_values(parts.networks.critics),
    )


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
MATCHED = Preset(Config(backbone=Backbone(warm_start=True)), "gaussian")
PRESETS = {
    "source": Preset(SOURCE, "gaussian", SOURCE_BEHAVIOR, steps=500_000, behavior_steps=300_000),
    "paper": Preset(Config(), "gaussian"),  # Eqs. 1-3 alone, with the constants of iTRPO's preset of that name
    "matched": MATCHED,
    "quick": quick(
        MATCHED._replace(behavior_config=gaussian.Config()),
        WARM | {"alpha": 0.01, "alpha_scale": "relative"},
        tasks="brac_quick",
    ),
}
BRAC_V = AlgorithmEntry(
    Config, PRESETS, "quick", ("gaussian", "mixture", "flow", "flow_matching"), partial(make, True), kl.validate
)
BRAC_P = AlgorithmEntry(
    Config, PRESETS, "quick", ("gaussian", "mixture", "flow", "flow_matching"), partial(make, False), kl.validate
)
