"""Films of policies: the episodes that `itrpo evaluate` plays, drawn where something can draw."""

from __future__ import annotations

import importlib.util
import os

import imageio
import numpy as np
import pytest

import itrpo
from itrpo.cli import main
from itrpo.errors import InputError
from itrpo.evaluation.video import DRAWN_BY, has_mp4, trial
from itrpo.policy import save_policy

OWN = "tests.own_envs:Mine-v0"


def made_run(folder, env_id: str, observations: int, actions: int, high: float = 1.0):
    """A folder with the policies of two seeds, which differ."""
    for index in range(2):
        weight = np.full((actions, observations), 0.1 * (index + 1), np.float32)
        layers = {"kind": "tanh_mlp", "weight_0": weight, "bias_0": np.zeros(actions, np.float32)}
        zeros, bound = np.zeros(observations), np.full(actions, high)
        metadata = {"env_id": env_id, "step": 3, "seed": index}
        save_policy(folder / f"seed{index}" / "policy.npz", layers, zeros, zeros + 1, -bound, bound, metadata)
    return folder


def frames(path) -> np.ndarray:
    return np.stack([*imageio.get_reader(path).iter_data()])


@pytest.fixture
def drawing(monkeypatch):
    """MuJoCo draws; skips where it can't. What is chosen is forgotten afterwards."""
    reasons = {name: trial(name) for name in ("egl", "osmesa")}
    if all(reasons.values()):
        pytest.skip(f"MuJoCo can't draw here: {reasons}")
    monkeypatch.setenv("MUJOCO_GL", next(name for name, reason in reasons.items() if reason is None))


def test_a_film_shows_the_episodes_that_are_evaluated(tmp_path, capsys):
    run = made_run(tmp_path, OWN, 2, 1, high=2.0)
    out = tmp_path / "new" / "mine.gif"
    assert main(["video", str(run), "--env", OWN, "--episodes", "2", "--out", str(out)]) == 0
    paths = [out.with_name(f"mine_seed{index}.gif") for index in range(2)]
    assert sorted(out.parent.iterdir()) == paths
    returns = itrpo.evaluate(run, episodes=2, env=OWN).returns
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{path}: return {', '.join(f'{it:,.6g}' for it in own)}" for path, own in zip(paths, returns, strict=True)
    ]
    red = frames(paths[1])[:, 0, 0, 0]
    np.testing.assert_allclose(red, [0, 50, 100, 150, 200, 250] * 2, atol=4)  # a GIF's colours are rounded
    assert imageio.get_reader(paths[1]).get_meta_data()["duration"] == 100

    (played,) = itrpo.video(run, seed=1, env=OWN)
    assert played.path == run / "videos" / ("seed1.mp4" if has_mp4() else "seed1.gif")
    assert (played.returns, played.lengths) == ([returns[1, 0]], [5])


@pytest.mark.skipif(not has_mp4(), reason="the extra itrpo[video] is not installed")
def test_mp4(tmp_path):
    run = made_run(tmp_path, OWN, 2, 1, high=2.0)
    itrpo.video(run, seed=0, env=OWN, out=tmp_path / "mine.mp4")
    red = frames(tmp_path / "mine.mp4")[:, 16, 16, 0]
    np.testing.assert_allclose(red, [0, 50, 100, 150, 200, 250], atol=12)


def test_what_cannot_be_filmed_is_said_before_anything_is_played(tmp_path, capsys):
    run = made_run(tmp_path, OWN, 2, 1, high=2.0)
    faulty = "tests.own_envs:Faulty-picture-v0"
    for env, words, said in [
        (OWN, ["--out", "film.avi"], "--out film.avi: its name must end in .mp4 or .gif"),
        (OWN, ["--seed", "7"], f"{run} has no seed 7; it has 0, 1"),
        (faulty, [], "render() gave float32[32, 32, 3]; with rgb_array it must give uint8[H, W, 3]"),
    ]:
        assert main(["video", str(run), "--env", env, *words]) == 2
        assert said in capsys.readouterr().err
    if not has_mp4():
        assert main(["video", str(run), "--env", OWN, "--out", "film.mp4"]) == 2
        assert "MP4 needs ffmpeg: pip install 'itrpo[video]'" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--render"]) == 2
    assert "unknown flag --render; to watch a policy: itrpo video RUN" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == ["seed0", "seed1"]


def test_pendulum_is_drawn_by_pygame_which_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    run = made_run(tmp_path, "Pendulum-v1", 3, 1, high=2.0)
    if importlib.util.find_spec("pygame") is None:
        with pytest.raises(InputError, match=r"Pendulum-v1 can't be drawn: DependencyNotInstalled: .*pip install"):
            itrpo.video(run, seed=0)
        return
    (played,) = itrpo.video(run, seed=0, out=tmp_path / "pendulum.gif")
    film = frames(played.path)
    assert len(film) == 201
    assert len(np.unique(film[0])) > 2


def test_mujoco_draws_off_screen(tmp_path, drawing):
    run = made_run(tmp_path, "Hopper-v4", 11, 3)
    (played,) = itrpo.video(run, seed=1, out=tmp_path / "hopper.gif")
    film = frames(played.path)
    assert len(film) == -(-played.lengths[0] // 5) + 1  # of 125 steps a second, 25 are drawn
    assert film[0].std() > 10
    assert (film[0] != film[-1]).any()


def test_mazes_show_their_goal(tmp_path, drawing):
    from itrpo.evaluation.environments import make_env

    env = make_env("itrpo/PointMaze_UMaze-v0", "rgb_array")
    env.reset(seed=0)
    picture = env.render().astype(int)
    assert ((picture[..., 0] > 60) & (picture[..., 0] > 2 * picture[..., 1])).sum() > 300
    env.close()


def test_one_message_where_nothing_draws(tmp_path, monkeypatch):
    run = made_run(tmp_path, "Hopper-v4", 11, 3)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "none-of-them")  # both refuse to work with another one
    monkeypatch.setitem(DRAWN_BY, "linux", ("egl", "osmesa"))
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(InputError, match=r"MuJoCo can't draw on this machine \(egl: .*; osmesa: .*\); install EGL or"):
        itrpo.video(run, seed=0)
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setenv("MUJOCO_GL", "directx")
    with pytest.raises(InputError, match=r"MUJOCO_GL=directx can't draw .* unset MUJOCO_GL, or install"):
        itrpo.video(run, seed=0)
