"""Runs that differ in numbers of their algorithm's config alone, as one program: their numbers are arguments of it.

Where a step of a few seeds leaves the device idle, as on a GPU, a whole grid over alpha and tau then trains in the
time of one run. Each run keeps a folder of its own, in which nothing shows that it had company; it may go on alone. A
number that is an argument may give other last bits than the same number as a constant, as on a GPU seeds side by side
do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Key

from itrpo import registry
from itrpo.config import RunConfig, leaves, replace_leaves
from itrpo.results.run_folder import Checkpoint
from itrpo.training.loop import Carry
from itrpo.types import Algorithm, DiscreteSnapshot, Metrics, Params, Snapshot, Transition

Values = dict[str, Any]  # field of the algorithm's config -> number, of one seed; or [S]
HELD = ("log_std_low", "log_std_high")  # numbers that networks keep beside their arrays, where no argument can be


class Swept(NamedTuple):
    """The state of an algorithm, and its numbers."""

    values: Values
    own: Any


def frame(algorithm: str, config: Any) -> tuple[Any, ...]:
    """An algorithm's config without its floats: equal for configs that one program can train, on the same rows."""
    own = tuple((name, float if is_argument(name, value) else value) for name, _, value in leaves(config))
    return registry.algorithm(algorithm).reads_next_action(config), own


def is_argument(name: str, value: Any) -> bool:
    return type(value) is float and name not in HELD


def differing(configs: Sequence[RunConfig]) -> list[str] | None:
    """Fields of the algorithm's config in which runs differ.

    None if they are not all floats, or not all there is, or if one of them decides which rows train.
    """
    first, *others = ((replace(it, algorithm_config=None), frame(it.algorithm, it.algorithm_config)) for it in configs)
    if any(other != first for other in others):
        return None
    columns = zip(*(list(leaves(config.algorithm_config)) for config in configs), strict=True)
    return [column[0][0] for column in columns if len({value for _, _, value in column}) > 1]


def values_of(configs: Sequence[Any], fields: Sequence[str], seeds: int) -> Values:
    """Algorithm's configs -> name -> [S] for the seeds of the first run, of the second, ..."""
    given = [{name: value for name, _, value in leaves(config)} for config in configs]
    return {name: np.repeat(np.array([own[name] for own in given], np.float32), seeds) for name in fields}


def swept(make: Callable[[Any], Algorithm], config: Any) -> Algorithm:
    """`make(config)` whose state carries some of the config's numbers. Its `init` takes (params of pi_beta, values)."""

    def of(values: Values) -> Algorithm:
        return make(replace_leaves(config, values))

    @cache  # one of each run, however many seeds and evaluations it has
    def exporting(*numbers: tuple[str, float]) -> Algorithm:
        return of(dict(numbers))

    def init(key: Key[Array, ""], given: tuple[Params, Values]) -> Swept:
        params, values = given
        return Swept(values, of(values).init(key, params))

    def update(state: Swept, batch: Transition, key: Key[Array, ""], step: Array) -> tuple[Swept, Metrics]:
        own, metrics = of(state.values).update(state.own, batch, key, step)
        return Swept(state.values, own), metrics

    def probes(state: Swept, batch: Transition, key: Key[Array, ""]) -> Metrics:
        return of(state.values).probes(state.own, batch, key)

    def watch(state: Swept, batch: Transition, key: Key[Array, ""]) -> Snapshot | DiscreteSnapshot:
        own = of(state.values).watch
        assert own is not None
        return own(state.own, batch, key)

    def export(state: Swept) -> dict[str, Any]:
        numbers = ((name, float(value)) for name, value in state.values.items())
        return exporting(*numbers).acting.export(state.own)

    plain = make(config)
    acting = plain.acting._replace(export=export)
    watched = None if plain.watch is None else watch
    return plain._replace(init=init, update=update, probes=probes, acting=acting, watch=watched)


def unswept(carry: Carry) -> Carry:
    """The carry as that of runs that train alone."""
    return carry._replace(state=carry.state.own) if isinstance(carry.state, Swept) else carry


def with_values(carry: Carry, values: Values | None) -> Carry:
    """The inverse of `unswept`; `values` [S] are None for a run that trains alone."""
    return carry if values is None else carry._replace(state=Swept(values, carry.state))


def joined(saved: Sequence[Checkpoint | None]) -> Checkpoint | None:
    """Checkpoints of several runs at one step as that of their seeds; before training there is nothing but a fit."""
    first = saved[0]
    if first is None or first.phase != "train" or len(saved) == 1:
        return first
    every = [own.arrays for own in saved if own is not None]
    return first._replace(arrays={name: np.concatenate([own[name] for own in every]) for name in first.arrays})
