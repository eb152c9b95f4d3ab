"""BRAC with the maximum mean discrepancy in the place of the KL (Wu, Tucker and Nachum 2019, arXiv 1911.11361).

    critic   min over Q_i    sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) ( min_i Q_i'(s',a'_1) - value_share alpha D(s') )
    actor    min over pi     alpha D(s) - 1{step >= divergence_only_steps} min_i Q_i(s,a_1)
    weight   max over alpha in [0, 500]   alpha (D - divergence_target), where a target is set; else it is a constant
             D(s) = MMD^2 of a_1 .. a_m ~ pi(.|s) and m actions of pi_beta(.|s)
             k(a,a') = exp(-||a - a'||_1 / (2 bandwidth))

pi_beta is a model that is fitted first. What sets it apart from BEAR, which has an MMD as well: the value is penalised
too, the distance is squared, between actions as they are (BEAR: before the tanh), the weight is a constant by default,
and the target is one action's, not the best of ten.

Source: google-research, behavior_regularized_offline_rl/brac: divergences.py (kernel exp(-||a - a'||_1 / 20), no square
root), brac_primal_agent.py (4 samples of each, the order of updates), run_primal.sh (networks, rates, steps). `source`
holds these, with the class's alpha of 1: the scripts' 0.1 is the KL's. Departures: the first of the m actions meets
the critics, where the source draws one more; targets start as copies, there from weights of their own; alpha, where it
adapts, sees D of the actor's loss, there D of the actor just stepped; the fit of pi_beta is as in `brac`. alpha
relative to |Q| (`quick`) is ours: a squared MMD of actions is small, and Q may be hundreds. It goes with value_share 0:
D is not 0 where pi is pi_beta, as pairs of an action with itself count, and an alpha that grows with a Q that falls by
alpha D / (1 - gamma) runs away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import divergence_actor_critic as base
from itrpo.algorithms import kl_actor_critic as kl
from itrpo.algorithms.divergence_actor_critic import Backbone, Networks
from itrpo.algorithms.quick import WARM, quick
from itrpo.behavior import gaussian
from itrpo.behavior.likelihood import LikelihoodFit
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import divergences, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, Positive
from itrpo.types import Algorithm, AlgorithmEntry, DensityModel, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    kernel: Literal["gaussian", "laplacian"] = "laplacian"  # of the MMD
    bandwidth: Positive = 10.0  # of the kernel, exp(-d / (2 bandwidth)) (the source: exp(-d / 20))
    mmd_samples: Count = 4  # m: actions of policy and model that are compared at a state
    warm_start: bool = False  # start the actor as a copy of pi_beta (ours)
    backbone: Backbone = Backbone()


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]; with a target
    behavior_params: Params  # frozen
    weight: Trainable | None  # params: alpha, where it adapts; None: it is a constant
    q_scale: Float[Array, ""]  # running mean of |y|, the targets of Q(s,a); read only where alpha_scale is "relative"


# --- samples, their distance, and the loss -------------------------------------------------------------------------


class Draws(NamedTuple):
    noise: Float[Array, "B m A"]  # of the policy
    actions: Float[Array, "B m A"]  # of pi_beta


def draw(
    config: Config,
    behavior: DensityModel,
    behavior_params: Params,
    observation: Float[Array, "B O"],
    action_dim: int,
    key: Key[Array, ""],
) -> Draws:
    """m of each at every state. The key is consumed."""
    noise_key, model_key = jax.random.split(key)
    sample = partial(behavior.sample, behavior_params, observation)
    data = jax.vmap(sample, out_axes=1)(jax.random.split(model_key, config.mmd_samples))
    noise = jax.random.normal(noise_key, (len(observation), config.mmd_samples, action_dim))
    return Draws(noise, jnp.tanh(data))


def action_and_divergence(
    config: Config, networks: Networks, policy_params: Params, observation: Float[Array, "B O"], draws: Draws
) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    """The first of the policy's actions at each state, and D(s) between all of them and pi_beta's."""
    own = jnp.tanh(networks.actor.pre_tanh(policy_params, observation, draws.noise))
    return own[:, 0], divergences.squared_mmd(own, draws.actions, config.bandwidth, config.kernel)


def policy_loss(
    config: Config,
    networks: Networks,
    alpha: Scalar,
    q_weight: Scalar,
    policy_params: Params,
    critic_params: Params,
    observation: Float[Array, "B O"],
    draws: Draws,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of alpha D(s) - q_weight min_i Q_i(s, a_1)."""
    action, divergence = action_and_divergence(config, networks, policy_params, observation, draws)
    return base.penalised_loss(networks, alpha, q_weight, critic_params, observation, action, divergence)


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config,
    networks: Networks,
    behavior: DensityModel,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics, then the actor with the new critics, then alpha and targets. The key is consumed."""
    backbone, action_dim = config.backbone, batch.action.shape[1]
    target_key, policy_key = jax.random.split(key)
    alpha = kl.alpha_now(backbone.alpha, state.weight, backbone.alpha_scale, state.q_scale)
    draws = draw(config, behavior, state.behavior_params, batch.next_observation, action_dim, target_key)
    after = action_and_divergence(config, networks, state.policy.params, batch.next_observation, draws)
    targets = base.critic_targets(backbone, networks, alpha, state.critic.target_params, batch, *after)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    draws = draw(config, behavior, state.behavior_params, batch.observation, action_dim, policy_key)
    fixed = (critic.params, batch.observation, draws)
    policy, policy_metrics = gradient_step(
        state.policy,
        networks.policy_optimizer,
        lambda params: policy_loss(
            config, networks, alpha, td.switched_on(step, backbone.divergence_only_steps), params, *fixed
        ),
    )
    weight = kl.weight_step(state.weight, policy_metrics["divergence"], backbone.divergence_target)
    q_scale = td.moved_scale(state.q_scale, backbone.polyak_rate, targets)
    state = State(policy, polyak(critic, backbone.polyak_rate), state.behavior_params, weight, q_scale)
    return state, metrics | policy_metrics | {"alpha": jnp.asarray(alpha, jnp.float32)}


def make(config: Config, spec: SpaceSpec, behavior: DensityModel) -> Algorithm:
    networks = base.make_networks(config.backbone, spec)

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        policy_key, critic_key = jax.random.split(key)
        policy_params = behavior_params if config.warm_start else networks.actor.init(policy_key)
        return State(
            trainable(networks.policy_optimizer, policy_params),
            trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
            behavior_params,
            kl.start_weight(config.backbone.alpha, config.backbone.divergence_target),
            jnp.ones(()),
        )

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        draws = draw(config, behavior, state.behavior_params, batch.observation, spec.action_dim, key)
        own = action_and_divergence(config, networks, state.policy.params, batch.observation, draws)
        return base.probes(networks, state.policy.params, state.critic.params, batch, *own)

    return Algorithm(
        init=init,
        update=partial(update, config, networks, behavior),
        acting=networks.actor.acting(base.ACTION_EDGE),
        probes=probes,
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


def validate(config: Config, behavior: str, behavior_config: Any) -> None:
    """Raises InputError for a warm start that the model of pi_beta does not allow, and as `kl.check_adapting`."""
    kl.check_adapting(config.backbone.alpha_scale, config.backbone.divergence_target)
    kl.check_warm_start(config.warm_start, config.backbone, behavior, behavior_config)


SOURCE_BEHAVIOR = gaussian.Config(
    hidden=(200, 200),
    log_std_high=0.0,
    log_std_squash=True,
    initializer="glorot",
    fit=LikelihoodFit(fit_learning_rate=5e-4, dual_learning_rate=5e-4, fit_action_edge=1e-3),
)
MATCHED = Preset(Config(warm_start=True), "gaussian", gaussian.Config())
RELATIVE = replace(MATCHED.config, backbone=Backbone(alpha_scale="relative", value_share=0.0))
PRESETS = {
    "source": Preset(Config(backbone=base.SCRIPTS), "gaussian", SOURCE_BEHAVIOR, steps=500_000, behavior_steps=300_000),
    "matched": MATCHED,
    "quick": quick(MATCHED._replace(config=RELATIVE), WARM | {"alpha": 10.0}),
}
BRAC_MMD = AlgorithmEntry(Config, PRESETS, "quick", ("gaussian", "mixture", "flow", "flow_matching"), make, validate)
