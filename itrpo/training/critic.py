"""The critics of a trained run: Q(s,a) as a function of arrays in the dataset's units."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from itrpo import xla
from itrpo.config import checked
from itrpo.errors import InputError, StorageError
from itrpo.policy import Policy, PolicyFileError, load_policy
from itrpo.training.evaluate import policy_path
from itrpo.training.restore import read_config, trained_states
from itrpo.training.rows import in_pieces
from itrpo.types import DiscreteSpec, SpaceSpec


@dataclass(frozen=True)
class Critic:
    """One seed's critics. Calling it maps observations [..., O] and actions [..., A], both in the dataset's units, to
    Q(s,a), float32 [N, ...], of each of the N critics; of choices an action is its number, [...]. Leading axes are
    broadcast: `critic(observation[:, None], candidates)` is Q [N, B, n] of n candidates at each of B observations.

    Q is in units of the rewards that training saw, `reward_scale * r + reward_shift`, and so discounted as there. Most
    algorithms count the least of their critics, `critic(s, a).min(axis=0)`. Where observations have a history
    (`stack`), O is that of all of it, as the rows of `Dataset.transitions` are.
    """

    step: int  # gradient steps, of the newest checkpoint
    reward_scale: float
    reward_shift: float
    policy: Policy = field(repr=False)  # of the same run and seed
    q_values: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(repr=False)  # normalised [B, O], [B, A] -> [B, N]

    def __call__(self, observation: Any, action: Any) -> np.ndarray:
        """Raises ValueError for other last dimensions, axes that can't be broadcast, and choices that do not exist."""
        policy, number = self.policy, self.policy.num_actions
        observation, action = np.asarray(observation, np.float32), np.asarray(action)
        size, wanted = len(policy.observation_mean), len(policy.action_low)
        if observation.shape[-1:] != (size,):
            raise ValueError(f"observations must be [..., {size}], not {list(observation.shape)}")
        if number is None:
            if action.shape[-1:] != (wanted,):
                raise ValueError(f"actions must be [..., {wanted}], not {list(action.shape)}")
            low, high = policy.action_low, policy.action_high
            action, own = ((action - low) / (high - low) * 2 - 1).astype(np.float32), (wanted,)
        else:
            first = int(policy.action_low[0])
            if action.size and not np.isin(action, np.arange(first, first + number)).all():
                raise ValueError(f"actions must be choices, whole numbers from {first} to {first + number - 1}")
            action, own = (action - first).astype(np.int32), ()
        axes = np.broadcast_shapes(observation.shape[:-1], action.shape[: action.ndim - len(own)])
        rows = (observation - policy.observation_mean) / policy.observation_std
        rows = np.broadcast_to(rows, (*axes, size)).reshape(math.prod(axes), size)
        found = self.q_values(rows, np.broadcast_to(action, (*axes, *own)).reshape(math.prod(axes), *own))
        return found.T.reshape(found.shape[1], *axes)


def load_critic(run: str | os.PathLike[str], seed: int = 0, *, algorithm: str | None = None) -> Critic:
    """The critics of a run, as they are in its newest checkpoint; of one that is going on, the newest so far.

    `run` is its folder, or what `itrpo.train` returned; `seed` the index of one of its seeds. `algorithm` MODULE:ENTRY:
    that of a run of a module of your own, which is imported.
    Raises InputError if there is no such run, seed or checkpoint, and for algorithms without a critic, such as BC;
    StorageError for a damaged file.
    """
    folder, seed = Path(run), checked(seed, int, "seed")
    config = read_config(folder, algorithm)
    xla.prepare()
    try:
        policy = load_policy(policy_path(folder, seed))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no policy of seed {seed}: {policy_path(folder, seed)} is not there") from error
    except PolicyFileError as error:
        raise StorageError(str(error)) from error
    size, number = len(policy.observation_mean), policy.num_actions
    spec = SpaceSpec(size, len(policy.action_low)) if number is None else DiscreteSpec(size, number)
    found, states, step = trained_states(folder, spec, algorithm)
    if found.q_values is None:
        raise InputError(f"{folder}: {config.algorithm} has no critic of actions")
    if seed >= len(states):
        raise InputError(f"{folder} has seeds 0 to {len(states) - 1}, not {seed}")
    q_values, state = found.q_values, states[seed]
    program = jax.jit(lambda state, rows, action: jnp.moveaxis(q_values(state, rows, action), 0, 1))
    data = config.data
    return Critic(step, data.reward_scale, data.reward_shift, policy, lambda *rows: in_pieces(program, state, *rows))
