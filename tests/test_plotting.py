from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from itrpo.data.health import Health
from itrpo.plotting import BLACK, BLUE, VERMILLION, health_picture, learning_curve, returns_curve
from itrpo.results import store
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
    store.write_json_atomic(tmp_path / "bare" / "provenance.json", {"dataset": {}})
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
    store.append_metrics(run_dir, [store.Row(*row) for row in rows])
    assert learning_curve(run_dir, run_dir / "curve.png")
    picture = read_png(run_dir / "curve.png")
    assert pixels_of(picture, BLUE) > 500
    assert pixels_of(picture, VERMILLION) == 0


@pytest.mark.parametrize("evaluations", [1, 2])
def test_few_evaluations_are_visible_as_points(tmp_path, evaluations):
    learning_curve(make_run(tmp_path, seeds=1, evaluations=evaluations, probes=False), tmp_path / "curve.png")
    assert pixels_of(read_png(tmp_path / "curve.png"), BLUE) > 50


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


@pytest.mark.parametrize(("dimensions", "height"), [(1, 940), (6, 1280), (20, 1960)])
def test_the_picture_of_a_dataset(tmp_path, dimensions, height):
    """Ends by the environment are orange: without them no pixel is. More than 16 dimensions make no taller picture."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (500, dimensions))
    actions[3] = np.nan
    orange = []
    for by_terminal in (np.arange(50) < 20, np.zeros(50, bool)):
        returns, lengths = np.append(rng.normal(size=49), np.nan), rng.integers(1, 100, 50)
        names = tuple(f"action {index}" for index in range(dimensions))
        health_picture(Health("own", {}, (), returns, lengths, by_terminal, actions, names), tmp_path / "a.png")
        picture = read_png(tmp_path / "a.png")
        assert picture.shape[:2] == (height, 1600)
        assert pixels_of(picture, BLUE) > 50_000
        orange.append(pixels_of(picture, VERMILLION))
    assert orange[0] > 10 * orange[1]  # what remains is in the legend


def test_the_picture_of_a_dataset_without_episodes(tmp_path):
    nothing = np.zeros(0)
    health = Health("own", {}, (), nothing, nothing, nothing.astype(bool), np.zeros((9, 2)), ("action 0", "action 1"))
    health_picture(health, tmp_path / "a.png")
    assert pixels_of(read_png(tmp_path / "a.png"), BLUE) > 1000
