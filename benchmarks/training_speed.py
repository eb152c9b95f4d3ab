"""Updates per second of algorithms, against what the machine's own matrix multiplication allows.

    python benchmarks/training_speed.py                                          # iTRPO, preset quick, 1 and 4 seeds
    python benchmarks/training_speed.py --algorithm all --preset matched --seeds 2 --seconds 4

For each number of seeds: seconds to compile, updates/s, FLOPs of one update, and the fraction of the float32
matrix-multiply speed that a 2048 x 2048 product reaches in this process, measured before and after. FLOPs are those of
the matrix products alone, counted in the traced program (loops as often as they run), whatever XLA makes of them.
Memory is the process's: with the dataset loaded (host and device), and the most so far. `--algorithm all` starts a
process for each.
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro

from itrpo import registry
from itrpo.data.load import load_dataset
from itrpo.training import loop
from itrpo.training.phases import machine

HEADER = (
    "| algorithm | seeds | MFLOP/seed-step | steps/s | seed-steps/s | GFLOP/s | matrix GFLOP/s | fraction "
    "| init + compile, s | MiB loaded, peak |\n" + "| --- " * 10 + "|"
)


@dataclass(frozen=True)
class Arguments:
    algorithm: str = "itrpo"
    preset: str | None = None
    dataset: str = "hopper-demo"
    seconds: float = 5.0
    """how long to train for the measurement, about"""
    seeds: tuple[int, ...] = (1, 4)
    header: bool = True


def resident_mebibytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def matrix_gigaflops(size: int = 2048, repeats: int = 5) -> float:
    """Speed of the machine's own product of two float32 matrices, in 1e9 operations per second."""
    matrix = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    started = time.perf_counter()
    for _ in range(repeats):
        product(matrix, matrix).block_until_ready()
    return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e9


def matrix_flops(jaxpr: Any) -> int:
    """Multiplications and additions of the matrix products of a program, inner programs and loops included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * prod(equation.outvars[0].aval.shape) * prod(left[axis] for axis in contracted)
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        inner = [it for value in equation.params.values() for it in (value if isinstance(value, tuple) else (value,))]
        total += repeats * sum(matrix_flops(getattr(it, "jaxpr", it)) for it in inner if is_program(it))
    return total


def is_program(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


class Prepared(NamedTuple):
    """An algorithm's updates, compiled."""

    flops: int  # of one update of one seed
    init_seconds: float
    compile_seconds: float
    rate: Callable[[float], float]  # seconds to train for, about -> updates per second, all seeds advancing together


def prepare(name: str, preset_name: str | None, seeds: int, data: Any, spec: Any) -> Prepared:
    """data: the transitions, on the device."""
    entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
    preset = entry.presets[preset_name or entry.default_preset]
    model = None
    if preset.behavior is not None:
        made = registry.lookup(preset.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
        model = made.make(preset.behavior_config or made.config(), spec, 1000)
    algorithm = entry.make(preset.config, spec, model)
    keys = jax.random.split(jax.random.key(0), seeds)

    def init(keys):
        params = jax.vmap(lambda key: model.params(model.init(key)))(keys) if model else None
        return jax.vmap(algorithm.init)(keys, params)

    started = time.perf_counter()
    state = jax.block_until_ready(jax.jit(init)(keys))
    init_seconds = time.perf_counter() - started
    names = loop.metric_names(algorithm.update, state, data, algorithm.batch_size)
    batch = jax.tree.map(lambda it: jnp.stack([it[: algorithm.batch_size]] * seeds), data)
    one_update = jax.vmap(algorithm.update, in_axes=(0, 0, 0, None))
    flops = matrix_flops(jax.make_jaxpr(one_update)(state, batch, keys, jnp.asarray(0)).jaxpr)
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    limits = dict.fromkeys(names, 1e30)
    started = time.perf_counter()
    carry = jax.block_until_ready(block(loop.start(state, names), data, keys, limits, 0, 0))
    compile_seconds = time.perf_counter() - started

    def seconds_of(first: int, last: int) -> float:
        nonlocal carry
        started = time.perf_counter()
        carry = jax.block_until_ready(block(carry, data, keys, limits, first, last))
        return time.perf_counter() - started

    def rate(seconds: float) -> float:
        seconds_of(0, 5)
        steps = max(5, round(seconds / (seconds_of(5, 15) / 10)))
        return steps / seconds_of(15, 15 + steps)

    return Prepared(flops // seeds, init_seconds, compile_seconds, rate)


def main(arguments: Arguments) -> None:
    if arguments.header:
        print(f"preset {arguments.preset or 'default'}, {arguments.dataset}, {arguments.seconds:g} s each")
        print(f"{platform.processor() or platform.machine()}, {machine()}\n\n{HEADER}", flush=True)
    if arguments.algorithm == "all":
        for name in registry.ALGORITHMS:
            subprocess.run([sys.executable, *sys.argv, "--algorithm", name, "--no-header"], check=True)
        return
    dataset = load_dataset(arguments.dataset)
    data = jax.tree.map(jnp.asarray, dataset.transitions)
    loaded = resident_mebibytes()
    for seeds in arguments.seeds:
        it = prepare(arguments.algorithm, arguments.preset, seeds, data, dataset.spec)
        before = matrix_gigaflops()
        rate = it.rate(arguments.seconds)
        ceiling = (before + matrix_gigaflops()) / 2
        achieved = rate * seeds * it.flops / 1e9
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {arguments.algorithm} | {seeds} | {it.flops / 1e6:.0f} | {rate:.1f} | {rate * seeds:.1f} "
            f"| {achieved:.0f} | {ceiling:.0f} | {achieved / ceiling:.0%} "
            f"| {it.init_seconds:.1f} + {it.compile_seconds:.1f} | {loaded:.0f}, {peak:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
