"""A NaN or an infinity put into one quantity of one seed at a random step: is it named, with seed and step?

A quantity is an array of floating-point numbers in an algorithm's state (networks, their targets, moments of
optimisers, multipliers, running scales) or a column of the rows that it trains on. The two seeds train as in a run
(`training.loop`), and what is said is what a run would say (`training.divergence`). Where a quantity washes out, so
that no number of the state is bad at the end, nothing need be said.

An injection may end in five ways:
    named        the seed, and a step no later than `WITHIN` steps on; the other seed goes on to the same bits
    named later  no metric shows it, but the look at the state that comes before each checkpoint does
    healed       the state is finite at the end
    hidden       a number of the state is still bad, and nobody was told: a failure
    wrong        another seed or an earlier step is named, or the other seed's numbers changed: a failure
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.soak.log import Log
from itrpo import registry
from itrpo.config import leaves, replace_leaves
from itrpo.training import loop
from itrpo.training.divergence import FLOAT_MAX, divergence
from itrpo.types import DiscreteSpec, SpaceSpec, Transition

WITHIN, LAST = 30, 60  # steps
ROWS = 64
SHORT = ("itrpo", "td3_bc", "sac_n", "bcq", "iql", "dqn")  # one of each family


def run(log: Log, place: Path, times: int, only: str = "") -> None:
    """Every array of every algorithm's state, and every column, `times` times."""
    place.mkdir(parents=True, exist_ok=True)
    names = [name for name in sorted(registry.ALGORITHMS) if only in name]
    if times == 1 and not only:
        names = [name for name in names if name in SHORT]
    for name in names:
        with log.case("numbers", name, log.seed) as done:
            found = inject_everywhere(name, log.seed, times)
            bad = [it for kind in ("hidden", "wrong") for it in found[kind]]
            done(not bad, "; ".join(bad[:6]), **{kind: len(it) for kind, it in found.items()})


def inject_everywhere(name: str, seed: int, times: int) -> dict[str, list[str]]:
    block, begun, rows, keys, limits = built(name)
    found: dict[str, list[str]] = {"named": [], "named_later": [], "healed": [], "hidden": [], "wrong": []}
    good = block(fresh(begun), rows, keys, limits, 0, LAST)
    paths = jax.tree_util.tree_flatten_with_path(begun.state)[0]
    places = [jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in paths if is_float(leaf)]
    for place in [*places, *(f"rows/{it}" for it in Transition._fields if is_float(getattr(rows, it)))]:
        for number in range(times):
            draw = random.Random(f"{seed} {name} {place} {number}")
            how = inject(block, begun, rows, keys, limits, place, draw, good)
            found[how.partition(":")[0]].append(f"{place} {how}")
    return found


def inject(
    block: Any, begun: Any, rows: Any, keys: Any, limits: Any, place: str, draw: random.Random, good: Any
) -> str:
    step, victim = draw.randrange(1, LAST - WITHIN), draw.randrange(2)
    value = draw.choice((np.nan, np.inf, -np.inf))
    carry, after, bad_rows = block(fresh(begun), rows, keys, limits, 0, step), step, rows
    if place.startswith("rows/"):  # in one row, which both seeds may draw
        name = place.removeprefix("rows/")
        column = np.array(getattr(rows, name))
        column[...] = value
        bad_rows, after = rows._replace(**{name: jnp.asarray(column)}), step + 1
        carry = block(carry, bad_rows, keys, limits, step, after)
    else:
        carry = carry._replace(state=with_value(carry.state, place, victim, value, draw))
    carry = block(carry, rows, keys, limits, after, LAST)
    first_bad = {it: np.asarray(steps) for it, steps in carry.first_bad.items()}
    told = [int(min(steps[seed] for steps in first_bad.values())) for seed in range(2)]
    said = divergence(first_bad, range(2), Path("checkpoints"))
    here = f"{value} at step {step} of seed {victim}"
    if place.startswith("rows/"):
        named = {it for it in told if it != loop.NEVER}
        if not named:
            return by_state(carry, None, here)
        return (
            f"named: {said}" if named == {step} and said and f"at step {step:,}" in said else f"wrong: {here}, {told}"
        )
    other = 1 - victim
    if told[other] != loop.NEVER or not same(carry, good, other):
        return f"wrong: {here} reached the other seed, {told}"
    if told[victim] == loop.NEVER:
        return by_state(carry, victim, here)
    if not step <= told[victim] <= step + WITHIN or not said or f"of seed {victim} " not in said:
        return f"wrong: {here}, told {told}: {said}"
    return f"named: {said}"


def by_state(carry: Any, victim: int | None, here: str) -> str:
    """No metric was bad: the look at the state, which every checkpoint has before it, must have seen it."""
    first_bad = {it: np.asarray(steps) for it, steps in carry.first_bad.items()}
    said = divergence(first_bad, range(2), Path("checkpoints"), carry.state, LAST)
    bad = [seed for seed in range(2) if any(not np.isfinite(leaf[seed]).all() for leaf in floats(carry.state))]
    if said is None:
        return f"hidden: {here}" if bad else f"healed: {here}"
    right = f"of seed {bad[0]} " in said if bad else False
    return f"named_later: {said}" if right and (victim is None or bad == [victim]) else f"wrong: {here}: {said}"


def floats(state: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state) if is_float(leaf)]


def same(carry: Any, good: Any, seed: int) -> bool:
    pairs = zip(jax.tree.leaves(carry.state), jax.tree.leaves(good.state), strict=True)
    return all(np.array_equal(np.asarray(one)[seed], np.asarray(other)[seed], equal_nan=True) for one, other in pairs)


def with_value(state: Any, place: str, seed: int, value: float, draw: random.Random) -> Any:
    def changed(path: Any, leaf: Any) -> Any:
        if jax.tree_util.keystr(path, simple=True, separator="/") != place:
            return leaf
        array = np.array(leaf)
        own = array[seed].reshape(-1)
        own[draw.randrange(own.size)] = value
        array[seed] = own.reshape(array[seed].shape)
        return array

    return jax.tree_util.tree_map_with_path(changed, state)


def is_float(leaf: Any) -> bool:
    return np.asarray(leaf).dtype.kind == "f" and np.asarray(leaf).size > 0


def fresh(carry: Any) -> Any:
    return jax.tree.map(np.array, carry)  # a block consumes what it is given


def built(name: str) -> tuple[Any, Any, Transition, Any, dict[str, float]]:
    """-> block, carry of two seeds before the first step, rows, keys, limits; with tiny networks."""
    entry = registry.algorithm(name)
    preset, choices = entry.presets[entry.default_preset], entry.actions == "discrete"
    spec = DiscreteSpec(3, 3) if choices else SpaceSpec(3, 2)
    model = None
    if preset.behavior is not None:
        made = registry.lookup(preset.behavior, registry.BEHAVIOR_MODELS, "behaviour model")
        model = made.make(small(preset.behavior_config or made.config()), spec, 100)
    algorithm = entry.make(small(preset.config), spec, model)
    keys, rows = jax.random.split(jax.random.key(7), 2), made_rows(choices)
    params = jax.vmap(lambda key: model.params(model.init(key)))(keys) if model else None
    state = jax.tree.map(np.asarray, jax.jit(jax.vmap(algorithm.init))(keys, params))
    names = loop.metric_names(algorithm.update, state, rows, algorithm.batch_size)
    limits = dict.fromkeys(names, FLOAT_MAX)
    return loop.make_block(algorithm.update, algorithm.batch_size), loop.start(state, names), rows, keys, limits


def small(config: Any) -> Any:
    changes: dict[str, Any] = {}
    for name, _, _ in leaves(config):
        if name.endswith("hidden"):
            changes[name] = (8,)
        elif name.endswith("batch_size"):
            changes[name] = 16
        elif name == "critic_steps":
            changes[name] = 2
    return replace_leaves(config, changes)


def made_rows(choices: bool) -> Transition:
    rng = np.random.default_rng(0)
    action, next_action = rng.uniform(-1, 1, (2, ROWS, 2))
    observation, next_observation = rng.normal(size=(2, ROWS, 3))
    continues = rng.integers(0, 2, ROWS)
    parts = observation, action, rng.normal(size=ROWS), continues, next_observation, next_action * continues[:, None]
    rows = Transition(*(jnp.asarray(it, jnp.float32) for it in parts))
    if not choices:
        return rows
    picked = jnp.asarray(rng.integers(0, 3, (2, ROWS)), jnp.int32)
    return rows._replace(action=picked[0], next_action=picked[1] * rows.continues.astype(jnp.int32))
