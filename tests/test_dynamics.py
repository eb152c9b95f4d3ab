"""The model of the environment against systems that are known in closed form."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo import dynamics
from itrpo.dynamics import DynamicsFit, Moments
from itrpo.errors import InputError
from itrpo.types import SpaceSpec, Transition

SPEC, ROWS, STEPS = SpaceSpec(2, 1), 4_096, 1_500
SYSTEM = np.array([[0.9, 0.3, 0.5], [-0.2, 0.7, -1.0]])  # s' = SYSTEM (s, a) + noise
PRICES = np.array([2.0, -1.0, 40.0])  # r = PRICES (s, a) + 30 + noise: in quite other units than s
NOISE = np.array([0.05, 0.2, 3.0])


def batch_of(s, a, r, d, following):
    return Transition(*(jnp.asarray(it, jnp.float32) for it in (s, a, r, 1.0 - d, following, np.zeros_like(a))))


def linear_rows() -> Transition:
    """The end comes with probability sigmoid(2 s_1 - 1)."""
    rng = np.random.default_rng(0)
    s, a = rng.normal(size=(ROWS, 2)) * [1.0, 3.0] + [5.0, 0.0], rng.uniform(-1, 1, (ROWS, 1))
    noise = NOISE * rng.normal(size=(ROWS, 3))
    both = np.concatenate([s, a], axis=1)
    ends = rng.uniform(size=ROWS) < 1 / (1 + np.exp(-2 * (s[:, 0] - 5.0) + 1))
    return batch_of(s, a, both @ PRICES + 30 + noise[:, 2], ends, both @ SYSTEM.T + noise[:, :2])


@pytest.fixture(scope="module")
def fitted():
    """(model, state of the fit)."""
    model = dynamics.make(DynamicsFit(members=3, elites=2, dynamics_hidden=(64,), held_out_share=0.2), SPEC)
    data = linear_rows()

    def body(step, state):
        rows = jax.random.randint(jax.random.fold_in(jax.random.key(1), step), (256,), 0, ROWS)
        return model.fit_step(state, jax.tree.map(lambda it: it[rows], data))[0]

    return model, jax.jit(lambda it: jax.lax.fori_loop(0, STEPS, body, it))(model.init(jax.random.key(0)))


def test_a_linear_gaussian_system_is_found_again(fitted):
    """Regression of samples on (s, a) gives the system; their spread about it is the noise; ends come as often."""
    model, state = fitted
    rng = np.random.default_rng(5)
    s, a = rng.normal(size=(20_000, 2)) * [1.0, 3.0] + [5.0, 0.0], rng.uniform(-1, 1, (20_000, 1))
    drawn = jax.jit(model.sample)(model.fitted(state), jnp.float32(s), jnp.float32(a), jax.random.key(2))
    both = np.concatenate([s - [5.0, 0.0], a, np.ones_like(a)], axis=1)
    outcomes = np.concatenate([drawn.next_observation, drawn.reward[:, None]], axis=1)
    solution, *_ = np.linalg.lstsq(both, outcomes, rcond=None)
    for row, expected, unit in zip(solution.T, [*SYSTEM, PRICES], NOISE, strict=True):
        np.testing.assert_allclose(row[:3], expected, atol=0.15 * unit)
        np.testing.assert_allclose(row[3], expected[0] * 5.0 + (30.0 if unit == NOISE[2] else 0.0), atol=0.15 * unit)
    np.testing.assert_allclose((outcomes - both @ solution).std(axis=0), NOISE, rtol=0.15)
    chance = 1 / (1 + np.exp(-2 * (s[:, 0] - 5.0) + 1))
    ends = 1 - np.asarray(drawn.continues)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        inside = (low < chance) & (chance < high)
        np.testing.assert_allclose(ends[inside].mean(), chance[inside].mean(), atol=0.04)


def test_the_held_out_loss_is_the_entropy_of_the_noise(fitted):
    """-log likelihood of standardised x, at best: sum_j log(sigma_j / std_j sqrt(2 pi e)), and that of the end."""
    _, state = fitted
    chance = 1 / (1 + np.exp(-2 * (np.asarray(linear_rows().observation)[:, 0] - 5.0) + 1))
    of_end = -np.mean(chance * np.log(chance) + (1 - chance) * np.log(1 - chance))
    best = np.sum(np.log(NOISE / np.asarray(state.outcomes.std)) + 0.5 * np.log(2 * np.pi * np.e)) + of_end
    np.testing.assert_allclose(state.held_out_loss, best, atol=0.25)


def test_moments_are_those_of_all_batches_and_stay_then():
    rng = np.random.default_rng(3)
    batches = rng.normal(size=(7, 5, 2)) * [1.0, 0.01] + [3.0, 1000.0]
    moments = Moments(jnp.zeros(2), jnp.ones(2))
    for step, values in enumerate(batches):
        moments = dynamics.followed(moments, jnp.float32(values), jnp.asarray(step))
    np.testing.assert_allclose(moments.mean, batches.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(moments.std, batches.std(axis=(0, 1)), rtol=2e-2)  # 1000.01 has four digits to spare
    later = dynamics.followed(moments, jnp.float32(batches[0]), jnp.asarray(dynamics.MOMENT_STEPS))
    np.testing.assert_array_equal(later.mean, moments.mean)


@pytest.fixture(scope="module")
def fresh():
    """(model of two layers, state before the fit)."""
    model = dynamics.make(DynamicsFit(members=4, elites=2, dynamics_hidden=(8,), weight_decay=0.0), SPEC)
    return model, jax.jit(model.init)(jax.random.key(0))


def test_held_out_rows_teach_nothing_and_the_others_do(fresh):
    (model, state), data = fresh, linear_rows()
    held_out = np.asarray(jax.jit(dynamics.hashes)(data, state.salt))[0] < 0.05
    assert 0.03 < held_out.mean() < 0.07
    step = jax.jit(model.fit_step)
    for rows, moved in ((held_out, False), (~held_out, True)):
        after, _ = step(state, jax.tree.map(lambda it, rows=rows: it[rows][:128], data))
        assert moved != np.array_equal(after.members.params.layers[0].weight, state.members.params.layers[0].weight)
        assert moved != bool(np.any(np.asarray(after.held_out_loss) != 0))


def test_hashes_are_even_and_of_the_row_alone(fresh):
    """The same in any batch; another where one bit is; independent between members."""
    salt, data = fresh[1].salt, linear_rows()
    hashes = jax.jit(dynamics.hashes)
    own = np.asarray(hashes(data, salt))
    assert own.shape == (5, ROWS)
    np.testing.assert_array_equal(own[:, ::-1], hashes(jax.tree.map(lambda it: it[::-1], data), salt))
    nudged = np.asarray(hashes(data._replace(reward=jnp.nextafter(data.reward, jnp.inf)), salt))
    assert (own != nudged).mean() > 0.99
    together = np.concatenate([own, nudged])
    np.testing.assert_allclose(together.mean(axis=1), 0.5, atol=5 * ROWS**-0.5 / 12**0.5)
    np.testing.assert_allclose(np.corrcoef(together) - np.eye(10), 0.0, atol=5 * ROWS**-0.5)


def test_elites_are_the_members_with_the_largest_likelihood_of_held_out_rows(fresh):
    """And samples are theirs alone, as often one as the other."""
    model, state = fresh
    fitted = model.fitted(state._replace(held_out_loss=jnp.array([3.0, -1.0, 2.0, -2.0])))
    assert sorted(np.asarray(fitted.elites)) == [1, 3]
    bias = fitted.members.layers[-1].bias
    bias = bias.at[:, 0].set(100.0 * jnp.arange(4)).at[:, 3:].set(-50.0)  # means 100 apart, no spread
    members = eqx.tree_at(lambda it: it.layers[-1].bias, fitted.members, bias)
    fitted = fitted._replace(members=members)
    s, a = jnp.zeros((2_000, 2)), jnp.zeros((2_000, 1))
    drawn = np.asarray(jax.jit(model.sample)(fitted, s, a, jax.random.key(1)).next_observation)[:, 0]
    of = np.round(drawn / 100).astype(int)
    assert set(of) == {1, 3}
    assert abs((of == 1).mean() - 0.5) < 0.05


def test_more_elites_than_members_are_refused():
    with pytest.raises(InputError, match="elites 5 is above members 3"):
        dynamics.validate(DynamicsFit(members=3))
