"""The loop over gradient steps: blocks of updates as one compiled program, for S seeds at once.

A block runs from step `start` to step `stop`, both traced: any length runs the same program. Keys come from
`fold_in(seed_key, step)`, so how a run is cut into blocks changes no bit of it. The dataset is an argument, one copy on
the device for all seeds. Nothing leaves the device inside a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Key

from itrpo.training.seeds import over_seeds
from itrpo.types import Metrics, Transition

# update(state, batch, key, step) -> (state, metrics), for one seed
Update = Callable[[Any, Transition, Key[Array, ""], Array], tuple[Any, Metrics]]
NEVER = 2**31 - 1


class Carry(NamedTuple):
    """All that a run is between two steps; a checkpoint holds exactly this and the step."""

    state: Any  # pytree of [S, ...]
    sums: Metrics  # name -> [S]: metrics added up since the last `fresh_sums`
    count: Any  # [S]: steps added up
    first_bad: Metrics  # name -> [S]: first step whose metric was not finite or beyond the limit; NEVER if none
    watched: Any = ()  # `watch.Watched` of [S, ...], if the algorithm is watched; blocks of updates don't take it


def metric_names(update: Update, state: Any, data: Transition, batch_size: int) -> list[str]:
    """Names of the metrics of one seed's update, without computing it."""
    one = jax.tree.map(lambda it: jax.ShapeDtypeStruct(it.shape[1:], it.dtype), state)
    batch = jax.tree.map(lambda it: jax.ShapeDtypeStruct((batch_size, *it.shape[1:]), it.dtype), data)
    _, metrics = jax.eval_shape(update, one, batch, jax.random.key(0), jnp.zeros((), jnp.int32))
    return sorted(metrics)


def start(state: Any, names: list[str]) -> Carry:
    """The carry before the first step. state: [S, ...]."""
    num_seeds = jax.tree.leaves(state)[0].shape[0]
    return Carry(
        state,
        {name: jnp.zeros(num_seeds) for name in names},
        jnp.zeros(num_seeds),
        {name: jnp.full(num_seeds, NEVER, jnp.int32) for name in names},
    )


def fresh_sums(carry: Carry) -> Carry:
    """The carry with its running means begun anew (after they were read)."""
    return carry._replace(sums=jax.tree.map(jnp.zeros_like, carry.sums), count=jnp.zeros_like(carry.count))


def make_block(update: Update, batch_size: int) -> Callable[..., Carry]:
    """-> block(carry, data, seed_keys [S], limits name -> scalar, start, stop) -> carry. It consumes its carry."""

    def step_once(state: Any, seed_key: Key[Array, ""], data: Transition, step: Array) -> tuple[Any, Metrics]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(seed_key, step))
        rows = jax.random.randint(sample_key, (batch_size,), 0, data.reward.shape[0])
        return update(state, jax.tree.map(lambda it: it[rows], data), update_key, step)

    def block(carry: Carry, data: Transition, seed_key: Array, limits: Metrics, start: Array, stop: Array) -> Carry:
        def body(step: Array, carry: Carry) -> Carry:
            state, metrics = step_once(carry.state, seed_key, data, step)
            sums = {name: carry.sums[name] + metrics[name] for name in carry.sums}
            first_bad = {}
            for name, seen in carry.first_bad.items():
                good = jnp.abs(metrics[name]) <= limits[name]  # False for NaN too
                first_bad[name] = jnp.where(good, seen, jnp.minimum(seen, step))
            return Carry(state, sums, carry.count + 1.0, first_bad)

        return jax.lax.fori_loop(start, stop, body, carry)

    return over_seeds(block, (True, False, True, False, False, False), donate=(0,))
