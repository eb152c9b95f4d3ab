"""Fitting pi_beta before training: one model per seed, frozen afterwards, and kept in a cache.

The cache can never change a result: its key covers all that a fit's bits follow from (the rows it reads, the model,
lengths, seeds, versions, device and threads), and `FIT_VERSION`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from itrpo import files
from itrpo.behavior.truth import log_prob_gap
from itrpo.config import to_json
from itrpo.console import LiveLine
from itrpo.data.behavior_policy import saturated
from itrpo.errors import StorageError
from itrpo.results.checkpoint import flatten, unflatten
from itrpo.results.provenance import machine
from itrpo.results.run_folder import Checkpoint
from itrpo.training import divergence, loop
from itrpo.training.evaluate import save_and_evaluate
from itrpo.training.session import FIT_BEHAVIOR, INIT_BEHAVIOR, Session, members, probe_rows
from itrpo.types import BehaviorModel, DensityModel, Metrics, Params, Transition

# Raise it with every change that may move a bit of a fit: of a model of pi_beta, its losses, networks, initialisation
# or optimiser, of the rows that the loop draws, or of what is reported. Fits of before are then not found.
FIT_VERSION = 1


class Fit(NamedTuple):
    params: Params  # [S, ...]
    metrics: dict[str, list[float]]  # name -> [S]: means over the last tenth of the fit


def behavior_params(session: Session, model: BehaviorModel, steps: int, saved: Checkpoint | None) -> Params:
    """pi_beta's parameters [S, ...]: from the cache, or fitted on from a checkpoint. Appends its metrics."""
    path = files.cache_dir() / "behavior" / f"{fit_key(session, steps)}.safetensors"
    found = read_fit(path, params_shapes(session, model))
    if found is not None:
        session.console.print(f"pi_beta: this fit of {steps:,} steps is in the cache")
    else:
        found = fit(session, model, steps, saved)
        with suppress(StorageError):  # a cache that can't be written is no reason to stop
            write_fit(path, found)
    measured: dict[str, Any] = dict(found.metrics) | compared_with_truth(session, model, found.params)
    if session.pool is not None:
        evaluated = save_and_evaluate(session, [model.export(own) for own in members(found.params)], 0)
        measured |= {f"behavior_{name}": values for name, values in evaluated.items()}
    session.append_metrics(0, measured)
    return found.params


def state_shapes(session: Session, model: BehaviorModel) -> Any:
    """Shapes of the fit's state [S, ...]."""
    return jax.eval_shape(jax.vmap(model.init), session.keys(INIT_BEHAVIOR))


def params_shapes(session: Session, model: BehaviorModel) -> Any:
    return jax.eval_shape(jax.vmap(model.params), state_shapes(session, model))


def fit(session: Session, model: BehaviorModel, steps: int, saved: Checkpoint | None) -> Fit:
    """Fits from the beginning, or on from a checkpoint. Raises DivergenceError."""

    def update(state: Any, batch: Transition, key: Array, step: Array) -> tuple[Any, Metrics]:
        return model.fit_step(state, batch, key)

    shapes = state_shapes(session, model)
    names = loop.metric_names(update, shapes, session.data, model.batch_size)
    if saved is None:
        step, carry = 0, loop.start(jax.jit(jax.vmap(model.init))(session.keys(INIT_BEHAVIOR)), names)
    else:
        step, carry = (
            saved.step,
            session.folder.restored(saved, jax.eval_shape(partial(loop.start, names=names), shapes)),
        )
    block = loop.make_block(update, model.batch_size)
    limits = divergence.limits(names, None, session.config.train, session.data.reward)
    run_block = partial(block, data=session.data, seed_keys=session.keys(FIT_BEHAVIOR), limits=limits)
    with LiveLine(session.console, "fitting pi_beta", steps, session.config.train.seeds, step) as live:
        settled = int(0.9 * steps)  # what is reported is the mean of the last tenth
        if step <= settled:
            carry = loop.fresh_sums(session.advance("behavior", run_block, carry, step, settled, live))
            step = settled
        carry = session.advance("behavior", run_block, carry, step, steps, live)
        metrics = {name: np.asarray(carry.sums[name] / carry.count).tolist() for name in names}
        live.update(steps, {name: float(np.mean(values)) for name, values in metrics.items()})
    return Fit(jax.jit(jax.vmap(model.params))(carry.state), metrics)


def compared_with_truth(session: Session, model: BehaviorModel, params: Params) -> Metrics:
    """How far pi_beta's fit [S, ...] is from the policy that acted, if the dataset knows the densities of its actions.

    Rows with a saturated action are left out, and their share is reported: what u = atanh(a) was is lost there.
    """
    known = session.dataset.behavior_log_probs
    if known is None or not isinstance(model, DensityModel):
        return {}
    rows, known = probe_rows(session.data), probe_rows(known)
    usable = np.isfinite(known) & ~saturated(np.asarray(rows.action))
    if not usable.any():
        return {}
    gap = jax.jit(jax.vmap(partial(log_prob_gap, model), in_axes=(0, None, None, None)))
    left_out = np.full(session.config.train.seeds, 1 - usable.mean())
    return gap(params, rows.observation[usable], rows.action[usable], known[usable]) | {
        "behavior_rows_left_out": left_out
    }


# --- the cache -----------------------------------------------------------------------------------------------------


def fit_key(session: Session, steps: int) -> str:
    """Name of a fit in the cache. Models of pi_beta read observations and actions, as training sees them."""
    config, rows = session.config, hashlib.sha256()
    for column in (session.data.observation, session.data.action):
        rows.update(np.ascontiguousarray(column).data)  # on a CPU no copy of the rows
    depends_on = {
        "version": FIT_VERSION,
        "rows": [rows.hexdigest(), len(session.dataset), *session.dataset.spec],
        "behavior": [config.behavior, to_json(config.behavior_config)],
        "steps": steps,
        "seeds": [config.train.seed, config.train.seeds],
        "machine": machine(),
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:24]


def read_fit(path: Path, shapes: Any) -> Fit | None:
    """A fit from the cache; None if it has none, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metrics = json.loads(file.metadata()["metrics"])
        return Fit(unflatten(shapes, arrays), metrics)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def write_fit(path: Path, fitted: Fit) -> None:
    """Raises StorageError."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in flatten(fitted.params).items()}
    files.write(path, save(arrays, metadata={"metrics": json.dumps(fitted.metrics)}))
