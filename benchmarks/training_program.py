"""An algorithm's updates exactly as `itrpo train` runs them, for measuring their speed; and the data that they read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flops
import jax
import numpy as np
from jax import Array

from itrpo import registry
from itrpo.config import leaves, override
from itrpo.data.preprocess import apply, fit_preprocess
from itrpo.training import loop
from itrpo.training.divergence import FLOAT_MAX
from itrpo.training.seeds import over_seeds
from itrpo.training.session import TICK_SECONDS
from itrpo.types import Algorithm, BehaviorModel, Metrics, SpaceSpec, Transition

FIT_STEPS = 1_000_000  # of pi_beta, for models whose learning rate decays


class Program(NamedTuple):
    """What is trained: an algorithm's update, or with it left out the fit of its pi_beta."""

    init: Callable[[Array], Any]  # key -> state, for one seed
    update: loop.Update
    batch_size: int  # rows per update
    width: int  # of the widest hidden layer
    normalize_observations: bool


def of_algorithm(
    name: str, preset_name: str | None, spec: SpaceSpec, fields: Mapping[str, Any] | None = None
) -> Program:
    """fields: of the algorithm's config, in place of the preset's. The constants of a task are left out."""
    entry = registry.algorithm(name)
    preset = entry.presets[preset_name or entry.default_preset]
    fields = dict(fields or {})
    config = override(preset.config, fields, f"algorithm {name}")
    model = behavior_model(preset, spec)
    algorithm: Algorithm = entry.make(config, spec, model)

    def init(key: Array) -> Any:
        return algorithm.init(key, model.params(model.init(key)) if model else None)

    return Program(init, algorithm.update, algorithm.batch_size, widest(config), preset.normalize_observations)


def of_behavior_fit(name: str, preset_name: str | None, spec: SpaceSpec) -> Program:
    """The fit of the preset's pi_beta. Raises ValueError if it has none."""
    entry = registry.algorithm(name)
    preset = entry.presets[preset_name or entry.default_preset]
    model = behavior_model(preset, spec)
    if model is None:
        raise ValueError(f"{name}: this preset fits no pi_beta")

    def update(state: Any, batch: Transition, key: Array, step: Array) -> tuple[Any, Metrics]:
        return model.fit_step(state, batch, key)

    width = widest(preset.behavior_config or preset.config)
    return Program(model.init, update, model.batch_size, width, preset.normalize_observations)


def behavior_model(preset: Any, spec: SpaceSpec) -> BehaviorModel | None:
    if preset.behavior is None:
        return None
    made = registry.lookup(preset.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
    return made.make(preset.behavior_config or made.config(), spec, FIT_STEPS)


def widest(config: Any) -> int:
    """Largest width of the hidden layers that a config names; 256 if it names none."""
    widths = [value for name, _, value in leaves(config) if name.endswith("hidden")]
    return max((width for value in widths for width in value), default=256)


def update_flops(program: Program, data: Transition) -> flops.Flops:
    """Of one update of one seed at an ordinary step."""
    key = jax.random.key(0)
    batch = jax.tree.map(lambda it: jax.ShapeDtypeStruct((program.batch_size, *it.shape[1:]), it.dtype), data)
    return flops.of_update(program.update, jax.eval_shape(program.init, key), batch, key)


# --- training ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Training:
    """A program under way, for S seeds; its step counts on from call to call."""

    program: Program
    data: Transition  # on the device
    seeds: int
    block: Callable[..., loop.Carry]
    keys: Array
    carry: loop.Carry
    limits: dict[str, float]
    step: int
    init_seconds: float  # to trace, compile and run the start of the networks
    compile_seconds: float  # to trace and compile the updates
    piece: int = 1  # updates of a seed in one call, about TICK_SECONDS of them


def begin(program: Program, block: Callable[..., loop.Carry], data: Transition, seeds: int) -> Training:
    """Compiles; `block` is `loop.make_block` of the program, which all numbers of seeds may share."""
    keys = jax.random.split(jax.random.key(0), seeds)
    started = time.perf_counter()
    state = jax.block_until_ready(over_seeds(program.init, [True])(keys))
    init_seconds = time.perf_counter() - started
    names = loop.metric_names(program.update, state, data, program.batch_size)
    limits, first = dict.fromkeys(names, FLOAT_MAX), flops.ORDINARY_STEPS.start
    started = time.perf_counter()
    carry = jax.block_until_ready(block(loop.start(state, names), data, keys, limits, first, first))
    compile_seconds = time.perf_counter() - started
    return Training(program, data, seeds, block, keys, carry, limits, first, init_seconds, compile_seconds)


def advance(training: Training, steps: int) -> float:
    """Trains each seed for `steps`, in pieces as a run does. -> seconds."""
    stop, started = training.step + steps, time.perf_counter()
    while training.step < stop:
        last = min(training.step + training.piece, stop)
        training.carry = training.block(
            training.carry, training.data, training.keys, training.limits, training.step, last
        )
        jax.block_until_ready(training.carry.count)
        training.step = last
    return time.perf_counter() - started


def warm_up(training: Training) -> None:
    """Finds the size of a piece, after a first call that may be slow."""
    advance(training, 1)
    training.piece = 1
    while (seconds := advance(training, training.piece)) < TICK_SECONDS / 2:
        training.piece = max(training.piece + 1, int(training.piece * min(8.0, TICK_SECONDS / max(seconds, 1e-6))))


def updates_per_second(training: Training, seconds: float) -> float:
    """Of all seeds together, steadily: measured for about `seconds`, in whole pieces, after `warm_up`."""
    pieces = max(1, round(seconds / TICK_SECONDS))
    steps = pieces * training.piece
    return steps * training.seeds / advance(training, steps)


# --- data ----------------------------------------------------------------------------------------------------------


def random_rows(rows: int, spec: SpaceSpec) -> Transition:
    """Rows with no meaning, for measurements of speed: the time of an update does not depend on their values."""
    draw = np.random.default_rng(0).standard_normal
    observation, next_observation = (draw((rows, spec.observation_dim), np.float32) for _ in range(2))
    action, next_action = (np.tanh(draw((rows, spec.action_dim), np.float32)) for _ in range(2))
    reward, continues = draw(rows, np.float32), np.ones(rows, np.float32)
    return Transition(observation, action, reward, continues, next_observation, next_action)


def load(dataset: str, rows: int | None = None) -> tuple[Transition, SpaceSpec]:
    """`dataset` as `itrpo train` takes it; "random": 200,000 rows (or `rows`) of Hopper's sizes, made on the spot."""
    if dataset == "random" or rows is not None:
        spec = SpaceSpec(11, 3)
        return random_rows(rows or 200_000, spec), spec
    from itrpo.data.load import load_dataset  # here: random rows need nothing that reads files

    loaded = load_dataset(dataset, env="none")
    if not isinstance(loaded.spec, SpaceSpec):
        raise SystemExit(f"{dataset}: its actions are choices, and what is measured here acts by numbers")
    return loaded.transitions, loaded.spec


def on_device(program: Program, transitions: Transition) -> Transition:
    """As a run puts it there."""
    preprocess = fit_preprocess(transitions, program.normalize_observations)
    return jax.device_put(apply(preprocess, transitions))
