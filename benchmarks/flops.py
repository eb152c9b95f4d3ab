"""FLOPs of the matrix products that a program computes: those of the branches it takes, loops as often as they run.

They are counted in the traced program, not in what XLA makes of it. Which branch a `cond` takes and how often a `while`
runs is known where it follows from arguments that are given as numbers, such as the step of an update: the count
carries whole numbers and truth values through the program. Where it doesn't follow, the dearest branch counts, and a
loop once, and `Flops.guesses` says so. Everything but products (activations, Adam, random numbers, gathers) counts
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np

# An update at an ordinary step: warm-ups are over. Twelve steps in a row are whole periods of updates that are due
# every 2, 3, 4, 6 or 12 steps.
ORDINARY_STEPS = range(1_000_000, 1_000_012)

Known = dict[Any, Any]  # variable of a program -> its value, for the scalars whose value is known


class Flops(NamedTuple):
    flops: float
    guesses: frozenset[str] = frozenset()  # what was not known, in words

    def __add__(self, other: Any) -> Flops:
        return Flops(self.flops + other.flops, self.guesses | other.guesses)

    def times(self, number: float) -> Flops:
        return Flops(self.flops * number, self.guesses)


NOTHING = Flops(0)


def of_update(
    update: Callable[..., Any], state: Any, batch: Any, key: Any, steps: Sequence[int] = ORDINARY_STEPS
) -> Flops:
    """Of one update of one seed, the mean over `steps`. Shapes are enough of state, batch and key."""
    total = NOTHING
    program = jax.make_jaxpr(update)(state, batch, key, np.int32(0))
    for step in steps:
        total += of_program(program, {len(program.jaxpr.invars) - 1: np.int32(step)})
    return total.times(1 / len(steps))


def of_program(program: Any, numbers: dict[int, Any]) -> Flops:
    """Of a closed jaxpr; numbers: position of an argument -> its value, where that is a known scalar."""
    return count(program, [numbers.get(index) for index in range(len(program.jaxpr.invars))])[0]


# --- the walk through a program: `inputs` and results are known scalars, or None -------------------------------------


def count(program: Any, inputs: Sequence[Any]) -> tuple[Flops, list[Any]]:
    """FLOPs of a program, and what is known of its results."""
    jaxpr = getattr(program, "jaxpr", program)
    known: Known = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= zip(
        jaxpr.constvars, map(scalar, getattr(program, "consts", ())), strict=False
    )  # an open one has no values
    total = NOTHING
    for equation in jaxpr.eqns:
        flops, outputs = of_equation(equation, [value_of(it, known) for it in equation.invars])
        total += flops
        known |= zip(equation.outvars, outputs, strict=True)
    return total, [value_of(it, known) for it in jaxpr.outvars]


def value_of(variable: Any, known: Known) -> Any:
    return scalar(variable.val) if hasattr(variable, "val") else known.get(variable)  # literals have a value


def scalar(value: Any) -> Any:
    """A whole number or truth value as it is; None for any other value. Branches and loops depend on no others."""
    kind = getattr(value, "dtype", None)
    whole = isinstance(value, int) or (kind is not None and np.ndim(value) == 0 and kind.kind in "biu")
    return value if whole else None


def of_equation(equation: Any, inputs: list[Any]) -> tuple[Flops, list[Any]]:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Flops(product_flops(equation)), [None]
    if name == "cond":
        return of_branches(params["branches"], inputs)
    if name == "scan":
        return of_scan(params["jaxpr"], params["length"], params["num_consts"], params["num_carry"], inputs)
    if name == "while":
        return of_while(params, inputs)
    inner = programs_in(params)
    if len(inner) == 1 and len(getattr(inner[0], "jaxpr", inner[0]).invars) == len(inputs):
        return count(inner[0], inputs)
    if inner:
        return of_unread(name, inner), [None] * len(equation.outvars)
    return NOTHING, evaluated(equation, inputs)


def product_flops(equation: Any) -> int:
    """Multiplications and additions of a product, with any batch axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * prod(equation.outvars[0].aval.shape) * prod(left[axis] for axis in contracted)


def of_branches(branches: Sequence[Any], inputs: list[Any]) -> tuple[Flops, list[Any]]:
    """The first input chooses."""
    chosen, inputs = inputs[0], inputs[1:]
    if chosen is not None:
        return count(branches[min(max(int(chosen), 0), len(branches) - 1)], inputs)
    counted = [count(it, inputs) for it in branches]
    dearest = max((flops for flops, _ in counted), key=lambda it: it.flops)
    if len({flops.flops for flops, _ in counted}) > 1:
        dearest += Flops(0, frozenset({"the dearest branch of a condition that is not known"}))
    return dearest, [None] * len(counted[0][1])


def of_scan(body: Any, length: int, consts: int, carried: int, inputs: list[Any]) -> tuple[Flops, list[Any]]:
    """Its inputs are constants, what is carried, and rows of arrays; its results what is carried, and rows."""
    fixed, carry = inputs[:consts], inputs[consts : consts + carried]
    rows = [None] * (len(inputs) - consts - carried)
    total, done = NOTHING, 0
    while done < length:
        flops, outputs = count(body, [*fixed, *carry, *rows])
        before, carry = carry, outputs[:carried]
        same = all(old is None and new is None for old, new in zip(before, carry, strict=True))
        repeats = length - done if same else 1  # where no number is carried, every round is like this one
        total, done = total + flops.times(repeats), done + repeats
    results = len(getattr(body, "jaxpr", body).outvars)
    return total, carry + [None] * (results - carried)


def of_while(params: Any, inputs: list[Any]) -> tuple[Flops, list[Any]]:
    """Its inputs are constants of the condition, of the body, and what is carried."""
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, carry = inputs[:first], inputs[first:second], inputs[second:]
    total = NOTHING
    while True:
        flops, (goes_on,) = count(params["cond_jaxpr"], [*of_condition, *carry])
        if goes_on is not None and not goes_on:
            return total + flops, carry
        more, carry = count(params["body_jaxpr"], [*of_body, *carry])
        total += flops + more
        if goes_on is None:
            guess = frozenset({"one round of a loop whose length is not known"} if more.flops else ())
            return total + Flops(0, guess), [None] * len(carry)


def of_unread(name: str, inner: Sequence[Any]) -> Flops:
    """Of a primitive that holds programs in a way that isn't known here: each of them once."""
    total = sum((count(it, [None] * len(getattr(it, "jaxpr", it).invars))[0] for it in inner), NOTHING)
    return total + Flops(0, frozenset({f"each program inside {name} once"} if total.flops else ()))


def programs_in(params: Any) -> list[Any]:
    values = [it for value in params.values() for it in (value if isinstance(value, tuple | list) else (value,))]
    return [it for it in values if hasattr(getattr(it, "jaxpr", it), "eqns")]


def evaluated(equation: Any, inputs: list[Any]) -> list[Any]:
    """Results of plain arithmetic on known scalars."""
    unknown = [None] * len(equation.outvars)
    if not inputs or None in inputs or any(it.aval.shape for it in equation.outvars):
        return unknown
    typed = [np.asarray(it, variable.aval.dtype) for it, variable in zip(inputs, equation.invars, strict=True)]
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*typed, **equation.params)
    return [scalar(it) for it in (results if equation.primitive.multiple_results else [results])]
