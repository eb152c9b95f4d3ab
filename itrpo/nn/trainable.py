"""Parameters with their optimiser state and, where an algorithm needs one, their target copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from itrpo.ops.td import Scalar
from itrpo.types import Metrics, Params

CACHED_ROWS = 512  # 256 wide, their float32 activations are half a megabyte: a core's second-level cache


class Trainable(NamedTuple):
    params: Params
    opt_state: Params
    target_params: Params  # moved by `polyak` alone, never seen by the optimiser; None where nothing asks for a target


def trainable(optimizer: optax.GradientTransformation, params: Params, target: bool = False) -> Trainable:
    """Fresh optimiser state; the target, if asked for, starts as a copy."""
    return Trainable(params, optimizer.init(params), params if target else None)


def gradient_step(
    trained: Trainable,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Params], tuple[Float[Array, ""], Metrics]],
) -> tuple[Trainable, Metrics]:
    """One step down `loss(params) -> (scalar, metrics)`. The target is left alone."""
    gradients, metrics = jax.grad(loss, has_aux=True)(trained.params)
    return apply_gradients(trained, optimizer, gradients), metrics


def apply_gradients(trained: Trainable, optimizer: optax.GradientTransformation, gradients: Params) -> Trainable:
    updates, opt_state = optimizer.update(gradients, trained.opt_state, trained.params)
    return trained._replace(params=optax.apply_updates(trained.params, updates), opt_state=opt_state)


def chunked_gradient_step(
    trained: Trainable,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Params, Params], tuple[Float[Array, ""], Metrics]],
    rows: Params,
    chunk: int,
) -> tuple[Trainable, Metrics]:
    """`gradient_step` for `loss(params, rows)` and metrics that are means over rows, `chunk` of them at a time.

    The same step to rounding. Where a step has thousands of rows (CQL: 31 actions for each state), the activations of a
    chunk stay in a processor's cache and those of a batch do not: twice the speed. `chunk` must divide the batch.
    """
    count = jax.tree.leaves(rows)[0].shape[0] // chunk
    if count == 1:
        return gradient_step(trained, optimizer, lambda params: loss(params, rows))
    chunks = jax.tree.map(lambda leaf: leaf.reshape(count, chunk, *leaf.shape[1:]), rows)
    gradient = partial(jax.grad(loss, has_aux=True), trained.params)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(part)), None

    shapes = jax.eval_shape(gradient, jax.tree.map(lambda leaf: leaf[0], chunks))
    total, _ = jax.lax.scan(add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), chunks)
    gradients, metrics = jax.tree.map(lambda leaf: leaf / count, total)
    return apply_gradients(trained, optimizer, gradients), metrics


def cached_chunk(batch_size: int, rows_each: int) -> int:
    """How many of a batch to take at a time, if each makes `rows_each` rows: a divisor, for at most CACHED_ROWS rows.

    Accelerators, which want large pieces, get the whole batch.
    """
    if jax.default_backend() != "cpu":
        return batch_size
    return max(
        it for it in range(1, batch_size + 1) if batch_size % it == 0 and (it == 1 or it * rows_each <= CACHED_ROWS)
    )


def polyak(trained: Trainable, rate: Scalar) -> Trainable:
    """target <- (1 - rate) * target + rate * params."""
    return trained._replace(target_params=optax.incremental_update(trained.params, trained.target_params, rate))
