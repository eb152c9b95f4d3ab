"""What every registered algorithm promises. A new algorithm is tested by its line in the registry.

Compiling is what costs here: one program of updates per algorithm, in its default preset, serves all tests of it; other
presets and behaviour models are traced, not run; everything else runs uncompiled.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo import registry
from itrpo.config import leaves, replace_leaves
from itrpo.errors import InputError
from itrpo.policy import load_policy, save_policy
from itrpo.ranges import check_ranges, intervals
from itrpo.results import checkpoint
from itrpo.training import loop, together, watch
from itrpo.training.seeds import members
from itrpo.types import DiscreteSpec, SpaceSpec, Transition
from tests.compiled import compiled

SPEC, CHOICES, ROWS, SEEDS = SpaceSpec(3, 2), DiscreteSpec(3, 3), 64, 3
ENTRIES = {name: registry.lookup(name, registry.ALGORITHMS, "algorithm") for name in sorted(registry.ALGORITHMS)}
ALL = list(ENTRIES)
OTHER_PRESETS = [
    (name, preset) for name, entry in ENTRIES.items() for preset in entry.presets if preset != entry.default_preset
]
# The suite has to end within minutes: tests of these are slow ones. Some share nearly all of their code with one that
# stands for them: brac_v for brac_p and brac_mmd, edac for sac_n, uwac for bear, cql for combo, itrpo_discrete for all
# over choices. Others are in none of the paper's tables.
STOOD_FOR = {"brac_p", "brac_mmd", "sac_n", "bear", "combo"} | {
    name for name in ALL if ENTRIES[name].actions == "discrete"
}
STOOD_FOR |= {"algae_dice", "bppo", "brac_dual_kl", "brac_wasserstein", "emaq", "fisher_brc"}
STOOD_FOR -= {"itrpo_discrete"}
BEHAVIORS = [(name, behavior) for name, entry in ENTRIES.items() for behavior in entry.behaviors]


def is_discrete(name):
    return name is not None and ENTRIES[name].actions == "discrete"


def each(cases):
    """Names, or tuples that begin with one, as parameters; those that others stand for are slow."""
    of = lambda case: case if isinstance(case, str) else case[0]  # noqa: E731
    slow = [of(case) in STOOD_FOR for case in cases]
    marked = zip(cases, slow, strict=True)
    return [
        pytest.param(*([case] if isinstance(case, str) else case), marks=[pytest.mark.slow] if late else [])
        for case, late in marked
    ]


def spec_of(name):
    return CHOICES if is_discrete(name) else SPEC


def small(config):
    """The same config with tiny layers and batches: the contract does not depend on sizes."""
    changes = {}
    for name, _, _ in leaves(config):
        if name.endswith("hidden"):
            changes[name] = (8,)
        elif name.endswith("batch_size"):
            changes[name] = 16
        elif name in ("critic_steps", "dynamics_steps"):  # BPPO's and COMBO's policies step after
            changes[name] = 2
    return replace_leaves(config, changes)


KEY = jax.random.key(0)


def build_model(behavior, config=None):
    if behavior is None:
        return None
    made = registry.lookup(behavior, registry.BEHAVIOR_MODELS, "behaviour model")
    return compiled(made.make(small(config or made.config()), CHOICES if made.actions == "discrete" else SPEC, 100))


@cache
def build(name: str, preset: str | None = None):
    """(algorithm, its model of pi_beta)."""
    chosen = ENTRIES[name].presets[preset or ENTRIES[name].default_preset]
    model = build_model(chosen.behavior, chosen.behavior_config)
    made = ENTRIES[name].make(small(chosen.config), spec_of(name), model)
    return compiled(made), model


@cache
def block_of(name: str):
    """The block of updates as `itrpo.training` runs it."""
    algorithm, _ = build(name)
    return loop.make_block(algorithm.update, algorithm.batch_size)


def data(name: str | None = None, seed: int = 0, boundary: bool = False) -> Transition:
    """Rows for an algorithm: choices if it takes them."""
    rng = np.random.default_rng(seed)
    action, next_action = rng.uniform(-1, 1, (2, ROWS, 2))
    if boundary:
        action = np.sign(action)
    observation, next_observation = rng.normal(size=(2, ROWS, 3))
    continues = rng.integers(0, 2, ROWS)
    parts = observation, action, rng.normal(size=ROWS), continues, next_observation, next_action * continues[:, None]
    rows = Transition(*(jnp.asarray(it, jnp.float32) for it in parts))
    if not is_discrete(name):
        return rows
    picked = jnp.asarray(rng.integers(0, 1 if boundary else 3, (2, ROWS)), jnp.int32)
    return rows._replace(action=picked[0], next_action=picked[1] * rows.continues.astype(jnp.int32))


def keys(count: int = SEEDS):
    return jax.random.split(jax.random.key(7), count)


@cache
def states(name: str):
    """[S, ...] at the start; on the host, so that no test can consume it."""
    algorithm, model = build(name)
    params = jax.vmap(lambda key: model.params(model.init(key)))(keys()) if model else None
    return jax.tree.map(np.asarray, jax.vmap(algorithm.init)(keys(), params))


@cache
def metric_names(name: str):
    algorithm, _ = build(name)
    return loop.metric_names(algorithm.update, states(name), data(name), algorithm.batch_size)


def started(name: str):
    return loop.start(jax.tree.map(jnp.asarray, states(name)), metric_names(name))


def run_block(name, carry, start, stop, seed_keys=None, batch=None):
    limits = dict.fromkeys(carry.sums, 1e30)
    return block_of(name)(carry, batch or data(name), keys() if seed_keys is None else seed_keys, limits, start, stop)


@contextmanager
def compilations():
    """-> the names of the programs that are compiled in the meantime, or read from the cache."""
    seen = []

    def note(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(about.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def member(tree, index=0):
    return members(tree)[index]


def describe(tree):
    return jax.tree.structure(tree), [(it.shape, it.dtype) for it in jax.tree.leaves(tree)]


def assert_same_bits(one, other):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def traced_update(name, algorithm, model):
    """(state before, state after, metrics) of one update, as shapes."""

    def both(key):
        params = model.params(model.init(key)) if model else None
        state = algorithm.init(key, params)
        batch = jax.tree.map(lambda it: jnp.zeros((algorithm.batch_size, *it.shape[1:]), it.dtype), data(name))
        return state, *algorithm.update(state, batch, key, jnp.asarray(0))

    return jax.eval_shape(both, jax.random.key(0))


@cache
def traced(name: str, preset: str):
    """`traced_update` of a preset, for all tests that look at it."""
    return traced_update(name, *build(name, preset))


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", each(ALL))
def test_update_keeps_structure_shapes_and_dtypes_and_moves_the_policy(name):
    algorithm, _ = build(name)
    before = started(name)
    exported, described = algorithm.acting.export(member(before.state)), describe(before)
    exported = {key: np.asarray(value) for key, value in exported.items()}
    after = run_block(name, before, 0, 4)
    assert describe(after) == described
    assert all(value.shape == (SEEDS,) and np.isfinite(value).all() for value in after.sums.values())
    moved = algorithm.acting.export(member(after.state))
    assert any(not np.array_equal(exported[key], moved[key]) for key in exported if key != "kind")


@pytest.mark.parametrize(("name", "preset"), each(OTHER_PRESETS))
def test_other_presets_keep_structure_shapes_and_dtypes(name, preset):
    before, after, metrics = traced(name, preset)
    assert describe(before) == describe(after)
    assert set(metrics) >= {it for it in metric_names(name) if it in ("critic_loss", "policy_loss", "q_target")}


@pytest.mark.parametrize("name", each(ALL))
def test_its_numbers_can_be_arguments_of_the_program_and_reach_what_ships(name):
    """As where runs train together; and the policy of each is made with its own numbers."""
    chosen, (_, model) = ENTRIES[name].presets[ENTRIES[name].default_preset], build(name)
    config, make = small(chosen.config), lambda it: ENTRIES[name].make(it, spec_of(name), model)
    values = {field: 0.5 * value for field, _, value in leaves(config) if together.is_argument(field, value)}
    algorithm = together.swept(make, config)
    batch = jax.tree.map(lambda it: it[: algorithm.batch_size], data(name))

    def all_of_it(key, given):
        state = algorithm.init(key, (model.params(model.init(key)) if model else None, given))
        return algorithm.update(state, batch, key, jnp.asarray(0)), algorithm.probes(state, batch, key)

    (after, metrics), probed = jax.eval_shape(all_of_it, KEY, jax.tree.map(jnp.float32, values))
    assert describe(after.own) == describe(member(states(name)))
    assert set(metrics) == set(metric_names(name))
    assert probed
    state = member(states(name))
    exported = algorithm.acting.export(together.Swept(jax.tree.map(np.float32, values), state))
    alone = make(replace_leaves(config, values)).acting.export(state)
    assert exported.keys() == alone.keys()
    for key, value in alone.items():
        np.testing.assert_array_equal(
            np.float32(exported[key]) if key != "kind" else exported[key], np.float32(value) if key != "kind" else value
        )


@pytest.mark.parametrize("name", each(ALL))
def test_boundary_actions_stay_finite(name):
    carry = run_block(name, started(name), 0, 5, batch=data(name, boundary=True))
    assert all(np.isfinite(it).all() for it in jax.tree.leaves(carry.state))
    assert all((np.asarray(it) == loop.NEVER).all() for it in carry.first_bad.values())


@pytest.mark.parametrize("name", each(ALL))
def test_blocks_of_any_length_give_the_same_bits_and_compile_once(name):
    cut = run_block(name, started(name), 0, 0)
    with compilations() as compiled_again:
        for start, stop in ((0, 5), (5, 5), (5, 6), (6, 12)):
            cut = run_block(name, cut, start, stop)
        whole = run_block(name, started(name), 0, 12)
    assert_same_bits(whole, cut)
    assert compiled_again == []


@pytest.mark.parametrize("name", each(ALL))
def test_nothing_leaves_or_enters_the_device_inside_a_block(name, monkeypatch):
    monkeypatch.setattr(loop, "over_seeds", lambda block, _, donate: jax.jit(block, donate_argnums=donate))
    algorithm, _ = build(name)
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    carry = started(name)
    own = [member(it) for it in (carry, keys())]
    shared = jax.device_put((data(name), dict.fromkeys(carry.sums, 1e30), 0, 3))
    with jax.transfer_guard("disallow"):
        after = jax.block_until_ready(block(own[0], shared[0], own[1], *shared[1:]))
    assert after.count == 3


@pytest.mark.parametrize("name", each(ALL))
def test_a_seed_is_a_seed(name):
    """Its result is the same, to the bit, alone and in any company; seeds differ from each other."""
    together = run_block(name, started(name), 0, 3)
    for company in ([1], [2, 1, 1]):
        state = jax.tree.map(lambda it, which=company: it[which], states(name))
        others = run_block(name, loop.start(state, metric_names(name)), 0, 3, keys()[jnp.array(company)])
        assert_same_bits(member(together, 1), member(others, company.index(1)))
    exported = [build(name)[0].acting.export(member(together.state, index)) for index in range(2)]
    assert not np.array_equal(exported[0]["weight_0"], exported[1]["weight_0"])


@pytest.mark.parametrize("name", each(ALL))
def test_another_key_gives_another_result_and_the_same_key_the_same(name):
    one, same = (run_block(name, started(name), 0, 4) for _ in range(2))
    assert_same_bits(one, same)
    other_keys = jax.random.split(jax.random.key(8), SEEDS)
    other = run_block(name, started(name), 0, 4, other_keys)  # the same start, other batches and noise
    assert any(
        not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True)
    )


@pytest.mark.parametrize("name", each(ALL))
def test_checkpoint_round_trip(name, tmp_path):
    carry = run_block(name, started(name), 0, 4)
    checkpoint.save(tmp_path, "train", 4, carry, {"run": "x"})
    arrays, meta = checkpoint.load(tmp_path / "train_0000000004")
    assert meta["step"] == 4
    loaded = checkpoint.unflatten(carry, arrays)
    assert_same_bits(carry, loaded)
    assert_same_bits(run_block(name, carry, 4, 8), run_block(name, loaded, 4, 8))


@pytest.mark.parametrize("name", each(ALL))
def test_targets_move_by_polyak_alone_and_pi_beta_not_at_all(name):
    """Where targets wait for the actor, they stay; else they average old weights and those that the step made."""
    config = ENTRIES[name].presets[ENTRIES[name].default_preset].config
    rates = [value for field, _, value in leaves(config) if field == "polyak_rate"]
    carry, moves, (algorithm, _) = started(name), 0, build(name)
    for step in range(4):
        before = jax.tree.map(np.asarray, carry.state)
        carry = run_block(name, carry, step, step + 1)
        if ENTRIES[name].behaviors:
            assert_same_bits(before.behavior_params, carry.state.behavior_params)
        if algorithm.value_metric is None:
            continue
        critic = carry.state.critic
        old, new, target = (
            np.concatenate([np.ravel(it) for it in jax.tree.leaves(tree)])
            for tree in (before.critic.target_params, critic.params, critic.target_params)
        )
        if not np.array_equal(old, target):
            moves += 1
            np.testing.assert_allclose(target, (1 - rates[0]) * old + rates[0] * new, rtol=1e-4, atol=1e-7)
    assert moves > 0 or not rates


@pytest.mark.parametrize(("name", "first"), [("td3_bc", 2), ("spot", 2), ("rebrac", 0)])
def test_with_a_delay_of_three_the_actor_steps_every_third_time(name, first):
    """The TD3 family: after as many steps of the critics, as in TD3's code; ReBRAC's at the first step already."""
    entry, (_, model) = ENTRIES[name], build(name)
    config = replace_leaves(small(entry.presets["source"].config), {"policy_delay": 3})
    algorithm = compiled(entry.make(config, SPEC, model))
    state = algorithm.init(jax.random.key(0), model.params(model.init(jax.random.key(1))) if model else None)
    batch = jax.tree.map(lambda it: it[:16], data(name))
    update = jax.jit(lambda step: algorithm.update(state, batch, jax.random.key(0), step)[0])
    before = algorithm.acting.export(state)["weight_0"]
    moved = [not np.array_equal(algorithm.acting.export(update(step))["weight_0"], before) for step in range(6)]
    assert moved == [step % 3 == first for step in range(6)]


# --- what comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", each(ALL))
def test_act_is_in_range_and_the_exported_policy_acts_the_same(name, tmp_path):
    algorithm, _ = build(name)
    state = member(run_block(name, started(name), 0, 20).state)
    observations = data(name, 3).observation * 3
    greedy = np.asarray(algorithm.acting.act(state, observations, jax.random.key(0), True))
    low, high = ([0], [2]) if is_discrete(name) else ([-1, -1], [1, 1])
    assert greedy.shape == ((ROWS,) if is_discrete(name) else (ROWS, 2))
    assert ((min(low) <= greedy) & (greedy <= max(high))).all()
    zeros, ones = np.zeros(3), np.ones(3)
    save_policy(tmp_path / "policy.npz", algorithm.acting.export(state), zeros, ones, low, high, {})
    policy = load_policy(tmp_path / "policy.npz")
    np.testing.assert_allclose(policy(np.asarray(observations)), greedy, atol=1e-5)


@pytest.mark.parametrize("name", each([name for name in ALL if build(name)[0].acting.log_prob]))
def test_log_prob_is_the_density_of_the_sampled_actions(name):
    """E over sampled actions of 1 / density, within a box, is the volume of the box."""
    algorithm, model = build(name, "quick")  # its policies are wide at the start, as not all others' are
    params = None if model is None else model.params(model.init(keys()[0]))
    state = algorithm.init(keys()[1], params)
    observations = jnp.broadcast_to(data(name).observation[0], (40_000, SPEC.observation_dim))
    actions = algorithm.acting.act(state, observations, jax.random.key(5), False)
    if is_discrete(name):
        every = jnp.arange(3, dtype=jnp.int32)
        expected = np.exp(algorithm.acting.log_prob(state, observations[:3], every))
        np.testing.assert_allclose(expected.sum(), 1.0, rtol=1e-5)
        np.testing.assert_allclose(np.bincount(actions, minlength=3) / len(actions), expected, atol=0.015)
        return
    inside = jnp.abs(actions).max(axis=1) < 0.9  # near the ends the weights have no variance to speak of
    log_probs = algorithm.acting.log_prob(state, observations, actions)
    weights = np.asarray(jnp.where(inside, jnp.exp(-log_probs), 0.0), np.float64)
    standard_error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - 1.8**2) < 5 * standard_error < 0.2


@pytest.mark.parametrize("name", each(ALL))
def test_probes_are_finite_and_hold_what_reports_need(name):
    algorithm, _ = build(name)
    probes = algorithm.probes(jax.tree.map(jnp.asarray, member(states(name))), data(name), jax.random.key(0))
    assert all(key.startswith("probe_") and np.shape(it) == () and np.isfinite(it) for key, it in probes.items())
    if algorithm.acting.log_prob:
        assert ("probe_entropy" if is_discrete(name) else "probe_policy_std") in probes
    if algorithm.value_metric is not None:
        assert {"probe_q_data", "probe_q_policy"} <= set(probes)
        assert algorithm.value_metric in metric_names(name)  # what says that a run diverges


@pytest.mark.parametrize("name", each([it for it in ALL if build(it)[0].value_metric]))
def test_q_values_are_those_of_every_critic_and_the_least_of_them_is_probed(name):
    algorithm, _ = build(name)
    state, rows = jax.tree.map(jnp.asarray, member(states(name))), data(name)
    q = np.asarray(jax.jit(algorithm.q_values)(state, rows.observation, rows.action))
    assert q.shape[1:] == (ROWS,)
    assert len(q) == 1 or (q[0] != q[1]).all()
    probed = algorithm.probes(state, rows, jax.random.key(0))["probe_q_data"]
    masked = 0.1 if name == "uwac" else 0.0  # its probe is a mean over masks; without dropout it is near that
    np.testing.assert_allclose(q.min(axis=0).mean(), probed, rtol=1e-4, atol=1e-5 + masked)


ONE_CRITIC = {"munchausen_iqn"}  # never more


@pytest.mark.parametrize("name", each([it for it in ALL if build(it)[0].value_metric and it not in ONE_CRITIC]))
def test_probed_q_values_are_those_of_the_least_critic(name):
    """Raising the output of one critic by 1000 changes nothing; raising all of them does."""
    algorithm, _ = build(name)
    state = jax.tree.map(jnp.asarray, member(states(name)))

    biases = [leaf.shape for leaf in jax.tree.leaves(state.critic.params) if leaf.ndim == 2 and leaf.shape[1] != 8]
    assert len(biases) == 1
    critics = biases[0][0]

    def probed(raised: jax.Array) -> np.ndarray:
        """raised [critics]: what is added to the bias of each one's last layer."""
        params = jax.tree.map(
            lambda leaf: leaf + 1000.0 * raised[:critics, None] if leaf.shape == biases[0] else leaf,
            state.critic.params,
        )
        found = algorithm.probes(
            state._replace(critic=state.critic._replace(params=params)), data(name), jax.random.key(0)
        )
        return np.asarray([found["probe_q_data"], found["probe_q_policy"]])

    plain = probed(jnp.zeros(100))
    if critics > 1:
        one = [probed(jnp.zeros(100).at[index].set(1.0)) for index in range(2)]
        assert np.abs(np.min(one, axis=0) - plain).max() < 10
        assert np.max(one, axis=0).max() < 990  # where one critic is the least everywhere, the other is not
    np.testing.assert_allclose(probed(jnp.ones(100)), plain + 1000.0, rtol=1e-3)


@pytest.mark.parametrize("name", ["plas", "rebrac", "spot", "td3_bc"])
def test_probed_cloning_error_is_that_of_the_acting_policy(name):
    """Mean over rows and components of (pi(s) - a)^2."""
    algorithm, _ = build(name)
    state = jax.tree.map(jnp.asarray, member(states(name)))
    found = algorithm.probes(state, data(name), jax.random.key(0))["probe_cloning_error"]
    actions = algorithm.acting.act(state, data(name).observation, jax.random.key(0), True)
    np.testing.assert_allclose(found, np.mean(np.square(actions - data(name).action)), rtol=1e-4)


@pytest.mark.parametrize("name", ["itrpo", "brac_v", "itrpo_insample"])
def test_probed_divergence_and_ratio_are_zero_where_pi_is_pi_beta(name):
    algorithm, _ = build(name)
    state = jax.tree.map(jnp.asarray, member(states(name)))
    policy = jax.tree.unflatten(jax.tree.structure(state.policy.params), jax.tree.leaves(state.behavior_params))
    found = algorithm.probes(state._replace(policy=state.policy._replace(params=policy)), data(name), jax.random.key(0))
    np.testing.assert_allclose([found["probe_kl"], found["probe_log_ratio"]], 0.0, atol=1e-5)


@pytest.mark.parametrize(("name", "preset"), [("bcq", "source"), ("plas", "perturbed")])
def test_probed_perturbation_is_no_larger_than_phi(name, preset):
    algorithm, model = build(name, preset)
    params = model.params(model.init(jax.random.key(0))) if model else None
    state = jax.tree.map(lambda it: 3.0 * it, algorithm.init(jax.random.key(1), params))
    found = algorithm.probes(state, data(name), jax.random.key(2))["probe_perturbation"]
    assert 0.0 < found <= ENTRIES[name].presets[preset].config.phi


@pytest.mark.parametrize("name", each([name for name in ALL if build(name)[0].watch]))
def test_what_is_watched_is_what_the_critics_learn(name):
    """y is the target that `update` regresses on, Q' is Q less the shaping reward, and the error is Q - y."""
    algorithm, _ = build(name)
    state = jax.tree.map(jnp.asarray, member(states(name)))
    part = state.critic if is_discrete(name) else state.policy  # what makes the policy; away from pi_beta
    moved = part._replace(params=jax.tree.map(lambda it: it + 0.3, part.params))
    if is_discrete(name):
        moved = moved._replace(target_params=moved.params)
    state = state._replace(**{"critic" if is_discrete(name) else "policy": moved})
    found = algorithm.watch(state, data(name), jax.random.key(3))
    _, metrics = algorithm.update(state, data(name), jax.random.key(4), jnp.asarray(0))
    probes = algorithm.probes(state, data(name), jax.random.key(5))
    np.testing.assert_allclose(jnp.mean(found.target), metrics["q_target"], rtol=2e-3, atol=0.05)  # a' is drawn anew
    np.testing.assert_allclose(jnp.mean(found.error), probes["probe_q_data"] - jnp.mean(found.target), rtol=1e-4)
    shaping = probes.get("probe_shaping_reward", 0.0)
    assert name.startswith("brac") or abs(shaping) > 0.005
    np.testing.assert_allclose(jnp.mean(found.implicit_q), probes["probe_q_data"] - shaping, rtol=1e-4, atol=1e-5)
    shapes = {it.shape for it in watch.policy_in(found)}
    assert shapes == {(ROWS, 3 if is_discrete(name) else 2)}


def documented_metrics() -> set[str]:
    """The names in the first columns of docs/metrics.md."""
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    columns = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for column in columns for name in re.findall(r"`(\w+)`", column)}


def test_every_metric_is_documented_and_every_documented_metric_exists():
    measured = {"return", "return_std", "score", "episode_length"}  # of evaluations
    measured |= {f"behavior_{it}" for it in measured}
    measured |= {"behavior_true_log_prob", "behavior_log_prob_gap", "behavior_rows_left_out", *watch.NEEDED}
    for name, entry in ENTRIES.items():
        for preset in entry.presets:
            algorithm, _ = build(name, preset)
            state, _, metrics = traced(name, preset)
            probes = jax.eval_shape(algorithm.probes, state, data(name), jax.random.key(0))
            measured |= set(metrics) | set(probes)
    for name, behavior in BEHAVIORS:
        model, batch = build_model(behavior), data(name)
        measured |= set(jax.eval_shape(model.fit_step, jax.eval_shape(model.init, KEY), batch, KEY)[1])
    assert measured == documented_metrics()


# --- configs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "behavior"), each(BEHAVIORS))
def test_every_behaviour_model_it_names_can_be_used(name, behavior):
    """In the first preset that allows it."""
    entry, model = ENTRIES[name], build_model(behavior)
    config = registry.lookup(behavior, registry.BEHAVIOR_MODELS, "behaviour model").config()
    allowed = []
    for preset in entry.presets.values():
        try:
            if entry.validate is not None:
                entry.validate(preset.config, behavior, config)
            allowed.append(preset)
        except InputError:
            continue
    algorithm = entry.make(small(allowed[0].config), spec_of(name), model)
    before, after, _ = traced_update(name, algorithm, model)
    assert describe(before) == describe(after)


@pytest.mark.parametrize("name", each(ALL))
def test_every_number_of_a_config_can_be_swept_in_one_program(name):
    """Floats may be traced: Python branches only on structure."""
    chosen = ENTRIES[name].presets[ENTRIES[name].default_preset]
    config, (_, model) = small(chosen.config), build(name)
    floats = [(field, value) for field, kind, value in leaves(config) if kind is float and np.isfinite(value)]
    floats = [(field, value) for field, value in floats if not field.startswith("log_std")]  # fixed parts of a network

    def updated(numbers, key):
        changed = replace_leaves(config, {field: numbers[i] for i, (field, _) in enumerate(floats)})
        algorithm = ENTRIES[name].make(changed, spec_of(name), model)
        state = algorithm.init(key, model.params(model.init(key)) if model else None)
        return algorithm.update(state, jax.tree.map(lambda it: it[:16], data(name)), key, jnp.asarray(0))

    _, metrics = jax.eval_shape(updated, jnp.array([value for _, value in floats]), jax.random.key(0))
    assert sorted(metrics) == metric_names(name)


# numbers of any size: entropies in nats, ends of clips, targets in reward units
UNBOUNDED = {"target_entropy", "entropy_floor", "ood_floor", "ood_weight_decay"}  # the last has its own sentence


@pytest.mark.parametrize("name", each(ALL))
def test_numbers_have_ranges_which_presets_keep_and_nothing_leaves(name):
    for preset in ENTRIES[name].presets.values():
        check_ranges(preset.config)
        ranges = {field: (value, interval) for field, value, interval in intervals(preset.config)}
        for field, _, value in leaves(preset.config):
            if isinstance(value, int | float | tuple) and not isinstance(value, bool):
                assert field in ranges or field in UNBOUNDED or field.endswith(("_low", "_high")), field
        for field, (value, interval) in ranges.items():
            below = float(interval.text[1:].split(",")[0]) - 1
            wrong = replace_leaves(preset.config, {field: (below,) if isinstance(value, tuple) else below})
            with pytest.raises(InputError, match=field):
                check_ranges(wrong)


def test_a_swept_number_counts():
    entry = ENTRIES["itrpo"]
    config, (_, model) = small(entry.presets["paper"].config), build("itrpo", "paper")
    batch = jax.tree.map(lambda it: it[:16], data())
    params = model.params(model.init(jax.random.key(0)))

    def policy_loss(alpha):
        algorithm = entry.make(dataclasses.replace(config, alpha=alpha), SPEC, model)
        state = algorithm.init(jax.random.key(1), params)
        return algorithm.update(state, batch, jax.random.key(2), jnp.asarray(0))[1]["policy_loss"]

    alphas = jnp.array([0.1, 1.0, 10.0])
    assert len(np.unique(jax.jit(jax.vmap(policy_loss))(alphas))) == 3


@pytest.mark.parametrize("name", sorted(set(ALL) - {"bc", "itrpo"}))  # older than arXiv, and not on it
def test_the_file_cites_its_paper(name):
    assert re.search(r"arXiv[ :]\d{4}\.\d{5}", inspect.getdoc(inspect.getmodule(ENTRIES[name].config)))
