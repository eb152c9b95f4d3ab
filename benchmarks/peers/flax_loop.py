"""TD3+BC, IQL and iTRPO as one would write them today in plain Flax and Optax, all updates compiled.

    PEER/bin/python benchmarks/peers/flax_loop.py DATA.npz --algorithm itrpo --preset quick --steps 2000 --seeds 4

In the manner of JAX-CORL: linen modules, a TrainState each, the two critics one module under `nn.vmap`, a jitted
`lax.fori_loop` over a thousand updates, rows drawn on the device, `vmap` over seeds. Several seeds go in as
many processes as there are cores, each with one thread and its share of the seeds under `vmap`: on a CPU that is
faster than all of them under `vmap` in one process (`--processes 1`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import common
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from common import BATCH_SIZE, GAMMA, Constants, Task
from flax.training.train_state import TrainState

CHUNK = 1_000  # updates of one call
Losses = dict[str, jax.Array]


class Batch(NamedTuple):
    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    continues: jax.Array


# --- networks ------------------------------------------------------------------------------------------------------


class MLP(nn.Module):
    hidden: tuple[int, ...]
    outputs: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
            if self.layer_norm:
                x = nn.LayerNorm(epsilon=1e-6)(x)
        return nn.Dense(self.outputs)(x)


class Critics(nn.Module):
    """Two Q functions -> [2, B]."""

    hidden: tuple[int, ...]
    layer_norm: bool = False
    size: int = 2

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        split = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        members = nn.vmap(MLP, in_axes=None, out_axes=0, axis_size=self.size, **split)
        inputs = jnp.concatenate([observations, actions], axis=-1)
        return members(self.hidden, 1, self.layer_norm, name="members")(inputs)[..., 0]


class Deterministic(nn.Module):
    hidden: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        return jnp.tanh(MLP(self.hidden, self.action_dim, name="mlp")(observations))


class BoundedMean(nn.Module):
    """IQL's: the mean in [-1, 1], a standard deviation of no state."""

    hidden: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        mean = jnp.tanh(MLP(self.hidden, self.action_dim, name="mlp")(observations))
        return mean, jnp.clip(log_std, -5.0, 2.0)


class Gaussian(nn.Module):
    """Mean and log standard deviation before the tanh."""

    hidden: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_std = jnp.split(MLP(self.hidden, 2 * self.action_dim, name="mlp")(observations), 2, axis=-1)
        return mean, jnp.clip(log_std, -5.0, 2.0)


class Value(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        return MLP(self.hidden, 1, name="mlp")(observations)[..., 0]


class WithTarget(TrainState):
    target_params: Any

    def polyak(self, rate: float) -> WithTarget:
        return self.replace(target_params=optax.incremental_update(self.params, self.target_params, rate))


def train_state(module: nn.Module, key: jax.Array, rate: Any, *inputs: jax.Array) -> WithTarget:
    params = module.init(key, *inputs)
    return WithTarget.create(apply_fn=module.apply, params=params, target_params=params, tx=optax.adam(rate))


def step(trained: WithTarget, loss: Callable[[Any], jax.Array]) -> tuple[WithTarget, jax.Array]:
    value, gradients = jax.value_and_grad(loss)(trained.params)
    return trained.apply_gradients(grads=gradients), value


def normal_log_prob(value: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    z = (value - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(z) + log_std + 0.5 * math.log(2 * math.pi), axis=-1)


def normal_kl(mean: jax.Array, log_std: jax.Array, other_mean: jax.Array, other_log_std: jax.Array) -> jax.Array:
    ratio = jnp.exp(2 * (log_std - other_log_std))
    distance = jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return jnp.sum(0.5 * (ratio + distance - 1) + other_log_std - log_std, axis=-1)


def critic_step(critics: WithTarget, batch: Batch, targets: jax.Array) -> tuple[WithTarget, jax.Array]:
    def loss(params: Any) -> jax.Array:
        q = critics.apply_fn(params, batch.observations, batch.actions)
        return jnp.sum(jnp.mean(jnp.square(q - targets), axis=1))

    return step(critics, loss)


# --- algorithms: `start` makes what trains, `update` moves it ------------------------------------------------------


class Networks(NamedTuple):
    policy: WithTarget
    critics: WithTarget
    value: Any = None  # IQL's
    behavior: Any = None  # iTRPO's frozen parameters


def td3_bc_start(c: Constants, steps: int, key: jax.Array, observation: jax.Array, action: jax.Array) -> Networks:
    keys = jax.random.split(key)
    return Networks(
        train_state(Deterministic(c.hidden, action.shape[-1]), keys[0], c.policy_rate, observation),
        train_state(Critics(c.hidden), keys[1], c.critic_rate, observation, action),
    )


def td3_bc_update(c: Constants, it: Networks, batch: Batch, noise: jax.Array, count: Any) -> tuple[Networks, Losses]:
    noise = jnp.clip(0.2 * noise[0], -0.5, 0.5)
    next_actions = it.policy.apply_fn(it.policy.target_params, batch.next_observations)
    next_actions = jnp.clip(next_actions + noise, -1.0, 1.0)
    next_q = it.critics.apply_fn(it.critics.target_params, batch.next_observations, next_actions).min(0)
    critics, critic_loss = critic_step(it.critics, batch, batch.rewards + GAMMA * batch.continues * next_q)

    def policy_step() -> tuple[Networks, jax.Array]:
        first = jax.tree.map(lambda leaf: leaf[:1], critics.params)
        one = Critics(c.hidden, size=1)

        def loss(params: Any) -> jax.Array:
            actions = it.policy.apply_fn(params, batch.observations)
            q = one.apply(first, batch.observations, actions)[0]
            scale = 2.5 / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
            return -scale * jnp.mean(q) + jnp.mean(jnp.square(actions - batch.actions))

        policy, value = step(it.policy, loss)
        return Networks(policy.polyak(c.polyak_rate), critics.polyak(c.polyak_rate)), value

    def no_step() -> tuple[Networks, jax.Array]:
        return it._replace(critics=critics), jnp.zeros(())

    it, policy_loss = jax.lax.cond((count + 1) % 2 == 0, policy_step, no_step)
    return it, {"critic_loss": critic_loss, "policy_loss": policy_loss}


def iql_start(c: Constants, steps: int, key: jax.Array, observation: jax.Array, action: jax.Array) -> Networks:
    keys = jax.random.split(key, 3)
    rate = optax.cosine_decay_schedule(c.policy_rate, steps)
    return Networks(
        train_state(BoundedMean(c.hidden, action.shape[-1]), keys[0], rate, observation),
        train_state(Critics(c.hidden), keys[1], c.critic_rate, observation, action),
        train_state(Value(c.hidden), keys[2], c.critic_rate, observation),
    )


def iql_update(c: Constants, it: Networks, batch: Batch, noise: jax.Array, count: Any) -> tuple[Networks, Losses]:
    q = it.critics.apply_fn(it.critics.target_params, batch.observations, batch.actions).min(0)

    def value_loss(params: Any) -> jax.Array:
        error = q - it.value.apply_fn(params, batch.observations)
        return jnp.mean(jnp.where(error > 0, 0.7, 0.3) * jnp.square(error))

    value, first = step(it.value, value_loss)
    advantage = q - value.apply_fn(value.params, batch.observations)
    weight = jnp.minimum(jnp.exp(3.0 * advantage), 100.0)

    def policy_loss(params: Any) -> jax.Array:
        return -jnp.mean(weight * normal_log_prob(batch.actions, *it.policy.apply_fn(params, batch.observations)))

    policy, second = step(it.policy, policy_loss)
    next_value = value.apply_fn(value.params, batch.next_observations)
    critics, third = critic_step(it.critics, batch, batch.rewards + GAMMA * batch.continues * next_value)
    losses = {"value_loss": first, "policy_loss": second, "critic_loss": third}
    return Networks(policy, critics.polyak(c.polyak_rate), value), losses


def itrpo_start(c: Constants, steps: int, key: jax.Array, observation: jax.Array, action: jax.Array) -> Networks:
    keys = jax.random.split(key)
    policy = train_state(Gaussian(c.hidden, action.shape[-1]), keys[0], c.policy_rate, observation)
    critics = train_state(Critics(c.hidden, c.layer_norm), keys[1], c.critic_rate, observation, action)
    return Networks(policy.replace(target_params=None), critics, behavior=policy.params)


def itrpo_update(c: Constants, it: Networks, batch: Batch, noise: jax.Array, count: Any) -> tuple[Networks, Losses]:
    moments, q_values = it.policy.apply_fn, it.critics.apply_fn
    behavior = moments(it.behavior, batch.observations)
    u = jnp.arctanh(jnp.clip(batch.actions, -0.999, 0.999))
    own = moments(it.policy.params, batch.observations)
    log_ratio = normal_log_prob(u, *own) - normal_log_prob(u, *behavior)
    mean, log_std = moments(it.policy.params, batch.next_observations)
    next_kl = normal_kl(mean, log_std, *moments(it.behavior, batch.next_observations))
    next_actions = jnp.tanh(mean + jnp.exp(log_std) * noise[0])
    next_value = q_values(it.critics.target_params, batch.next_observations, next_actions).min(0) - c.alpha * next_kl
    rewards = batch.rewards + c.tau * c.alpha * log_ratio
    critics, critic_loss = critic_step(it.critics, batch, rewards + GAMMA * batch.continues * next_value)

    def policy_loss(params: Any) -> jax.Array:
        mean, log_std = moments(params, batch.observations)
        q = q_values(critics.params, batch.observations, jnp.tanh(mean + jnp.exp(log_std) * noise[1])).min(0)
        return -jnp.mean(q - c.alpha * normal_kl(mean, log_std, *behavior))

    policy, value = step(it.policy, policy_loss)
    it = it._replace(policy=policy, critics=critics.polyak(c.polyak_rate))
    return it, {"critic_loss": critic_loss, "policy_loss": value}


ALGORITHMS = {
    "td3_bc": (td3_bc_start, td3_bc_update, 1),
    "iql": (iql_start, iql_update, 0),
    "itrpo": (itrpo_start, itrpo_update, 2),
}


# --- the loop ------------------------------------------------------------------------------------------------------


def train(task: Task, warm: Callable[[], Any]) -> dict[str, Any]:
    data = Batch(**{name: jnp.asarray(column) for name, column in common.transitions(task).items()})
    start, update, noises = ALGORITHMS[task.algorithm]
    rows, action_dim = data.actions.shape

    def one(it: Networks, key: jax.Array, count: jax.Array, data: Batch) -> tuple[Networks, Losses]:
        row_key, noise_key = jax.random.split(jax.random.fold_in(key, count))
        index = jax.random.randint(row_key, (BATCH_SIZE,), 0, rows)
        batch = jax.tree.map(lambda column: column[index], data)
        noise = jax.random.normal(noise_key, (noises, BATCH_SIZE, action_dim))
        return update(task.constants, it, batch, noise, count)

    several = len(task.seeds) > 1
    all_seeds = jax.vmap(one, in_axes=(0, 0, None, None)) if several else one

    @partial(jax.jit, donate_argnums=0)
    def updates(its: Networks, keys: jax.Array, first: int, last: int, data: Batch) -> Networks:
        return jax.lax.fori_loop(first, last, lambda count, its: all_seeds(its, keys, count, data)[0], its)

    keys = jnp.stack([jax.random.key(seed) for seed in task.seeds]) if several else jax.random.key(task.seeds[0])
    make = partial(start, task.constants, task.steps)
    make = jax.vmap(make, in_axes=(0, None, None)) if several else make
    its = jax.tree.map(jnp.copy, make(keys, data.observations[:1], data.actions[:1]))  # a buffer each, to be donated
    its = jax.block_until_ready(updates(its, keys, 0, 20, data))
    warm()
    for first in range(0, task.steps, CHUNK):
        its = updates(its, keys, first, min(first + CHUNK, task.steps), data)
    jax.block_until_ready(its)
    return {"library": "flax", "version": flax.__version__}


# --- the same work as itrpo's: see same_work.py --------------------------------------------------------------------


def check(task: Task) -> dict[str, Any]:
    given = common.given(task)
    batches = Batch(*(jnp.asarray(given[name]) for name in common.COLUMNS))
    start, update, _ = ALGORITHMS[task.algorithm]
    it = start(task.constants, task.steps, jax.random.key(0), batches.observations[0, :1], batches.actions[0, :1])

    def loaded(params: Any, inner: str, name: str) -> Any:
        layers = dict(params["params"][inner])
        for i in range(len(task.constants.hidden) + 1):
            weight, bias = given[f"{name}.{i}.weight"], given[f"{name}.{i}.bias"]
            layers[f"Dense_{i}"] = {"kernel": jnp.asarray(weight).swapaxes(-1, -2), "bias": jnp.asarray(bias)}
        return {"params": params["params"] | {inner: layers}}

    def begun(trained: WithTarget, inner: str, name: str) -> WithTarget:
        params = loaded(trained.params, inner, name)
        return trained.replace(params=params, target_params=params)

    it = it._replace(policy=begun(it.policy, "mlp", "policy"), critics=begun(it.critics, "members", "critics"))
    if it.value is not None:
        it = it._replace(value=begun(it.value, "mlp", "value"))
    if it.behavior is not None:
        it = it._replace(behavior=loaded(it.behavior, "mlp", "behavior"))
    losses, jitted = [], jax.jit(partial(update, task.constants))
    for k, (batch, noise) in enumerate(zip(zip(*batches, strict=True), given["noise"], strict=True)):
        it, new = jitted(it, Batch(*batch), noise, k)
        losses.append({name: float(value) for name, value in new.items()})
    found = {"policy": it.policy.params, "critics": it.critics.params, "target critics": it.critics.target_params}
    found |= {"value": it.value.params} if it.value is not None else {}
    return {"losses": losses, "parameters": {name: common.summary(jax.tree.leaves(it)) for name, it in found.items()}}


if __name__ == "__main__":
    task, processes = common.parse(__doc__, "as many as there are cores and seeds")
    if task.check:
        print(json.dumps(check(task)))
    else:
        common.run(train, task, processes or min(common.cores(), len(task.seeds)))
