"""Datasets made by D4RL's protocol (Fu et al. 2020, arXiv:2004.07219) from the policies inside the package.

Names end in `-itrpo1`: `hopper-medium-itrpo1` is ours, `hopper-medium-v2` is D4RL's file. The number stands for these
recipes: a changed recipe must get a new one, or cached files would no longer match their names.

| set | what it is | rows |
| --- | --- | --- |
| random | uniform actions | 1M |
| medium | the first rung of the ladder with a third of the expert's return | 1M |
| expert | the rung with the highest return | 1M |
| medium-expert | half of them each, the medium one first | 2M |
| medium-replay | every rung up to the medium one, as long as training was near it | as many as the training had |
| full-replay | the same, up to the last rung | as many as the training had |

CartPole, Acrobot, LunarLander (with the extra `box2d`) and Breakout on a grid, whose actions are choices, have random,
medium, medium-replay and expert, of 50,000 rows each, from the policies of one online DQN each, which act
epsilon-greedily.

What follows D4RL's scripts (Farama-Foundation/D4RL, scripts/generation/mujoco): `collect_data.py` draws the actions of
random uniformly (the paper has "a randomly initialized policy"; the published hopper-random-v2 fits uniform actions,
see docs/made_datasets.md), plays whole episodes and cuts the last one at the last row; `stitch_dataset.py` drops the
unfinished last episode of the medium half.

What can't: D4RL's replay sets are the buffers of the training run itself, which are too large to ship. Here the rungs
are rolled out instead, each for the steps of training that it is nearest to, with uniform actions nearest to the start.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.collection import demo
from itrpo.collection.choices import ENVIRONMENTS
from itrpo.collection.ladders import Rung, expert, ladder, medium, policy_path, policy_sha256
from itrpo.collection.making import Part, Plan, make, versions
from itrpo.collection.mazes import SUFFIX, make_maze
from itrpo.collection.rollout import LOG_STD_RANGE, UNIFORM, Task, load_acting_policy
from itrpo.console import say
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.errors import InputError
from itrpo.evaluation.environments import check_known
from itrpo.files import generated_path
from itrpo.registry import GENERATED_DATASETS, nearest

if TYPE_CHECKING:
    from rich.console import Console

ENV_IDS = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4"}
CHOICE_ENV_IDS = {  # rolled out by `itrpo.collection.choices`
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "lunarlander": "LunarLander-v3",
    "breakout": "itrpo/Breakout-v0",
}
CHOICE_ROWS = 50_000
SETS = ("random", "medium", "medium-replay", "full-replay", "medium-expert", "expert")
DEMO = "hopper-demo"
SLOT_STEPS = 10_000
SLOTS_PER_TASK = 5
LONGEST_EPISODE = 1_000
REPLAY_NOTE = (
    "D4RL's replay sets are the buffer of the training run itself, whose policy changes with every step. This file has"
    " rung after rung of the same run instead, each rolled out for the training steps nearest to it"
)


class Share(NamedTuple):
    """Rows of one policy."""

    rung: Rung | None  # None: uniform actions
    end: int  # the row of the file up to which it acts
    stream: int  # of random numbers: shares of one file differ, and medium-expert's are those of its halves


def make_dataset(
    name: str,
    out: Path | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    workers: int = 0,
    console: Console | None = None,
) -> Path:
    """Makes `hopper-medium-itrpo1` (or `hopper-medium`, for short) or another made dataset, and returns its file.

    `out` is an HDF5 file; None is the place in the cache where the name is looked up, which holds the set as its name
    promises: with its own number of `steps`, and seed 0. `workers` 0: one per core, at most 8.
    Raises InputError for an unknown name, impossible options or a missing extra, StorageError if the file can't be
    written.
    """
    full = full_name(name)
    if console is not None and full != name:
        other = f" ({name}-v2 is D4RL's file)" if f"{name}-v2" in D4RL_FILES else ""
        say(console, f"{name}: making {full}, this project's own{other}")
    if (out is None or full == DEMO) and (steps is not None or seed != 0):
        advice = "it takes no --steps or --seed" if full == DEMO else "name a file with --out"
        raise InputError(f"the name {full} stands for its own number of steps and seed 0; {advice}")
    if out is not None and out.suffix not in (".hdf5", ".h5"):
        raise InputError(f"{out}: --out must end in .hdf5 or .h5")
    if out is not None and out.stem in {*D4RL_FILES, *(Path(entry.file).stem for entry in D4RL_FILES.values())}:
        raise InputError(
            f"{out}: this is what D4RL's own file is called, and reports would name it; choose another --out"
        )
    if workers < 0:
        raise InputError(f"--workers must be 0 (one per core) or more, not {workers}")
    path = generated_path(full) if out is None else out
    if full.startswith(("antmaze-", "pointmaze-")):
        make_maze(full, path, steps=steps, seed=seed, workers=workers, console=console)
    else:
        planned = demo.plan() if full == DEMO else plan(full, steps, seed)
        check_known(planned.env_id)  # an extra may be missing
        make(planned, path, workers, console)
    return path


def full_name(name: str) -> str:
    """`hopper-medium` -> `hopper-medium-itrpo1`. Raises InputError for anything that is not made here."""
    if name.endswith("-v2"):
        raise InputError(
            f"{name} is D4RL's file, which is downloaded and not made; ours is {name.removesuffix('-v2')}{SUFFIX}"
        )
    full = name if name == DEMO or name.endswith(SUFFIX) else name + SUFFIX
    if full not in GENERATED_DATASETS:
        raise InputError(
            f"unknown dataset {name!r}{nearest(full, GENERATED_DATASETS)}; `itrpo datasets list` shows all"
        )
    return full


def plan(name: str, steps: int | None = None, seed: int = 0) -> Plan:
    """How `hopper-medium-itrpo1` or another set is made, with `steps` rows (None: its own number).

    Raises InputError for an unknown name or fewer than 2 steps.
    """
    name = full_name(name)
    environment, _, kind = name.removesuffix(SUFFIX).partition("-")
    env_id, choices = (ENV_IDS | CHOICE_ENV_IDS)[environment], environment in CHOICE_ENV_IDS
    if steps is not None and steps < 2:
        raise InputError(f"--steps must be at least 2, not {steps}")
    shares = _shares(env_id, kind, steps)
    starts = [0, *(share.end for share in shares)]
    parts = tuple(
        # a part may begin earlier than planned: where the last episode of the part before it ended
        Part(_tasks(env_id, share, share.end - start + (LONGEST_EPISODE if start else 0), seed), share.end)
        for start, share in zip(starts, shares, strict=False)
    )
    acting = f"epsilon-greedy, {ENVIRONMENTS[env_id].epsilon}" if choices else "sampled"
    recipe: dict[str, Any] = {
        "name": name,
        "env_id": env_id,
        "rows": shares[-1].end,
        "seed": seed,
        "actions": "uniform" if kind == "random" else acting,
        "parts": [_describe(share) for share in shares],
        "versions": versions(),
    }
    if kind.endswith("replay"):
        recipe["note"] = REPLAY_NOTE
    done = sum(task.steps * len(task.seeds) for part in parts for task in part.tasks)
    if choices:
        said = {"num_actions": ENVIRONMENTS[env_id].number}
        return Plan(env_id, "itrpo.collection.choices:collect", parts, done, recipe, {}, said)
    return Plan(env_id, "itrpo.collection.rollout:collect", parts, done, recipe, _metadata(kind, shares))


def _shares(env_id: str, kind: str, steps: int | None) -> list[Share]:
    rows = steps or (2_000_000 if kind == "medium-expert" else 1_000_000)
    if env_id in ENVIRONMENTS:
        rows = steps or CHOICE_ROWS
    match kind:
        case "random":
            return [Share(None, rows, 0)]
        case "medium":
            return [Share(medium(env_id), rows, 1)]
        case "expert":
            return [Share(expert(env_id), rows, 2)]
        case "medium-expert":
            return [Share(medium(env_id), rows - rows // 2, 1), Share(expert(env_id), rows, 2)]
        case _:
            last = medium(env_id) if kind == "medium-replay" else ladder(env_id)[-1]
            own = CHOICE_ROWS if env_id in ENVIRONMENTS else last.environment_steps
            return _replay_shares(env_id, last, steps or own)


def _replay_shares(env_id: str, last: Rung, rows: int) -> list[Share]:
    """Each rung up to `last` for the steps of training that are nearest to it, scaled to `rows`."""
    rungs = [rung for rung in ladder(env_id) if rung.environment_steps <= last.environment_steps]
    trained = [0, *(rung.environment_steps for rung in rungs)]
    changes = [*((before + after) / 2 for before, after in pairwise(trained)), trained[-1]]
    ends = [round(change / trained[-1] * rows) for change in changes]
    return [Share(rung, end, 3 + index) for index, (rung, end) in enumerate(zip([None, *rungs], ends, strict=True))]


def _tasks(env_id: str, share: Share, rows: int, seed: int) -> tuple[Task, ...]:
    """Tasks that give at least so many rows: slots of 10,000 steps, and one of what remains."""
    policy = UNIFORM if share.rung is None else policy_path(share.rung.policy)
    slots, remaining = divmod(rows, SLOT_STEPS)
    seeds = tuple((seed, share.stream, slot) for slot in range(slots + 1))
    tasks = -(-slots // SLOTS_PER_TASK)
    bounds = [index * slots // tasks for index in range(tasks + 1)] if tasks else []  # tasks of about the same size
    full = [Task(env_id, policy, SLOT_STEPS, seeds[first:last]) for first, last in pairwise(bounds)]
    return (*full, *([Task(env_id, policy, remaining, seeds[-1:])] if remaining else []))


def _describe(share: Share) -> dict[str, Any]:
    if share.rung is None:
        return {"policy": UNIFORM, "up_to_row": share.end}
    policy, steps = share.rung.policy, share.rung.environment_steps
    return {"policy": policy, "environment_steps": steps, "up_to_row": share.end, "sha256": policy_sha256(policy)}


def _metadata(kind: str, shares: list[Share]) -> dict[str, Any]:
    """D4RL's `metadata`: the policy's weights where one policy acted ([out, in] as PyTorch has them)."""
    rung = shares[-1].rung
    if rung is None or kind == "medium-expert":
        return {}
    iteration = np.int32(rung.environment_steps // 1_000)  # D4RL's iterations are of 1,000 steps
    metadata: dict[str, Any] = {"metadata/algorithm": np.bytes_("SAC"), "metadata/iteration": iteration}
    if kind.endswith("replay"):
        return metadata
    policy = load_acting_policy(policy_path(rung.policy))
    metadata["metadata/policy/nonlinearity"] = np.bytes_("relu")
    metadata["metadata/policy/output_distribution"] = np.bytes_("tanh_gaussian")
    metadata["metadata/policy/log_std_low"], metadata["metadata/policy/log_std_high"] = LOG_STD_RANGE
    layers = {
        "fc0": policy.hidden[0],
        "fc1": policy.hidden[1],
        "last_fc": policy.mean,
        "last_fc_log_std": policy.log_std,
    }
    for name, (weight, bias) in layers.items():
        metadata[f"metadata/policy/{name}/weight"] = np.ascontiguousarray(weight.T)
        metadata[f"metadata/policy/{name}/bias"] = bias
    return metadata
