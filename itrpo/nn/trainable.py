"""Parameters with their optimiser state and, where an algorithm needs one, their target copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from itrpo.types import Array, Metrics, Params


class Trainable(NamedTuple):
    params: Params
    opt_state: Any
    target_params: Params | None  # moved by `polyak` alone; never seen by the optimiser


def trainable(optimizer: optax.GradientTransformation, params: Params, target: bool = False) -> Trainable:
    """Fresh optimiser state; the target, if asked for, starts as a copy."""
    return Trainable(params, optimizer.init(params), params if target else None)


def gradient_step(
    it: Trainable, optimizer: optax.GradientTransformation, loss: Callable[[Params], tuple[Array, Metrics]]
) -> tuple[Trainable, Metrics]:
    """One step down `loss(params) -> (scalar, metrics)`. The target is left alone."""
    gradients, metrics = jax.grad(loss, has_aux=True)(it.params)
    updates, opt_state = optimizer.update(gradients, it.opt_state, it.params)
    return it._replace(params=optax.apply_updates(it.params, updates), opt_state=opt_state), metrics


def polyak(it: Trainable, rate: float) -> Trainable:
    """target <- (1 - rate) * target + rate * params."""
    assert it.target_params is not None
    return it._replace(target_params=optax.incremental_update(it.params, it.target_params, rate))
