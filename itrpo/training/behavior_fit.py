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
from itrpo.behavior.truth import choice_log_prob_gap, log_prob_gap
from itrpo.config import to_json
from itrpo.console import LiveLine, say
from itrpo.data.behavior_policy import saturated
from itrpo.errors import StorageError
from itrpo.results.checkpoint import flatten, unflatten
from itrpo.results.provenance import machine
from itrpo.results.run_folder import Checkpoint
from itrpo.training import divergence, loop
from itrpo.training.seeds import members, over_seeds
from itrpo.training.session import FIT_BEHAVIOR, INIT_BEHAVIOR, Session, probe_rows
from itrpo.types import BehaviorModel, CategoricalModel, DensityModel, Metrics, Params, Transition

# Raise it with every change that may move a bit of a fit: of a model of pi_beta, its losses, networks, initialisation
# or optimiser, of the rows that the loop draws, or of what is reported. Fits of before are then not found.
FIT_VERSION = 2


class Fit(NamedTuple):
    params: Params  # [S, ...]
    metrics: dict[str, Any]  # name -> [S]: means over the last tenth of the fit

    def repeated(self, times: int) -> Fit:
        """The same fits [S] for several runs [times * S]."""
        if times == 1:
            return self
        params = jax.tree.map(lambda leaf: np.concatenate([np.asarray(leaf)] * times), self.params)
        return Fit(params, {name: np.tile(values, times) for name, values in self.metrics.items()})


def behavior(session: Session, model: BehaviorModel, steps: int, saved: Checkpoint | None) -> Fit:
    """pi_beta from the cache, or fitted on from a checkpoint, and compared with the truth where that is known."""
    paths = [files.cache_dir() / "behavior" / f"{key}.safetensors" for key in fit_keys(session, steps)]
    found = read_fits(paths, params_shapes(session, model))
    if found is not None:
        say(session.console, f"pi_beta: this fit of {steps:,} steps is in the cache")
    else:
        found = fit(session, model, steps, saved)
        with suppress(StorageError):  # a cache that can't be written is no reason to stop
            write_fits(paths, found)
    return Fit(found.params, found.metrics | compared_with_truth(session, model, found.params))


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
        step, carry = 0, loop.start(over_seeds(model.init, [True])(session.keys(INIT_BEHAVIOR)), names)
    else:
        step, carry = (
            saved.step,
            session.folder.restored(saved, jax.eval_shape(partial(loop.start, names=names), shapes)),
        )
    block = loop.make_block(update, model.batch_size)
    limits = divergence.limits(names, None, session.config.train, session.data.reward)
    seed_keys = session.keys(FIT_BEHAVIOR)

    def run_block(carry: loop.Carry, start: int, stop: int) -> loop.Carry:
        return block(carry, session.data, seed_keys, limits, start, stop)

    with LiveLine(session.console, "fitting pi_beta", steps, len(session.seeds), step) as live:
        settled = int(0.9 * steps)  # what is reported is the mean of the last tenth
        if step <= settled:
            carry = loop.fresh_sums(session.advance("behavior", run_block, carry, step, settled, live))
            step = settled
        carry = session.advance("behavior", run_block, carry, step, steps, live)
        metrics = {name: np.asarray(carry.sums[name] / carry.count).tolist() for name in names}
        live.update(steps, {name: float(np.mean(values)) for name, values in metrics.items()})
    return Fit(over_seeds(model.params, [True])(carry.state), metrics)


def compared_with_truth(session: Session, model: BehaviorModel, params: Params) -> Metrics:
    """How far pi_beta's fit [S, ...] is from the policy that acted, if the dataset knows the densities of its actions.

    Rows with a saturated action are left out, and their share is reported: what u = atanh(a) was is lost there.
    """
    known = session.dataset.behavior_log_probs
    if known is not None and isinstance(model, CategoricalModel):
        rows, known = probe_rows(session.data), probe_rows(known)
        of_choices = over_seeds(partial(choice_log_prob_gap, model), [True, False, False, False])
        return of_choices(params, rows.observation, rows.action, known)
    if known is None or not isinstance(model, DensityModel):
        return {}
    rows, known = probe_rows(session.data), probe_rows(known)
    usable = np.isfinite(known) & ~saturated(np.asarray(rows.action))
    if not usable.any():
        return {}
    gap = over_seeds(partial(log_prob_gap, model), [True, False, False, False])
    left_out = np.full(len(session.seeds), 1 - usable.mean())
    return gap(params, rows.observation[usable], rows.action[usable], known[usable]) | {
        "behavior_rows_left_out": left_out
    }


# --- the cache: a file for each seed -------------------------------------------------------------------------------


def fit_keys(session: Session, steps: int) -> list[str]:
    """Names of the seeds' fits in the cache. Models of pi_beta read observations and actions, as training sees them."""
    config, rows = session.config, hashlib.sha256()
    for column in (session.data.observation, session.data.action):
        rows.update(np.ascontiguousarray(column).data)  # on a CPU no copy of the rows
    depends_on = {
        "version": FIT_VERSION,
        "rows": [rows.hexdigest(), len(session.dataset), *session.dataset.spec],
        "behavior": [config.behavior, to_json(config.behavior_config)],
        "steps": steps,
        "machine": machine(),
    }
    named = (json.dumps(depends_on | {"seed": [config.train.seed, index]}, sort_keys=True) for index in session.seeds)
    return [hashlib.sha256(text.encode()).hexdigest()[:24] for text in named]


def read_fits(paths: list[Path], shapes: Any) -> Fit | None:
    """Fits from the cache, in the structure of `shapes` [S, ...]; None if one of them is not there, or damaged."""
    from safetensors import SafetensorError, safe_open

    one = jax.tree.map(lambda it: jax.ShapeDtypeStruct(it.shape[1:], it.dtype), shapes)
    params, metrics = [], []
    try:
        for path in paths:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                metrics.append(json.loads(file.metadata()["metrics"]))
            params.append(unflatten(one, arrays))
        return Fit(
            jax.tree.map(lambda *leaves: np.stack(leaves), *params),
            {name: [each[name] for each in metrics] for name in metrics[0]},
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def write_fits(paths: list[Path], fitted: Fit) -> None:
    """Raises StorageError."""
    from safetensors.numpy import save

    for index, (path, params) in enumerate(zip(paths, members(fitted.params), strict=True)):
        metrics = {name: values[index] for name, values in fitted.metrics.items()}
        arrays = {name: np.ascontiguousarray(value) for name, value in flatten(params).items()}
        files.write(path, save(arrays, metadata={"metrics": json.dumps(metrics)}))
