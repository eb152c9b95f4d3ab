"""Roll-outs of policies over choices: in gymnasium's CartPole, Acrobot and LunarLander, and in a grid of our own.

A policy is a `policy.npz` (`itrpo.policy`) of a DQN that was trained online here, by benchmarks/discrete_ladders.py. It
acts epsilon-greedily, so that every choice is made everywhere and its probability is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from itrpo.collection.rollout import PROGRESS_EVERY, UNIFORM, Task
from itrpo.evaluation.environments import make_env, time_limit
from itrpo.policy import load_policy


class Choices(NamedTuple):
    """How one environment is played."""

    number: int
    epsilon: float = 0.1  # share of the steps at which any choice is made, the same in all of its sets


ENVIRONMENTS = {
    "CartPole-v1": Choices(2),
    "Acrobot-v1": Choices(3),
    "LunarLander-v3": Choices(4),
    "itrpo/Breakout-v0": Choices(3, 0.02),  # a paddle that falls behind by one cell has often lost the ball
}


def collect(task: Task, on_progress: Callable[[int], None] = lambda steps: None) -> dict[str, np.ndarray]:
    """Rows of the slots of a task, slot after slot, as `itrpo.collection.rollout.collect` has them; actions are int64
    [N], `infos/action_log_probs` logarithms of probabilities, observations of the environment's own type. All episodes
    are complete.
    """
    env_id, path, steps, seeds = task
    policy, (number, epsilon) = None if path == UNIFORM else load_policy(path), ENVIRONMENTS[env_id]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    envs, limit = [make_env(env_id) for _ in seeds], time_limit(env_id)
    seen = envs[0].observation_space.dtype  # of a grid int8: a quarter of the file
    begun = [env.reset(seed=int(rng.integers(2**31)))[0] for env, rng in zip(envs, rngs, strict=True)]
    observations = np.stack(begun).astype(seen)
    rows: list[list[tuple[np.ndarray | float | bool, ...]]] = [[] for _ in seeds]
    active, done = np.arange(len(seeds)), 0
    while len(active):
        greedy = None if policy is None else policy.act(observations[active])
        for place, slot in enumerate(active.tolist()):
            rng = rngs[slot]
            explores, other = rng.random() < epsilon, int(rng.integers(number))
            action = other if greedy is None or explores else int(greedy[place])
            probability = 1 / number if greedy is None else epsilon / number + (1 - epsilon) * (action == greedy[place])
            following, reward, terminal, truncated, _ = envs[slot].step(action)
            following = np.asarray(following, seen)
            ended = terminal or truncated
            row = (observations[slot].copy(), action, following, float(reward), terminal, truncated and not terminal)
            rows[slot].append((*row, np.log(probability)))
            observations[slot] = np.asarray(envs[slot].reset()[0], seen) if ended else following
            done += 1
            if ended and len(rows[slot]) >= steps:
                active = active[active != slot]
        assert limit is not None
        if done >= PROGRESS_EVERY:
            on_progress(done)
            done = 0
    on_progress(done)
    for env in envs:
        env.close()
    columns = list(zip(*(row for of_slot in rows for row in of_slot), strict=True))
    names = ("observations", "actions", "next_observations", "rewards", "terminals", "timeouts")
    kinds = (seen, np.int64, seen, np.float32, bool, bool, np.float32)
    found = zip((*names, "infos/action_log_probs"), columns, kinds, strict=True)
    return {name: np.array(values, kind) for name, values, kind in found}
