from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from itrpo import files, plotting
from itrpo.data.health import Health, check_dataset
from itrpo.errors import InputError, StorageError
from itrpo.plotting import (
    BLACK,
    BLUE,
    VERMILLION,
    health_picture,
    learning_curve,
    policy_paths,
    policy_points,
    returns_curve,
    run_curves,
)
from itrpo.results import store
from itrpo.results.moments import add_moments, begin_moments, moments_path, read_moments
from itrpo.results.run_folder import RunFolder
from itrpo.results.schema import Row
from tests.report.canned import make_run


def read_png(path: Path) -> np.ndarray:
    from matplotlib.image import imread  # only after ours: the first import decides where matplotlib keeps its files

    return imread(path)


def pixels_of(picture: np.ndarray, color: str) -> int:
    """Number of pixels within rounding of an opaque colour like "#0072B2"."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(picture[..., :3] - rgb).max(axis=-1) < 0.01).sum())


def test_the_picture_shows_the_run_bc_and_the_dataset(tmp_path):
    path = tmp_path / "learning_curve.png"
    assert learning_curve(make_run(tmp_path / "run"), path)
    picture = read_png(path)
    height, width = picture.shape[:2]
    assert height > width > 1000  # three panels above each other
    for color in (BLUE, VERMILLION, BLACK):
        assert pixels_of(picture, color) > 500
    assert sorted(file.name for file in tmp_path.iterdir()) == ["learning_curve.png", "run"]


def test_nothing_else_is_written_or_changed(tmp_path):
    """In a fresh process: matplotlib's files go to our cache, and rcParams and the environment stay as they were."""
    make_run(tmp_path / "run")
    script = """
import os, sys
from pathlib import Path
from itrpo.plotting import learning_curve
learning_curve(Path("run"), Path("first.png"))
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
settings = dict(matplotlib.rcParams)
learning_curve(Path("run"), Path("second.png"))
assert dict(matplotlib.rcParams) == settings
assert "MPLCONFIGDIR" not in os.environ
"""
    (tmp_path / "home").mkdir()
    folders = {"HOME": str(tmp_path / "home"), "ITRPO_CACHE": str(tmp_path / "cache")}
    paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | folders | paths, check=True)
    assert not list((tmp_path / "home").iterdir())
    assert (tmp_path / "cache" / "matplotlib").is_dir()
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_what_was_not_recorded_is_not_drawn(tmp_path):
    make_run(tmp_path / "full", seeds=1)
    make_run(tmp_path / "bare", seeds=1, scores=False, probes=False)
    files.write_json(tmp_path / "bare" / "provenance.json", {"dataset": {}})
    pictures = []
    for name in ("full", "bare"):
        learning_curve(tmp_path / name, tmp_path / name / "curve.png")
        pictures.append(read_png(tmp_path / name / "curve.png"))
    assert pictures[1].shape[0] < pictures[0].shape[0]  # one panel instead of three


def test_a_run_without_evaluation_has_its_probes_drawn(tmp_path):
    run_dir = make_run(tmp_path, evaluations=3)
    rows = [row for row in store.read_metrics(run_dir).rows() if row[3].startswith("probe")]
    (run_dir / store.METRICS).unlink()
    assert not learning_curve(run_dir, run_dir / "curve.png")
    assert not (run_dir / "curve.png").exists()
    RunFolder(run_dir).append_metrics(Row(*row) for row in rows)
    assert learning_curve(run_dir, run_dir / "curve.png")
    picture = read_png(run_dir / "curve.png")
    assert pixels_of(picture, BLUE) > 500
    assert pixels_of(picture, VERMILLION) == 0


@pytest.mark.parametrize("evaluations", [1, 2])
def test_few_evaluations_are_visible_as_points(tmp_path, evaluations):
    learning_curve(make_run(tmp_path, seeds=1, evaluations=evaluations, probes=False), tmp_path / "curve.png")
    assert pixels_of(read_png(tmp_path / "curve.png"), BLUE) > 50


@pytest.fixture
def figures(monkeypatch) -> list:
    """What is drawn, before it is written."""
    drawn: list = []
    save = plotting.save
    monkeypatch.setattr(plotting, "save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    return drawn


def test_axes_are_scaled_by_the_seeds_and_few_seeds_have_no_band(tmp_path, figures):
    """Two seeds return 1,000 and 1,100: their interval reaches from 415 to 1,685."""
    for seeds in (2, 4):
        learning_curve(make_run(tmp_path / str(seeds), seeds=seeds), tmp_path / "curve.png")
    for figure, seeds in zip(figures, (2, 4), strict=True):
        returns, kl, shaping = figure.axes[:3]
        low, high = returns.get_ylim()
        assert (low, high) == pytest.approx((-0.05 * (top := 900 + 100 * seeds), 1.05 * top))
        assert kl.get_ylim()[0] == 0
        assert shaping.get_ylim()[0] < -0.44
        assert len(returns.collections) == (seeds == 4)  # the band
        assert len(returns.lines) == seeds + 3  # each, their mean, BC and the dataset
        assert "20,000" in [label.get_text() for label in shaping.get_xticklabels()]
        assert "1,000" in [label.get_text() for label in returns.get_yticklabels()]
        assert "−0.2" in [label.get_text() for label in shaping.get_yticklabels()]


def test_a_divergence_is_not_drawn_below_zero(tmp_path, figures):
    """Four seeds, of which one is far from the others: the band alone would reach below."""
    run = make_run(tmp_path, evaluations=3, probes=False)
    RunFolder(run).append_metrics(
        Row("canned", seed, step, "probe_kl", 2.0 if seed == 3 else 0.01) for seed in range(4) for step in (1, 2)
    )
    learning_curve(run, tmp_path / "curve.png")
    kl = figures[0].axes[1]
    assert kl.get_ylim()[0] == 0
    assert kl.collections[0].get_paths()[0].vertices[:, 1].min() == 0


@pytest.mark.parametrize("metrics", [("critic_loss", "probe_cloning_error"), ("their_own",)])
def test_every_algorithm_has_a_curve_also_without_an_environment(tmp_path, metrics, figures):
    run = make_run(tmp_path, evaluations=0)
    rows = [Row("canned", seed, step, name, 0.1 * step) for name in metrics for seed in range(4) for step in (1, 2, 3)]
    RunFolder(run).append_metrics(rows)
    assert learning_curve(str(run), tmp_path / "curve.png")
    assert len(figures[0].axes) == len(metrics)
    assert pixels_of(read_png(tmp_path / "curve.png"), BLUE) > 500


def test_several_runs_in_one_picture(tmp_path, figures):
    for name, algorithm, dataset in (
        ("one", "itrpo", "hopper"),
        ("two", "td3_bc", "hopper"),
        ("three", "iql", "cheetah"),
    ):
        run = make_run(tmp_path / "runs" / name, seeds=4 if name == "one" else 2)
        status = store.read_status(run)._replace(algorithm=algorithm, dataset=dataset)
        RunFolder(run).write_status(status)
        files.write_json(run / "config.json", {"config": {"algorithm": algorithm}})
    assert len(run_curves([tmp_path / "runs"], tmp_path / "curves.png")) == 3
    one, two = figures[0].axes
    assert [axes.get_title("left") for axes in (one, two)] == ["hopper", "cheetah"]
    assert [text.get_text() for text in one.get_legend().get_texts()] == [
        "iTRPO, mean of 4 seeds, 95% interval",
        "TD3+BC, mean of 2 seeds",
    ]
    assert one.get_ylabel() == "D4RL score"
    picture = read_png(tmp_path / "curves.png")
    assert all(pixels_of(picture, color) > 500 for color in (BLUE, VERMILLION))
    run_curves([tmp_path / "runs/one", tmp_path / "runs/two"], tmp_path / "kl.png", "probe_kl")
    assert figures[1].axes[0].get_ylim()[0] == 0
    with pytest.raises(InputError, match=r"has no metric 'probe_kll' \(did you mean 'probe_kl'\?\)"):
        run_curves([tmp_path / "runs"], tmp_path / "no.png", "probe_kll")
    assert not (tmp_path / "no.png").exists()
    for name in ("four", "five"):  # without an environment
        rows = [Row("canned", 0, step, "probe_log_prob", -0.1 * step) for step in (1, 2)]
        run = make_run(tmp_path / "blind" / name)
        files.write(run / "metrics.jsonl", b"")
        RunFolder(run).append_metrics(rows)
        files.write_json(run / "config.json", {"config": {"algorithm": "itrpo"}})
    run_curves([tmp_path / "blind"], tmp_path / "blind.png")
    assert figures[2].axes[0].get_ylabel() == "mean\nlog π(a|s)"
    with pytest.raises(InputError, match=r"curves\.png: a file; name folders of runs"):
        run_curves([tmp_path / "curves.png"], tmp_path / "other.png")
    with pytest.raises(InputError, match=r"curves\.svg: pictures are PNG"):
        run_curves(str(tmp_path / "runs"), str(tmp_path / "curves.svg"))


def walked(run: Path, seed: int, mean: np.ndarray, sha256: str = "a") -> Path:
    """A canned run whose policy has these means [E, B, A], and stds of 0.5 as pi_beta has."""
    make_run(run, seeds=1, evaluations=len(mean) - 1)
    files.write_json(run / "provenance.json", {"dataset_sha256": sha256})
    files.write_json(run / "config.json", {"config": {"algorithm_config": {"alpha": 3.0, "tau": 0.5}}})
    log_std = np.full_like(mean, np.log(0.5))
    path = moments_path(run, seed)
    begin_moments(path, (mean[0], log_std[0]), (mean[0], log_std[0]))
    for index in range(1, len(mean)):
        add_moments(path, 5000 * index, (mean[index], log_std[index]))
    return run


def test_distances_of_policies_are_divergences(tmp_path):
    """Squared, mean KL: exactly for means at equal stds, to second order for stds."""
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 50, 3)), np.broadcast_to(rng.normal(size=(50, 3)), (2, 50, 3))

    def squared(log_std: np.ndarray) -> float:
        points = policy_points(mean, log_std, (mean[0], log_std[0]))
        return float(np.square(points[1] - points[0]).sum())

    by_hand = 0.5 * np.square((mean[1] - mean[0]) / np.exp(log_std[0])).sum(1).mean()
    np.testing.assert_allclose(squared(log_std), by_hand)
    mean[1] = mean[0]
    wider = np.stack([log_std[0], log_std[0] + 0.01])
    np.testing.assert_allclose(squared(wider), 3 * (0.5 * np.exp(0.02) - 0.5 - 0.01), rtol=0.01)


def test_paths_of_policies(tmp_path):
    along, across = np.random.default_rng(0).normal(size=(2, 20, 2))
    steps = np.arange(12)[:, None, None]
    straight = walked(tmp_path / "straight", 0, 0.1 * steps * along)
    swaying = walked(tmp_path / "swaying", 0, 0.1 * steps * along + 0.3 * (steps % 2) * across)
    policy_paths([straight, swaying], tmp_path / "paths.png")
    picture = read_png(tmp_path / "paths.png")
    assert picture.shape[1] > picture.shape[0] > 600
    for color in (BLUE, VERMILLION):
        for panel in np.split(picture, [int(0.46 * picture.shape[1])], axis=1):
            assert pixels_of(panel, color) > 50
    policy_paths([straight], tmp_path / "one.png")
    with pytest.raises(InputError, match="on different datasets"):
        policy_paths([straight, walked(tmp_path / "other", 0, 0.1 * steps * along, "b")], tmp_path / "no.png")
    with pytest.raises(InputError, match=r"seed1.moments.npz does not exist"):
        policy_paths([straight], tmp_path / "no.png", seed=1)
    moments_path(straight, 0).write_bytes(b"PK nothing")
    with pytest.raises(StorageError, match="damaged"):
        policy_paths([straight], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_step_that_is_done_again_replaces_what_came_after(tmp_path):
    mean = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    path = moments_path(walked(tmp_path / "run", 0, mean), 0)
    before = path.read_bytes()
    add_moments(path, 5000, (mean[1], np.full_like(mean[1], np.log(0.5))))
    assert read_moments(path).step.tolist() == [0, 5000]
    for index in (2, 3):
        add_moments(path, 5000 * index, (mean[index], np.full_like(mean[1], np.log(0.5))))
    assert path.read_bytes() == before


def test_returns_of_a_policy_in_training(tmp_path):
    """A curve that rises from the lower left to the upper right corner; the mode's lies above it."""
    rows = [
        {"step": 1000 * i, "sampled_mean": 10.0 * i, "sampled_std": 1.0, "mode_mean": 10.0 * i + 30, "mode_std": 1.0}
        for i in range(20)
    ]
    returns_curve(rows, "SAC in Hopper-v4, seed 0", "Hopper-v4", tmp_path / "curve.png")
    picture = read_png(tmp_path / "curve.png")
    blue = np.argwhere(np.abs(picture[..., :3] - [0, 0x72 / 255, 0xB2 / 255]).max(-1) < 0.01)
    vermillion = np.argwhere(np.abs(picture[..., :3] - [0xD5 / 255, 0x5E / 255, 0]).max(-1) < 0.01)
    assert len(blue) > 500
    assert len(vermillion) > 500
    curve = blue[blue[:, 0] < 0.8 * len(picture)]  # without the legend
    assert np.corrcoef(curve.T)[0, 1] < -0.99  # rows count from above
    assert vermillion[:, 0].min() < blue[:, 0].min()


@pytest.mark.parametrize(
    ("dimensions", "height"), [(1, 940), (6, 1280), pytest.param(20, 1960, marks=pytest.mark.slow)]
)
def test_the_picture_of_a_dataset(tmp_path, dimensions, height):
    """Ends by the environment are orange: without them no pixel is. More than 16 dimensions make no taller picture."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (500, dimensions))
    actions[3] = np.nan
    orange = []
    for by_terminal in (np.arange(50) < 20, np.zeros(50, bool)):
        returns, lengths = np.append(rng.normal(size=49), np.nan), rng.integers(1, 100, 50)
        names = tuple(f"action {index}" for index in range(dimensions))
        bounds = -np.ones(dimensions), np.ones(dimensions)
        health = Health("own", {}, (), returns, lengths, by_terminal, actions, names, bounds)
        health_picture(health, tmp_path / "a.png")
        picture = read_png(tmp_path / "a.png")
        assert picture.shape[:2] == (height, 1600)
        assert pixels_of(picture, BLUE) > 50_000
        orange.append(pixels_of(picture, VERMILLION))
    assert orange[0] > 10 * orange[1]  # what remains is in the legend


def test_the_picture_of_a_dataset_without_episodes(tmp_path):
    nothing = np.zeros(0)
    names, bounds = ("action 0", "action 1"), (-np.ones(2), np.ones(2))
    health = Health("own", {}, (), nothing, nothing, nothing.astype(bool), np.zeros((9, 2)), names, bounds)
    health_picture(health, tmp_path / "a.png")
    assert pixels_of(read_png(tmp_path / "a.png"), BLUE) > 1000


def test_actions_are_drawn_in_the_units_of_the_data(tmp_path, figures):
    """A valve between 0 and 100, and a heater between 0 and 2."""
    shares = np.linspace(0, 1, 50)
    rows = {
        "observations": np.random.default_rng(0).normal(size=(50, 2)),
        "actions": np.stack([100 * shares, 2 * shares], axis=1),
        "rewards": np.zeros(50),
        "terminals": np.arange(50) % 10 == 9,
        "timeouts": np.zeros(50, bool),
    }
    health_picture(check_dataset(rows, action_low=(0.0, 0.0), action_high=(100.0, 2.0)), tmp_path / "a.png")
    valve, heater = figures[0].axes[2:]
    for axes, top in ((valve, 100), (heater, 2)):
        bars = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches if bar.get_height()])
        np.testing.assert_allclose((bars.min(), bars.max()), (0, top), atol=0.001 * top)
