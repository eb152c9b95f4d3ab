"""What training sees of environments: steps as rows, episodes that can be played again, and rows as a dataset.

`rows.bin` in the folder of a run has every step of every environment: the first step of each, then the second, ... .
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrpo import files
from itrpo.errors import InputError, StorageError
from itrpo.evaluation.environments import Spaces, allow, is_allowed, make_env, spaces_of
from itrpo.results.store import CONFIG, read_provenance
from itrpo.types import SpaceSpec

if TYPE_CHECKING:
    import gymnasium

ROWS = "rows.bin"
EPISODE = 0  # stream of the seeds of episodes; online_run has the others


# commands that make such runs, and what learns in them
NAMES = {"sac": "SAC", "td3": "TD3", "ppo": "PPO", "geppo": "GePPO", "trpo": "TRPO"}
SHORT_NAMES = {"goal-ant": "itrpo.collection.goal_ant:GoalAnt-v0"}


def row_type(spec: SpaceSpec) -> np.dtype:
    """One environment step, as rows.bin has it."""
    observation, action = ("<f4", (spec.observation_dim,)), ("<f4", (spec.action_dim,))
    return np.dtype(
        [
            ("observation", *observation),
            ("action", *action),  # in [-1, 1]
            ("reward", "<f4"),
            ("terminal", "?"),
            ("timeout", "?"),  # never together with a terminal
            ("next_observation", *observation),  # the episode's own last one where it ended
            ("action_log_prob", "<f4"),  # of `action`, tanh included; NaN where it has no density
        ]
    )


@dataclass
class Environments:
    """Environments stepped together in this process. One whose episode ends starts its next one at once."""

    seed: int
    spaces: Spaces
    envs: list[gymnasium.Env]
    episodes: np.ndarray  # [E] int32: number of the current episode
    begun: np.ndarray  # [E] int32: the environment's own step at which it began
    observations: np.ndarray  # [E, O] float32

    def start_episode(self, index: int) -> None:
        """Begins environment `index`'s episode number `episodes[index]`."""
        entropy = np.random.SeedSequence([self.seed, EPISODE, index, int(self.episodes[index])])
        self.observations[index] = self.envs[index].reset(seed=int(entropy.generate_state(1)[0]))[0]

    def step(self, time_step: int, actions: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        """Takes one step everywhere. actions [E, A] in [-1, 1] -> rows [E]."""
        rows = np.zeros(len(self.envs), row_type(self.spaces.vectors))
        rows["observation"], rows["action"], rows["action_log_prob"] = self.observations, actions, log_probs
        in_units = self.spaces.to_env(actions)
        for index, env in enumerate(self.envs):
            observation, reward, terminated, truncated, _ = env.step(in_units[index])
            rows["next_observation"][index], rows["reward"][index] = observation, reward
            rows["terminal"][index], rows["timeout"][index] = terminated, truncated and not terminated
            self.observations[index] = observation
            if terminated or truncated:
                self.episodes[index] += 1
                self.begun[index] = time_step + 1
                self.start_episode(index)
        return rows

    def close(self) -> None:
        for env in self.envs:
            env.close()


def open_environments(
    env_id: str, seed: int, spaces: Spaces, episodes: np.ndarray, begun: np.ndarray, history: np.ndarray
) -> Environments:
    """Environments in the state that they were in after `history` [T, E], all rows made so far.

    Raises StorageError if the simulator does not go through the rows of its unfinished episodes again.
    """
    count = len(episodes)
    observations = np.zeros((count, spaces.vectors.observation_dim), np.float32)
    envs = [make_env(env_id) for _ in range(count)]
    made = Environments(seed, spaces, envs, episodes.copy(), begun.copy(), observations)
    for index, env in enumerate(made.envs):
        made.start_episode(index)
        for row in history[begun[index] :, index]:
            same = np.array_equal(made.observations[index], row["observation"])
            made.observations[index], reward, *_ = env.step(spaces.to_env(row["action"]))
            if not (same and np.float32(reward) == row["reward"]):
                raise StorageError(
                    f"{env_id} does not repeat the steps of an unfinished episode in {ROWS}: another version of the "
                    "simulator, or an environment that is not deterministic given its seed; train anew in another --out"
                )
    return made


def rows_until(path: Path, row: np.dtype, time_step: int, envs: int) -> np.ndarray:
    """The rows [T, E] of rows.bin up to a checkpoint. Raises StorageError if some are missing."""
    size = time_step * envs * row.itemsize
    present = path.stat().st_size if path.exists() else 0
    if present < size:
        raise StorageError(f"{path} is damaged: {present:,} bytes, not {size:,}; delete its folder to train anew")
    return np.memmap(path, row, "r", shape=(time_step, envs)) if time_step else np.zeros((0, envs), row)


def write_replay(folder: Path, path: Path, steps: int | None = None, env: str | None = None) -> int:
    """Writes what a run has done so far, or in its first `steps` steps, in D4RL's layout. -> number of rows.

    The rows of one environment follow each other, so that episodes are whole; an environment's last row, where it ends
    no episode, is a timeout. Actions are in the environment's units, and so are their densities, which are left out if
    one of the actions has none. The run may be going on. `env` is the run's environment if it is one of the user's
    own, MODULE:ID: the folder alone imports no module.
    Raises InputError if there is no run, or one with fewer steps.
    """
    import h5py

    recorded = files.read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    kind = next((name for name in NAMES if name in recorded), None)
    if kind is None:
        *names, last = (f"`itrpo {name}`" for name in NAMES)
        raise InputError(f"{folder} holds no run of {', '.join(names)} or {last}")
    recorded = recorded[kind]
    env_id, envs = recorded["env_id"], recorded["envs"]
    if env not in (None, env_id):
        raise InputError(f"{folder} is a run in {env_id}, not in {env}")
    allow(env_id if env_id in SHORT_NAMES.values() else env)
    if not is_allowed(env_id):
        raise InputError(
            f"{folder} is a run in {env_id}, whose module is imported only if you name it yourself: "
            f"itrpo {kind} replay {folder} --env {env_id}"
        )
    spaces = spaces_of(env_id)
    row = row_type(spaces.vectors)
    done = (folder / ROWS).stat().st_size // (row.itemsize * envs) if (folder / ROWS).exists() else 0
    length = done if steps is None else -(-steps // envs)
    if not 0 < length <= done:
        raise InputError(f"{folder} has {done * envs:,} steps so far; asked for {'some' if steps is None else steps}")
    rows = np.memmap(folder / ROWS, row, "r", shape=(done, envs))[:length]
    by_environment = np.ascontiguousarray(rows.T)  # [E, T]
    ends = by_environment["terminal"] | by_environment["timeout"]
    by_environment["timeout"][:, -1] |= ~ends[:, -1]
    flat = by_environment.reshape(-1)
    log_unit = np.log((spaces.high - spaces.low) / 2).sum(dtype=np.float32)  # 0 for actions in [-1, 1]
    recipe = {
        "what": f"every step of one run of {NAMES[kind]}, uniform actions first; environments one after the other",
        "config": recorded,
        "steps": length * envs,
        "rows_per_environment": length,
        "versions": read_provenance(folder)["versions"],
    }
    image = io.BytesIO()  # HDF5 does not survive a full disk; plain writing does
    with h5py.File(image, "w") as file:
        file["observations"] = flat["observation"]
        file["actions"] = spaces.to_env(flat["action"])
        file["rewards"] = flat["reward"]
        file["terminals"] = flat["terminal"]
        file["timeouts"] = flat["timeout"]
        file["next_observations"] = flat["next_observation"]
        if not np.isnan(flat["action_log_prob"]).any():
            file["infos/action_log_probs"] = flat["action_log_prob"] - log_unit
        file.attrs["env_id"] = env_id
        file.attrs["action_low"], file.attrs["action_high"] = spaces.low, spaces.high
        file.attrs["recipe"] = json.dumps(recipe)
    files.write(path, image.getbuffer())
    return len(flat)
