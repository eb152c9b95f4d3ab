"""A critic's step with layer norm: ours, equinox's, and none at all, in turn in one process.

    PJRT_NPROC=1 python benchmarks/layer_norm.py --seeds 1

As in training, all of it under a vmap over seeds. Two critics of two hidden layers, batches of 256: the gradient of a
squared error and one step down it. Milliseconds are the least of several rounds; ratios are to the same step without
layer norm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import tyro

from itrpo.nn.ensemble import ensemble
from itrpo.nn.heads import QValue
from itrpo.nn.network import network
from itrpo.types import SpaceSpec

SPEC, BATCH = SpaceSpec(11, 3), 256


@dataclass(frozen=True)
class Arguments:
    widths: tuple[int, ...] = (64, 128, 256, 512)
    seeds: int = 1
    steps: int = 200
    rounds: int = 5


class Textbook(eqx.Module):
    """equinox's LayerNorm in the place of ours."""

    norm: eqx.nn.LayerNorm

    def before(self, layer, hidden):
        return layer(jax.vmap(self.norm)(hidden))


def critic(width: int, kind: str):
    def build(draw):
        made = QValue(draw, SPEC, (width, width), layer_norm=kind != "none")
        if kind == "equinox":
            norms = [Textbook(eqx.nn.LayerNorm(width)) for _ in made.mlp.norms]
            made = eqx.tree_at(lambda it: it.mlp.norms, made, norms)
        return made

    return ensemble(network(build), 2)


def stepper(width: int, kind: str, seeds: int, steps: int):
    """(program of that many steps, its parameters)."""
    model = critic(width, kind)
    rows = jax.random.normal(jax.random.key(1), (BATCH, SPEC.observation_dim + SPEC.action_dim + 1))
    observation, action, target = jnp.split(rows, (SPEC.observation_dim, rows.shape[1] - 1), axis=1)

    def loss(params):
        return jnp.mean(jnp.square(model.apply(params, observation, action) - target.T))

    def step(_, params):
        return jax.tree.map(lambda it, slope: it - 1e-3 * slope, params, jax.vmap(jax.grad(loss))(params))

    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), seeds))
    return jax.jit(lambda params: jax.lax.fori_loop(0, steps, step, params)), params


def main(arguments: Arguments) -> None:
    print("| width | none, ms | ours | equinox's |\n| --- | --- | --- | --- |")
    for width in arguments.widths:
        kinds = {kind: stepper(width, kind, arguments.seeds, arguments.steps) for kind in ("none", "ours", "equinox")}
        best = dict.fromkeys(kinds, float("inf"))
        for count in range(arguments.rounds + 1):  # the first compiles
            for kind, (program, params) in kinds.items():
                started = time.perf_counter()
                jax.block_until_ready(program(params))
                if count:
                    best[kind] = min(best[kind], (time.perf_counter() - started) / arguments.steps * 1e3)
        ratios = (f"{best[kind] / best['none']:.1f} times" for kind in ("ours", "equinox"))
        print(f"| {width} | {best['none']:.2f} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
