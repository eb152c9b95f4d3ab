"""What PPO, GePPO and TRPO share: batches of the newest steps, advantages, the value function, running scales.

An iteration is a batch of `steps_per_block` steps of each of `envs` environments by one policy, then all steps of
gradient on it, and for GePPO on the batches of the policies before as well:

    delta_t   = r_t + gamma (1-d_t) V(s_{t+1}) - V(s_t),   A_t from them             (itrpo.ops.trust_region.advantages)
    value     min over V   mean of w (V(s_t) - (V_k(s_t) + min(rho_t, ratio_limit) A_t))^2,   rho = pi_k / pi_{k-i}

Policies are Gaussians before a tanh, of one spread for all observations, with ReLU layers: what a file of an acting
policy holds. Ratios and D_KL are those of the Gaussians, the tanh leaves them alone. Observations are standardised, and
rewards divided by the deviation of their running discounted sum and clipped, by all that came before the iteration; the
first batch has uniform actions and serves nothing else. Where the sources clip standardised observations, here they are
not: the scales are in the exported first layer. So a column that has not moved yet keeps its units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from itrpo.collection import rollout
from itrpo.collection.agent import Agent, Updates, file_arrays
from itrpo.collection.online_updates import Block, Learner
from itrpo.nn.heads import ConstantStdPolicy, StateValue
from itrpo.nn.network import Network, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions, trust_region
from itrpo.ranges import Count, Discount, Interval, Positive, Widths
from itrpo.types import Metrics, Params, SpaceSpec

EDGE = 1e-6  # actions are clipped to +-(1 - EDGE) before their atanh
VARIANCE = 1e-8  # added to every variance
STILL = 1e-12  # of the squared mean: a variance that is float32's rounding
REWARD_LIMIT = 10.0  # of scaled rewards (GePPO's code)


@dataclass(frozen=True)
class Shared:
    gamma: Discount = 0.995  # discount per step (GePPO's code)
    gae_lambda: Annotated[float, Interval("[0, 1]")] = 0.97  # lambda of the advantages (GePPO's code)
    policy_hidden: Widths = (64, 64)  # widths of the hidden layers (GePPO's code, with tanh)
    value_hidden: Widths = (64, 64)  # of V (GePPO's code, with tanh)
    log_std: Annotated[float, Interval("[-5, 2]")] = 0.0  # pre-tanh log standard deviation at first (GePPO's code)
    value_learning_rate: Positive = 3e-4  # Adam (GePPO's code)
    epochs: Count = 10  # times that an iteration goes over its rows (GePPO's code)
    minibatches: Count = 32  # into which it cuts them each time (GePPO's code)


class Sized(NamedTuple):
    """What an algorithm is made from."""

    config: Any  # its own; has `shared`
    steps: int  # T, of each environment in a batch
    envs: int  # E


class Running(NamedTuple):
    """Of all numbers so far."""

    seen: Float[Array, ""]
    mean: Float[Array, "*n"]
    squares: Float[Array, "*n"]  # sum of squared deviations from the mean

    @property
    def std(self) -> Float[Array, "*n"]:
        """1 of what has not moved yet."""
        variance = self.squares / jnp.maximum(self.seen, 1.0)
        return jnp.where(variance > STILL * self.mean**2, jnp.sqrt(variance + VARIANCE), 1.0)


class State(NamedTuple):
    policy: Trainable
    value: Trainable
    rate_scale: Float[Array, ""]  # of the policy's learning rate
    observations: Running
    returns: Running  # of discounted sums of rewards
    discounted: Float[Array, "E"]  # the sum of each environment's unfinished episode
    log_probs: Float[Array, "M T E"]  # pre-tanh, of each batch's actions under the policy that acted
    batches: Int[Array, ""]  # that a policy made so far


class Networks(NamedTuple):
    policy: Network  # observation -> mean, log_std
    value: Network
    policy_optimizer: optax.GradientTransformation  # gives steps of size 1: learning rates come after
    value_optimizer: optax.GradientTransformation


class Rows(NamedTuple):
    """[M, T, E]: M batches, the newest anywhere among them."""

    observation: Float[Array, "M T E O"]
    action: Float[Array, "M T E A"]
    reward: Float[Array, "M T E"]
    continues: Float[Array, "M T E"]  # 0 after a terminal
    goes_on: Float[Array, "M T E"]  # 0 where the episode's next row is of another episode
    next_observation: Float[Array, "M T E O"]


class Recent(NamedTuple):
    rows: Rows
    newest: Int[Array, ""]  # place of the newest batch
    is_policy: Bool[Array, ""]  # whether a policy made it


class Data(NamedTuple):
    """Rows [N] as the updates see them."""

    observation: Float[Array, "N O"]  # standardised
    pre_tanh: Float[Array, "N A"]
    log_prob: Float[Array, "N"]  # of the policy that acted
    centre: Float[Array, "N"]  # pi_k over it
    advantage: Float[Array, "N"]
    value_target: Float[Array, "N"]
    weight: Float[Array, "N"]  # of mean 1; 0 for rows that are not there yet


# --- rows ----------------------------------------------------------------------------------------------------------


def buffer_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of `row_type` [N] -> [N, 2O + A + 3] float32, as `split` takes them apart."""
    continues = 1 - rows["terminal"].astype(np.float32)
    goes_on = continues * ~rows["timeout"]
    columns = (rows["observation"], rows["action"], rows["reward"][:, None], continues[:, None], goes_on[:, None])
    return np.concatenate([*columns, rows["next_observation"]], axis=1, dtype=np.float32)


def split(buffer: Float[Array, "rows columns"], sized: Sized, spec: SpaceSpec) -> Rows:
    ends = np.cumsum([spec.observation_dim, spec.action_dim, 1, 1, 1])
    parts = jnp.split(buffer.reshape(-1, sized.steps, sized.envs, buffer.shape[1]), ends, axis=-1)
    observation, action, reward, continues, goes_on, following = parts
    return Rows(observation, action, reward[..., 0], continues[..., 0], goes_on[..., 0], following)


# --- networks and scales -------------------------------------------------------------------------------------------


def make_networks(shared: Shared, spec: SpaceSpec, policy_optimizer: optax.GradientTransformation) -> Networks:
    policy = network(
        lambda draw: ConstantStdPolicy(
            draw, spec, shared.policy_hidden, shared.log_std, rollout.LOG_STD_RANGE, "orthogonal_small_head"
        )
    )
    value = network(lambda draw: StateValue(draw, spec, shared.value_hidden, "orthogonal"))
    return Networks(policy, value, policy_optimizer, optax.adam(shared.value_learning_rate))


def start(networks: Networks, sized: Sized, spec: SpaceSpec, batches: int, key: Key[Array, ""]) -> State:
    policy_key, value_key = jax.random.split(key)
    none, zeros = jnp.zeros(()), jnp.zeros(spec.observation_dim)
    return State(
        trainable(networks.policy_optimizer, networks.policy.init(policy_key)),
        trainable(networks.value_optimizer, networks.value.init(value_key)),
        jnp.ones(()),
        Running(none, zeros, zeros),
        Running(none, none, none),
        jnp.zeros(sized.envs),
        jnp.zeros((batches, sized.steps, sized.envs)),
        jnp.zeros((), jnp.int32),
    )


def merged(running: Running, values: Float[Array, "N *n"]) -> Running:
    """With more numbers (Chan's update)."""
    count, mean = float(len(values)), jnp.mean(values, axis=0)
    total, gap = running.seen + count, mean - running.mean
    squares = running.squares + jnp.sum(jnp.square(values - mean[None]), axis=0)
    return Running(total, running.mean + gap * count / total, squares + jnp.square(gap) * running.seen * count / total)


def standardised(running: Running, observation: Float[Array, "*rows O"]) -> Float[Array, "*rows O"]:
    shape = observation.shape
    return (observation - jnp.broadcast_to(running.mean, shape)) / jnp.broadcast_to(running.std, shape)


def with_scales(shared: Shared, state: State, rows: Rows) -> State:
    """Scales that have seen one more batch, [T, E]."""

    def add(total: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, goes_on = step
        total = shared.gamma * total + reward
        return total * goes_on, total

    discounted, sums = jax.lax.scan(add, state.discounted, (rows.reward, rows.goes_on))
    observations = merged(state.observations, rows.observation.reshape(-1, rows.observation.shape[-1]))
    returns = merged(state.returns, sums.reshape(-1))
    return state._replace(observations=observations, returns=returns, discounted=discounted)


def log_prob(
    networks: Networks, params: Params, observation: Float[Array, "*rows O"], pre_tanh: Float[Array, "*rows A"]
) -> Float[Array, "*rows"]:
    """Of the Gaussian before the tanh."""
    return distributions.normal_log_prob(pre_tanh, *networks.policy.apply(params, observation))


# --- one iteration -------------------------------------------------------------------------------------------------


def prepared(
    shared: Shared,
    networks: Networks,
    weights: Float[Array, "M"],
    ratio_limit: float,
    state: State,
    recent: Recent,
) -> tuple[State, Data]:
    """What the updates see, and the state that knows the newest batch's densities. weights: of policies by age."""
    rows, count = recent.rows, len(weights)
    observation = standardised(state.observations, rows.observation)
    pre_tanh = distributions.to_pre_tanh(rows.action, EDGE)
    now = log_prob(networks, state.policy.params, observation, pre_tanh)
    log_probs = state.log_probs.at[recent.newest].set(now[recent.newest])
    batches = state.batches + 1
    age = (recent.newest - jnp.arange(count)) % count
    weight = jnp.where(age < batches, weights[age], 0.0)
    weight = jnp.broadcast_to((count * weight / jnp.sum(weight))[:, None, None], now.shape)
    centre = jnp.where(weight > 0, jnp.exp(jnp.where(weight > 0, now - log_probs, 0.0)), 1.0)
    value = networks.value.apply(state.value.params, observation)
    following = networks.value.apply(state.value.params, standardised(state.observations, rows.next_observation))
    reward = jnp.clip(rows.reward / state.returns.std, -REWARD_LIMIT, REWARD_LIMIT)
    errors = reward + shared.gamma * rows.continues * following - value
    in_time = partial(jnp.swapaxes, axis1=0, axis2=1)  # [T, M, E]: batches side by side
    inputs = in_time(errors), in_time(rows.goes_on), in_time(centre)
    advantage = in_time(trust_region.advantages(*inputs, shared.gamma * shared.gae_lambda, ratio_limit))
    target = value + jnp.minimum(centre, ratio_limit) * advantage
    data = Data(observation, pre_tanh, log_probs, centre, advantage, target, weight)
    flat = Data(*(leaf.reshape(-1, *leaf.shape[3:]) for leaf in data))
    return state._replace(log_probs=log_probs, batches=batches), flat


def over_minibatches(
    shared: Shared,
    step: Callable[[tuple[Any, ...], Data], tuple[tuple[Any, ...], Metrics]],
    carry: tuple[Any, ...],
    data: Data,
    key: Key[Array, ""],
) -> tuple[tuple[Any, ...], Metrics]:
    """`epochs` times through the rows, each time shuffled. -> also the metrics' means over the steps.

    Rows that are left over when they are cut into `minibatches` wait for the next epoch.
    """
    rows = len(data.weight)
    size = rows // shared.minibatches

    def epoch(carry: tuple[Any, ...], key: Key[Array, ""]) -> tuple[tuple[Any, ...], Metrics]:
        places = jax.random.permutation(key, rows)[: size * shared.minibatches].reshape(shared.minibatches, size)
        return jax.lax.scan(lambda carry, at: step(carry, jax.tree.map(lambda leaf: leaf[at], data)), carry, places)

    carry, metrics = jax.lax.scan(epoch, carry, jax.random.split(key, shared.epochs))
    return carry, jax.tree.map(jnp.mean, metrics)


def value_step(networks: Networks, value: Trainable, data: Data) -> tuple[Trainable, Metrics]:
    def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
        error = networks.value.apply(params, data.observation) - data.value_target
        found = 0.5 * jnp.mean(data.weight * jnp.square(error))
        return found, {"value_loss": found}

    return gradient_step(value, networks.value_optimizer, loss)


def make_block(agent: Agent, sized: Sized, spec: SpaceSpec) -> Block:
    """-> block(learner, key, rows, slots, filled, first, last): puts a batch of rows into the buffer's slots, and does
    the iteration `first` on it unless that is `last` already: then only scales see it. It consumes its learner.
    """
    update = agent.make(sized, spec).update

    @partial(jax.jit, donate_argnums=0)
    def block(learner: Learner, key: Array, rows: Any, slots: Any, filled: Any, first: Any, last: Any) -> Learner:
        buffer = learner.buffer.at[slots].set(rows)
        recent = Recent(split(buffer, sized, spec), slots[0] // (sized.steps * sized.envs), last > first)
        state, metrics = update(learner.state, recent, jax.random.fold_in(key, first), first)
        done = recent.is_policy.astype(jnp.float32)
        sums = {name: learner.sums[name] + done * metrics[name] for name in learner.sums}
        return Learner(state, buffer, sums, learner.count + done)

    return block


def make(
    networks: Networks,
    sized: Sized,
    spec: SpaceSpec,
    batches: int,
    learn: Callable[[State, Recent, Key[Array, ""]], tuple[State, Metrics]],
    metrics: tuple[str, ...],
) -> Updates:
    """`learn` is an iteration, but for the scales."""
    shared = sized.config.shared

    def update(state: State, recent: Recent, key: Key[Array, ""], number: Int[Array, ""]) -> tuple[State, Metrics]:
        nothing = {name: jnp.zeros(()) for name in metrics}
        state, found = jax.lax.cond(
            recent.is_policy, lambda state: learn(state, recent, key), lambda state: (state, nothing), state
        )
        newest = Rows(*(leaf[recent.newest] for leaf in recent.rows))
        return with_scales(shared, state, newest), found

    return Updates(partial(start, networks, sized, spec, batches), update)


# --- acting on the host --------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


def acting_arrays(state: State, config: Any) -> dict[str, np.ndarray]:
    """The scales of observations are in the first layer."""
    mean, std = np.asarray(state.observations.mean), np.asarray(state.observations.std)
    *hidden, (weight, bias) = (
        Layer(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in state.policy.params.mlp.layers
    )
    first = hidden[0].weight / std[None]
    hidden[0] = Layer(first, hidden[0].bias - first @ mean)
    log_std = np.asarray(state.policy.params.log_std)
    return file_arrays(hidden, {"mean": (weight, bias), "log_std": (np.zeros_like(weight), log_std)})
