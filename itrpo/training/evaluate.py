"""Policies as they ship: written, read back, and played in their environment while they train; and `itrpo.evaluate`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import itrpo
from itrpo.console import make_console, say
from itrpo.data import attributes
from itrpo.data.fit import same_bounds, users_env
from itrpo.errors import InputError, StorageError
from itrpo.evaluation import rollout
from itrpo.evaluation.beside import Evaluated
from itrpo.evaluation.environments import (
    as_reference,
    check_sizes,
    is_allowed,
    normalized_score,
    numbers,
    spaces_of,
)
from itrpo.policy import Policy, PolicyFileError, load_policy, save_policy
from itrpo.results.schema import Evaluation
from itrpo.training.session import Session
from itrpo.types import DiscreteSpec, Reference, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

    from itrpo.evaluation.video import Played

EVALUATED = ("return", "return_std", "episode_length", "score")  # in the order of their rows; some have no score
EVALUATE_STEP = 2**31  # the "step" of `evaluate`'s start states: no run gets there


def policy_path(folder: Path, index: int) -> Path:
    return folder / f"seed{index}" / "policy.npz"


def policies_are_whole(session: Session, step: int) -> bool:
    """Whether every seed's file is there, and of this step."""
    for run, index in session.members:
        try:
            if load_policy(policy_path(run.folder.path, index)).metadata["step"] != step:
                return False
        except (PolicyFileError, OSError):
            return False
    return True


def save_policies(session: Session, exports: list[dict[str, Any]], step: int) -> list[Path]:
    """Writes seedK/policy.npz of each seed [S]. A run that has diverged keeps what it has."""
    dataset = session.dataset
    preprocess = session.preprocess
    mean, std = preprocess.observation_mean, preprocess.observation_std
    paths = [policy_path(run.folder.path, index) for run, index in session.members]
    for _, run, own in session.going_on:
        for path, index, export in zip(paths[own], session.seeds, exports[own], strict=True):
            metadata = {
                "algorithm": run.config.algorithm,
                "dataset": dataset.name,
                "env_id": session.env_id,
                "itrpo": itrpo.__version__,
                "run": run.run_hash,
                "seed": index,
                "step": step,
                "stack": dataset.stack,
                "trained_low": preprocess.observation_low.tolist(),
                "trained_high": preprocess.observation_high.tolist(),
            }
            metadata |= {} if dataset.reference is None else {"reference": dataset.reference}
            metadata |= attributes.for_policy(dataset.attributes)
            save_policy(path, export, mean, std, dataset.action_low, dataset.action_high, metadata)
    good = paths[session.going_on[0][2]]  # stand in for those of runs that have diverged, whose returns nobody reads
    return [path if path.exists() else good[0] for path in paths]


def start_evaluation(
    session: Session, policies: list[Path], step: int, write: Callable[[dict[str, np.ndarray], Evaluated], None]
) -> None:
    """Begins to play one episode per seed and slot with what ships: the policies in these files.

    `write` gets metric -> [S] (none without an environment) once that is over, before anything else of the session is
    written. A run with a policy that failed is given up: then settling raises DivergenceError if no other goes on.
    """

    def then(evaluated: Evaluated) -> None:
        env_id, own, played = session.config.data.env, session.dataset.reference, evaluated.returns
        if played is None:
            write({}, evaluated)
            return
        for place, _, members in session.going_on:
            at = zip(range(len(indices))[members], indices[members], strict=True)
            found = [rollout.failure(env_id, played, policy, index, step) for policy, index in at]
            message = next(filter(None, found), None)
            if message is not None:
                session.give_up(place, step, message)
        write(summary(env_id, own, *played), evaluated)

    indices = [index for _, index in session.members]
    session.evaluations.start(policies, session.config.train.seed, step, indices, then)


def summary(env_id: str, own: Reference | None, returns: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """[S, E] each -> metric -> [S]."""
    metrics = {"return": returns.mean(1), "return_std": returns.std(1), "episode_length": lengths.mean(1)}
    score = normalized_score(env_id, returns.mean(1), own)
    return metrics if score is None else metrics | {"score": score}


def load_policies(folder: Path) -> list[Policy]:
    """The policies of a run, by seed. Raises InputError if there are none, or not of every seed up to the last."""
    found = {path: re.fullmatch(r"seed(\d+)", path.parent.name) for path in folder.glob("seed*/policy.npz")}
    paths = sorted((int(match[1]), path) for path, match in found.items() if match)
    if not paths:
        raise InputError(f"{folder} holds no trained policy (seedK/policy.npz); `itrpo runs list` shows the runs")
    lost = sorted(set(range(paths[-1][0])) - {index for index, _ in paths})
    if lost:  # in a list of the others each would be taken for another one
        raise InputError(
            f"{folder} has policies of other seeds, but {policy_path(folder, lost[0])} is not there; the `itrpo train`"
            " command that made the run writes it again"
        )
    try:
        return [load_policy(path) for _, path in paths]
    except PolicyFileError as error:
        raise StorageError(str(error)) from error


def evaluate(
    folder: str | os.PathLike[str],
    *,
    episodes: int = 100,
    seed: int = 0,
    env: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Plays `episodes` episodes with each seed's policy in a run folder, from start states that training never used.

    `env` is MODULE:ID for an environment of your own, each time: the folder alone imports no module. `seed` is that
    of the start states. A warning goes to `console`, or to standard output, if the policies' actions are on another
    scale than the environment's.
    Raises InputError if there is no run, or no environment to evaluate in, StorageError for a damaged policy.
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    policies, env_id = players(Path(folder), env, "evaluate", console)
    pool = rollout.make_pool(env_id, len(policies), episodes)
    try:
        returns, lengths = rollout.evaluate(pool, rollout.acting(policies), seed, EVALUATE_STEP)
    finally:
        pool.close()
    reference = reference_of(policies[0], env_id)
    scores = normalized_score(env_id, returns, reference)
    return Evaluation(env_id, policies[0].metadata.get("step", 0), returns, lengths, scores, reference)


def reference_of(policy: Policy, env_id: str) -> Reference | None:
    """What the policy's dataset says of returns in this environment, if it is the one that it was trained for."""
    return as_reference(policy.metadata.get("reference")) if env_id == policy.metadata.get("env_id") else None


def spec_of(policy: Policy) -> SpaceSpec | DiscreteSpec:
    """Sizes without history."""
    if policy.num_actions is not None:
        return DiscreteSpec(policy.frame, policy.num_actions)
    return SpaceSpec(policy.frame, len(policy.action_low))


def players(folder: Path, env: str | None, command: str, console: Console | None) -> tuple[list[Policy], str]:
    """The policies of a run, and the environment that they play in; `command` is what asks. Raises as `evaluate`."""
    policies = load_policies(folder)
    first = policies[0]
    env_id = first.metadata.get("env_id") if env is None else users_env(env)
    if not env_id:
        raise InputError(f"{folder} was trained without an environment; name one with --env")
    if not is_allowed(env_id):
        raise InputError(
            f"{folder} was trained in {env_id}, whose module is imported only if you name it yourself: "
            f"itrpo {command} {folder} --env {env_id}"
        )
    spaces = spaces_of(env_id)
    check_sizes(env_id, spaces, spec_of(first), f"the policy in {folder}")
    if not same_bounds(spaces, first.action_low, first.action_high):
        ours = f"{numbers(first.action_low)} to {numbers(first.action_high)}"
        say(
            console or make_console(),
            f"warning: {env_id} takes actions from {numbers(spaces.low)} to {numbers(spaces.high)}, but the policies "
            f"in {folder} act from {ours}: were they trained on actions of another scale?",
            "bold yellow",
        )
    return policies, env_id


def video(
    folder: str | os.PathLike[str],
    *,
    seed: int | None = None,
    episodes: int = 1,
    out: str | os.PathLike[str] | None = None,
    env: str | None = None,
    console: Console | None = None,
) -> list[Played]:
    """Films of `episodes` episodes with each seed's policy in a run folder, or with one's (`seed`, its index).

    They are the first ones that `evaluate` plays. Written to `out`, by default RUN/videos/seedK.mp4, or .gif where the
    extra `video` is not installed; of several seeds each gets a file, with its name before the ending.
    Raises what `evaluate` does, and InputError if nothing can draw here.
    """
    from itrpo.evaluation.video import check_path, film, has_mp4, open_stage

    if episodes < 1:
        raise InputError(f"episodes must be at least 1, got {episodes}")
    ending = ".mp4" if has_mp4() else ".gif"
    wanted = None if out is None else Path(out)
    if wanted is not None:
        check_path(wanted)
    policies, env_id = players(Path(folder), env, "video", console)
    by_seed = dict(enumerate(policies))
    if seed is not None and seed not in by_seed:
        raise InputError(f"{Path(folder)} has no seed {seed}; it has {', '.join(map(str, by_seed))}")
    seeds = list(by_seed) if seed is None else [seed]
    played: list[Played] = []
    stage = open_stage(env_id)
    try:
        for index in seeds:
            path = wanted or Path(folder) / "videos" / f"seed{index}{ending}"
            if wanted is not None and len(seeds) > 1:
                path = wanted.with_name(f"{wanted.stem}_seed{index}{wanted.suffix}")
            starts = [rollout.start_seed(0, index, slot, EVALUATE_STEP) for slot in range(episodes)]
            played.append(film(env_id, stage, by_seed[index], starts, path))
            if console is not None:
                said = ", ".join(f"{it:,.6g}" for it in played[-1].returns)
                say(console, f"{path}: return {said}")
    finally:
        stage.close()
    return played
