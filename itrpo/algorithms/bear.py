"""BEAR, "Stabilizing off-policy Q-learning via bootstrapping error reduction" (Kumar et al., 2019, arXiv 1906.00949).

An actor-critic whose policy stays within a distance, MMD, of a model of the data that is blind to densities and sees
little more than supports when few samples are compared:

    model    min over G, E   a conditional VAE, stepped along with the rest                      (itrpo.behavior.cvae)
    critic   min over Q_i    sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) max_{j <= n} [ lambda min_i Q_i' + (1 - lambda) max_i Q_i' ](s', a_j),   a_j ~ pi(.|s')
    actor    min over pi     -1{step >= warm_up_steps} min_i Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)
    dual     max over l      exp(l) (MMD(s) - epsilon),   l in [-5, 10]
             MMD(s): between m samples of pi(.|s) and m of G(s, z), both before the tanh    (itrpo.ops.divergences.mmd)
    targets  Q_i' <- Polyak
    acting   of 100 actions of pi the one with the largest Q_1

All losses see the model just stepped and the critics, policy and multiplier of before this step. The paper's epsilon is
`mmd_limit`, its lambda `min_weight`; the kernel is exp(-d / (2 bandwidth)), d the squared or the absolute distance.

`source` is the version that the paper's author recommends, D4RL-Evaluations/bear, with the kernels of its README by
task; it runs for up to 3M steps, ours for 1M. The warm-up takes the same share of a run of any length. Departures: the
targets start as copies (there as networks of their own); the greedy policy tries the same 100 noises in every state, so
that an exported policy is a function of the observation. The older code (aviralkumar2907/BEAR) has a target policy, 5
to 10 samples, and acts by the best of 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import mmd_actor_critic
from itrpo.algorithms.mmd_actor_critic import Backbone, Draws, Networks, State
from itrpo.algorithms.quick import quick
from itrpo.nn.critics import critic_step, q_values
from itrpo.nn.ensemble import first_member
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import NonNegative
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition


@dataclass(frozen=True)
class Config:
    mmd_limit: NonNegative = 0.05  # the paper's epsilon: largest MMD between policy and model
    backbone: Backbone = Backbone()


# --- targets and losses --------------------------------------------------------------------------------------------


def critic_targets(
    networks: Networks, config: Config, state: State, batch: Transition, noise: Float[Array, "B n A"]
) -> Float[Array, "B"]:
    """y, from n actions at s'. The two critics are mixed first, then the best action is taken."""
    backbone = config.backbone
    actions = jnp.tanh(networks.actor.pre_tanh(state.policy.params, batch.next_observation, noise))
    q = networks.critics.apply(state.critic.target_params, batch.next_observation, actions)
    next_value = jnp.max(td.ensemble_mix(q, backbone.min_weight), axis=1)
    return td.bellman_target(batch.reward, batch.continues, backbone.gamma, next_value)


def policy_loss(
    networks: Networks,
    config: Config,
    q_weight: Scalar,
    policy_params: Params,
    critic_params: Params,
    cvae_params: Params,
    log_multiplier: Float[Array, ""],
    observation: Float[Array, "B O"],
    draws: Draws,
) -> tuple[Float[Array, ""], Metrics]:
    """mean[-q_weight min_i Q_i(s, a_1) + exp(l) (MMD(s) - epsilon)]; q_weight is 0 in the warm-up, then 1."""
    action, mmd = mmd_actor_critic.action_and_mmd(
        config.backbone, networks, policy_params, cvae_params, observation, draws
    )
    q = td.ensemble_min(networks.critics.apply(critic_params, observation, action))
    loss = jnp.mean(-q_weight * q + jnp.exp(log_multiplier) * (mmd - config.mmd_limit))
    return loss, {"policy_loss": loss, "mmd": jnp.mean(mmd)}


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Model; then critics, policy and multiplier, each from what the others were before; targets."""
    backbone = config.backbone
    model_key, target_key, policy_key, latent_key = jax.random.split(key, 4)
    rows, action_dim = batch.action.shape
    fitted, model_metrics = networks.model.fit_step(state.cvae, batch, model_key)

    noise = jax.random.normal(target_key, (rows, backbone.target_actions, action_dim))
    targets = critic_targets(networks, config, state, batch, noise)
    critic, metrics = critic_step(networks.critics, networks.critic_optimizer, state.critic, batch, targets)

    draws = mmd_actor_critic.draw(backbone, networks, batch.action, policy_key, latent_key)
    weight = td.switched_on(step, backbone.warm_up_steps)
    old = state.log_multiplier
    fixed = (state.critic.params, networks.model.params(fitted), old.params, batch.observation, draws)
    policy, policy_metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(networks, config, weight, params, *fixed)
    )
    log_multiplier = mmd_actor_critic.multiplier_step(backbone, networks, old, policy_metrics["mmd"] - config.mmd_limit)
    metrics |= policy_metrics | model_metrics | {"multiplier": jnp.exp(old.params)}
    return State(fitted, policy, polyak(critic, backbone.polyak_rate), log_multiplier), metrics


def probes(config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows."""
    policy_params, critic_params, observation = state.policy.params, state.critic.params, batch.observation
    draws = mmd_actor_critic.draw(config.backbone, networks, batch.action, *jax.random.split(key))
    action, mmd = mmd_actor_critic.action_and_mmd(
        config.backbone, networks, policy_params, networks.model.params(state.cvae), observation, draws
    )
    q_data, q_policy = (networks.critics.apply(critic_params, observation, each) for each in (batch.action, action))
    return mmd_actor_critic.probes(networks, policy_params, observation, q_data, q_policy, mmd)


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    networks = mmd_actor_critic.make_networks(config.backbone, spec)
    return Algorithm(
        init=lambda key, behavior_params: mmd_actor_critic.start(networks, key),
        update=partial(update, config, networks),
        acting=mmd_actor_critic.acting(config.backbone, networks, lambda state: first_member(state.critic.params)),
        probes=partial(probes, config, networks),
        batch_size=config.backbone.batch_size,
        q_values=q_values(networks.critics),
    )


# At the source's rate the multiplier is far behind critics whose targets move six times as fast: Q runs away.
QUICK = {"multiplier_learning_rate": 6e-3}
MATCHED = Preset(Config(backbone=mmd_actor_critic.MATCHED), tasks="bear", scaled_fields=("warm_up_steps",))
PRESETS = {
    "source": Preset(Config(), tasks="bear", scaled_fields=("warm_up_steps",)),
    "matched": MATCHED,
    "quick": quick(MATCHED, QUICK),
}
BEAR = AlgorithmEntry(Config, PRESETS, "source", (), make)
