"""Gymnasium environments by id, and D4RL's normalised scores.

`-v4` MuJoCo environments keep the rewards and models of the `-v2` ones that D4RL's data came from; `-v5` changes both,
so a `-v5` return has no normalised score here. D4RL's mazes are our own (`itrpo/AntMaze_UMaze-v0`, ...: see
itrpo.evaluation.mazes); gymnasium-robotics' mazes, which are other tasks, and its Adroit hands need the extra `maze`.
"""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.registry import nearest
from itrpo.types import SpaceSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

# Pattern of gymnasium ids, return of the random policy, return of the expert. Source: D4RL's infos.py, REF_MIN_SCORE
# and REF_MAX_SCORE (Farama-Foundation/D4RL); the same numbers hold for the v0, v1 and v2 data sets of a family.
REFERENCE_SCORES = (
    (r"HalfCheetah-v[2-4]", -280.178953, 12135.0),
    (r"Hopper-v[2-4]", -20.272305, 3234.3),
    (r"Walker2d-v[2-4]", 1.629008, 4592.3),
    (r"Ant-v[2-4]", -325.6, 3879.7),
    (r"(itrpo/)?AntMaze_\w+-v\d+", 0.0, 1.0),  # a return is a success
    (r"itrpo/PointMaze_UMaze-v0", 23.85, 161.86),  # gymnasium-robotics' PointMaze has other goals, so no reference
    (r"itrpo/PointMaze_Medium-v0", 13.13, 277.39),
    (r"itrpo/PointMaze_Large-v0", 6.7, 273.99),
    (r"AdroitHandPen-v\d+", 96.262799, 3076.8331),
    (r"AdroitHandHammer-v\d+", -274.856578, 12794.1349),
    (r"AdroitHandRelocate-v\d+", -6.425911, 4233.8778),
    (r"AdroitHandDoor-v\d+", -56.512833, 2880.5693),
)
_ROBOTICS = re.compile(r"(AntMaze|PointMaze|AdroitHand|FrankaKitchen)")


class Spaces(NamedTuple):
    """Of an environment."""

    spec: SpaceSpec
    low: np.ndarray  # [A] float32: the action that -1 stands for
    high: np.ndarray  # [A] float32: the action that +1 stands for

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., A] in [-1, 1] in the environment's units."""
        if (self.low == -1).all() and (self.high == 1).all():
            return actions
        return self.low + (self.high - self.low) * (actions + 1) / 2


def is_antmaze(env_id: str) -> bool:
    """Whether it is an AntMaze, for which many sources treat rewards differently."""
    return re.fullmatch(r"(itrpo/)?AntMaze_\w+-v\d+", env_id) is not None


def is_maze(env_id: str) -> bool:
    """Whether it is a maze, where D4RL's convention is 100 evaluation episodes: starts and goals differ so much."""
    return re.fullmatch(r"(itrpo/)?(AntMaze|PointMaze)_\w+-v\d+", env_id) is not None


def reference_score(env_id: str) -> tuple[float, float] | None:
    """The returns that D4RL scores 0 and 100 in this environment, or None where D4RL has none."""
    return next(((low, high) for pattern, low, high in REFERENCE_SCORES if re.fullmatch(pattern, env_id)), None)


def normalized_score(env_id: str, returns: Any) -> np.ndarray | None:
    """100 * (return - min) / (max - min), the score of D4RL (Fu et al. 2020, arXiv:2004.07219), in the shape of
    `returns`; None where D4RL has no reference for this environment.
    """
    reference = reference_score(env_id)
    if reference is None:
        return None
    low, high = reference
    return 100.0 * (np.asarray(returns, np.float64) - low) / (high - low)


def make_env(env_id: str) -> gymnasium.Env:
    """One environment, ready to `reset`. Observations of mazes are laid out as D4RL's: one vector, without the goal.

    Raises InputError for an id that gymnasium does not know (naming the nearest one) or whose package is not installed.
    """
    import gymnasium

    if ":" in env_id:  # gymnasium would import the module before the colon, and an id may come from a downloaded file
        raise InputError(f"environment id {env_id!r}: write the id alone, without a module name before a colon")
    _register(env_id)
    if env_id not in gymnasium.registry:
        raise InputError(
            f"unknown environment {env_id!r}{nearest(env_id, gymnasium.registry)}; "
            "give the full id of a gymnasium environment with its version"
        )
    _quiet_mujoco()
    # In D4RL an AntMaze episode ends at the goal; gymnasium-robotics goes on by default.
    options = {"continuing_task": False} if env_id.startswith("AntMaze") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "-v4 is out of date": it is the one that is meant
            env = gymnasium.make(env_id, disable_env_checker=True, **options)
    except Exception as error:  # whatever goes wrong inside other people's environments
        raise InputError(f"environment {env_id!r} can't be built: {type(error).__name__}: {error}") from error
    return _d4rl_maze_layout(env) if re.match("AntMaze|PointMaze", env_id) else env


def env_spec_json(env_id: str) -> str | None:
    """What gymnasium knows the environment by, as the JSON that Minari stores; None where it is not registered."""
    spec = _spec(env_id)
    try:
        return None if spec is None else spec.to_json()
    except (TypeError, ValueError):  # registered with something that JSON can't hold
        return None


def time_limit(env_id: str) -> int | None:
    """Steps after which the environment's clock ends an episode; None where there is no clock, or no such id."""
    spec = _spec(env_id)
    return None if spec is None else spec.max_episode_steps


def comes_with_gymnasium(env_id: str) -> bool:
    """Whether other processes know the environment too: no program has registered it itself."""
    spec = _spec(env_id)
    packages = ("gymnasium", "gymnasium_robotics", "itrpo")
    entry_point = None if spec is None else spec.entry_point
    return isinstance(entry_point, str) and entry_point.partition(".")[0] in packages


def _spec(env_id: str) -> EnvSpec | None:
    import gymnasium

    try:
        _register(env_id)
    except InputError:  # the extra is not installed
        return None
    return gymnasium.registry.get(env_id)


def check_compatible(env_id: str, observation_dim: int, action_dim: int) -> None:
    """Raise InputError unless a policy for these sizes can act in this environment.

    The environment's observations must be vectors, and its actions vectors within finite bounds.
    """
    sizes = spaces_of(env_id).spec
    for what, in_data, in_env in zip(("observation", "action"), (observation_dim, action_dim), sizes, strict=True):
        if in_data != in_env:
            raise InputError(
                f"the dataset's {what}s have {in_data} numbers and those of {env_id} have {in_env}; "
                "name the environment that the data came from with --env, or --env none to train without evaluation"
            )


def spaces_of(env_id: str) -> Spaces:
    """Raises InputError unless observations are vectors and actions are vectors within finite bounds."""
    from gymnasium.spaces import Box

    env = make_env(env_id)
    env.close()
    observation, action = env.observation_space, env.action_space
    if not (isinstance(observation, Box) and len(observation.shape) == 1):
        raise InputError(f"{env_id}: observations are {observation}; itrpo needs a flat Box (a vector)")
    if not (isinstance(action, Box) and len(action.shape) == 1 and action.is_bounded()):
        raise InputError(f"{env_id}: actions are {action}; itrpo needs a flat Box with finite bounds")
    low, high = np.asarray(action.low, np.float32), np.asarray(action.high, np.float32)
    return Spaces(SpaceSpec(observation.shape[0], action.shape[0]), low, high)


def _quiet_mujoco() -> None:
    """Send MuJoCo's warnings to Python's logger "mujoco" (level DEBUG).

    Without a handler MuJoCo appends them to MUJOCO_LOG.TXT in the working directory: one per HalfCheetah built (a
    deprecated attribute of its XML file), one per unstable simulation. A handler that someone has set already is left
    alone.
    """
    try:
        import mujoco
    except ImportError:  # the environment may not need it
        return
    handlers: Any = mujoco  # its type stubs lack both functions
    if handlers.get_mju_user_warning() is None:
        handlers.set_mju_user_warning(logging.getLogger("mujoco").debug)


def _register(env_id: str) -> None:
    """Make ids known that gymnasium alone does not know."""
    import gymnasium

    if env_id.startswith("itrpo/"):
        importlib.import_module("itrpo.evaluation.mazes")  # registers its environments
    if not _ROBOTICS.match(env_id):
        return
    try:
        import gymnasium_robotics  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise InputError(f"{env_id} needs gymnasium-robotics: pip install 'itrpo[maze]'") from error
    gymnasium.register_envs(gymnasium_robotics)


def _d4rl_maze_layout(env: gymnasium.Env) -> gymnasium.Env:
    """A maze's {observation, achieved_goal, desired_goal} as D4RL's vector.

    D4RL's AntMaze observation starts with the ant's x and y, which gymnasium-robotics moved to `achieved_goal`;
    PointMaze's `observation` has them already. The goal was never a part of it.
    """
    import gymnasium

    spaces = env.observation_space
    assert isinstance(spaces, gymnasium.spaces.Dict)
    keys = ("achieved_goal", "observation") if env.spec and env.spec.id.startswith("AntMaze") else ("observation",)
    size = sum(gymnasium.spaces.flatdim(spaces[key]) for key in keys)
    return gymnasium.wrappers.TransformObservation(
        env,
        lambda observation: np.concatenate([observation[key] for key in keys]),
        gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64),
    )
