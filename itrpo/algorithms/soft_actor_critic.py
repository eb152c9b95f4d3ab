"""The soft actor-critic that CQL, SAC-N, EDAC and PBRL share: a tanh-Gaussian actor under an entropy target.

    actor           min over pi     entropy_weight * log pi(a|s) - min_i Q_i(s,a),   a ~ pi(.|s) reparameterised
    entropy weight  min over log w  -log w * (log pi(a|s) + target_entropy),   entropy_weight = w
    targets         Q_i' <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

Haarnoja et al. 2018, arXiv 1812.05905. An algorithm's own file has what makes it that algorithm: its critics' targets
and loss, and the order in which actor, critics and weight step. Functions here take batches, and ensembles are the
outermost axis, [critics, B, ...]: the step is then as fast as its matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior.gaussian import tanh_mlp_export
from itrpo.nn.ensemble import batched, ensemble
from itrpo.nn.heads import GaussianPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions, policy_losses, td
from itrpo.types import Algorithm, Array, Metrics, Params, PRNGKey, SpaceSpec, Transition

ACTION_EDGE = 1e-6  # dataset actions are clipped to +-(1 - this) in densities (rlkit's atanh)


@dataclass(frozen=True)
class Backbone:
    """Fields that the four have in common; the defaults are those of `matched`."""

    gamma: float = 0.99  # discount per step
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam
    critic_learning_rate: float = 3e-4  # Adam
    entropy_learning_rate: float = 3e-4  # Adam, of the log of the entropy weight, which starts at 0
    target_entropy: float = -1.0  # nats per action dimension (all four sources)
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ours)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default); rlkit_biased, edac: see itrpo.nn.network.Linear
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (rlkit)
    log_std_high: float = 2.0  # its upper end


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [critics, ...]; with a target
    log_entropy_weight: Trainable  # scalar


class Networks(NamedTuple):
    """All that losses and targets know of the networks: batches in, batches out."""

    policy: Callable[[Params, Array], tuple[Array, Array]]  # observation [B, O] -> pre-tanh mean, log_std [B, A]
    critics: Callable[[Params, Array, Array], Array]  # observation, action [B, A] or [B, n, A] -> [critics, B(, n)]
    critic: Callable[[Params, Array, Array], Array]  # the same for one member's parameters -> [B(, n)]


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation
    entropy: optax.GradientTransformation


class Parts(NamedTuple):
    """What `assemble` builds an algorithm from."""

    networks: Networks
    optimizers: Optimizers
    init: Callable[[PRNGKey], State]
    policy: Network  # for one observation


# --- samples and losses, for a batch -------------------------------------------------------------------------------


def sample(networks: Networks, policy_params: Params, observation: Array, noise: Array) -> tuple[Array, Array]:
    """Actions of pi and their log densities, reparameterised.

    noise ~ N(0, I): [B, A] for one action per state, -> [B, A] and [B]; [B, n, A] for n, -> [B, n, A] and [B, n].
    """
    one = distributions.tanh_normal_sample
    each = one if noise.ndim == 2 else jax.vmap(one, in_axes=(0, None, None))
    return jax.vmap(each)(noise, *networks.policy(policy_params, observation))


def soft_targets(
    networks: Networks,
    gamma: Array | float,
    entropy_weight: Array,
    policy_params: Params,
    target_critic_params: Params,
    batch: Transition,
    noise: Array,
) -> Array:
    """r + gamma (1-d) (min_i Q_i'(s',a') - entropy_weight * log pi(a'|s')): [B]; noise [B, A] draws the a' ~ pi."""
    action, log_prob = sample(networks, policy_params, batch.next_observation, noise)
    q = jnp.min(networks.critics(target_critic_params, batch.next_observation, action), axis=0)
    return td.bellman_target(batch.reward, batch.continues, gamma, q - entropy_weight * log_prob)


def policy_loss(
    networks: Networks,
    entropy_weight: Array,
    policy_params: Params,
    critic_params: Params,
    observation: Array,
    noise: Array,
) -> tuple[Array, Metrics]:
    """Mean of entropy_weight * log pi(a|s) - min_i Q_i(s,a) over states [B, O], noise [B, A]."""
    action, log_prob = sample(networks, policy_params, observation, noise)
    q = jnp.min(networks.critics(critic_params, observation, action), axis=0)
    loss = jnp.mean(policy_losses.soft_policy_loss(entropy_weight, log_prob, q))
    return loss, {"policy_loss": loss, "entropy": -jnp.mean(log_prob)}


def entropy_step(
    config: Backbone, optimizers: Optimizers, log_entropy_weight: Trainable, log_prob: Array, action_dim: int
) -> Trainable:
    """One step of the entropy weight. log_prob [B]: of sampled actions, held constant."""
    target_entropy = config.target_entropy * action_dim

    def loss(log_weight: Array) -> tuple[Array, Metrics]:
        return policy_losses.entropy_weight_loss(log_weight, jnp.mean(log_prob), target_entropy), {}

    stepped, _ = gradient_step(log_entropy_weight, optimizers.entropy, loss)
    return stepped


# --- networks, and everything else that an Algorithm has -----------------------------------------------------------


def make_parts(config: Backbone, spec: SpaceSpec, critics: int) -> Parts:
    policy = network(
        lambda draw: GaussianPolicy(
            draw, spec, config.policy_hidden, (config.log_std_low, config.log_std_high), config.initializer
        )
    )
    critic = network(
        lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer, config.critic_layer_norm)
    )
    member = batched(critic)
    stacked = ensemble(member, critics)
    optimizers = Optimizers(
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )

    def init(key: PRNGKey) -> State:
        policy_key, critic_key = jax.random.split(key)
        return State(
            trainable(optimizers.policy, policy.init(policy_key)),
            trainable(optimizers.critic, stacked.init(critic_key), target=True),
            trainable(optimizers.entropy, jnp.zeros(())),
        )

    return Parts(Networks(batched(policy).apply, stacked.apply, member.apply), optimizers, init, policy)


def assemble(
    config: Backbone,
    spec: SpaceSpec,
    parts: Parts,
    init: Callable[[PRNGKey], Any],
    update: Callable[[Any, Transition, PRNGKey, Array], tuple[Any, Metrics]],
) -> Algorithm:
    """The Algorithm of an `init` and an `update` whose state has the fields of `State`, and perhaps more."""

    def act(state: Any, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        mean, log_std = parts.policy.apply(state.policy.params, observation)
        return jnp.tanh(mean if greedy else distributions.sample_normal(key, mean, log_std))

    def log_prob(state: Any, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, ACTION_EDGE)
        return distributions.tanh_normal_log_prob(pre_tanh, *parts.policy.apply(state.policy.params, observation))

    def probes(state: Any, batch: Transition, key: PRNGKey) -> Metrics:
        """Means over fixed rows: the smallest Q of logged and of sampled actions, how far members disagree on them."""
        noise = jax.random.normal(key, batch.action.shape)
        action, own = sample(parts.networks, state.policy.params, batch.observation, noise)
        q_data = parts.networks.critics(state.critic.params, batch.observation, batch.action)
        q_policy = parts.networks.critics(state.critic.params, batch.observation, action)
        _, log_std = parts.networks.policy(state.policy.params, batch.observation)
        return {
            "probe_q_data": jnp.mean(jnp.min(q_data, axis=0)),
            "probe_q_policy": jnp.mean(jnp.min(q_policy, axis=0)),
            "probe_q_std_data": jnp.mean(jnp.std(q_data, axis=0)),
            "probe_q_std_policy": jnp.mean(jnp.std(q_policy, axis=0)),
            "probe_entropy": -jnp.mean(own),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    return Algorithm(
        init=lambda key, behavior_params: init(key),
        update=update,
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=lambda state: tanh_mlp_export(state.policy.params, spec),
        batch_size=config.batch_size,
    )
