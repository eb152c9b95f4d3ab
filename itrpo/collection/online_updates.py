"""The learner on the device: the replay buffer, and blocks of updates on it as one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo.collection.agent import Agent
from itrpo.types import Metrics, SpaceSpec, Transition

ROWS_READ = 10_000  # at a time


class Learner(NamedTuple):
    """What is on the device."""

    state: Any  # the agent's
    buffer: Any  # [capacity, 2O + A + 2] float32, rows of `buffer_rows`; on policy those of `on_policy.buffer_rows`
    sums: Metrics  # metrics added up over `count` updates
    count: Any


Block = Callable[..., Learner]


def buffer_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of `row_type` [N] -> [N, 2O + A + 2] float32. What follows an episode's last row is that episode's last
    observation, never the next one's first; one that the clock cut goes on bootstrapping.
    """
    continues = 1 - rows["terminal"].astype(np.float32)
    columns = (rows["observation"], rows["action"], rows["reward"][:, None], continues[:, None])
    return np.concatenate([*columns, rows["next_observation"]], axis=1)


def make_block(agent: Agent, config: Any, spec: SpaceSpec) -> Block:
    """-> block(learner, key, rows [n, 2O + A + 2], slots [n], filled, first, last): puts rows into the buffer's slots,
    then does the updates numbered from `first` to before `last` on its first `filled` rows. It consumes its learner.
    config: the agent's own.
    """
    update = agent.make(config, spec).update
    ends = np.cumsum([spec.observation_dim, spec.action_dim, 1, 1])

    def one_update(buffer: Any, filled: Any, key: Array, number: Any, state: Any) -> tuple[Any, Metrics]:
        rows_key, update_key = jax.random.split(key)
        rows = buffer[jax.random.randint(rows_key, (config.batch_size,), 0, filled)]
        observation, action, reward, continues, following = jnp.split(rows, ends, axis=1)
        no_next_action = jnp.zeros_like(action)  # nothing asks for it
        batch = Transition(observation, action, reward[:, 0], continues[:, 0], following, no_next_action)
        return update(state, batch, update_key, number)

    @partial(jax.jit, donate_argnums=0)
    def block(learner: Learner, key: Array, rows: Any, slots: Any, filled: Any, first: Any, last: Any) -> Learner:
        buffer = learner.buffer.at[slots].set(rows)

        def body(number: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, sums, count = carry
            state, metrics = one_update(buffer, filled, jax.random.fold_in(key, number), number, state)
            return state, {name: sums[name] + metrics[name] for name in sums}, count + 1.0

        state, sums, count = jax.lax.fori_loop(first, last, body, (learner.state, learner.sums, learner.count))
        return Learner(state, buffer, sums, count)

    return block


def fresh_sums(agent: Agent) -> tuple[Metrics, Any]:
    return {name: jnp.zeros(()) for name in agent.metrics}, jnp.zeros(())


def filled_buffer(size: int, past: np.ndarray, as_rows: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A buffer of `size` rows as it is after `past` [N], rows of `row_type`: row n is in slot n modulo `size`.

    as_rows: `buffer_rows`, or another that gives the rows of a buffer.
    """
    buffer = np.zeros((size, as_rows(past[:0]).shape[1]), np.float32)
    for start in range(max(0, len(past) - size), len(past), ROWS_READ):
        part = past[start : start + ROWS_READ]
        buffer[np.arange(start, start + len(part)) % size] = as_rows(part)
    return buffer
