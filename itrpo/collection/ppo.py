"""PPO, and GePPO, which goes over the batches of the policies before as well.

    actor    max over pi   mean of w min(rho A, clip(rho, rho_k - epsilon, rho_k + epsilon) A)
             rho = pi / pi_{k-i},   rho_k = pi_k / pi_{k-i},   w: weights of policies by their age i
    epsilon  clip sum_i w_i = clip over the mean of i + 1, so that policies move as far per sample as PPO's do
    rate     divided by 1 + adapt_factor where the distance of pi from pi_k has passed epsilon / 2, in total variation,
             multiplied by it where it was less than `adapt_low` of that; PPO's stays

PPO (Schulman et al. 2017, arXiv 1707.06347) is GePPO with one batch at a time: rho_k and w are 1. GePPO (Queeney,
Paschalidis and Cassandras 2021, arXiv 2111.00072) acts for half as many steps between its iterations and goes over the
last four batches. Constants are those of GePPO's code (jqueeney/geppo), which has PPO for comparison; advantages are
centred and scaled in each minibatch, as there. What the two share with TRPO is in `itrpo.collection.on_policy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.collection import on_policy, rollout
from itrpo.collection.agent import Agent, Updates, check_policy_hidden
from itrpo.collection.on_policy import Data, Networks, Recent, Shared, Sized, State
from itrpo.nn.trainable import Trainable
from itrpo.ops import divergences, trust_region
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, Positive, Share, check_ranges
from itrpo.types import Metrics, Params, SpaceSpec

METRICS = ("policy_loss", "value_loss", "kl", "total_variation", "outside_clip", "policy_rate", "pre_tanh_std")


@dataclass(frozen=True)
class Config:
    batches: Count = 1  # of PPO, which a policy moves as far on as GePPO's; 1: the newest batch alone, which is PPO
    clip: Positive = 0.2  # PPO's epsilon (GePPO's code)
    policy_learning_rate: Positive = 3e-4  # Adam, at first (GePPO's code)
    max_gradient_norm: Positive = 0.5  # of the policy's gradient (GePPO's code)
    adapt_factor: NonNegative = 0.0  # by how much the rate is changed; 0: never (GePPO: 0.03)
    adapt_low: Share = 0.5  # of the largest distance, below which the rate rises (GePPO's code)
    ratio_limit: Positive = 1.0  # of ratios in advantages and targets (GePPO's code)
    shared: Shared = field(default_factory=Shared)


GEPPO_CONFIG = Config(batches=2, adapt_factor=0.03)


def validate(config: Config) -> None:
    """Raises InputError for a value outside its range."""
    check_ranges(config)
    check_policy_hidden(config.shared.policy_hidden)


def epsilon(config: Config) -> float:
    """clip / sum_i w_i (i + 1) (GePPO's code: eps_mult)."""
    return config.clip / config.batches  # by `policy_weights` the mean of i + 1


def policy_loss(config: Config, networks: Networks, params: Params, data: Data) -> tuple[Float[Array, ""], Metrics]:
    weight = data.centre * data.weight
    mean = jnp.mean(weight * data.advantage) / jnp.maximum(jnp.mean(weight), 1e-8)
    there = data.weight > 0  # whose weights have mean 1 over all rows, 1 / share of what it is over themselves
    share = jnp.maximum(jnp.mean(there), 1e-8)
    own = share * weight * data.advantage
    deviation = jnp.sqrt(jnp.mean(there * (own - jnp.mean(own) / share) ** 2) / share)
    advantage = (data.advantage - mean) / (deviation + 1e-8)
    ratio = jnp.exp(on_policy.log_prob(networks, params, data.observation, data.pre_tanh) - data.log_prob)
    surrogate = trust_region.clipped_surrogate(ratio, data.centre, epsilon(config), advantage)
    loss = -jnp.mean(data.weight * surrogate)
    return loss, {"policy_loss": loss}


def policy_step(
    config: Config, networks: Networks, rate: Scalar, policy: Trainable, data: Data
) -> tuple[Trainable, Metrics]:
    gradients, metrics = jax.grad(lambda params: policy_loss(config, networks, params, data), has_aux=True)(
        policy.params
    )
    steps, opt_state = networks.policy_optimizer.update(gradients, policy.opt_state)
    params = jax.tree.map(lambda leaf, step: leaf - rate * step, policy.params, steps)
    return policy._replace(params=params, opt_state=opt_state), metrics


def learn(
    config: Config,
    networks: Networks,
    weights: Float[Array, "M"],
    state: State,
    recent: Recent,
    key: Key[Array, ""],
) -> tuple[State, Metrics]:
    """Value and policy, a step each on every minibatch; then the rate."""
    before = state.policy.params
    state, data = on_policy.prepared(config.shared, networks, weights, config.ratio_limit, state, recent)
    rate = config.policy_learning_rate * state.rate_scale

    def step(carry: tuple[Trainable, Trainable], data: Data) -> tuple[tuple[Trainable, Trainable], Metrics]:
        policy, value = carry
        value, value_metrics = on_policy.value_step(networks, value, data)
        policy, metrics = policy_step(config, networks, rate, policy, data)
        return (policy, value), metrics | value_metrics

    (policy, value), metrics = on_policy.over_minibatches(config.shared, step, (state.policy, state.value), data, key)
    ratio = jnp.exp(on_policy.log_prob(networks, policy.params, data.observation, data.pre_tanh) - data.log_prob)
    moved, limit = jnp.mean(data.weight * trust_region.total_variation(ratio, data.centre)), 0.5 * epsilon(config)
    factor = 1.0 + config.adapt_factor
    change = jnp.where(moved > limit, 1.0 / factor, jnp.where(moved < config.adapt_low * limit, factor, 1.0))
    newer, older = (networks.policy.apply(params, data.observation) for params in (policy.params, before))
    metrics |= {
        "kl": jnp.mean(data.weight * divergences.normal_kl(*newer, *older)),
        "total_variation": moved,
        "outside_clip": jnp.mean(data.weight * (jnp.abs(ratio - data.centre) > epsilon(config))),
        "policy_rate": rate,
        "pre_tanh_std": jnp.mean(jnp.exp(newer[1])),
    }
    return state._replace(policy=policy, value=value, rate_scale=state.rate_scale * change), metrics


def batches(config: Config) -> int:
    """M, the batches that an iteration goes over."""
    return len(trust_region.policy_weights(config.batches))


def make(sized: Sized, spec: SpaceSpec) -> Updates:
    config: Config = sized.config
    weights = jnp.asarray(trust_region.policy_weights(config.batches), jnp.float32)
    optimizer = optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optax.scale_by_adam())
    networks = on_policy.make_networks(config.shared, spec, optimizer)
    return on_policy.make(networks, sized, spec, batches(config), partial(learn, config, networks, weights), METRICS)


PPO = Agent("PPO", METRICS, validate, make, on_policy.acting_arrays, rollout.act, batches)
GEPPO = PPO._replace(name="GePPO")
