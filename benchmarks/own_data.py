"""What normalising by scales and histories do on logs of a user's own: the figures in CHANGELOG.

    python benchmarks/own_data.py tank        # IQL and BC on columns in K, m and Pa, raw and normalised
    python benchmarks/own_data.py pendulum    # BC on a log without the velocity, of 1, 2 and 4 observations

Returns are means over 20 episodes of the simulator, one number for each of 2 seeds.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import tyro

import itrpo
from itrpo.console import silent_console
from itrpo.training.run import Run

SEEDS, EPISODES = 2, 20
Rows = dict[str, list[Any]]


class Tank:
    """Temperature (K) and level (m), a constant pressure (Pa) and a flow; a heater and a valve, both 0 to 100 %."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.temperature, self.level = 350 + 8 * rng.normal(), 1 + 0.2 * rng.normal()

    def observation(self) -> np.ndarray:
        return np.array([self.temperature, self.level, 101325.0, 1e-3 * self.temperature * self.level], np.float32)

    def step(self, action: np.ndarray) -> float:
        self.temperature += 0.08 * (action[0] - 50) - 0.05 * (self.temperature - 350) + 0.5 * self.rng.normal()
        self.level += 0.004 * (action[1] - 50) - 0.02 * (self.level - 1) + 0.01 * self.rng.normal()
        return -abs(self.temperature - 352) - 20 * abs(self.level - 1.1)


def tank() -> None:
    rng, rows = np.random.default_rng(0), empty_rows()
    for _ in range(80):
        plant = Tank(rng)
        for time in range(100):
            observation = plant.observation()
            wanted = np.array([-3 * (plant.temperature - 350), -60 * (plant.level - 1)])
            action = np.clip(50 + wanted + 15 * rng.normal(size=2), 0, 100)
            add(rows, observation, action, plant.step(action), time == 99)
    print(f"operator: {np.sum(rows['rewards']) / 80:.0f}")
    data = itrpo.load_dataset(arrays(rows), action_low=0.0, action_high=100.0)

    def play(act: Callable[[Any], np.ndarray], episode: int) -> float:
        plant = Tank(np.random.default_rng(1000 + episode))
        return sum(plant.step(act(plant.observation())) for _ in range(100))

    for algorithm in ("bc", "iql"):
        for words, normalize in (("raw", False), ("as the default has it", None)):
            options = itrpo.RunOptions(preset="source", steps=3000, eval_every=3000, normalize_observations=normalize)
            report(f"{algorithm}, {words}", data, algorithm, options, play)


def pendulum() -> None:
    env, rng, rows = gymnasium.make("Pendulum-v1"), np.random.default_rng(0), empty_rows()
    for episode in range(60):
        observation, _ = env.reset(seed=episode)
        for _ in range(200):
            action = np.clip(swing_up(observation) + 0.3 * rng.normal(size=1), -2, 2).astype(np.float32)
            following, reward, _, timeout, _ = env.step(action)
            add(rows, observation[:2], action, float(reward), timeout)
            observation = following
    print(f"controller: {np.sum(rows['rewards']) / 60:.0f}")

    def play(act: Callable[[Any], np.ndarray], episode: int) -> float:
        observation, _ = env.reset(seed=1000 + episode)
        total = 0.0
        for _ in range(200):
            observation, reward, _, _, _ = env.step(act(observation[:2]))
            total += float(reward)
        return total

    options = itrpo.RunOptions("laptop", steps=4000, eval_every=4000, env="none")
    for stack in (1, 2, 4):
        data = itrpo.load_dataset(arrays(rows), action_low=-2.0, action_high=2.0, stack=stack)
        report(f"--stack {stack}", data, "bc", options, play)


def swing_up(observation: np.ndarray) -> np.ndarray:
    """Energy towards that of standing upright, then a linear controller."""
    angle, speed = np.arctan2(observation[1], observation[0]), observation[2]
    if abs(angle) < 0.6:
        return np.clip([-10 * angle - 2 * speed], -2, 2)
    energy = speed**2 / 30 + np.cos(angle) - 1
    return np.array([2 * np.sign(speed or 1) * np.sign(-energy)])


def report(words: str, data: Any, algorithm: str, options: itrpo.RunOptions, play: Callable[..., float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = dataclasses.replace(options, seeds=SEEDS, out=Path(folder) / "run")
        run: Run = itrpo.train(data, algorithm, options, console=silent_console())
        returns = [np.mean([episode_return(run, seed, play, it) for it in range(EPISODES)]) for seed in range(SEEDS)]
    print(f"{words}: {', '.join(f'{it:,.0f}' for it in returns)}", flush=True)


def episode_return(run: Run, seed: int, play: Callable[..., float], episode: int) -> float:
    policy = run.policy_of_seed(seed)
    policy.reset()
    return play(policy.act, episode)


def empty_rows() -> Rows:
    return {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}


def add(rows: Rows, observation: np.ndarray, action: np.ndarray, reward: float, timeout: bool) -> None:
    for name, value in zip(rows, (observation, action, reward, False, timeout), strict=True):
        rows[name].append(value)


def arrays(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in rows.items()}


def main(log: Annotated[Literal["tank", "pendulum"], tyro.conf.Positional]) -> None:
    {"tank": tank, "pendulum": pendulum}[log]()


if __name__ == "__main__":
    tyro.cli(main)
