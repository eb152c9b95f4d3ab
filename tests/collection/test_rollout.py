from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from itrpo.collection.demo import POLICY_FOLDER
from itrpo.collection.rollout import ActingPolicy, Rows, Task, collect, collect_all, load_acting_policy, sample_action
from itrpo.evaluation.environments import make_env

MEDIUM = str(POLICY_FOLDER / "hopper_sac_140k.safetensors")
WEAK = str(POLICY_FOLDER / "hopper_sac_040k.safetensors")


@pytest.fixture(scope="module")
def rows() -> Rows:
    return collect(Task("Hopper-v4", MEDIUM, 600, (0, 1)))


def constant_policy(mean: list[float], log_std: list[float]) -> ActingPolicy:
    """A policy over 2 observations that ignores them."""
    size = len(mean)
    hidden = (np.zeros((2, 4), np.float32), np.zeros(4, np.float32))
    second = (np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
    out = np.zeros((4, size), np.float32)
    return ActingPolicy((hidden, second), (out, np.float32(mean)), (out, np.float32(log_std)))


def test_log_probs_are_those_of_the_sampled_actions_density() -> None:
    """The density of a = tanh(u), u ~ N(0.3, 0.5), written down apart from the code, integrates to 1 and matches."""

    def density(action: np.ndarray) -> np.ndarray:
        u = np.arctanh(action)
        return np.exp(-0.5 * ((u - 0.3) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi)) / (1 - action**2)

    grid = np.linspace(-1 + 1e-9, 1 - 1e-9, 20_001)
    assert np.trapezoid(density(grid), grid) == pytest.approx(1, abs=1e-6)
    policy, rng = constant_policy([0.3], [np.log(0.5)]), np.random.default_rng(0)
    for _ in range(50):
        action, log_prob = sample_action(policy, np.zeros(2, np.float32), rng)
        assert log_prob == pytest.approx(np.log(density(np.float64(action))[0]), abs=1e-4)


def test_log_probs_add_over_dimensions_and_stay_finite_at_the_boundary() -> None:
    policy = constant_policy([30.0, -30.0], [0.0, 0.0])
    action, log_prob = sample_action(policy, np.zeros(2, np.float32), np.random.default_rng(0))
    assert action.tolist() == [1, -1]
    # log (1 - tanh(u)^2) -> 2 log 2 - 2 |u|: with |u| near 30 each dimension adds about 2 * 30 - 2 log 2
    noise = np.random.default_rng(0).standard_normal(2, dtype=np.float32)
    expected = sum(
        -0.5 * n**2 - 0.5 * np.log(2 * np.pi) + 2 * abs(u) - 2 * np.log(2)
        for n, u in zip(noise, [30 + noise[0], noise[1] - 30], strict=True)
    )
    assert log_prob == pytest.approx(expected, rel=1e-5)


def test_log_std_is_clipped_as_in_training() -> None:
    rng = np.random.default_rng(0)
    policy = constant_policy([0.0], [-50.0])
    actions = [sample_action(policy, np.zeros(2, np.float32), rng)[0][0] for _ in range(2000)]
    assert np.std(actions) == pytest.approx(np.exp(-5), rel=0.05)


def test_every_episode_is_complete_and_ends_in_one_way_only(rows: Rows) -> None:
    ends = rows.terminals | rows.timeouts
    assert ends[-1]
    assert not (rows.terminals & rows.timeouts).any()
    assert len(rows.rewards) >= 600
    assert ends[:600].sum() == ends.sum() - 1 or ends.sum() == 1  # stops at the first end after 600 steps


def test_next_observations_are_the_next_rows_within_episodes(rows: Rows) -> None:
    inside = ~(rows.terminals | rows.timeouts)[:-1]
    np.testing.assert_array_equal(rows.next_observations[:-1][inside], rows.observations[1:][inside])
    assert (rows.next_observations[:-1][~inside] != rows.observations[1:][~inside]).any(axis=1).all()


def test_the_simulator_repeats_each_step_from_the_logged_state(rows: Rows) -> None:
    """Reward, next observation and end of every 10th row follow from its qpos, qvel and action alone."""
    env = make_env("Hopper-v4")
    env.reset(seed=1)
    for row in range(0, len(rows.rewards), 10):
        env.unwrapped.set_state(rows.qpos[row], rows.qvel[row])  # type: ignore[attr-defined]
        # the solver starts from the last step's forces, so a fresh start agrees to its tolerance, not to the bit
        following, reward, terminated, _, _ = env.unwrapped.step(rows.actions[row])
        np.testing.assert_allclose(following, rows.next_observations[row], rtol=1e-4, atol=1e-4)
        assert reward == pytest.approx(rows.rewards[row], abs=1e-4)
        assert terminated == rows.terminals[row]
    env.close()


def test_observations_are_qpos_and_qvel_of_the_same_row(rows: Rows) -> None:
    expected = np.concatenate([rows.qpos[:, 1:], np.clip(rows.qvel, -10, 10)], axis=1)
    np.testing.assert_array_equal(rows.observations, expected.astype(np.float32))


def test_a_time_limit_is_a_timeout_not_a_terminal() -> None:
    strong = str(POLICY_FOLDER / "hopper_sac_360k.safetensors")
    rows = collect(Task("Hopper-v4", strong, 1, (0,)))
    assert (len(rows.rewards), int(rows.timeouts.sum()), int(rows.terminals.sum())) == (1000, 1, 0)
    assert rows.rewards.sum() > 3000


def test_the_same_task_gives_the_same_bits_and_another_seed_other_ones(rows: Rows) -> None:
    again, other = (collect(Task("Hopper-v4", MEDIUM, 600, seed)) for seed in ((0, 1), (0, 2)))
    for first, second in zip(rows, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (rows.observations[0] != other.observations[0]).any()


def test_progress_adds_up_to_all_steps() -> None:
    steps: list[int] = []
    rows = collect(Task("Hopper-v4", WEAK, 1200, (3,)), steps.append)
    assert sum(steps) == len(rows.rewards)
    assert len(steps) >= 3


def test_workers_give_the_bits_and_the_order_of_one_process() -> None:
    tasks = [Task("Hopper-v4", policy, 200, (index,)) for index, policy in enumerate((WEAK, MEDIUM, WEAK))]
    steps: list[int] = []
    several = collect_all(tasks, 2, steps.append)
    for mine, expected in zip(several, collect_all(tasks, 1), strict=True):
        for first, second in zip(mine, expected, strict=True):
            np.testing.assert_array_equal(first, second)
            assert first.dtype == second.dtype
    assert sum(steps) == sum(len(part.rewards) for part in several)


def test_without_working_processes_the_tasks_are_done_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tasks = [Task("Hopper-v4", WEAK, 100, (0,))]
    for program in ("/bin/false", str(tmp_path / "no-such-program")):
        monkeypatch.setattr("sys.executable", program)
        (rows,) = collect_all(tasks, 2)
        assert len(rows.rewards) >= 100


def test_an_error_in_a_worker_comes_up_here() -> None:
    with pytest.raises(Exception, match="Hoper-v4"):
        collect_all([Task("Hoper-v4", WEAK, 100, (0,))], 2)


@pytest.mark.parametrize("path", sorted(POLICY_FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_shipped_policies_are_finite_and_fit_hopper(path: Path) -> None:
    policy = load_acting_policy(path)
    layers = (*policy.hidden, policy.mean, policy.log_std)
    assert [weight.shape for weight, _ in layers] == [(11, 256), (256, 256), (256, 3), (256, 3)]
    for weight, bias in layers:
        assert weight.dtype == bias.dtype == np.float32
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
