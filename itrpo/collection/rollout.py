"""Rolling acting policies out in Hopper, HalfCheetah and Walker2d (gymnasium's -v4), several environments side by side.

MuJoCo is stepped directly, and rewards and ends are computed for all environments at once: of gymnasium's
`env.step`, a third is spent around the simulator. A test holds every number equal to gymnasium's, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LOG_STD_RANGE = (-5.0, 2.0)  # of the policies' training
UNIFORM = "uniform"  # the policy that draws every action uniformly
NOISE_BLOCK = 256  # steps for which a slot's noise is drawn at once
PROGRESS_EVERY = 500  # steps


class ActingPolicy(NamedTuple):
    """A tanh-Gaussian policy with two hidden ReLU layers. Weights are float32 [in, out]."""

    hidden: tuple[tuple[np.ndarray, np.ndarray], ...]  # (weight, bias) of each layer
    mean: tuple[np.ndarray, np.ndarray]
    log_std: tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """Slots of one policy. A slot is one environment, played for whole episodes until at least `steps` steps are done.

    Same task, same rows; and a slot's rows do not depend on the slots beside it.
    """

    env_id: str
    policy: str  # path of a safetensors file, or UNIFORM
    steps: int  # per slot
    seeds: tuple[tuple[int, ...], ...]  # one per slot


class Physics(NamedTuple):
    """What gymnasium's environments add to MuJoCo. `healthy` bounds are open intervals."""

    control_cost: float
    alive_bonus: float
    clipped_velocity: bool  # the observation has velocities within [-10, 10]
    healthy_height: tuple[float, float] | None  # None: no state ends an episode
    healthy_angle: tuple[float, float] | None
    healthy_state: tuple[float, float] | None  # of all positions and velocities but the first two


# Sources: gymnasium/envs/mujoco/{hopper,walker2d,half_cheetah}_v4.py
PHYSICS = {
    "Hopper-v4": Physics(1e-3, 1.0, True, (0.7, np.inf), (-0.2, 0.2), (-100.0, 100.0)),
    "Walker2d-v4": Physics(1e-3, 1.0, True, (0.8, 2.0), (-1.0, 1.0), None),
    "HalfCheetah-v4": Physics(0.1, 0.0, False, None, None, None),
}


def load_acting_policy(path: str | os.PathLike[str]) -> ActingPolicy:
    """Reads one of the package's policies."""
    from safetensors.numpy import load_file

    return acting_policy(load_file(path))


def acting_policy(arrays: dict[str, np.ndarray]) -> ActingPolicy:
    """The policy that a file's arrays hold. Weights stored as float16 become float32."""

    def layer(name: str) -> tuple[np.ndarray, np.ndarray]:
        return arrays[f"{name}.weight"].astype(np.float32), arrays[f"{name}.bias"].astype(np.float32)

    return ActingPolicy((layer("hidden0"), layer("hidden1")), layer("mean"), layer("log_std"))


def act(policy: ActingPolicy, observations: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions [B, A] float32 and their log densities [B], for observations [B, O] and standard normal noise [B, A].

    log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2) with a = tanh(u); the last log is taken as
    2 (log 2 - u - softplus(-2u)), which is finite for every u.
    """
    hidden = observations
    for weight, bias in policy.hidden:
        hidden = np.maximum(_linear(hidden, weight, bias), 0)
    mean = _linear(hidden, *policy.mean)
    log_std = np.clip(_linear(hidden, *policy.log_std), *LOG_STD_RANGE)
    pre_tanh = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - np.float32(0.5 * np.log(2 * np.pi))
    log_jacobian = 2 * (np.float32(np.log(2)) - pre_tanh - np.logaddexp(np.float32(0), -2 * pre_tanh))
    return np.tanh(pre_tanh), (log_normal - log_jacobian).sum(axis=1)


def _linear(inputs: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """einsum rather than BLAS: a row's bits depend neither on the number of threads nor on the rows beside it."""
    return np.einsum("bi,ij->bj", inputs, weight) + bias[None]


class Simulators:
    """Environments of one kind, stepped together."""

    def __init__(self, env_id: str, count: int) -> None:
        from itrpo.evaluation.environments import make_env

        self.physics = PHYSICS[env_id]
        made: list[Any] = [make_env(env_id) for _ in range(count)]
        self.time_limit: int = made[0].spec.max_episode_steps
        self.envs = [env.unwrapped for env in made]  # reset by gymnasium, stepped here
        self.qpos = np.stack([env.data.qpos for env in self.envs])  # [B, ...] float64: the states, as of the last step
        self.qvel = np.stack([env.data.qvel for env in self.envs])
        self._dt = self.envs[0].dt

    def reset(self, index: int, seed: int | None = None) -> None:
        """Starts an episode. Only the first reset of an environment is seeded; later ones continue its stream."""
        env = self.envs[index]
        env.reset(seed=seed)
        self.qpos[index], self.qvel[index] = env.data.qpos, env.data.qvel

    def observe(self, active: np.ndarray) -> np.ndarray:
        """Observations [n, O] float32 of the environments `active` [n]."""
        qvel = self.qvel[active]
        velocities = np.clip(qvel, -10, 10) if self.physics.clipped_velocity else qvel
        return np.concatenate([self.qpos[active, 1:], velocities], axis=1).astype(np.float32)

    def step(self, active: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [n, A] float32 in the environments `active` [n] -> rewards [n] float64, terminated [n] bool."""
        from mujoco import mj_step  # pyright: ignore[reportAttributeAccessIssue] (its stubs lack it)

        before = self.qpos[active, 0]
        for index, action in zip(active.tolist(), actions, strict=True):
            env = self.envs[index]
            env.data.ctrl[:] = action
            mj_step(env.model, env.data, nstep=env.frame_skip)
            self.qpos[index], self.qvel[index] = env.data.qpos, env.data.qvel
        forward = (self.qpos[active, 0] - before) / self._dt
        cost = np.float32(self.physics.control_cost) * np.square(actions).sum(axis=1)
        return forward + self.physics.alive_bonus - cost, self.unhealthy(active)

    def unhealthy(self, active: np.ndarray) -> np.ndarray:
        """Whether the states of the environments `active` [n] end an episode. [n] bool"""
        unhealthy = np.zeros(len(active), bool)
        state = np.concatenate([self.qpos[active], self.qvel[active]], axis=1)[:, 1:]  # height, angle, ...
        bounds = (
            (self.physics.healthy_height, state[:, :1]),
            (self.physics.healthy_angle, state[:, 1:2]),
            (self.physics.healthy_state, state[:, 1:]),
        )
        for interval, values in bounds:
            if interval is not None:
                low, high = interval
                unhealthy |= ~((low < values) & (values < high)).all(axis=1)  # NaN is unhealthy
        return unhealthy


def collect(task: Task, on_progress: Callable[[int], None] = lambda steps: None) -> dict[str, np.ndarray]:
    """Rolls the slots of a task out with sampled actions, and returns their rows, slot after slot.

    -> `observations` [N, O], `actions` [N, A] within [-1, 1], `next_observations` and `rewards` [N], float32;
    `terminals` and `timeouts` [N] bool, never both; `infos/qpos` and `infos/qvel` float64, the simulator's state before
    the step; `infos/action_log_probs` [N] float32, log density of the action, tanh included. All episodes are complete.
    `on_progress` gets the number of steps done since its last call.
    """
    env_id, policy_path, steps, seeds = task
    policy = None if policy_path == UNIFORM else load_acting_policy(policy_path)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    simulators = Simulators(env_id, len(seeds))
    time_limit = simulators.time_limit
    for slot, rng in enumerate(rngs):
        simulators.reset(slot, seed=int(rng.integers(2**31)))

    log = _empty_log(steps + time_limit, simulators)
    rows = np.zeros(len(seeds), np.int64)  # of each slot; all active slots have the same number
    elapsed = np.zeros(len(seeds), np.int64)  # steps of each slot's episode
    active, time, reported = np.arange(len(seeds)), 0, 0
    noise = np.empty((NOISE_BLOCK, *log["actions"].shape[1:]), np.float32)
    observations = simulators.observe(active)
    while len(active):
        if time % NOISE_BLOCK == 0:
            for slot in active.tolist():
                rng, shape = rngs[slot], noise[:, slot].shape  # the same numbers as row by row
                if policy is None:
                    noise[:, slot] = 2 * rng.random(shape, dtype=np.float32) - 1
                else:
                    noise[:, slot] = rng.standard_normal(shape, dtype=np.float32)
        draw = noise[time % NOISE_BLOCK, active]
        actions, log_probs = (draw, -draw.shape[1] * np.log(2.0)) if policy is None else act(policy, observations, draw)
        qpos, qvel = simulators.qpos[active], simulators.qvel[active]
        rewards, terminals = simulators.step(active, actions)
        following = simulators.observe(active)
        elapsed[active] += 1
        timeouts = (elapsed[active] == time_limit) & ~terminals
        row = (observations, actions, following, rewards, terminals, timeouts, qpos, qvel, log_probs)
        for column, values in zip(log.values(), row, strict=True):
            column[time, active] = values
        time += 1
        rows[active] = time
        observations, ended = following, terminals | timeouts
        if ended.any():
            for slot in active[ended].tolist():
                simulators.reset(slot)
                elapsed[slot] = 0
            if time >= steps:
                active = active[~ended]
            observations = simulators.observe(active)
        if (total := int(rows.sum())) - reported >= PROGRESS_EVERY:
            on_progress(total - reported)
            reported = total
    on_progress(int(rows.sum()) - reported)
    return {
        name: np.concatenate([column[:length, slot] for slot, length in enumerate(rows)])
        for name, column in log.items()
    }


def _empty_log(capacity: int, simulators: Simulators) -> dict[str, np.ndarray]:
    """Columns [capacity, slots, ...] in the file's order."""
    slots, env = len(simulators.envs), simulators.envs[0]
    observation, action = env.observation_space.shape, env.action_space.shape
    layout = {
        "observations": (observation, np.float32),
        "actions": (action, np.float32),
        "next_observations": (observation, np.float32),
        "rewards": ((), np.float32),
        "terminals": ((), bool),
        "timeouts": ((), bool),
        "infos/qpos": (simulators.qpos.shape[1:], np.float64),
        "infos/qvel": (simulators.qvel.shape[1:], np.float64),
        "infos/action_log_probs": ((), np.float32),
    }
    return {name: np.empty((capacity, slots, *shape), kind) for name, (shape, kind) in layout.items()}
