"""Returns of the policies of all seeds: S seeds x E slots stepped together, the first episode of each slot counted.

A slot whose episode has ended is not stepped again, so an evaluation costs as many environment steps as its episodes
have. The slots are shared out over cores; the results do not depend on how. Why this is not one of
gymnasium's vector classes: docs/decisions/0003-evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import DivergenceError, InputError
from itrpo.evaluation.environments import known_elsewhere, spaces_of
from itrpo.evaluation.slots import LocalSlots, RemoteSlots
from itrpo.policy import Policy

MAX_EPISODE_STEPS = 100_000  # guards against an environment that was registered without a time limit and never ends
SLOTS_PER_PROCESS = 4  # a process with fewer would cost more to start than it saves


class Returns(NamedTuple):
    """What one evaluation measured: undiscounted sums of raw rewards, and numbers of steps, of S x E episodes."""

    returns: np.ndarray  # [S, E] float64
    lengths: np.ndarray  # [S, E] int64


class EvaluationPool(NamedTuple):
    """The environments of S seeds x E slots, built once and used by every evaluation of a run.

    Group g of G holds the slots g, g + G, g + 2G, ... (counted over seeds, then episodes), so that a seed with long
    episodes is shared by all.
    """

    env_id: str
    num_seeds: int
    episodes: int
    here: LocalSlots  # group 0
    elsewhere: tuple[RemoteSlots, ...]

    def close(self) -> None:
        """Close the environments and end the processes."""
        self.here.close()
        for group in self.elsewhere:
            group.close()

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Seeds [N] of all slots -> observations [N, O]."""
        groups = 1 + len(self.elsewhere)
        for g, group in enumerate(self.elsewhere, start=1):
            group.send_reset(seeds[g::groups])
        parts = [self.here.reset(seeds[::groups]), *(group.receive_reset() for group in self.elsewhere)]
        return _interleave(parts, len(seeds))

    def step(self, active: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `LocalSlots.step`, for all slots."""
        groups = 1 + len(self.elsewhere)
        for g, group in enumerate(self.elsewhere, start=1):
            group.send_step(active[g::groups], actions[g::groups])
        parts = [self.here.step(active[::groups], actions[::groups])]
        parts += [group.receive_step() for group in self.elsewhere]
        observations, rewards, ended = (_interleave(part, len(active)) for part in zip(*parts, strict=True))
        return observations, rewards, ended


def make_pool(env_id: str, num_seeds: int, episodes: int, processes: int | None = None) -> EvaluationPool:
    """Environments for `num_seeds` policies with `episodes` episodes each. Raises InputError as `make_env` does.

    `processes` counts this one; by default one per core, as far as each has enough slots. An environment that a program
    registered itself stays in this process, as no other knows it.
    """
    if num_seeds < 1 or episodes < 1:
        raise InputError(f"evaluation needs at least one seed and one episode, not {num_seeds} and {episodes}")
    slots = num_seeds * episodes
    spaces_of(env_id)  # refuses what is no vector before any process starts
    if processes is None:
        most = min(files.available_cores(), slots // SLOTS_PER_PROCESS)
        processes = max(1, most) if known_elsewhere(env_id) else 1
    sizes = [len(range(g, slots, processes)) for g in range(processes)]
    elsewhere = tuple(RemoteSlots(env_id, size) for size in sizes[1:])  # they start while this process builds its own
    return EvaluationPool(env_id, num_seeds, episodes, LocalSlots(env_id, sizes[0]), elsewhere)


def acting(policies: Sequence[Policy]) -> Callable[[np.ndarray], np.ndarray]:
    """observations [S, E, O] -> actions [S, E, A], from the first ones of E episodes on.

    Observations that are far from the data are no news here.
    """
    for policy in policies:
        policy.reset()
    return lambda observations: np.stack([policy.act(own) for policy, own in zip(policies, observations, strict=True)])


def start_seed(seed: int, index: int, slot: int, step: int) -> np.uint32:
    """The seed of an episode's start: of the evaluation's seed, the policy's index, its slot and the training step."""
    return np.random.SeedSequence([seed, index, slot, step]).generate_state(1)[0]


def evaluate(
    pool: EvaluationPool,
    act: Callable[[np.ndarray], Any],
    seed: int,
    step: int,
    indices: Sequence[int] | None = None,
) -> Returns:
    """As `attempt`, for policies that stand or fall together. Raises DivergenceError if one of them fails."""
    played = attempt(pool, act, seed, step, indices)
    for place in range(pool.num_seeds):
        message = failure(pool.env_id, played, place, place if indices is None else indices[place], step)
        if message is not None:
            raise DivergenceError(message)
    return played


def attempt(
    pool: EvaluationPool,
    act: Callable[[np.ndarray], Any],
    seed: int,
    step: int,
    indices: Sequence[int] | None = None,
) -> Returns:
    """Play one episode in every slot.

    `act` maps observations [S, E, O] float32 to actions [S, E, A] in the environment's units. Start states are seeded
    from (seed, index of the policy's seed, slot, step); `indices` [S] default to 0, 1, ...: the same call gives
    the same returns, and evaluations at different training steps start differently. `act` sees the last observation of
    slots that have ended; what it answers there is ignored. An action that is not finite ends its episode, whose return
    is NaN (see `failure`).
    """
    shape = (pool.num_seeds, pool.episodes)
    known = range(pool.num_seeds) if indices is None else indices
    starts = [start_seed(seed, known[place], slot, step) for place, slot in np.ndindex(shape)]
    observations = pool.reset(np.array(starts))
    playing = np.ones(len(starts), bool)
    returns, lengths = np.zeros(len(starts), np.float64), np.zeros(len(starts), np.int64)
    while playing.any():
        actions = np.asarray(act(observations.reshape(*shape, -1)), np.float32).reshape(len(starts), -1)
        broken = playing & ~np.isfinite(actions).all(axis=1)
        returns[broken] = np.nan
        playing &= ~broken
        stepped, rewards, ended = pool.step(playing, actions)
        observations = np.where(playing[:, None], stepped, observations)
        returns += rewards
        lengths += playing
        playing = playing & ~ended
        if playing.any() and lengths.max() >= MAX_EPISODE_STEPS:
            raise InputError(
                f"{pool.env_id}: an episode did not end within {MAX_EPISODE_STEPS:,} steps; "
                "register the environment with max_episode_steps"
            )
    return Returns(returns.reshape(shape), lengths.reshape(shape))


def failure(env_id: str, played: Returns, place: int, index: int, step: int) -> str | None:
    """What went wrong with the policy at `place`, of seed `index`; None if nothing did."""
    if np.isfinite(played.returns[place]).all():
        return None
    what = f"an action of the policy in {env_id}, or the reward that it got, is not finite"
    return f"seed {index}, training step {step:,}: {what}"


def _interleave(parts: Any, size: int) -> np.ndarray:
    """Group g's rows to the places g, g + G, g + 2G, ..."""
    whole = np.empty((size, *parts[0].shape[1:]), parts[0].dtype)
    for g, part in enumerate(parts):
        whole[g :: len(parts)] = part
    return whole
