"""What every registered algorithm promises, in every preset. A new algorithm is tested by its line in the registry."""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo import registry
from itrpo.config import leaves, replace_leaves
from itrpo.policy import load_policy, save_policy
from itrpo.training import checkpoint, loop
from itrpo.types import SpaceSpec, Transition

SPEC, ROWS, SEEDS = SpaceSpec(3, 2), 64, 3
ALL = sorted(registry.ALGORITHMS)
DEFAULTS = [(name,) for name in ALL]
WITH_BEHAVIOR = [name for name in ALL if registry.lookup(name, registry.ALGORITHMS, "algorithm").behaviors]
EVERY = [(name, preset) for name in ALL for preset in registry.lookup(name, registry.ALGORITHMS, "algorithm").presets]


def small(config):
    """The same config with tiny layers and batches: the contract does not depend on sizes."""
    changes = {}
    for name, kind, _ in leaves(config):
        if get_origin(kind) is tuple:
            changes[name] = (8, 8)
        elif name.endswith("batch_size"):
            changes[name] = 16
    return replace_leaves(config, changes)


@cache
def build(name: str, preset: str | None = None, behavior: str | None = None):
    """(algorithm, its model of pi_beta); built once, so that tests share what they compile."""
    entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
    chosen = entry.presets[preset or entry.default_preset]
    model, behavior_name = None, behavior or chosen.behavior
    if behavior_name is not None:
        made = registry.lookup(behavior_name, registry.BEHAVIOR_MODELS, "behaviour model")
        given = chosen.behavior_config if behavior is None else None
        model = made.make(small(given or made.config()), SPEC, 100)
    return entry.make(small(chosen.config), SPEC, model), model


@cache
def compiled(name: str, preset: str | None = None, behavior: str | None = None):
    """(init of seeds, block of updates) as `itrpo.training` runs them."""
    algorithm, model = build(name, preset, behavior)

    def init(seed_keys):
        params = jax.vmap(lambda key: model.params(model.init(key)))(seed_keys) if model else None
        return jax.vmap(algorithm.init)(seed_keys, params)

    return jax.jit(init), loop.make_block(algorithm.update, algorithm.batch_size)


def data(seed: int = 0, boundary: bool = False) -> Transition:
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (ROWS, 2))
    if boundary:
        action = np.sign(action)
    parts = (
        rng.normal(size=(ROWS, 3)),
        action,
        rng.normal(size=ROWS),
        rng.integers(0, 2, ROWS),
        rng.normal(size=(ROWS, 3)),
        np.zeros((ROWS, 2)),
    )
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def keys(count: int = SEEDS):
    return jax.random.split(jax.random.key(7), count)


def states(which, seed_keys):
    return compiled(*which)[0](seed_keys)


def started(which, seed_keys=None):
    algorithm, _ = build(*which)
    state = states(which, keys() if seed_keys is None else seed_keys)
    return loop.start(state, loop.metric_names(algorithm.update, state, data(), algorithm.batch_size))


def run_block(which, carry, start, stop, seed_keys=None, batch=None):
    seed_keys = keys() if seed_keys is None else seed_keys
    limits = dict.fromkeys(carry.sums, 1e30)
    return compiled(*which)[1](carry, batch or data(), seed_keys, limits, start, stop)


def first(tree):
    return jax.tree.map(lambda it: it[0], tree)


def describe(tree):
    return jax.tree.structure(tree), [(it.shape, it.dtype) for it in jax.tree.leaves(tree)]


def assert_same_bits(one, other):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("which", EVERY)
def test_update_keeps_structure_shapes_and_dtypes_and_moves_the_policy(which):
    algorithm, _ = build(*which)
    before = started(which)
    exported, described = algorithm.export(first(before.state)), describe(before)
    after = run_block(which, before, 0, 1)
    assert describe(after) == described
    assert all(value.shape == (SEEDS,) and np.isfinite(value).all() for value in after.sums.values())
    moved = algorithm.export(first(after.state))
    assert any(not np.array_equal(exported[key], moved[key]) for key in exported if key != "kind")


@pytest.mark.parametrize("which", EVERY)
def test_boundary_actions_stay_finite(which):
    carry = run_block(which, started(which), 0, 5, batch=data(boundary=True))
    assert all(np.isfinite(it).all() for it in jax.tree.leaves(carry.state))
    assert all((np.asarray(it) == loop.NEVER).all() for it in carry.first_bad.values())


@pytest.mark.parametrize("which", DEFAULTS)
def test_blocks_of_any_length_give_the_same_bits_and_compile_once(which):
    whole = run_block(which, started(which), 0, 12)
    programs = compiled(*which)[1]._cache_size()
    cut = started(which)
    for start, stop in ((0, 5), (5, 5), (5, 6), (6, 12)):
        cut = run_block(which, cut, start, stop)
    assert_same_bits(whole, cut)
    assert compiled(*which)[1]._cache_size() == programs


@pytest.mark.parametrize("which", DEFAULTS)
def test_nothing_leaves_or_enters_the_device_between_evaluations(which):
    carry = jax.device_put(started(which))
    arguments = jax.device_put((data(), keys(), dict.fromkeys(carry.sums, 1e30), 0, 3))
    with jax.transfer_guard("disallow"):
        after = compiled(*which)[1](carry, *arguments)
        jax.block_until_ready(after.count)


@pytest.mark.parametrize("which", DEFAULTS)
def test_seeds_are_independent_and_equal_single_seeds_to_rounding(which):
    together = run_block(which, started(which), 0, 3)
    one = keys()[1:2]
    alone = run_block(which, started(which, one), 0, 3, one)
    for left, right in zip(jax.tree.leaves(together.state), jax.tree.leaves(alone.state), strict=True):
        np.testing.assert_allclose(left[1], right[0], rtol=2e-3, atol=2e-5)
    algorithm, _ = build(*which)
    policies = [algorithm.export(jax.tree.map(lambda it, i=i: it[i], together.state)) for i in range(2)]
    assert not np.array_equal(policies[0]["weight_0"], policies[1]["weight_0"])


@pytest.mark.parametrize("which", DEFAULTS)
def test_another_key_gives_another_result_and_the_same_key_the_same(which):
    one, same = (run_block(which, started(which), 0, 4) for _ in range(2))
    assert_same_bits(one, same)
    other_keys = jax.random.split(jax.random.key(8), SEEDS)
    other = run_block(which, started(which), 0, 4, other_keys)  # the same start, other batches and noise
    assert any(
        not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True)
    )


@pytest.mark.parametrize("which", DEFAULTS)
def test_checkpoint_round_trip(which, tmp_path):
    carry = run_block(which, started(which), 0, 4)
    checkpoint.save(tmp_path, "train", 4, carry, {"run": "x"})
    arrays, meta = checkpoint.load(tmp_path / "train_0000000004")
    assert meta["step"] == 4
    loaded = checkpoint.unflatten(carry, arrays)
    assert_same_bits(carry, loaded)
    assert_same_bits(run_block(which, carry, 4, 8), run_block(which, loaded, 4, 8))


@pytest.mark.parametrize("which", DEFAULTS)
def test_act_is_in_range_and_the_exported_policy_acts_the_same(which, tmp_path):
    algorithm, _ = build(*which)
    state = first(run_block(which, started(which), 0, 20).state)
    observations = data(3).observation * 3
    act = jax.vmap(partial(algorithm.act, state, greedy=True), in_axes=(0, None))
    greedy = np.asarray(act(observations, jax.random.key(0)))
    assert (np.abs(greedy) <= 1).all()
    sampled = algorithm.act(state, observations[0], jax.random.key(0), False)
    assert not np.array_equal(sampled, algorithm.act(state, observations[0], jax.random.key(1), False))
    zeros, ones = np.zeros(3), np.ones(3)
    save_policy(tmp_path / "policy.npz", algorithm.export(state), zeros, ones, [-1, -1], [1, 1], {})
    policy = load_policy(tmp_path / "policy.npz")
    np.testing.assert_allclose(policy(np.asarray(observations)), greedy, atol=1e-5)


@pytest.mark.parametrize("which", DEFAULTS)
def test_log_prob_is_the_density_of_the_sampled_actions(which):
    """E over sampled actions of 1 / density, within a box, is the volume of the box."""
    algorithm, _ = build(*which)
    state, observation = first(states(which, keys())), data().observation[0]

    def weight(key):
        action = algorithm.act(state, observation, key, False)
        inside = jnp.abs(action).max() < 0.9  # near the ends the weights have no variance to speak of
        return jnp.where(inside, jnp.exp(-algorithm.log_prob(state, observation, action)), 0.0)

    weights = np.asarray(jax.jit(jax.vmap(weight))(jax.random.split(jax.random.key(5), 40_000)), np.float64)
    standard_error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - 1.8**2) < 5 * standard_error < 0.2


@pytest.mark.parametrize("which", DEFAULTS)
def test_probes_have_constant_names_and_are_finite(which):
    algorithm, _ = build(*which)
    probes = jax.jit(algorithm.probes)(first(states(which, keys())), data(), jax.random.key(0))
    assert all(key.startswith("probe_") and np.isfinite(value) for key, value in probes.items())
    assert "probe_policy_std" in probes


@pytest.mark.parametrize("behavior", ["gaussian", "mixture"])
@pytest.mark.parametrize("name", WITH_BEHAVIOR)
def test_pi_beta_is_frozen_and_targets_move_by_polyak_alone(name, behavior):
    which = (name, "paper", behavior)
    before = started(which)
    kept = jax.tree.map(np.asarray, before.state)
    after = run_block(which, before, 0, 1).state
    assert_same_bits(kept.behavior_params, after.behavior_params)
    for old, new, target in zip(
        jax.tree.leaves(kept.critic.target_params),
        jax.tree.leaves(after.critic.params),
        jax.tree.leaves(after.critic.target_params),
        strict=True,
    ):
        np.testing.assert_allclose(target, 0.995 * old + 0.005 * np.asarray(new), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", WITH_BEHAVIOR)
def test_alpha_can_be_swept_in_one_program(name):
    """Floats of a config may be traced: Python branches only on structure."""
    entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
    config, (_, model) = small(entry.presets["paper"].config), build(name, "paper")
    batch = jax.tree.map(lambda it: it[:16], data())
    params = model.params(model.init(jax.random.key(0)))

    def policy_loss(alpha):
        algorithm = entry.make(dataclasses.replace(config, alpha=alpha), SPEC, model)
        state = algorithm.init(jax.random.key(1), params)
        return algorithm.update(state, batch, jax.random.key(2), jnp.asarray(0))[1]["policy_loss"]

    alphas = jnp.array([0.1, 1.0, 10.0])
    swept = jax.jit(jax.vmap(policy_loss))(alphas)
    np.testing.assert_allclose(swept[1], jax.jit(policy_loss)(1.0), rtol=1e-4)
    assert len(np.unique(swept)) == 3
