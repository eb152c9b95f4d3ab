from __future__ import annotations

import numpy as np
import pytest

from itrpo.collection.ladders import ladder, policy_path
from itrpo.collection.rollout import (
    PHYSICS,
    UNIFORM,
    ActingPolicy,
    Simulators,
    Task,
    act,
    collect,
    load_acting_policy,
)
from itrpo.evaluation.environments import make_env

MEDIUM = policy_path("hopper_sac_140k")
WEAK = policy_path("hopper_sac_040k")
STRONG = {
    "Hopper-v4": policy_path("hopper_sac_360k"),
    "Walker2d-v4": policy_path("walker2d_sac_240k"),
    "HalfCheetah-v4": policy_path("halfcheetah_sac_080k"),
}
NORMAL = np.random.default_rng(0).standard_normal

Rows = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return collect(Task("Hopper-v4", MEDIUM, 300, ((0, 1), (0, 2))))


def constant_policy(mean: list[float], log_std: list[float]) -> ActingPolicy:
    """A policy over 2 observations that ignores them."""
    size = len(mean)
    hidden = (np.zeros((2, 4), np.float32), np.zeros(4, np.float32))
    second = (np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
    out = np.zeros((4, size), np.float32)
    return ActingPolicy((hidden, second), (out, np.float32(mean)), (out, np.float32(log_std)))


def ends(rows: Rows) -> np.ndarray:
    return rows["terminals"] | rows["timeouts"]


@pytest.mark.parametrize("env_id", PHYSICS)
def test_steps_are_gymnasiums_to_the_bit(env_id: str) -> None:
    """Observations, rewards and ends of 1,100 steps, acted by a policy half of the time and at random else."""
    simulators, env = Simulators(env_id, 2), make_env(env_id)
    policy, rng = load_acting_policy(STRONG[env_id]), np.random.default_rng(0)
    simulators.reset(1, seed=7)
    observation, elapsed, only = env.reset(seed=7)[0], 0, np.array([1])
    endings = []
    for step in range(1100):
        np.testing.assert_array_equal(simulators.observe(only)[0], observation.astype(np.float32))
        noise = rng.standard_normal((1, env.action_space.shape[0]), dtype=np.float32)  # type: ignore[index]
        action = act(policy, simulators.observe(only), noise)[0] if step % 200 < 100 else np.tanh(noise)
        observation, reward, terminated, truncated, _ = env.step(action[0])
        rewards, terminals = simulators.step(only, action)
        elapsed += 1
        assert (rewards[0], terminals[0]) == (reward, terminated)
        assert (elapsed == simulators.time_limit) == truncated
        if terminated or truncated:
            endings.append(terminated)
            observation, elapsed = env.reset()[0], 0
            simulators.reset(1)
    assert endings
    env.close()


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Walker2d-v4"])
def test_states_end_episodes_where_gymnasium_says(env_id: str) -> None:
    """On both sides of every bound, one coordinate at a time; and not a number."""
    simulators, env = Simulators(env_id, 1), make_env(env_id)
    inner, state, seen = env.unwrapped, np.concatenate([simulators.qpos[0], simulators.qvel[0]]), []
    values = (0.7, 0.701, 0.8, 0.801, 1.999, 2.0, 0.199, 0.2, -0.199, -0.2, 0.999, 1.0, -0.999, -1.0)
    for place in range(len(state)):
        for value in (*values, 99.9, 100.0, -99.9, -100.0, np.nan):
            changed = state.copy()
            changed[place] = value
            inner.data.qpos[:], inner.data.qvel[:] = np.split(changed, [inner.model.nq])  # type: ignore[attr-defined]
            simulators.qpos[0], simulators.qvel[0] = np.split(changed, [inner.model.nq])  # type: ignore[attr-defined]
            assert simulators.unhealthy(np.array([0]))[0] == inner.terminated, (place, value)  # type: ignore[attr-defined]
            seen.append(bool(inner.terminated))  # type: ignore[attr-defined]
    assert 10 < sum(seen) < len(seen) - 10
    env.close()


def test_log_probs_are_those_of_the_sampled_actions_density() -> None:
    """The density of a = tanh(u), u ~ N(0.3, 0.5), written down apart from the code, integrates to 1 and matches."""

    def density(action: np.ndarray) -> np.ndarray:
        u = np.arctanh(action)
        return np.exp(-0.5 * ((u - 0.3) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi)) / (1 - action**2)

    grid = np.linspace(-1 + 1e-9, 1 - 1e-9, 20_001)
    assert np.trapezoid(density(grid), grid) == pytest.approx(1, abs=1e-6)
    noise = NORMAL((50, 1), dtype=np.float32)
    actions, log_probs = act(constant_policy([0.3], [np.log(0.5)]), np.zeros((50, 2), np.float32), noise)
    np.testing.assert_allclose(log_probs, np.log(density(np.float64(actions[:, 0]))), atol=1e-4)


def test_log_probs_add_over_dimensions_and_stay_finite_at_the_boundary() -> None:
    noise = NORMAL((1, 2), dtype=np.float32)
    actions, log_probs = act(constant_policy([30.0, -30.0], [0.0, 0.0]), np.zeros((1, 2), np.float32), noise)
    assert actions[0].tolist() == [1, -1]
    # log (1 - tanh(u)^2) -> 2 log 2 - 2 |u|: with |u| near 30 each dimension adds about 2 * 30 - 2 log 2
    expected = sum(
        -0.5 * n**2 - 0.5 * np.log(2 * np.pi) + 2 * abs(u) - 2 * np.log(2)
        for n, u in zip(noise[0], [30 + noise[0, 0], noise[0, 1] - 30], strict=True)
    )
    assert log_probs[0] == pytest.approx(expected, rel=1e-5)


def test_log_std_is_clipped_as_in_training() -> None:
    noise = NORMAL((2000, 1), dtype=np.float32)
    actions, _ = act(constant_policy([0.0], [-50.0]), np.zeros((2000, 2), np.float32), noise)
    assert np.std(actions) == pytest.approx(np.exp(-5), rel=0.05)


def test_an_observations_action_does_not_depend_on_those_beside_it() -> None:
    policy = load_acting_policy(MEDIUM)
    observations, noise = NORMAL((7, 11), dtype=np.float32), NORMAL((7, 3), dtype=np.float32)
    together = act(policy, observations, noise)
    for row in range(7):
        alone = act(policy, observations[row : row + 1], noise[row : row + 1])
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(many[row], one[0])


def test_every_episode_is_complete_and_ends_in_one_way_only(rows: Rows) -> None:
    assert ends(rows)[-1]
    assert not (rows["terminals"] & rows["timeouts"]).any()
    one = collect(Task("Hopper-v4", MEDIUM, 300, ((0, 1),)))
    assert len(one["rewards"]) >= 300
    assert not ends(one)[299:-1].any()  # stops at the first end after 300 steps


def test_next_observations_are_the_next_rows_within_episodes(rows: Rows) -> None:
    following, observations, inside = rows["next_observations"], rows["observations"], ~ends(rows)[:-1]
    np.testing.assert_array_equal(following[:-1][inside], observations[1:][inside])
    assert (following[:-1][~inside] != observations[1:][~inside]).any(axis=1).all()


def test_the_simulator_repeats_each_step_from_the_logged_state(rows: Rows) -> None:
    """Reward, next observation and end of every 10th row follow from its qpos, qvel and action alone."""
    env = make_env("Hopper-v4")
    env.reset(seed=1)
    for row in range(0, len(rows["rewards"]), 10):
        env.unwrapped.set_state(rows["infos/qpos"][row], rows["infos/qvel"][row])  # type: ignore[attr-defined]
        # the solver starts from the last step's forces, so a fresh start agrees to its tolerance, not to the bit
        following, reward, terminated, _, _ = env.unwrapped.step(rows["actions"][row])
        np.testing.assert_allclose(following, rows["next_observations"][row], rtol=1e-4, atol=1e-4)
        assert reward == pytest.approx(rows["rewards"][row], abs=1e-4)
        assert terminated == rows["terminals"][row]
    env.close()


def test_observations_are_qpos_and_qvel_of_the_same_row(rows: Rows) -> None:
    expected = np.concatenate([rows["infos/qpos"][:, 1:], np.clip(rows["infos/qvel"], -10, 10)], axis=1)
    np.testing.assert_array_equal(rows["observations"], expected.astype(np.float32))


@pytest.mark.parametrize(("steps", "ends_at"), [(1000, [999]), (1001, [999, 1999])])
def test_a_time_limit_is_a_timeout_not_a_terminal(steps: int, ends_at: list[int]) -> None:
    """Every episode of HalfCheetah lasts 1,000 steps."""
    rows = collect(Task("HalfCheetah-v4", STRONG["HalfCheetah-v4"], steps, ((0,),)))
    assert len(rows["rewards"]) == ends_at[-1] + 1
    assert np.flatnonzero(rows["timeouts"]).tolist() == ends_at
    assert not rows["terminals"].any()


def test_slots_follow_each_other_and_do_not_depend_on_those_beside_them(rows: Rows) -> None:
    """300 steps are more than the steps whose noise is drawn at once."""
    alone = [collect(Task("Hopper-v4", MEDIUM, 300, (seed,))) for seed in ((0, 1), (0, 2))]
    for name, column in rows.items():
        np.testing.assert_array_equal(column, np.concatenate([part[name] for part in alone]))
    assert (alone[0]["observations"][0] != alone[1]["observations"][0]).any()


def test_uniform_actions_have_the_density_of_the_cube() -> None:
    rows = collect(Task("HalfCheetah-v4", UNIFORM, 1000, ((0,),)))
    assert rows["infos/action_log_probs"].tolist() == [np.float32(-6 * np.log(2))] * 1000
    assert np.abs(rows["actions"]).max() <= 1
    np.testing.assert_allclose(np.quantile(rows["actions"], [0.1, 0.5, 0.9], axis=0).mean(1), [-0.8, 0, 0.8], atol=0.05)
    assert np.abs(np.corrcoef(rows["actions"].T) - np.eye(6)).max() < 0.15


def test_progress_adds_up_to_all_steps() -> None:
    steps: list[int] = []
    rows = collect(Task("Hopper-v4", WEAK, 1200, ((3,),)), steps.append)
    assert sum(steps) == len(rows["rewards"])
    assert len(steps) >= 3


@pytest.mark.parametrize("env_id", PHYSICS)
def test_shipped_policies_are_finite_and_fit_their_environment(env_id: str) -> None:
    for rung in ladder(env_id):
        check_shipped(load_acting_policy(policy_path(rung.policy)), *((11, 3) if env_id == "Hopper-v4" else (17, 6)))


def check_shipped(policy: ActingPolicy, observation: int, action: int) -> None:
    layers = (*policy.hidden, policy.mean, policy.log_std)
    assert [weight.shape for weight, _ in layers] == [(observation, 256), (256, 256), (256, action), (256, action)]
    for weight, bias in layers:
        assert weight.dtype == bias.dtype == np.float32
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
