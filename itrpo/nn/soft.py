"""The soft actor-critic: a tanh-Gaussian actor under an entropy target. Haarnoja et al. 2018, arXiv 1812.05905.

    targets         y = r + gamma (1-d) (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s')),   a' ~ pi(.|s')
    actor           min over pi     entropy_weight * log pi(a|s) - min_i Q_i(s,a),   a ~ pi(.|s) reparameterised
    entropy weight  min over log w  -log w * (log pi(a|s) + target_entropy),   entropy_weight = w

The offline algorithms of `itrpo.algorithms.soft_actor_critic` are made of it, and `itrpo.collection.sac`, which learns
online. In which order its parts step is theirs to say.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import Ensemble
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import policy_losses, td
from itrpo.ops.td import Scalar
from itrpo.types import Metrics, Params, Transition


class Networks(NamedTuple):
    """The networks, and what moves their parameters and the entropy weight."""

    actor: GaussianActor
    critics: Ensemble  # (observation, action) -> Q
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    entropy_optimizer: optax.GradientTransformation


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]; with a target
    log_entropy_weight: Trainable  # scalar


def start(networks: Networks, key: Key[Array, ""], entropy_weight: Scalar = 1.0) -> State:
    """The state before the first step."""
    policy_key, critic_key = jax.random.split(key)
    return State(
        trainable(networks.policy_optimizer, networks.actor.init(policy_key)),
        trainable(networks.critic_optimizer, networks.critics.init(critic_key), target=True),
        trainable(networks.entropy_optimizer, jnp.log(jnp.float32(entropy_weight))),
    )


def targets(
    networks: Networks,
    gamma: Scalar,
    entropy_weight: Scalar,
    policy_params: Params,
    target_critic_params: Params,
    batch: Transition,
    noise: Float[Array, "B A"],
) -> Float[Array, "B"]:
    """y; the noise ~ N(0, I) draws the a' ~ pi."""
    action, log_prob = networks.actor.sample(policy_params, batch.next_observation, noise)
    q = td.ensemble_min(networks.critics.apply(target_critic_params, batch.next_observation, action))
    return td.bellman_target(batch.reward, batch.continues, gamma, q - entropy_weight * log_prob)


def policy_loss(
    networks: Networks,
    entropy_weight: Scalar,
    policy_params: Params,
    critic_params: Params,
    observation: Float[Array, "B O"],
    noise: Float[Array, "B A"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of entropy_weight * log pi(a|s) - min_i Q_i(s,a)."""
    action, log_prob = networks.actor.sample(policy_params, observation, noise)
    q = td.ensemble_min(networks.critics.apply(critic_params, observation, action))
    loss = jnp.mean(policy_losses.soft_policy_loss(entropy_weight, log_prob, q))
    return loss, {"policy_loss": loss, "entropy": -jnp.mean(log_prob)}


def entropy_step(
    networks: Networks, log_entropy_weight: Trainable, entropy: Float[Array, ""], target_entropy: Scalar
) -> Trainable:
    """One step of the entropy weight; entropy: of the policy, from samples, held constant."""

    def loss(log_weight: Float[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        return policy_losses.entropy_weight_loss(log_weight, -entropy, target_entropy), {}

    return gradient_step(log_entropy_weight, networks.entropy_optimizer, loss)[0]
