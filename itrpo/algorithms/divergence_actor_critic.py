"""The pieces of an actor-critic under a divergence D that is estimated from samples, which BRAC's other forms share.

    critic   min over Q_i    sum_i (Q_i(s,a) - y)^2
             y = r + gamma (1-d) ( min_i Q_i'(s',a') - value_share alpha D(s') ),   a' ~ pi(.|s')
    actor    min over pi     alpha D(s) - 1{step >= divergence_only_steps} min_i Q_i(s,a),   a ~ pi(.|s)
    weight   max over alpha in [0, 500]   alpha (D - divergence_target), where a target is set; else it is a constant
    target   Q_i'  <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

What D is, and what it is estimated with, each algorithm's own file says. Source: google-research,
behavior_regularized_offline_rl/brac (brac_primal_agent.py, brac_dual_agent.py; Wu, Tucker and Nachum 2019, arXiv
1911.11361). Its weights on entropy and on the size of parameters, 0 by default, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from itrpo.nn import critics as critic_probes
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.critics import least_q
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, CountOrZero, Discount, NonNegative, Positive, Rate, Share, Widths
from itrpo.types import Metrics, Params, SpaceSpec, Transition

ACTION_EDGE = 1e-6  # in `log_prob`: actions are clipped to +-(1 - edge); no loss asks for a density


@dataclass(frozen=True)
class Backbone:
    """Fields that these have in common."""

    alpha: Positive = 1.0  # weight of the divergence (the class's default)
    divergence_target: NonNegative | None = None  # of D, to which alpha adapts from its value on; None: it is constant
    value_share: Share = 1.0  # of alpha, in the critics' targets (the class's value_penalty; run_dual.sh: 0)
    alpha_scale: Literal["absolute", "relative"] = "absolute"  # relative: alpha times a running mean of |y| (ours)
    divergence_only_steps: CountOrZero = 0  # first steps in which the actor ignores Q (the class's default: 20,000)
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam
    critic_learning_rate: Positive = 3e-4  # Adam (scripts: 1e-3)
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers (scripts: 200, 200)
    critic_hidden: Widths = (256, 256)  # of the critics (scripts: 300, 300)
    critics: Count = 2  # ensemble size; the minimum counts
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC; not in the source)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), glorot (the source's, Keras's)
    log_std_low: float = -5.0  # end of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end (the source: 0)
    log_std_squash: bool = False  # map onto the range by a tanh instead of clipping (the source: yes)


class Networks(NamedTuple):
    """Policy and critics, and what moves their parameters."""

    actor: GaussianActor
    critics: Ensemble
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


def make_networks(config: Backbone, spec: SpaceSpec) -> Networks:
    log_std_range = (config.log_std_low, config.log_std_high)
    return Networks(
        gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer, config.log_std_squash),
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer, config.critic_layer_norm),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )


def critic_targets(
    config: Backbone,
    networks: Networks,
    alpha: Scalar,
    target_params: Params,
    batch: Transition,
    action: Float[Array, "B A"],
    divergence: Float[Array, "B"],
) -> Float[Array, "B"]:
    """y, from an action of pi and the divergence at s'."""
    q = least_q(networks.critics, target_params, batch.next_observation, action)
    next_value = td.regularised_value(q, config.value_share * alpha, divergence)
    return td.bellman_target(batch.reward, batch.continues, config.gamma, next_value)


def penalised_loss(
    networks: Networks,
    alpha: Scalar,
    q_weight: Scalar,
    critic_params: Params,
    observation: Float[Array, "B O"],
    action: Float[Array, "B A"],
    divergence: Float[Array, "B"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of alpha D(s) - q_weight min_i Q_i(s,a), from an action of pi and the divergence at s."""
    q = least_q(networks.critics, critic_params, observation, action)
    loss = -jnp.mean(td.regularised_value(q_weight * q, alpha, divergence))
    return loss, {"policy_loss": loss, "divergence": jnp.mean(divergence)}


def probes(
    networks: Networks,
    policy_params: Params,
    critic_params: Params,
    batch: Transition,
    action: Float[Array, "B A"],
    divergence: Float[Array, "B"],
) -> Metrics:
    """Means over fixed rows; action: one of pi at each."""
    _, log_std = networks.actor.moments(policy_params, batch.observation)
    return critic_probes.probes(networks.critics, critic_params, batch, action) | {
        "probe_divergence": jnp.mean(divergence),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
    }


SCRIPTS = Backbone(
    divergence_only_steps=20_000,
    critic_learning_rate=1e-3,
    policy_hidden=(200, 200),
    critic_hidden=(300, 300),
    initializer="glorot",
    log_std_high=0.0,
    log_std_squash=True,
)
