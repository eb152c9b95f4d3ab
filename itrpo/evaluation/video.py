"""Episodes of a policy as an MP4 or a GIF, drawn by the environment itself (`render_mode="rgb_array"`), off screen.

MuJoCo draws through EGL or OSMesa on a machine without a screen; which works is tried in a process of its own, as what
PyOpenGL has loaded once can't be changed.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import DivergenceError, InputError
from itrpo.evaluation.environments import make_env
from itrpo.evaluation.rollout import MAX_EPISODE_STEPS
from itrpo.evaluation.slots import LocalSlots
from itrpo.policy import Policy

if TYPE_CHECKING:
    import gymnasium

FRAMES_PER_SECOND = (
    30  # at most: of a faster environment every n-th step is drawn, so that time passes as it does there
)
USUAL_RATE = 30  # steps per second of an environment that does not say (gymnasium's `render_fps`)
DRAWN_BY = {"darwin": ("glfw",), "linux": ("egl", "osmesa")}  # sys.platform -> MUJOCO_GL in the order they are tried
TRIAL = """
import mujoco
from mujoco.{0} import GLContext
context = GLContext(64, 64)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
context.free()
"""


class Played(NamedTuple):
    """What a film shows."""

    path: Path
    returns: list[float]  # of its episodes: undiscounted sums of raw rewards
    lengths: list[int]  # their steps


def has_mp4() -> bool:
    """Whether the extra is installed that MP4 needs."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def check_path(path: Path) -> None:
    """Raises InputError for a file that is neither .mp4 nor .gif, or an MP4 without the extra."""
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"--out {path}: its name must end in .mp4 or .gif")
    if path.suffix.lower() == ".mp4" and not has_mp4():
        raise InputError(
            f"{path}: MP4 needs ffmpeg: pip install 'itrpo[video]'; or ask for a .gif, which needs nothing"
        )


def open_stage(env_id: str) -> LocalSlots:
    """One environment that draws its steps, tried out. Raises InputError if it can't, naming what to install or set."""
    plain = make_env(env_id)
    modes: Sequence[str] = plain.metadata.get("render_modes") or ()
    plain.close()
    if "rgb_array" not in modes:
        raise InputError(
            f"{env_id} draws no pictures (its render_modes: {', '.join(modes) or 'none'}); its class must take "
            "render_mode='rgb_array', name it in metadata['render_modes'], and draw in render() (gymnasium's API)"
        )
    stage = LocalSlots(env_id, 1, "rgb_array")
    try:
        if is_mujoco(stage.envs[0]):
            choose_backend()
        stage.envs[0].reset(seed=0)
        picture_of(stage)
    except InputError:
        stage.close()
        raise
    except Exception as error:  # whatever goes wrong in other people's environments: a library that is missing
        stage.close()
        raise InputError(f"{env_id} can't be drawn: {type(error).__name__}: {error}") from error
    return stage


def is_mujoco(env: gymnasium.Env) -> bool:
    return type(getattr(env.unwrapped, "model", None)).__module__.startswith("mujoco.")


def choose_backend() -> None:
    """Sets MUJOCO_GL to what can draw here, for this process. Raises InputError where nothing can.

    What the user has set is tried alone.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    refused: list[str] = []
    for name in (chosen,) if chosen else DRAWN_BY.get(sys.platform, ("glfw",)):
        reason = trial(name)
        if reason is None:
            os.environ["MUJOCO_GL"] = name
            return
        refused.append(f"{name}: {reason}")
    what = f"MUJOCO_GL={chosen} can't draw" if chosen else "MuJoCo can't draw"
    unset = "unset MUJOCO_GL, or " if chosen else ""
    raise InputError(
        f"{what} on this machine ({'; '.join(refused)}); {unset}install EGL or OSMesa (Debian, Ubuntu: "
        "apt-get install libegl1 libgl1, or libosmesa6)"
    )


def trial(name: str) -> str | None:
    """Why MuJoCo can't draw by this; None if it can."""
    if name not in ("egl", "osmesa", "glfw"):
        return "MUJOCO_GL is egl, osmesa or glfw"
    environment = {**os.environ, "MUJOCO_GL": name}
    command = [sys.executable, "-c", TRIAL.format(name)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    raised = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Exception ignored"))]
    return raised[-1][:200] if raised else f"status {done.returncode}"


def picture_of(stage: LocalSlots) -> np.ndarray:
    """[H, W, 3] uint8. Raises TypeError for anything else."""
    picture: Any = stage.envs[0].render()
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.shape[2:] != (3,):
        gave = f"{array.dtype}{list(array.shape)}"
        raise TypeError(f"render() gave {gave}; with rgb_array it must give uint8[H, W, 3]")
    return array


def film(env_id: str, stage: LocalSlots, policy: Policy, starts: Sequence[np.uint32], path: Path) -> Played:
    """Plays an episode from each of the seeds `starts` with a policy, into a file, whole or not at all.

    Raises DivergenceError at an action that is not finite, ItrpoError where the environment fails, StorageError.
    """
    import imageio

    rate = float(stage.envs[0].metadata.get("render_fps") or USUAL_RATE)
    stride = max(1, math.ceil(rate / FRAMES_PER_SECOND))
    options: dict[str, Any] = {"loop": 0, "duration": 1000 * stride / rate}
    if path.suffix.lower() == ".mp4":
        # sizes that 2 divides are what the usual colour format needs; by default they would be stretched to 16's
        options = {"fps": rate / stride, "macro_block_size": 2}
    played = Played(path, [], [])
    with files.storage_errors(path), files.scratch_folder(path.parent, ".film") as folder:
        temporary = folder / f"film{path.suffix.lower()}"
        with imageio.get_writer(temporary, mode="I", **options) as writer:
            for start in starts:
                total, steps = play(env_id, stage, policy, start, stride, writer)
                played.returns.append(total)
                played.lengths.append(steps)
        files.put(temporary, path)
    return played


def play(
    env_id: str, stage: LocalSlots, policy: Policy, start: np.uint32, stride: int, writer: Any
) -> tuple[float, int]:
    """One episode -> its return and its length. Its last state is drawn too."""
    policy.reset()
    total, steps, ended, playing = 0.0, 0, False, np.ones(1, bool)
    observation = stage.reset(np.array([start]))
    while not ended:
        if steps % stride == 0:
            writer.append_data(picture_of(stage))
        action = policy.act(observation).reshape(1, -1)
        if not np.isfinite(action).all():
            raise DivergenceError(f"the policy's action in {env_id} is not finite at step {steps}: {action[0]}")
        observation, (reward,), (ended,) = stage.step(playing, action)
        total, steps = total + float(reward), steps + 1
        if steps >= MAX_EPISODE_STEPS and not ended:
            raise InputError(f"{env_id}: an episode did not end within {MAX_EPISODE_STEPS:,} steps")
    writer.append_data(picture_of(stage))
    return total, steps
