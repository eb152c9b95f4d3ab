"""Trains DQN online, and writes the acting policies that the package's sets over choices are rolled out from:
itrpo/collection/policies/NAME_dqn_STEPk.npz, and prints their lines for ladders.json.

python benchmarks/discrete_ladders.py CartPole-v1 --steps 60000 --every 4000
python benchmarks/discrete_ladders.py Acrobot-v1 --steps 30000 --every 3000
python benchmarks/discrete_ladders.py itrpo/Breakout-v0 --steps 400000 --every 20000
python benchmarks/discrete_ladders.py LunarLander-v3 --steps 150000 --every 25000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from itrpo.algorithms import dqn
from itrpo.algorithms.action_values import Backbone
from itrpo.collection.choices import ENVIRONMENTS
from itrpo.collection.ladders import POLICY_FOLDER
from itrpo.evaluation.environments import make_env
from itrpo.policy import load_policy, save_policy
from itrpo.types import DiscreteSpec, Transition


class Training(NamedTuple):
    backbone: Backbone
    steps_per_update: int = 1  # of the environment
    last_epsilon: float = 0.05
    decay: float = 0.3  # share of the steps in which epsilon falls to it, from 1
    halved: bool = False  # stored with half of the digits, and none for inputs that were always 0


CONSTANTS = {  # found by hand: in CartPole larger steps unlearn what was learned
    "CartPole-v1": Training(
        Backbone(polyak_rate=0.005, batch_size=128, critic_learning_rate=3e-4, critic_hidden=(64, 64), huber_limit=1.0)
    ),
    "Acrobot-v1": Training(
        Backbone(polyak_rate=0.01, batch_size=64, critic_learning_rate=1e-3, critic_hidden=(32, 32), huber_limit=10.0)
    ),
    "itrpo/Breakout-v0": Training(
        Backbone(gamma=0.97, batch_size=64, critic_learning_rate=1e-3, critic_hidden=(128, 64), huber_limit=1.0),
        steps_per_update=2,
        last_epsilon=0.02,
        decay=0.1,
        halved=True,
    ),
    "LunarLander-v3": Training(
        Backbone(batch_size=128, critic_learning_rate=6e-4, critic_hidden=(128, 128), huber_limit=1.0),
        decay=0.12,
        halved=True,
    ),
}
WARM_UP, PER_CALL = 1_000, 10


def returns(env_id: str, path: str, epsilon: float, episodes: int) -> tuple[float, float]:
    policy, env, rng, found = load_policy(path), make_env(env_id), np.random.default_rng(0), list[float]()
    number = ENVIRONMENTS[env_id].number
    for episode in range(episodes):
        observation, ended, total = env.reset(seed=10_000 + episode)[0], False, 0.0
        while not ended:
            explores = rng.random() < epsilon
            action = int(rng.integers(number)) if explores else int(policy.act(observation))
            observation, reward, terminal, truncated, _ = env.step(action)
            total, ended = total + float(reward), terminal or truncated
        found.append(total)
    return round(float(np.mean(found)), 1), round(float(np.std(found)), 1)


def pack(path: Path) -> None:
    """The same arrays, compressed."""
    with np.load(path, allow_pickle=False) as file:
        content = dict(file)
    np.savez_compressed(path, allow_pickle=False, **content)


def train(env_id: str, steps: int, every: int, seed: int) -> None:
    env, rng = make_env(env_id), np.random.default_rng(seed)
    shape, number = env.observation_space.shape, ENVIRONMENTS[env_id].number
    assert shape is not None  # of a Box
    size = shape[0]
    given, backbone = CONSTANTS[env_id], CONSTANTS[env_id].backbone
    algorithm = dqn.make(dqn.Config(True, backbone), DiscreteSpec(size, number), None)

    @jax.jit
    def learn(state: dqn.State, batches: Transition) -> dqn.State:
        key, step = jax.random.key(0), jnp.asarray(0)
        return jax.lax.scan(lambda it, rows: (algorithm.update(it, rows, key, step)[0], None), state, batches)[0]

    values = jax.jit(lambda state, observation: algorithm.acting.act(state, observation[None], jax.random.key(0), True))
    state = algorithm.init(jax.random.key(seed), None)
    seen = env.observation_space.dtype  # of the grids one byte
    kinds = ("f4", "i4", "f4", "f4", "f4")
    rows = [
        np.zeros((steps, *it), kind)
        for it, kind in (((size,), seen), ((), "i4"), ((), "f4"), ((), "f4"), ((size,), seen))
    ]
    observation = env.reset(seed=seed)[0]
    for step in range(steps):
        epsilon = max(given.last_epsilon, 1 - step / (given.decay * steps))
        explores = rng.random() < epsilon
        action = int(rng.integers(number)) if explores else int(values(state, jnp.asarray(observation, jnp.float32))[0])
        following, reward, terminal, truncated, _ = env.step(action)
        for column, value in zip(rows, (observation, action, reward, 1.0 - terminal, following), strict=True):
            column[step] = value
        observation = env.reset()[0] if terminal or truncated else following
        if step > WARM_UP and step % (PER_CALL * given.steps_per_update) == 0:
            chosen = rng.integers(0, step + 1, (PER_CALL, backbone.batch_size))
            picked = [jnp.asarray(column[chosen].astype(kind)) for column, kind in zip(rows, kinds, strict=True)]
            state = learn(state, Transition(*picked, next_action=jnp.zeros_like(picked[1])))
        if (step + 1) % every == 0:
            name = f"{env_id.removeprefix('itrpo/').partition('-')[0].lower()}_dqn_{(step + 1) // 1000:03}k"
            path = POLICY_FOLDER / f"{name}.npz"
            metadata = {"env_id": env_id, "algorithm": f"DQN, seed {seed}", "environment_steps": step + 1}
            export = jax.tree.map(np.asarray, {k: v for k, v in algorithm.acting.export(state).items() if k != "kind"})
            low, high = np.zeros(1), np.full(1, number - 1)
            if given.halved:
                export["weight_0"] = export["weight_0"] * rows[0][: step + 1].any(axis=0)
                export = {k: v.astype(np.float16) for k, v in export.items()}
            save_policy(path, {"kind": "argmax", **export}, np.zeros(size), np.ones(size), low, high, metadata)
            pack(path)
            rung = {"policy": name, "environment_steps": step + 1}
            rung["sampled"] = returns(env_id, str(path), ENVIRONMENTS[env_id].epsilon, 100)
            rung["mode"] = returns(env_id, str(path), 0.0, 20)
            print(json.dumps(rung), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("env_id", choices=list(ENVIRONMENTS))
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--every", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.env_id, given.steps, given.every, given.seed)
