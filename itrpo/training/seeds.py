"""A function of one seed, for all seeds of a run: the rule of how they share the machine stands here alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from itrpo import files


def over_seeds(
    function: Callable[..., Any], per_seed: Sequence[bool], donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """`function` of one seed as a function of S: arguments marked in `per_seed`, and results, are pytrees of [S, ...].

    On a CPU every seed runs the program of one seed, as many of them at once as there are cores. So a seed's result
    depends to the bit on nothing that runs beside it, its parameters stay in a core's cache, and networks that XLA
    can't usefully share out between cores keep all of them busy. On a GPU or TPU all seeds are one vmapped program,
    sharded over the devices. Results on a CPU are NumPy arrays. Arguments in `donate` are consumed.
    """
    return (one_by_one if jax.default_backend() == "cpu" else vmapped)(function, per_seed, donate)


def one_by_one(
    function: Callable[..., Any], per_seed: Sequence[bool], donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """One compiled program, run once for each seed. A thread for each core: XLA does one thread's calls in turn."""
    program, compiled = jax.jit(function, donate_argnums=donate), False

    def run(own: tuple[Any, ...]) -> Any:
        return jax.block_until_ready(program(*own))

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        number = len(jax.tree.leaves(arguments[per_seed.index(True)])[0])
        columns = [
            (parts(each) if marked else []) or [each] * number  # what is empty, as pi_beta where there is none, stays
            for each, marked in zip(arguments, per_seed, strict=True)
        ]
        calls = list(zip(*columns, strict=True))
        alone = 0 if compiled else 1  # the first call compiles; together, every thread would
        results = [run(own) for own in calls[:alone]]
        compiled = True
        with ThreadPoolExecutor(files.available_cores()) as threads:
            results += threads.map(run, calls[alone:])
        return jax.tree.map(lambda *leaves: np.stack(leaves), *results)

    return call


def vmapped(function: Callable[..., Any], per_seed: Sequence[bool], donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    """One vmapped program for all seeds, on the largest number of devices that divides theirs."""
    program = jax.jit(jax.vmap(function, in_axes=[0 if marked else None for marked in per_seed]), donate_argnums=donate)

    def call(*arguments: Any) -> Any:
        number, devices = len(jax.tree.leaves(arguments[per_seed.index(True)])[0]), jax.devices()
        mesh = Mesh(devices[: max(n for n in range(1, len(devices) + 1) if number % n == 0)], "seeds")
        placed = [
            jax.device_put(each, NamedSharding(mesh, PartitionSpec("seeds") if marked else PartitionSpec()))
            for each, marked in zip(arguments, per_seed, strict=True)
        ]
        return program(*placed)

    return call


def members(tree: Any) -> list[Any]:
    """Each seed's part of a pytree of [S, ...], on the device."""
    return [jax.device_put(own) for own in parts(tree)]


def parts(tree: Any) -> list[Any]:
    """The same, but for keys, on the host, from where a program takes its arguments faster than they are put there."""
    leaves, structure = jax.tree.flatten(tree)
    columns = [list(leaf if is_key(leaf) else np.asarray(leaf)) for leaf in leaves]
    return [jax.tree.unflatten(structure, own) for own in zip(*columns, strict=True)]


def is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
