"""The machine's own limit: speed of float32 products of our layers' sizes, through XLA and through NumPy.

    python benchmarks/ceiling.py --seconds 0.3     # lines of JSON: the cores that this process may use, and all of them

Each product is one of a long chain, x <- x W with orthogonal W, so that none can be left out or moved out of its loop.
On a CPU as many chains run at once as cores are used, as seeds do; on a GPU one. Precision is JAX's default there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from itrpo import xla
from itrpo.files import available_cores


class Product(NamedTuple):
    """[..., rows, width] times [..., width, width]."""

    batch: tuple[int, ...]  # networks at once: an ensemble's, or a GPU's seeds
    rows: int
    width: int

    @property
    def flops(self) -> int:
        return 2 * prod(self.batch) * self.rows * self.width**2

    def __str__(self) -> str:
        return " x ".join(map(str, (*self.batch, self.rows, self.width, self.width)))


ROWS = 256  # of a batch
ON_CPU = (
    Product((), ROWS, 128),
    Product((), ROWS, 256),
    Product((2,), ROWS, 128),
    Product((2,), ROWS, 256),
    Product((10,), ROWS, 256),
    Product((), 2048, 2048),
)
ON_ACCELERATOR = (
    *(Product((networks,), ROWS, width) for width in (128, 256) for networks in (1, 4, 16, 64, 256)),
    Product((), 8192, 8192),
)


def of_seeds(width: int, seeds: int) -> Product:
    """The product that an algorithm with S seeds is measured against: its widest layer's."""
    return Product(() if jax.default_backend() == "cpu" else (seeds,), ROWS, width)


def at_once() -> int:
    return available_cores() if jax.default_backend() == "cpu" else 1


# --- chains of products --------------------------------------------------------------------------------------------


@lru_cache
def operands(product: Product) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    rows = draw((*product.batch, product.rows, product.width), np.float32)
    orthogonal, _ = np.linalg.qr(draw((product.width, product.width)))
    weight = np.broadcast_to(orthogonal.astype(np.float32), (*product.batch, product.width, product.width))
    return rows, np.ascontiguousarray(weight)


@lru_cache
def xla_chain(product: Product) -> Callable[[int], Any]:
    """length -> a chain that has begun."""
    rows, weight = map(jnp.asarray, operands(product))
    chain = jax.jit(lambda rows, weight, length: jax.lax.fori_loop(0, length, lambda _, it: it @ weight, rows))
    return lambda length: chain(rows, weight, length)


def through_xla(product: Product, chains: int) -> Callable[[int], Any]:
    """length -> None: that many products in each of some chains, side by side.

    Each is called from a thread of its own: called from one, such programs run one after another (jaxlib 0.10.2).
    """
    chain, pool = xla_chain(product), ThreadPoolExecutor(chains)
    return lambda length: list(pool.map(lambda _: jax.block_until_ready(chain(length)), range(chains)))


def through_numpy(product: Product, chains: int) -> Callable[[int], Any]:
    """As `through_xla`. BLAS must have been given one thread."""
    rows, weight = operands(product)

    def chain(length: int) -> None:
        one, other = rows.copy(), np.empty_like(rows)
        for _ in range(length):
            np.matmul(one, weight, out=other)
            one, other = other, one

    pool = ThreadPoolExecutor(chains)
    return lambda length: list(pool.map(chain, [length] * chains))


def gigaflops(product: Product, run: Callable[[int], Any], chains: int, seconds: float) -> float:
    """1e9 operations per second of all chains together, over about `seconds` (after a search for their length)."""

    def timed(length: int) -> float:
        started = time.perf_counter()
        run(length)
        return time.perf_counter() - started

    length = 1
    timed(length)
    while (needed := timed(length)) < seconds / 10:
        length = max(2 * length, int(length * min(16.0, seconds / 8 / max(needed, 1e-9))))
    length = max(1, round(length * seconds / needed))
    return product.flops * length * chains / timed(length) / 1e9


def for_training(width: int, seeds: int, seconds: float) -> float:
    """Billions of operations per second that the whole machine reaches at such layers, by the faster library."""
    product, chains = of_seeds(width, seeds), at_once()
    ways = [through_xla, through_numpy] if jax.default_backend() == "cpu" else [through_xla]
    return max(gigaflops(product, way(product, chains), chains, seconds / len(ways)) for way in ways)


def rows(seconds: float) -> Iterator[dict[str, Any]]:
    on_cpu, chains = jax.default_backend() == "cpu", at_once()
    for product in ON_CPU if on_cpu else ON_ACCELERATOR:
        for library, make in (("XLA", through_xla), ("NumPy", through_numpy)):
            if library == "XLA" or on_cpu:
                reached = gigaflops(product, make(product, chains), chains, seconds)
                yield {
                    "product": str(product),
                    "library": library,
                    "cores": chains if on_cpu else None,
                    "device": jax.devices()[0].device_kind,
                    "gigaflops": reached,
                }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.3, help="for each product")
    arguments = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        raise SystemExit("set OMP_NUM_THREADS=1: NumPy's products are shared out over the cores here")
    xla.prepare()
    for row in rows(arguments.seconds):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
