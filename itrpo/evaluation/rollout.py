"""Returns of the policies of all seeds: S seeds x E slots stepped together, the first episode of each slot counted.

A slot whose episode has ended is not stepped again, so an evaluation costs as many environment steps as its episodes
have. Why this is a loop over environments and not gymnasium's vector classes: docs/decisions/0003-evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.errors import DivergenceError, InputError
from itrpo.evaluation.environments import check_spaces, make_env

if TYPE_CHECKING:
    import gymnasium

MAX_EPISODE_STEPS = 100_000  # guards against an environment that was registered without a time limit and never ends


class Returns(NamedTuple):
    """What one evaluation measured: undiscounted sums of raw rewards, and numbers of steps, of S x E episodes."""

    returns: np.ndarray  # [S, E] float64
    lengths: np.ndarray  # [S, E] int64


class EvaluationPool(NamedTuple):
    """The environments of S seeds x E slots, built once and used by every evaluation of a run."""

    env_id: str
    envs: tuple[tuple[gymnasium.Env, ...], ...]  # [S][E]

    def close(self) -> None:
        for row in self.envs:
            for env in row:
                env.close()


def make_pool(env_id: str, num_seeds: int, episodes: int) -> EvaluationPool:
    """Environments for `num_seeds` policies with `episodes` episodes each. Raises InputError as `make_env` does."""
    if num_seeds < 1 or episodes < 1:
        raise InputError(f"evaluation needs at least one seed and one episode, not {num_seeds} and {episodes}")
    pool = EvaluationPool(env_id, tuple(tuple(make_env(env_id) for _ in range(episodes)) for _ in range(num_seeds)))
    check_spaces(env_id, pool.envs[0][0])
    return pool


def evaluate(pool: EvaluationPool, act: Callable[[np.ndarray], Any], seed: int, step: int) -> Returns:
    """Play one episode in every slot.

    `act` maps observations [S, E, O] float32 to actions [S, E, A] in the environment's units.

    Start states are seeded from (seed, index of the policy's seed, slot, step): the same call gives the same returns,
    and evaluations at different training steps start differently. `act` sees the last observation of slots that have
    ended; what it answers there is ignored. Raises DivergenceError at an action or a reward that is not finite.
    """
    shape = (len(pool.envs), len(pool.envs[0]))
    observations = np.zeros((*shape, *pool.envs[0][0].observation_space.shape), np.float32)  # type: ignore[misc]
    for index in np.ndindex(shape):
        start = np.random.SeedSequence([seed, *index, step]).generate_state(1)[0]
        observations[index] = pool.envs[index[0]][index[1]].reset(seed=int(start))[0]
    returns, lengths = np.zeros(shape, np.float64), np.zeros(shape, np.int64)
    playing = list(np.ndindex(shape))
    while playing:
        actions = np.asarray(act(observations))
        if actions.shape[:2] != shape:
            raise ValueError(
                f"act returned actions of shape {actions.shape} for observations of shape {observations.shape}"
            )
        still_playing = []
        for index in playing:
            action = actions[index]
            if not np.isfinite(action).all():
                raise DivergenceError(
                    f"seed index {index[0]}, training step {step}: "
                    f"the policy's action in {pool.env_id} is not finite: {action}"
                )
            observation, reward, terminated, truncated, _ = pool.envs[index[0]][index[1]].step(action)
            observations[index] = observation
            returns[index] += float(reward)
            lengths[index] += 1
            if not (terminated or truncated):
                still_playing.append(index)
        playing = still_playing
        if playing and lengths.max() >= MAX_EPISODE_STEPS:
            raise InputError(
                f"{pool.env_id}: an episode did not end within {MAX_EPISODE_STEPS:,} steps; "
                "register the environment with max_episode_steps"
            )
    if not np.isfinite(returns).all():
        raise DivergenceError(f"training step {step}: {pool.env_id} gave rewards that are not finite")
    return Returns(returns, lengths)
