"""Updates per second of an algorithm, against what the machine's own matrix multiplication allows.

    python benchmarks/training_speed.py [--algorithm itrpo] [--preset quick] [--dataset hopper-demo] [--steps 300]

For one and for four seeds: seconds to compile, updates/s (all seeds together), FLOPs of one update counted by XLA's
cost analysis, and the fraction of the float32 matrix-multiply speed that a 2048 x 2048 product reaches in this process,
measured before and after. Memory: the process's resident size after import, after loading, and at its peak.
"""

from __future__ import annotations

import platform
import resource
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import tyro

from itrpo import registry
from itrpo.data.load import load_dataset
from itrpo.training import loop
from itrpo.training.phases import machine


@dataclass(frozen=True)
class Arguments:
    algorithm: str = "itrpo"
    preset: str | None = None
    dataset: str = "hopper-demo"
    steps: int = 300
    seeds: tuple[int, ...] = (1, 4)


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


def measure(arguments: Arguments, seeds: int, data, spec) -> None:
    entry = registry.lookup(arguments.algorithm, registry.ALGORITHMS, "algorithm")
    preset = entry.presets[arguments.preset or entry.default_preset]
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
    one_update = jax.jit(jax.vmap(algorithm.update, in_axes=(0, 0, 0, None)))
    flops = one_update.lower(state, batch, keys, jnp.asarray(0)).compile().cost_analysis()["flops"]
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    limits = dict.fromkeys(names, 1e30)
    started = time.perf_counter()
    carry = jax.block_until_ready(block(loop.start(state, names), data, keys, limits, 0, 0))
    compile_seconds = time.perf_counter() - started
    carry = jax.block_until_ready(block(carry, data, keys, limits, 0, 20))
    before = matrix_gigaflops()
    started = time.perf_counter()
    jax.block_until_ready(block(carry, data, keys, limits, 20, 20 + arguments.steps))
    seconds = time.perf_counter() - started
    ceiling = (before + matrix_gigaflops()) / 2
    rate = arguments.steps / seconds
    print(
        f"| {seeds} | {rate:.1f} | {rate * seeds:.1f} | {flops / seeds / 1e6:.0f} | {rate * flops / 1e9:.0f} "
        f"| {ceiling:.0f} | {rate * flops / 1e9 / ceiling:.0%} | {init_seconds:.1f} + {compile_seconds:.1f} |",
        flush=True,
    )


def main(arguments: Arguments) -> None:
    print(
        f"{arguments.algorithm}, preset {arguments.preset or 'default'}, {arguments.dataset}, {arguments.steps} steps"
    )
    print(f"{platform.processor() or platform.machine()}, {machine()}\n")
    imported = resident_mebibytes()
    dataset = load_dataset(arguments.dataset)
    data = jax.tree.map(jnp.asarray, dataset.transitions)
    size = sum(it.nbytes for it in dataset.transitions) / 2**20
    loaded = resident_mebibytes()
    print(
        "| seeds | steps/s | seed-steps/s | MFLOP/seed-step | GFLOP/s | matrix GFLOP/s | fraction | init + compile, s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for seeds in arguments.seeds:
        measure(arguments, seeds, data, dataset.spec)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\nmemory: transitions {size:.0f} MiB; resident {imported:.0f} MiB after import, {loaded:.0f} MiB after "
        f"loading (host and device copy), peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
