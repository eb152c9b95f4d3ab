"""benchmarks/flops.py against counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import flops

B, N, H, M = 4, 8, 16, 2  # rows, inputs, hidden units, outputs
ROWS, WEIGHTS = jnp.ones((B, N)), [jnp.ones((N, H)), jnp.ones((H, H)), jnp.ones((H, M))]
FORWARD = 2 * B * (N * H + H * H + H * M)
# backwards each layer has a product for its weights, and one for its inputs, which the first layer does not need
BACKWARD = FORWARD + 2 * B * (H * H + H * M)
SQUARE = jnp.ones((N, N))
PRODUCT = 2 * N**3


def network(weights: list[jax.Array], rows: jax.Array) -> jax.Array:
    for weight in weights[:-1]:
        rows = jax.nn.relu(rows @ weight)
    return rows @ weights[-1]


def loss(weights: list[jax.Array], rows: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(network(weights, rows)))


def counted(function: Callable[..., Any], *arguments: Any) -> flops.Flops:
    return flops.of_program(jax.make_jaxpr(function)(*arguments), {})


def at_step(function: Callable[..., Any], step: int) -> flops.Flops:
    """Of function(matrix, step), told the step."""
    return flops.of_program(jax.make_jaxpr(function)(SQUARE, 0), {1: np.int32(step)})


def test_a_network_forwards_and_backwards():
    assert counted(network, WEIGHTS, ROWS) == flops.Flops(FORWARD)
    assert counted(jax.jit(jax.grad(loss)), WEIGHTS, ROWS) == flops.Flops(FORWARD + BACKWARD)


def test_an_ensemble_costs_as_much_as_its_members():
    members = jax.tree.map(lambda it: jnp.stack([it] * 5), WEIGHTS)
    gradients = jax.vmap(jax.grad(loss), in_axes=(0, None))
    assert counted(gradients, members, ROWS).flops == 5 * (FORWARD + BACKWARD)


def test_what_is_computed_again_backwards_counts_again():
    again = jax.grad(jax.checkpoint(loss))
    assert counted(again, WEIGHTS, ROWS).flops == 2 * FORWARD + BACKWARD


def test_loops_count_as_often_as_they_run():
    def scanned(matrix: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ matrix, None), matrix, length=7)[0]

    def twice(matrix: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 2, lambda _, it: scanned(it), matrix)

    def to_step(matrix: jax.Array, step: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, step, lambda _, it: it @ matrix, matrix)

    assert counted(twice, SQUARE) == flops.Flops(14 * PRODUCT)
    assert at_step(to_step, 5) == flops.Flops(5 * PRODUCT)
    unknown = counted(to_step, SQUARE, 5)
    assert unknown.flops == PRODUCT
    assert "one round" in "".join(unknown.guesses)


@pytest.mark.parametrize("over_seeds", [False, True])
def test_only_the_branch_that_is_taken_counts(over_seeds: bool):
    def rarely(matrix: jax.Array, step: jax.Array) -> jax.Array:
        due = (step + 1) % 3 == 0
        return jax.lax.cond(due, lambda: matrix @ matrix @ matrix @ matrix, lambda: matrix @ matrix)

    program = jax.vmap(rarely, in_axes=(0, None)) if over_seeds else rarely
    seeds, matrix = (3, jnp.stack([SQUARE] * 3)) if over_seeds else (1, SQUARE)
    program = jax.make_jaxpr(jax.jit(program))(matrix, 0)
    for step, products in enumerate([1, 1, 3, 1]):
        assert flops.of_program(program, {1: np.int32(step)}) == flops.Flops(seeds * products * PRODUCT)


def test_where_the_branch_is_not_known_the_dearest_counts_and_that_is_said():
    def perhaps(matrix: jax.Array, step: jax.Array) -> jax.Array:
        return jax.lax.cond(matrix[0, 0] > 0, lambda: matrix @ matrix @ matrix, lambda: matrix)

    found = at_step(perhaps, 0)
    assert found.flops == 2 * PRODUCT
    assert "dearest branch" in "".join(found.guesses)


def test_a_branch_may_depend_on_the_round_of_a_loop():
    def first_two(matrix: jax.Array, step: jax.Array) -> jax.Array:
        def body(round_: jax.Array, it: jax.Array) -> jax.Array:
            return jax.lax.cond(round_ < 2, lambda: it @ matrix, lambda: it)

        return jax.lax.fori_loop(0, 6, body, matrix)

    assert at_step(first_two, 0) == flops.Flops(2 * PRODUCT)


def test_an_update_is_the_mean_over_steps():
    def update(state: jax.Array, batch: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        return jax.lax.cond(step % 4 == 1, lambda: state @ batch, lambda: state)

    assert flops.of_update(update, SQUARE, SQUARE, jax.random.key(0)) == flops.Flops(PRODUCT / 4)
    assert flops.of_update(update, SQUARE, SQUARE, jax.random.key(0), [5]) == flops.Flops(PRODUCT)
