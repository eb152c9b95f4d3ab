"""Logs of finite MDPs, critics that are tables, and exact values to hold estimators against.

A state is its one-hot vector. An action is a vector of probabilities: the one-hot vector of what was done, or all of
pi(.|s) at once, so that an expectation over actions is exact.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from itrpo.nn.ensemble import Ensemble
from itrpo.ope.log import Log, make_log
from itrpo.theory.mdp import Array, FiniteMDP, sample_rows
from itrpo.types import Transition


def simulate(
    mdp: FiniteMDP, behavior: Array, episodes: int, horizon: int, rng: np.random.Generator, terminal: int | None = None
) -> Log:
    """Episodes of `behavior`, cut at `horizon` steps, or over where they enter the state `terminal`."""
    state = sample_rows(rng, np.tile(mdp.start, (episodes, 1)))
    columns: list[tuple[np.ndarray, ...]] = []
    alive = np.ones(episodes, bool)
    for _ in range(horizon):
        action = sample_rows(rng, behavior[state])
        following = sample_rows(rng, mdp.transition[state, action])
        columns.append((state, action, mdp.reward[state, action], following, alive))
        alive = alive & (following != terminal)
        state = following
    states, actions, rewards, followings, there = (np.stack(it, axis=1) for it in zip(*columns, strict=True))
    keep = there.reshape(-1)
    states, actions, rewards, followings = (it.reshape(-1)[keep] for it in (states, actions, rewards, followings))
    one_hot, choice = np.eye(mdp.states, dtype=np.float32), np.eye(mdp.actions, dtype=np.float32)
    rows = Transition(
        one_hot[states],
        choice[actions],
        rewards.astype(np.float32),
        (followings != (-1 if terminal is None else terminal)).astype(np.float32),
        one_hot[followings],
        choice[actions],
    )
    return make_log(rows, np.concatenate([[0], np.cumsum(there.sum(axis=1))[:-1]]))


def ending(mdp: FiniteMDP) -> FiniteMDP:
    """The same with the last state as the end: nothing is earned there, and nobody leaves or starts there."""
    transition, reward, start = mdp.transition.copy(), mdp.reward.copy(), mdp.start.copy()
    transition[-1], reward[-1], start[-1] = np.eye(mdp.states)[-1], 0.0, 0.0
    return mdp._replace(transition=transition, reward=reward, start=start / start.sum())


def at(table: Array, observation: np.ndarray) -> np.ndarray:
    """A table's row [..., X] for each state [N, S]."""
    return table[observation.argmax(axis=1)]


def log_ratio(log: Log, policy: Array, behavior: Array) -> np.ndarray:
    state, action = log.rows.observation.argmax(axis=1), log.rows.action.argmax(axis=1)
    return np.log(policy[state, action]) - np.log(behavior[state, action])


def taken(log: Log, table: Array) -> np.ndarray:
    """Q(s,a) of the rows' own actions."""
    return table[log.rows.observation.argmax(axis=1), log.rows.action.argmax(axis=1)]


def tail(log: Log, values: Array) -> np.ndarray:
    return at(values, log.rows.next_observation[log.ends])


def policy_actions(log: Log, policy: Array) -> tuple[np.ndarray, np.ndarray]:
    """next_action [1, N, 1, A] and first_action [1, E, 1, A] of `fqe.fit`."""
    return tuple(at(policy, it)[None, :, None] for it in (log.rows.next_observation, log.rows.observation[log.starts]))  # pyright: ignore[reportReturnType]


def table_critic(states: int, actions: int) -> Ensemble:
    """Q(s,a) as one number for each."""

    def apply_one(table, observation, action):
        return jnp.einsum("bs,sa,bna->bn", observation, table, action)

    return Ensemble(
        lambda key: jnp.zeros((1, states, actions)),
        lambda params, observation, action: apply_one(params[0], observation, action)[None],
        apply_one,
    )
