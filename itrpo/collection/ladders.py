"""The acting policies inside the package: one ladder per environment, from its first steps of training to the expert.

`policies/ladders.json` says for each rung how long it was trained and what it returns; its policy lies beside it. All
are tanh-Gaussian policies with two hidden layers of 256 ReLU units, saved along one SAC run of this project each.
Most are stored as float16, which halves the package: `docs/made_datasets.md` says what that costs. Those over choices
are DQN's (benchmarks/discrete_ladders.py); what they return sampled is returned with epsilon-greedy choices.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

from itrpo import files

POLICY_FOLDER = Path(__file__).parent / "policies"


class Rung(NamedTuple):
    """One policy of a ladder. Returns are of 100 episodes with sampled actions, 20 of the mode."""

    policy: str  # file without its ending
    environment_steps: int  # of its training
    sampled: tuple[float, float]  # mean and standard deviation
    mode: tuple[float, float]


@functools.cache
def ladder(env_id: str) -> tuple[Rung, ...]:
    """The rungs of an environment, by length of training."""
    table = json.loads((POLICY_FOLDER / "ladders.json").read_text())[env_id]
    return tuple(
        Rung(rung["policy"], rung["environment_steps"], tuple(rung["sampled"]), tuple(rung["mode"])) for rung in table
    )


def expert(env_id: str) -> Rung:
    """The rung with the highest mean return of sampled actions."""
    return max(ladder(env_id), key=lambda rung: rung.sampled[0])


def medium(env_id: str) -> Rung:
    """The first rung with a third of the expert's mean return (D4RL, arXiv:2004.07219); where returns are negative, a
    third of the way from the worst rung's.
    """
    worst = min(0.0, *(rung.sampled[0] for rung in ladder(env_id)))
    enough = worst + (expert(env_id).sampled[0] - worst) / 3
    return next(rung for rung in ladder(env_id) if rung.sampled[0] >= enough)


def policy_path(policy: str) -> str:
    """The file of a policy: of one over choices a policy.npz."""
    ending = "npz" if "_dqn_" in policy else "safetensors"
    return str(POLICY_FOLDER / f"{policy}.{ending}")


def policy_sha256(policy: str) -> str:
    return files.file_sha256(Path(policy_path(policy)))
