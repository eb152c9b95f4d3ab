"""AlgaeDICE, policy gradient from arbitrary experience (Nachum, Dai, Kostrikov, Chow, Li and Schuurmans 2019,
arXiv 1912.02074), on a fixed dataset.

The return less a divergence between what the policy visits and what the data do, in its dual form, in which all
expectations are over the data:

    J(pi)     = min over Q   ( mean f(delta) + (1-gamma) w mean Q(s0,a0) ) / w,   a0 ~ pi(.|s0),   f(x) = |x|^p / p
    delta_i   = r + gamma (1-d) ( own_share Q_i(s',a') + (1-own_share) min_j Q_j'(s',a') - k log pi(a'|s') ) - Q_i(s,a)
    critics   min over Q_i   sum_i mean f(delta_i) + (1-gamma) w mean Q_i(s0,a0)
    actor     max over pi    1/2 sum_i mean f'(delta_i)_+ delta_i + (1-gamma) w mean Q_i(s0,a0),   f' held constant
    entropy   min over log k   k (-log pi(a'|s') - A target_entropy)
    targets   Q_i' <- (1 - polyak_rate) Q_i' + polyak_rate Q_i, with the actor, every `policy_delay` steps

w is `divergence_weight`, k the entropy weight. With own_share = 1, k = 0 and nothing random in s' and a' the minimum is
(1-gamma) times the return of pi from s0, less lambda E_data[(d_pi / d_data)^q / q], q = p / (p-1), lambda = w^(q-1),
and there f'(delta) = w d_pi / d_data: a test finds both on a small MDP. Where s' or a' is random, f is taken of one
draw, as in the code, where the theory has f of the mean over draws: the minimum is then larger. The code's own_share of
0.05 steadies Q and gives more up: gradients of the critics see a' at a twentieth, as at a discount of 0.05 gamma.

Source: google-research/algae_dice (algae.py, train_eval.py), whose defaults `source` holds; it is written for a replay
buffer that grows, and nothing in it is offline but that it may. Departures: s0 are the batch's own states, the code's
`use_init_states` off (its default is on; a batch here has no first states), so J is the return from the data's
states; weights start as sqrt(2) times orthogonal matrices (Keras: once); alpha there is w here, its exponent p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms.quick import quick
from itrpo.nn import critics as critic_probes
from itrpo.nn import soft
from itrpo.nn.actors import gaussian_actor
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import Trainable, gradient_step, polyak
from itrpo.ops import td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, Discount, Interval, NonNegative, Positive, Rate, Share, Widths
from itrpo.types import Algorithm, AlgorithmEntry, Metrics, Params, Preset, SpaceSpec, Transition

ACTION_EDGE = 1e-6  # in `log_prob`: actions are clipped to +-(1 - edge); no loss asks for a density of the data's


@dataclass(frozen=True)
class Config:
    divergence_weight: Positive = 0.01  # w (train_eval.py: algae_alpha)
    exponent: Annotated[float, Interval("(1, inf)")] = 1.5  # p of f (train_eval.py: f_exponent)
    own_share: Share = 0.05  # of Q_i against the least target in the values of s' (the code's critic_mix)
    orthogonal_weight: NonNegative = 1e-4  # of the actor's layers' inner products (keras_utils.py)
    target_entropy: float = -1.0  # nats per action dimension (train_eval.py: -A)
    initial_entropy_weight: Positive = 1.0  # k at the start (the class's alpha_init)
    policy_delay: Count = 2  # steps of the critics for each of the actor, entropy weight and targets
    gamma: Discount = 0.99  # discount per step
    polyak_rate: Rate = 0.005  # target averaging, each time
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 1e-3  # Adam
    critic_learning_rate: Positive = 1e-3  # Adam
    entropy_learning_rate: Positive = 1e-3  # Adam, of log k
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    critics: Count = 2  # ensemble size
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC; not in the source)
    initializer: Initializer = "orthogonal"  # see itrpo.nn.network.Linear
    log_std_low: float = -5.0  # end of the actor's pre-tanh log standard deviation
    log_std_high: float = 2.0  # its upper end
    log_std_squash: bool = True  # map onto the range by a tanh instead of clipping


class State(NamedTuple):
    policy: Trainable
    critic: Trainable  # parameters stacked over the ensemble [N, ...]; with a target
    log_entropy_weight: Trainable  # scalar
    policy_metrics: Metrics  # of the actor's last step


# --- the objective -------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """What the policy does."""

    start_action: Float[Array, "B A"]  # a0, at the batch's own states
    next_action: Float[Array, "B A"]  # a', at s'
    next_log_prob: Float[Array, "B"]


def draw(networks: Networks, policy_params: Params, batch: Transition, noise: Float[Array, "2 B A"]) -> Drawn:
    start_action, _ = networks.actor.sample(policy_params, batch.observation, noise[0])
    return Drawn(start_action, *networks.actor.sample(policy_params, batch.next_observation, noise[1]))


def residuals(
    config: Config,
    critics: Ensemble,
    entropy_weight: Scalar,
    critic_params: Params,
    target_params: Params,
    batch: Transition,
    drawn: Drawn,
) -> tuple[Float[Array, "N B"], Float[Array, "N B"]]:
    """delta_i, and Q_i(s0,a0)."""
    own = critics.apply(critic_params, batch.next_observation, drawn.next_action)
    least = td.ensemble_min(critics.apply(target_params, batch.next_observation, drawn.next_action))
    mixed = config.own_share * own + (1.0 - config.own_share) * least[None]
    soft_value = mixed - entropy_weight * drawn.next_log_prob[None]
    targets = td.bellman_target(batch.reward[None], batch.continues[None], config.gamma, soft_value)
    start_q = critics.apply(critic_params, batch.observation, drawn.start_action)
    return targets - critics.apply(critic_params, batch.observation, batch.action), start_q


def critic_loss(
    config: Config,
    critics: Ensemble,
    entropy_weight: Scalar,
    critic_params: Params,
    target_params: Params,
    batch: Transition,
    drawn: Drawn,
) -> tuple[Float[Array, ""], Metrics]:
    """sum_i mean[ |delta_i|^p / p + (1-gamma) w Q_i(s0,a0) ]: w times J(pi), for each critic, where Q is the best."""
    delta, start_q = residuals(config, critics, entropy_weight, critic_params, target_params, batch, drawn)
    distance = jnp.abs(delta) ** config.exponent / config.exponent
    loss = jnp.sum(jnp.mean(distance + (1.0 - config.gamma) * config.divergence_weight * start_q, axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(td.ensemble_min(start_q))}


LARGEST_RESIDUAL = 1e6  # where f' stops growing (the code)


def policy_loss(
    config: Config,
    networks: Networks,
    entropy_weight: Scalar,
    policy_params: Params,
    critic_params: Params,
    target_params: Params,
    batch: Transition,
    noise: Float[Array, "2 B A"],
) -> tuple[Float[Array, ""], Metrics]:
    """-mean over critics and rows of f'(delta_i)_+ delta_i + (1-gamma) w Q_i(s0,a0), and the layers' inner products."""
    drawn = draw(networks, policy_params, batch, noise)
    delta, start_q = residuals(config, networks.critics, entropy_weight, critic_params, target_params, batch, drawn)
    ratio = jax.lax.stop_gradient(jnp.clip(delta, 0.0, LARGEST_RESIDUAL) ** (config.exponent - 1.0))
    loss = -jnp.mean(ratio * delta + (1.0 - config.gamma) * config.divergence_weight * start_q)
    loss += config.orthogonal_weight * inner_products(policy_params)
    visited = jnp.mean(ratio) / config.divergence_weight
    return loss, {"policy_loss": loss, "entropy": -jnp.mean(drawn.next_log_prob), "visitation_ratio": visited}


def inner_products(params: Params) -> Float[Array, ""]:
    """Sum over layers of the squared inner products between what makes their outputs (arXiv 1809.11096, Eq. 3)."""
    products = [leaf @ leaf.T for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) == 2]
    squares = [jnp.sum(jnp.square(each * (1.0 - jnp.eye(len(each))))) for each in products]
    return jnp.sum(jnp.stack([jnp.zeros(()), *squares]))


# --- one step ------------------------------------------------------------------------------------------------------


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then every `policy_delay` steps actor and entropy weight, with the new critics, and targets."""
    critic_noise, policy_noise = jax.random.normal(key, (2, 2, *batch.action.shape))
    entropy_weight, target_params = jnp.exp(state.log_entropy_weight.params), state.critic.target_params
    drawn = draw(networks, state.policy.params, batch, critic_noise)
    critic, metrics = gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: critic_loss(config, networks.critics, entropy_weight, params, target_params, batch, drawn),
    )

    def policy_step() -> State:
        fixed = (critic.params, target_params, batch, policy_noise)
        policy, policy_metrics = gradient_step(
            state.policy,
            networks.policy_optimizer,
            lambda params: policy_loss(config, networks, entropy_weight, params, *fixed),
        )
        excess = policy_metrics["entropy"] - config.target_entropy * batch.action.shape[1]
        log_weight, _ = gradient_step(
            state.log_entropy_weight, networks.entropy_optimizer, lambda params: (jnp.exp(params) * excess, {})
        )
        return State(policy, polyak(critic, config.polyak_rate), log_weight, policy_metrics)

    is_due = (step + 1) % config.policy_delay == 0
    state = jax.lax.cond(is_due, policy_step, lambda: state._replace(critic=critic))
    return state, metrics | state.policy_metrics | {"entropy_weight": entropy_weight}


def make(config: Config, spec: SpaceSpec, behavior: None) -> Algorithm:
    log_std_range = (config.log_std_low, config.log_std_high)
    networks = Networks(
        gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer, config.log_std_squash),
        critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer, config.critic_layer_norm),
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
        optax.adam(config.entropy_learning_rate),
    )

    def init(key: Key[Array, ""], behavior_params: Params) -> State:
        metrics = {name: jnp.zeros(()) for name in ("policy_loss", "entropy", "visitation_ratio")}
        return State(*soft.start(networks, key, config.initial_entropy_weight), metrics)

    def probes(state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Means over fixed rows."""
        action, log_prob = networks.actor.sample(
            state.policy.params, batch.observation, jax.random.normal(key, batch.action.shape)
        )
        _, log_std = networks.actor.moments(state.policy.params, batch.observation)
        return critic_probes.probes(networks.critics, state.critic.params, batch, action) | {
            "probe_entropy": -jnp.mean(log_prob),
            "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        }

    return Algorithm(
        init=init,
        update=partial(update, config, networks),
        acting=networks.actor.acting(ACTION_EDGE),
        probes=probes,
        batch_size=config.batch_size,
        q_values=critic_probes.q_values(networks.critics),
    )


SOURCE = Config()
RATES = dict.fromkeys(("policy_learning_rate", "critic_learning_rate", "entropy_learning_rate"), 3e-4)
MATCHED = replace(SOURCE, **RATES, initializer="fan_in", log_std_squash=False)
PRESETS = {"source": Preset(SOURCE), "matched": Preset(MATCHED), "quick": quick(Preset(MATCHED), {})}
ALGAE_DICE = AlgorithmEntry(Config, PRESETS, "source", (), make)
