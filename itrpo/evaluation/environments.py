"""Gymnasium environments by id, and normalised scores: D4RL's, or by the references of a Minari dataset.

`-v4` MuJoCo environments keep the rewards and models of the `-v2` ones that D4RL's data came from; `-v5` changes both,
so a `-v5` return has no D4RL score here. D4RL's mazes are our own (`itrpo/AntMaze_UMaze-v0`, ...: see
itrpo.evaluation.mazes), and so are its kitchen (itrpo.evaluation.kitchen) and the grids (`itrpo/Breakout-v0`, ...:
itrpo.evaluation.grids); gymnasium-robotics' mazes, which are other tasks, and its Adroit hands, with D4RL's rewards
(itrpo.evaluation.adroit), need the extra `maze`, gymnasium's LunarLander the extra `box2d`. An environment of the
user's own is MODULE:ID, gymnasium's form: the module registers the id. It is imported only on the user's own word
(`allow`), never on that of a file.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
import traceback
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.errors import InputError, ItrpoError
from itrpo.registry import import_own, nearest
from itrpo.types import DiscreteSpec, Reference, SpaceSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

_ROBOTICS = re.compile(r"(AntMaze|PointMaze|AdroitHand|FrankaKitchen)")
_ADROIT = re.compile(r"AdroitHand(Door|Hammer|Pen|Relocate)-v\d+")
_FRANKA = re.compile(r"FrankaKitchen-v\d+")
_BOX2D = re.compile(r"(LunarLander|LunarLanderContinuous|BipedalWalker|BipedalWalkerHardcore|CarRacing)-v\d+")
_OGBENCH = re.compile(r"(antmaze|humanoidmaze|pointmaze|antsoccer|cube|scene|puzzle)(-\w+)*-singletask(-task[1-5])?-v0")

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
    (r"itrpo/Kitchen_\w+-v0", 0.0, 4.0),  # a return is the number of subtasks that were completed
)
# By the same rule where D4RL has none.
OTHER_REFERENCES = (
    (_OGBENCH.pattern, 0.0, 1.0),  # a return is a success
    # 20,000 episodes of uniform choices (± 0.005); the expert of our sets, greedy
    (r"itrpo/Breakout-v0", 0.41, 23.5),
)


class Spaces(NamedTuple):
    """Of an environment. Where actions are choices, low and high [1] are the first and the last."""

    spec: SpaceSpec | DiscreteSpec
    low: np.ndarray  # [A] float32: the action that -1 stands for
    high: np.ndarray  # [A] float32: the action that +1 stands for

    @property
    def vectors(self) -> SpaceSpec:
        """The spec where actions are known to be vectors."""
        assert isinstance(self.spec, SpaceSpec)
        return self.spec

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


def reference_score(env_id: str, own: Reference | None = None) -> Reference | None:
    """The returns that score 0 and 100 in this environment: `own`, those that a dataset has for it
    (`Dataset.reference`), else those listed above; None where there are none.
    """
    return own or _listed(env_id, (*REFERENCE_SCORES, *OTHER_REFERENCES))


def _listed(env_id: str, references: Iterable[tuple[str, float, float]]) -> Reference | None:
    return next(((low, high) for pattern, low, high in references if re.fullmatch(pattern, env_id)), None)


def score_name(env_id: str | None, own: Reference | None = None) -> str:
    """What a table calls the score of `reference_score`: D4RL's, or one by other references."""
    of_d4rl = own is None and env_id is not None and _listed(env_id, REFERENCE_SCORES) is not None
    return "D4RL score" if of_d4rl else "score"


def normalized_score(env_id: str, returns: Any, own: Reference | None = None) -> np.ndarray | None:
    """100 * (return - min) / (max - min), the score of D4RL (Fu et al. 2020, arXiv:2004.07219), in the shape of
    `returns`; None where there is no reference for this environment (`reference_score`).
    """
    reference = reference_score(env_id, own)
    if reference is None:
        return None
    low, high = reference
    return 100.0 * (np.asarray(returns, np.float64) - low) / (high - low)


def logged_score(env_id: str, returns: Any, own: Reference | None = None) -> np.ndarray | None:
    """As `normalized_score`, of returns in data: None for OGBench's and the kitchen's, whose rewards are not those of
    an evaluation.
    """
    other_rewards = _OGBENCH.fullmatch(env_id) or env_id.startswith("itrpo/Kitchen")
    return None if other_rewards else normalized_score(env_id, returns, own)


def as_reference(value: Any) -> Reference | None:
    """Two finite numbers that a file holds, the smaller one first; None for anything else."""
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(type(it) in (int, float) for it in value)):
        return None
    try:
        low, high = map(float, value)
    except OverflowError:
        return None
    return (low, high) if low < high and math.isfinite(high - low) else None


_ALLOWED = set[str]()  # modules that the user has named himself, imported


def allow(env_id: str | None) -> None:
    """MODULE:ID may be built from now on: imports the module. Anything else changes nothing.

    The word must be the user's own (a flag, an argument), never one that a file holds. Raises InputError if the module
    can't be imported or does not register the id.
    """
    module, colon, name = (env_id or "").rpartition(":")
    if not colon:
        return
    import gymnasium

    what = f"environment {env_id!r}"
    loaded = import_own(module, what, "MODULE:ID names an id that the module registers")
    if name not in gymnasium.registry:
        own = sorted(it.id for it in gymnasium.registry.values() if _home(it) == module)
        registered = f"; it has: {', '.join(own)}" if own else ""
        entry = f"{module}:{name}" if hasattr(loaded, name) else f"{module}:CLASS"
        raise InputError(
            f"{what}: {module} registers no {name!r}{nearest(name, own)}{registered}; it must call "
            f"gymnasium.register({name!r}, entry_point={entry!r}, max_episode_steps=...)"
        )
    _ALLOWED.add(module)


def is_allowed(env_id: str) -> bool:
    """Whether building it imports nothing that the user has not named himself."""
    module, colon, _ = env_id.rpartition(":")
    return not colon or module in _ALLOWED


def check_known(env_id: str) -> None:
    """Raises InputError for an id that gymnasium does not know (naming the nearest one), whose package is missing, or
    whose module the user has not named himself (`allow`).
    """
    import gymnasium

    if not is_allowed(env_id):
        raise InputError(
            f"environment {env_id!r} is the word of a file, and a module is imported only if you name it yourself: if "
            f"you trust it, give --env {env_id} (env= in Python); --env none does without"
        )
    _register(env_id)
    name = env_id.rpartition(":")[2]
    if name not in gymnasium.registry:
        raise InputError(
            f"unknown environment {env_id!r}{nearest(name, gymnasium.registry, 0.75)}; give the full id of a gymnasium "
            f"environment with its version, and for one of your own the module that registers it too: MODULE:{name}"
        )
    if _BOX2D.fullmatch(name):
        _check_box2d(env_id)


def _check_box2d(env_id: str) -> None:
    """gymnasium knows these ids whether or not their packages are there."""
    try:
        for package in ("Box2D", "pygame"):
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{env_id} needs Box2D and pygame: pip install 'itrpo[box2d]'") from error


def make_env(env_id: str, render_mode: str | None = None) -> gymnasium.Env:
    """One environment, ready to `reset`. Observations of mazes are laid out as D4RL's: one vector, without the goal.
    Rewards of OGBench's tasks are 1 for success (`itrpo.evaluation.ogbench`), those of Adroit's D4RL's.

    Raises InputError as `check_known` does, and if it can't be built.
    """
    env, name = build_env(env_id, render_mode), env_id.rpartition(":")[2]
    if _OGBENCH.fullmatch(name):
        from itrpo.evaluation.ogbench import Success

        return Success(env)
    if adroit := _ADROIT.fullmatch(name):
        from itrpo.evaluation.adroit import D4RL

        return D4RL(env, adroit[1])
    return _d4rl_maze_layout(env) if re.match("AntMaze|PointMaze", name) else env


def build_env(env_id: str, render_mode: str | None = None) -> gymnasium.Env:
    """The environment with its own observations and rewards. Raises InputError as `make_env` does."""
    import gymnasium

    name = env_id.rpartition(":")[2]
    if _FRANKA.fullmatch(name):
        raise InputError(
            f"{env_id}: its observations are a Dict with other numbers than D4RL's kitchen files have; for these give "
            "--env itrpo/Kitchen_MicrowaveKettleLightSlider-v0 (kitchen-mixed: _MicrowaveKettleBottomBurnerLight-v0), "
            "for others --env none"
        )
    check_known(env_id)
    _quiet_mujoco()
    # In D4RL an AntMaze episode ends at the goal; gymnasium-robotics goes on by default.
    options: dict[str, Any] = {"continuing_task": False} if name.startswith("AntMaze") else {}
    options |= {"max_episode_steps": clock} if (clock := _clock(name)) else {}
    options |= {} if render_mode is None else {"render_mode": render_mode}
    try:
        with warnings.catch_warnings():
            # "-v4 is out of date": it is the one that is meant. OGBench's: no display, bounds as float32
            warnings.simplefilter("ignore", Warning if _OGBENCH.fullmatch(name) else DeprecationWarning)
            env = gymnasium.make(name, disable_env_checker=True, **options)
    except Exception as error:  # whatever goes wrong inside other people's environments
        newer = re.sub(r"-v[23]$", "-v4", name)
        if newer != name and newer in gymnasium.registry:  # gymnasium keeps the names of MuJoCo's -v2 and -v3 only
            raise InputError(f"gymnasium can't build {env_id!r} any more; its successor is --env {newer}") from error
        raise InputError(f"environment {env_id!r} can't be built: {type(error).__name__}: {error}") from error
    return env


def failed(env_id: str, doing: str, error: Exception) -> ItrpoError:
    """What to raise where an environment has: one sentence that names it, the place in its code, and what to do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error) or "no message"
    return ItrpoError(
        f"environment {env_id} failed {doing}: {type(error).__name__}: {said} ({last.filename}:{last.lineno}); mend "
        "it, and give the same command again"
    )


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
    return _clock(env_id) or (None if spec is None else spec.max_episode_steps)


def _clock(name: str) -> int | None:
    """Steps of an episode where D4RL's, which its reference returns are of, differ from gymnasium-robotics'."""
    return 100 if name.startswith("AdroitHandPen") else None


def known_elsewhere(env_id: str) -> bool:
    """Whether other processes can build the environment too: no program has registered it itself."""
    if ":" in env_id:
        return is_allowed(env_id)
    spec = _spec(env_id)
    packages = ("gymnasium", "gymnasium_robotics", "itrpo", "ogbench")
    entry_point = None if spec is None else spec.entry_point
    return isinstance(entry_point, str) and entry_point.partition(".")[0] in packages


def _home(spec: EnvSpec) -> str:
    """The module of an environment's class."""
    entry_point = spec.entry_point
    return entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")


def _spec(env_id: str) -> EnvSpec | None:
    import gymnasium

    try:
        _register(env_id)
    except InputError:  # the extra is not installed
        return None
    return gymnasium.registry.get(env_id.rpartition(":")[2]) if is_allowed(env_id) else None


def check_sizes(env_id: str, spaces: Spaces, spec: SpaceSpec | DiscreteSpec, where: str) -> None:
    """Raises InputError unless a policy for this spec, which is that of `where`, can act in the environment."""
    advice = "name the environment that the data came from with --env, or --env none to do without one"
    if spec[0] != spaces.spec[0]:
        theirs = f"those of {env_id} have {spaces.spec[0]}"
        raise InputError(f"{where}: its observations have {spec[0]} numbers and {theirs}; {advice}")
    if (type(spec), spec) != (type(spaces.spec), spaces.spec):
        if isinstance(spec, SpaceSpec) and isinstance(spaces.spec, SpaceSpec):
            theirs = f"those of {env_id} have {spaces.spec[1]}"
            raise InputError(f"{where}: its actions have {spec[1]} numbers and {theirs}; {advice}")
        ours, theirs = (
            f"{it[1]} choices" if isinstance(it, DiscreteSpec) else f"vectors of {it[1]}" for it in (spec, spaces.spec)
        )
        raise InputError(f"{where}: its actions are {ours} and those of {env_id} {theirs}; {advice}")


class ChoicesOf(NamedTuple):
    """Of an environment's actions."""

    number: int | None  # None: they are vectors
    first: int


def choices_of(env_id: str) -> ChoicesOf | None:
    """Whether its actions are choices, and how many; None where it can't be built here, or may not be."""
    from gymnasium.spaces import Discrete

    if not is_allowed(env_id):
        return None
    try:
        env = make_env(env_id)
    except InputError:
        return None
    space = env.action_space
    env.close()
    return ChoicesOf(int(space.n), int(space.start)) if isinstance(space, Discrete) else ChoicesOf(None, 0)


def numbers(values: np.ndarray) -> str:
    """'-2', or '-2 -1 -2' where they differ."""
    texts = [f"{value:.6g}" for value in values.tolist()]
    return texts[0] if len(set(texts)) == 1 else " ".join(texts)


def spaces_of(env_id: str) -> Spaces:
    """Its sizes and bounds, after one reset and one step.

    Raises InputError unless observations are vectors, actions are choices or vectors within finite bounds, and all
    works.
    """
    from gymnasium.spaces import Box, Discrete

    env = make_env(env_id)
    observation, action = env.observation_space, env.action_space
    if not (isinstance(observation, Box) and len(observation.shape) == 1):
        raise InputError(f"{env_id}: observations are {observation}; itrpo needs a flat Box (a vector)")
    if isinstance(action, Discrete):
        first, number = int(action.start), int(action.n)
        low, high = (np.array([it], np.float32) for it in (first, first + number - 1))
        tried, spec = first, DiscreteSpec(observation.shape[0], number)
    elif isinstance(action, Box) and len(action.shape) == 1 and action.is_bounded():
        low, high = np.asarray(action.low, np.float32), np.asarray(action.high, np.float32)
        tried, spec = (low + high) / 2, SpaceSpec(observation.shape[0], action.shape[0])
    else:
        raise InputError(
            f"{env_id}: actions are {action}; itrpo needs a flat Box with finite bounds, or a Discrete space"
        )
    try:
        _try_out(env_id, env, observation.shape, tried)
    finally:
        env.close()
    return Spaces(spec, low, high)


def _try_out(env_id: str, env: gymnasium.Env, shape: tuple[int, ...], action: Any) -> None:
    """Raises InputError if a reset or a step raises, or gives what gymnasium's API does not."""
    doing, wanted = "reset(seed=0)", "observation, info"
    reward: Any
    try:
        begun: Any = env.reset(seed=0)
        if not isinstance(begun, tuple):  # a vector of two numbers unpacks as well
            raise TypeError(f"it returned one {type(begun).__name__}")
        first, _ = begun
        doing, wanted = "its first step", "observation, reward, terminated, truncated, info"
        second, reward, _, _, _ = env.step(action)
    except Exception as error:  # whatever goes wrong inside other people's environments
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"environment {env_id!r} fails at {doing}: {type(error).__name__}: {error} ({last.filename}:{last.lineno});"
            f" it must return {wanted} (gymnasium's API); mend it, or train without it: --env none"
        ) from error
    for doing, observation in (("reset", first), ("step", second)):
        if np.shape(observation) != shape or not np.isfinite(observation).all():
            raise InputError(
                f"environment {env_id!r}: the observation of {doing} is {str(observation)[:200]}; its "
                f"observation_space says {shape[0]} finite numbers"
            )
    if np.shape(reward) != ():
        raise InputError(f"environment {env_id!r}: the reward of a step is {reward!r}; it must be one number (a float)")


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

    if env_id.startswith("itrpo/Kitchen"):
        if importlib.util.find_spec("gymnasium_robotics") is None:
            raise InputError(f"{env_id} needs the model of gymnasium-robotics: pip install 'itrpo[maze]'")
        importlib.import_module("itrpo.evaluation.kitchen")  # registers its environments
    elif env_id.startswith("itrpo/"):
        for module in ("grids", "mazes"):  # they register their environments
            importlib.import_module(f"itrpo.evaluation.{module}")
    if _OGBENCH.fullmatch(env_id):
        try:
            importlib.import_module("ogbench")  # an extra; it registers its environments
        except ImportError as error:
            raise InputError(f"{env_id} needs the ogbench package: pip install 'itrpo[ogbench]'") from error
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
