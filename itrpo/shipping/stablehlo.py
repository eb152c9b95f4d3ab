"""A policy as StableHLO: what `jax.export` serialises, a trace of `policy.step` for any number of rows.

`jax.export.deserialize(bytearray(content)).call(observation [R, O], state [R, S])` gives (action, next state,
on_observation, on_action), without the two last where there are no guards. S may be 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from itrpo.policy import Policy, step

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(policy: Policy) -> bytes:
    """The file's bytes."""
    import jax
    from jax import export, numpy

    def act(observation: Any, state: Any) -> tuple[Any, ...]:
        done = step(policy, observation, state, numpy)
        found = (done.action, done.state, done.on_observation, done.on_action)
        return tuple(it for it in found if it is not None)

    (rows,) = export.symbolic_shape("rows")
    shapes = [jax.ShapeDtypeStruct((rows, size), np.float32) for size in (policy.frame, policy.memory)]
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(*shapes).serialize())


def runner(content: bytes) -> Any:
    """As `onnx_file.runner`, by JAX."""
    import jax
    from jax import export

    call = jax.jit(export.deserialize(bytearray(content)).call)

    def run(observations: np.ndarray, states: np.ndarray) -> list[Any]:
        found = [np.asarray(it) for it in call(observations, states)]
        return found + [None] * (4 - len(found))

    return run
