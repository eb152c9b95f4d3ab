"""What changed over updates: closed forms, and runs that are watched, killed and resumed."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from itrpo import RunOptions, load_dataset, train
from itrpo.policy import load_policy
from itrpo.results import checkpoint
from itrpo.results.moments import moments_path, read_moments
from itrpo.results.store import read_metrics
from itrpo.training import session, watch
from itrpo.types import Snapshot

BOUNDS = {"action_low": -2.0, "action_high": 2.0}
FIELDS = {"policy_hidden": (8,), "critic_hidden": (8,), "behavior_hidden": (8,), "batch_size": 16}
MOMENTS, ROWS, DIMS = watch.LAGS + 1, 5000, 2


def snapshots(**given) -> Snapshot:
    """[MOMENTS, ROWS, ...]: standard normal policies, zero values, and what is given."""
    zeros = jnp.zeros((MOMENTS, ROWS))
    plain = Snapshot(jnp.zeros((MOMENTS, ROWS, DIMS)), jnp.zeros((MOMENTS, ROWS, DIMS)), zeros, zeros, zeros)
    return plain._replace(**given)


def measure(recent: Snapshot, lags: int = watch.LAGS, evaluated: int = 0) -> dict[str, float]:
    """evaluated: which of the snapshots was taken at the last evaluation."""
    watched = watch.Watched(recent, (recent.mean[evaluated], recent.log_std[evaluated]))
    after, probes = watch.measure(watched, jnp.asarray(lags))
    np.testing.assert_array_equal(after.evaluated[0], recent.mean[-1])
    return {name: float(value) for name, value in probes.items()}


def test_divergences_are_those_of_known_gaussians_and_of_the_newer_from_the_older():
    """Stds grow by a factor of 1.2 at each lag: D_KL[N(0, s'^2) || N(0, s^2)] = log(s/s') + (s'/s)^2 / 2 - 1/2."""
    log_std = jnp.log(1.2) * jnp.arange(MOMENTS)[:, None, None] * jnp.ones((1, ROWS, DIMS))
    found = measure(snapshots(log_std=log_std), evaluated=4)

    def kl(lags: int) -> float:
        return DIMS * (0.5 * 1.2 ** (2 * lags) - 0.5 - lags * np.log(1.2))

    np.testing.assert_allclose(found["probe_kl_100"], kl(1), rtol=1e-4)
    np.testing.assert_allclose(found["probe_kl_1000"], kl(10), rtol=1e-4)
    np.testing.assert_allclose(found["probe_kl_evaluations"], kl(6), rtol=1e-4)


def test_a_straight_way_and_one_to_and_fro_are_told_apart():
    """Means that move by 0.1 stds per lag: 1,000 updates are 100 times the divergence of 100 on a straight way."""
    straight = 0.1 * jnp.arange(MOMENTS)[:, None, None] * jnp.ones((1, ROWS, DIMS))
    found = measure(snapshots(mean=straight))
    np.testing.assert_allclose(found["probe_kl_100"], DIMS * 0.1**2 / 2, rtol=1e-3)
    np.testing.assert_allclose(found["probe_kl_1000"], DIMS * 1.0**2 / 2, rtol=1e-3)
    found = measure(snapshots(mean=straight % 0.15))  # 0, 0.1, 0.05, 0, ...
    assert 0.0 < found["probe_kl_1000"] < 2 * found["probe_kl_100"]


def test_the_largest_is_over_rows():
    mean = jnp.zeros((MOMENTS, ROWS, DIMS)).at[-1, 7, 0].set(2.0)
    found = measure(snapshots(mean=mean))
    np.testing.assert_allclose(found["probe_kl_100_max"], 2.0 / watch.LAGS, rtol=1e-5)  # of one pair in ten
    np.testing.assert_allclose(found["probe_kl_evaluations_max"], 2.0, rtol=1e-5)
    np.testing.assert_allclose(found["probe_kl_evaluations"], 2.0 / ROWS, rtol=1e-3)


def test_what_is_older_than_the_last_evaluation_does_not_count():
    noise = np.random.default_rng(0).normal(size=(MOMENTS, ROWS, DIMS))
    noise[-4:] = 0.0  # the last three lags
    found = measure(snapshots(mean=jnp.asarray(noise), target=jnp.asarray(noise[..., 0])), lags=3)
    assert found["probe_kl_100"] == found["probe_target_fluctuation"] == 0.0
    assert measure(snapshots(mean=jnp.asarray(noise)), lags=4)["probe_kl_100"] > 0.1
    assert set(watch.measured(found, 0)) == {"probe_kl_evaluations", "probe_kl_evaluations_max"}
    assert "probe_kl_100" in watch.measured(found, 1)
    assert set(found) - set(watch.measured(found, 9)) == {"probe_kl_1000", "probe_error", "probe_error_average"}
    assert watch.measured(found, 10) == found


def test_fluctuation_is_the_noise_and_not_the_rise():
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.normal(size=(MOMENTS, ROWS))
    found = measure(snapshots(target=jnp.asarray(noise + 5.0 * np.arange(MOMENTS)[:, None])))
    np.testing.assert_allclose(found["probe_target_fluctuation"], 0.3, rtol=0.02)
    assert found["probe_implicit_q_fluctuation"] == 0.0


def test_averaging_takes_independent_errors_away_and_leaves_constant_ones():
    rng = np.random.default_rng(0)
    independent, constant = 0.3 * rng.normal(size=(MOMENTS, ROWS)), 0.4 * rng.normal(size=ROWS)
    found = measure(snapshots(error=jnp.asarray(independent)))
    np.testing.assert_allclose(found["probe_error"], 0.3, rtol=0.02)
    np.testing.assert_allclose(found["probe_error_average"], 0.3 / np.sqrt(MOMENTS), rtol=0.05)
    found = measure(snapshots(error=jnp.broadcast_to(jnp.asarray(constant), (MOMENTS, ROWS))))
    np.testing.assert_allclose(found["probe_error_average"], found["probe_error"], rtol=1e-5)


def test_looks_are_a_lag_apart_up_to_the_evaluation():
    assert watch.steps(0, 5000) == list(range(4000, 5001, 100))
    assert watch.steps(5000, 5250) == [5050, 5150, 5250]
    assert watch.steps(5000, 5200) == [5100, 5200]  # the look at 5,000 is there already
    assert watch.steps(0, 50) == [50]
    assert [watch.lags_since(5000, stop) for stop in (5050, 5200, 5250, 9000)] == [0, 2, 2, 10]


# --- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def short_lags(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Snapshots every 5 updates, where runs are trained."""
    if "trained" in request.fixturenames:
        monkeypatch.setattr(watch, "LAG", 5)


@pytest.fixture(scope="module")
def trained(pendulum: Path):
    """train(folder, ...) with an evaluation every 60 updates."""

    def run(folder: Path, algorithm: str = "itrpo", steps: int = 120, **fields) -> Path:
        options = RunOptions(
            steps=steps,
            behavior_steps=30,
            eval_every=60,
            eval_episodes=1,
            seeds=2,
            out=folder,
            env="none",
            preset="quick",
            **BOUNDS,
        )
        given = FIELDS | fields
        if algorithm == "itrpo_insample":
            given["value_hidden"] = (8,)
        train(pendulum, algorithm, options, fields=given, console=Console(quiet=True))
        return folder

    return run


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "LAG", 5)
        return trained(tmp_path_factory.mktemp("whole") / "run")


def values(folder: Path, step: int, seed: int = 1) -> dict[str, float]:
    rows = read_metrics(folder)
    own = rows.filter((rows["step"] == step) & (rows["seed"] == seed))
    return dict(zip(own["metric"], own["value"], strict=True))


@pytest.mark.parametrize("algorithm", ["itrpo", pytest.param("brac_v", marks=pytest.mark.slow), "itrpo_insample"])
def test_a_run_records_them_and_the_path_that_its_policy_takes(trained, whole, pendulum, tmp_path, algorithm):
    folder = whole if algorithm == "itrpo" else trained(tmp_path / "run", algorithm)
    for step in (60, 120):
        found = values(folder, step)
        assert set(watch.NEEDED) <= set(found)
        assert all(np.isfinite(found[name]) and found[name] > 0 for name in watch.NEEDED)
    path = read_moments(moments_path(folder, 1))
    assert path.step.tolist() == [0, 60, 120]
    assert path.mean.dtype == path.log_std.dtype == np.float32
    dataset = load_dataset(pendulum, **BOUNDS)
    rows = session.probe_rows(dataset.transitions.observation, watch.ROWS)
    assert path.mean.shape == (3, len(rows), 1) == (3, 256, 1)
    played = load_policy(folder / "seed1" / "policy.npz")(rows)
    np.testing.assert_allclose(2 * np.tanh(path.mean[-1]), played, atol=1e-5)
    mean, log_std = (it.astype(np.float64) for it in (path.mean, path.log_std))
    ratio = np.exp(log_std[2] - log_std[1])
    by_hand = 0.5 * (ratio**2 + ((mean[2] - mean[1]) * np.exp(-log_std[1])) ** 2 - 1) - np.log(ratio)
    np.testing.assert_allclose(values(folder, 120)["probe_kl_evaluations"], by_hand.mean(), rtol=1e-3, atol=1e-7)
    assert path.behavior is not None
    if algorithm != "itrpo_insample":  # quick begins as pi_beta
        np.testing.assert_array_equal(path.behavior[0], path.mean[0])
        np.testing.assert_array_equal(path.behavior[1], path.log_std[0])


def test_a_policy_that_cannot_move_has_none(trained, tmp_path):
    folder = trained(tmp_path / "run", policy_learning_rate=1e-30)
    for step in (60, 120):
        found = values(folder, step)
        assert {found[name] for name in found if name.startswith("probe_kl_")} == {0.0}
        assert found["probe_target_fluctuation"] > 0


@pytest.mark.parametrize("stopped", [*(pytest.param(it, marks=pytest.mark.slow) for it in (3, 27, 87)), 60])
def test_a_killed_run_measures_the_same(trained, whole, tmp_path, monkeypatch, stopped):
    """Before, and in the midst of the lags of the first evaluation, at it, and in those of the second."""
    killed = tmp_path / "killed"
    save = session.Session.save

    def save_and_die(self, phase, step, carry):
        save(self, phase, step, carry)
        if (phase, step >= stopped) == ("train", True):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(session.Session, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            trained(killed)
    reached = int(checkpoint.sorted_checkpoints(killed / "checkpoints")[0].name[-10:])
    assert stopped <= reached < 120
    trained(killed)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    for index in range(2):
        assert moments_path(whole, index).read_bytes() == moments_path(killed, index).read_bytes()


@pytest.mark.slow
def test_longer_runs_and_more_seeds_have_the_same_path(trained, whole, pendulum, tmp_path):
    extended = tmp_path / "extended"
    one = RunOptions(
        steps=60,
        behavior_steps=30,
        eval_every=60,
        eval_episodes=1,
        seeds=1,
        out=extended,
        env="none",
        preset="quick",
        **BOUNDS,
    )
    train(pendulum, "itrpo", one, fields=FIELDS, console=Console(quiet=True))
    trained(extended)
    key = ["seed", "step", "metric"]
    assert read_metrics(whole).sort(key).equals(read_metrics(extended).sort(key))
    for index in range(2):
        assert moments_path(whole, index).read_bytes() == moments_path(extended, index).read_bytes()


def test_looking_changes_no_bit_of_training(trained, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "LAG", 1000)
    seldom = trained(tmp_path / "seldom")
    unwatched = [
        {name: value for name, value in values(folder, 120).items() if name not in watch.NEEDED}
        for folder in (whole, seldom)
    ]
    assert unwatched[0] == unwatched[1]
    assert "probe_kl_100" not in values(seldom, 120)
    assert (whole / "seed1" / "policy.npz").read_bytes() == (seldom / "seed1" / "policy.npz").read_bytes()
    assert moments_path(whole, 1).read_bytes() == moments_path(seldom, 1).read_bytes()
