"""BRAC without a model of pi_beta: divergences estimated by a discriminator (Wu, Tucker and Nachum 2019,
arXiv 1911.11361), in two variants.

    brac_dual_kl       D(s) = log softplus(c(s,a)) - softplus(c(s,a_data)) + 1            D_KL[pi || pi_beta]
    brac_wasserstein   D(s) = c(s,a) - c(s,a_data)                                        its 1-Wasserstein distance
    discriminator      max over c      D(s) - slope_penalty max(||grad_a c(s,a~)|| - 1, 0)^2,   three steps
                       a~ = a + u (a_data - a),   u ~ U(0, 1)
    critic             min over Q_i    sum_i (Q_i(s,a_data) - y)^2
                       y = r + gamma (1-d) ( min_i Q_i'(s',a') - value_share alpha D(s') )
    actor              min over pi     alpha D(s) - 1{step >= divergence_only_steps} min_i Q_i(s,a)
    weight             max over alpha in [0, 500]   alpha (D - divergence_target), where a target is set

a ~ pi(.|s), one at each state; a_data is the action in the data, at s' the logged next one. With slope_penalty 0 the
largest mean of brac_dual_kl's D is the KL. The penalty, which both have, holds it below that where the ratio of the
densities is steep. For a shift by x a linear c makes brac_wasserstein's D the distance x (1 + x / (2 slope_penalty)).

Source: google-research, behavior_regularized_offline_rl/brac: divergences.py (estimates, penalty 5), brac_dual_agent.py
(order: critics, actor with the new critics, discriminator with the new actor, alpha), run_dual.sh (networks, rates,
alpha 10, three steps, no penalty in the values: value_share 0, where the class has 1). `source` holds these for both
divergences, though the script is the KL's. D(s) of one action is noisy, and with value_share so are the targets.
Departures: the second and the third step of the
discriminator take fresh actions of pi at the same rows, where the source has other rows; alpha sees D in the last of
them; targets start as copies, there from weights of their own. alpha relative to |Q| (`quick`) is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import divergence_actor_critic as base
from itrpo.algorithms import kl_actor_critic as kl
from itrpo.algorithms.divergence_actor_critic import Backbone
from itrpo.algorithms.quick import WIDTHS, quick
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.heads import QValue
from itrpo.nn.network import Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import divergences, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, Positive, Widths
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition

Estimate = Callable[[Float[Array, "B"], Float[Array, "B"]], Float[Array, "B"]]  # (c(s,a), c(s,a_data)) -> D(s)


@dataclass(frozen=True)
class Config:
    slope_penalty: NonNegative = 5.0  # weight of the discriminator's slope above 1 (the source's gradient_penalty)
    discriminator_steps: Count = 3  # per step of the others (script: c_iter)
    discriminator_learning_rate: Positive = 1e-3  # Adam (script)
    discriminator_hidden: Widths = (256, 256)  # widths of the hidden layers (script: 300, 300)
    backbone: Backbone = Backbone(value_share=0.0)  # penalties in the policy alone, as in the script


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]; with a target
    discriminator: Trainable
    weight: Trainable | None  # params: alpha, where it adapts; None: it is a constant
    q_scale: Float[Array, ""]  # running mean of |y|, the targets of Q(s,a); read only where alpha_scale is "relative"


class Networks(NamedTuple):
    base: base.Networks  # policy and critics
    discriminator: Network  # (observation, action) -> c [B]
    discriminator_optimizer: optax.GradientTransformation


# --- the discriminator, and the actor's loss -----------------------------------------------------------------------


def divergence_at(
    estimate: Estimate,
    networks: Networks,
    discriminator_params: Params,
    observation: Float[Array, "B O"],
    action: Float[Array, "B A"],
    data_action: Float[Array, "B A"],
) -> Float[Array, "B"]:
    """D(s), by one action of pi and the data's."""
    own, data = (
        networks.discriminator.apply(discriminator_params, observation, each) for each in (action, data_action)
    )
    return estimate(own, data)


def discriminator_loss(
    estimate: Estimate,
    networks: Networks,
    slope_penalty: Scalar,
    discriminator_params: Params,
    observation: Float[Array, "B O"],
    action: Float[Array, "B A"],
    data_action: Float[Array, "B A"],
    share: Float[Array, "B"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of -D(s) + slope_penalty max(||grad_a c|| - 1, 0)^2; share ~ U(0, 1): where between the two actions."""
    divergence = divergence_at(estimate, networks, discriminator_params, observation, action, data_action)
    steep = divergences.slope_penalty(
        lambda each: networks.discriminator.apply(discriminator_params, observation, each), action, data_action, share
    )
    loss = jnp.mean(slope_penalty * steep - divergence)
    return loss, {"discriminator_loss": loss, "divergence": jnp.mean(divergence)}


def policy_loss(
    estimate: Estimate,
    networks: Networks,
    alpha: Scalar,
    q_weight: Scalar,
    policy_params: Params,
    critic_params: Params,
    discriminator_params: Params,
    batch: Transition,
    noise: Float[Array, "B A"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of alpha D(s) - q_weight min_i Q_i(s,a)."""
    observation = batch.observation
    action = jnp.tanh(networks.base.actor.pre_tanh(policy_params, observation, noise))
    divergence = divergence_at(estimate, networks, discriminator_params, observation, action, batch.action)
    return base.penalised_loss(networks.base, alpha, q_weight, critic_params, observation, action, divergence)


# --- one step ------------------------------------------------------------------------------------------------------


def train_discriminator(
    estimate: Estimate,
    config: Config,
    networks: Networks,
    discriminator: Trainable,
    policy_params: Params,
    batch: Transition,
    key: Key[Array, ""],
) -> tuple[Trainable, Metrics]:
    """The discriminator after its steps, and the metrics of the last. The key is consumed."""

    def step(discriminator: Trainable, key: Key[Array, ""]) -> tuple[Trainable, Metrics]:
        noise_key, share_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        action = jnp.tanh(networks.base.actor.pre_tanh(policy_params, batch.observation, noise))
        fixed = (batch.observation, action, batch.action, jax.random.uniform(share_key, batch.reward.shape))
        return gradient_step(
            discriminator,
            networks.discriminator_optimizer,
            lambda params: discriminator_loss(estimate, networks, config.slope_penalty, params, *fixed),
        )

    discriminator, metrics = jax.lax.scan(step, discriminator, jax.random.split(key, config.discriminator_steps))
    return discriminator, {name: values[-1] for name, values in metrics.items()}


def update(
    estimate: Estimate,
    config: Config,
    networks: Networks,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics, actor with the new critics, discriminator with the new actor, alpha, targets. The key is consumed."""
    backbone = config.backbone
    noise_key, discriminator_key = jax.random.split(key)
    target_noise, policy_noise = jax.random.normal(noise_key, (2, *batch.action.shape))
    alpha = kl.alpha_now(backbone.alpha, state.weight, backbone.alpha_scale, state.q_scale)
    after, old = batch.next_observation, state.discriminator.params
    action = jnp.tanh(networks.base.actor.pre_tanh(state.policy.params, after, target_noise))
    divergence = divergence_at(estimate, networks, old, after, action, batch.next_action)
    at_targets = (state.critic.target_params, batch, action, divergence)
    targets = base.critic_targets(backbone, networks.base, alpha, *at_targets)
    critic, metrics = critic_step(networks.base.critics, networks.base.critic_optimizer, state.critic, batch, targets)

    fixed = (critic.params, old, batch, policy_noise)
    policy, policy_metrics = gradient_step(
        state.policy,
        networks.base.policy_optimizer,
        lambda params: policy_loss(
            estimate, networks, alpha, td.switched_on(step, backbone.divergence_only_steps), params, *fixed
        ),
    )
    discriminator, found = train_discriminator(
        estimate, config, networks, state.discriminator, policy.params, batch, discriminator_key
    )
    weight = kl.weight_step(state.weight, found["divergence"], backbone.divergence_target)
    q_scale = td.moved_scale(state.q_scale, backbone.polyak_rate, targets)
    metrics |= policy_metrics | found | {"alpha": jnp.asarray(alpha, jnp.float32)}
    return State(policy, polyak(critic, backbone.polyak_rate), discriminator, weight, q_scale), metrics


def make_networks(config: Config, spec: SpaceSpec) -> Networks:
    hidden, initializer = config.discriminator_hidden, config.backbone.initializer
    return Networks(
        base.make_networks(config.backbone, spec),
        network(lambda draw: QValue(draw, spec, hidden, initializer)),
        optax.adam(config.discriminator_learning_rate),
    )


def make(estimate: Estimate, config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    backbone, networks = config.backbone, make_networks(config, spec)
    actor = networks.base.actor

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        policy_key, critic_key, discriminator_key = jax.random.split(key, 3)
        return State(
            trainable(networks.base.policy_optimizer, actor.init(policy_key)),
            trainable(networks.base.critic_optimizer, networks.base.critics.init(critic_key), target=True),
            trainable(networks.discriminator_optimizer, networks.discriminator.init(discriminator_key)),
            kl.start_weight(backbone.alpha, backbone.divergence_target),
            jnp.ones(()),
        )

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        noise = jax.random.normal(key, batch.action.shape)
        action = jnp.tanh(actor.pre_tanh(state.policy.params, batch.observation, noise))
        divergence = divergence_at(
            estimate, networks, state.discriminator.params, batch.observation, action, batch.action
        )
        return base.probes(networks.base, state.policy.params, state.critic.params, batch, action, divergence)

    return Algorithm(
        init=init,
        update=partial(update, estimate, config, networks),
        acting=actor.acting(base.ACTION_EDGE),
        probes=probes,
        batch_size=backbone.batch_size,
        q_values=q_values(networks.base.critics),
    )


def validate(config: Config, behavior: str | None, behavior_config: Any) -> None:
    """Raises InputError as `kl.check_adapting`."""
    kl.check_adapting(config.backbone.alpha_scale, config.backbone.divergence_target)


SOURCE = Config(
    discriminator_hidden=(300, 300),
    backbone=replace(base.SCRIPTS, alpha=10.0, value_share=0.0, policy_learning_rate=3e-6),
)
MATCHED = Preset(Config())
RELATIVE = Preset(Config(backbone=Backbone(value_share=0.0, alpha_scale="relative")))
PRESETS = {
    "source": Preset(SOURCE, steps=500_000),
    "matched": MATCHED,
    "quick": quick(RELATIVE, {"alpha": 1.0, "discriminator_hidden": WIDTHS}),
}


def entry(estimate: Estimate) -> AlgorithmEntry:
    reads_next_action = lambda config: config.backbone.value_share > 0  # noqa: E731
    return AlgorithmEntry(
        Config, PRESETS, "quick", (), partial(make, estimate), validate, reads_next_action=reads_next_action
    )


BRAC_DUAL_KL = entry(divergences.dual_kl)
BRAC_WASSERSTEIN = entry(divergences.dual_wasserstein)
