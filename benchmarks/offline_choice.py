"""What choosing a policy from logged data alone is worth: policies whose returns are known, judged without them.

    python benchmarks/offline_choice.py judge --snapshots DIR --out runs/choice    # truth, then judgements; resumes
    python benchmarks/offline_choice.py peer --snapshots DIR --out runs/choice --python PEER/bin/python
    python benchmarks/offline_choice.py table --out runs/choice > benchmarks/results/offline_choice.md

Pools: `ladder`, the package's own acting policies of an environment, and `snapshots`, files ENV_NAME.npz of DIR with
the SAC policies that came with D4RL and deep_ope (W0, b0, W1, b1, W_mu, b_mu, W_logstd, b_logstd; Apache-2.0, not in
this project). True returns are played in gymnasium's -v4 from seeded starts. Rows are written as they come, and what
is there is not measured again. Definitions are at the functions below and in the table.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from itrpo import files, xla
from itrpo.collection.ladders import ladder, policy_path
from itrpo.collection.rollout import LOG_STD_RANGE, ActingPolicy, Simulators, act, load_acting_policy
from itrpo.data.load import load_dataset
from itrpo.ope import bootstrap, fqe
from itrpo.ope.behavior import EDGE, fit_behavior
from itrpo.ope.estimate import Candidate, Settings, judge_candidates
from itrpo.ope.fqe import FQE
from itrpo.ope.log import Log, make_log
from itrpo.types import Dataset, Transition

GAMMA = 0.99
EPISODES = 20  # of each policy, of the mode and as many of sampled actions
ENVIRONMENTS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4"}
# dataset -> episodes that are judged on; pi_beta is fitted on as many others. About 120,000 rows each
DATASETS = {"hopper-full-replay-itrpo1": 400, "halfcheetah-full-replay-itrpo1": 120, "hopper-medium-itrpo1": 250}
KINDS = ("mode", "sampled")  # how a policy acts
POOLS = ("snapshots", "ladder")
SETTINGS = Settings(folds=6, fqe=FQE(steps=4_000))
SAMPLES = 2  # of a policy's actions at each state


class Known(NamedTuple):
    """A policy; the place in its pool is the order of training, weaker and unrelated ones first."""

    name: str
    acting: ActingPolicy


@dataclass(frozen=True)
class Judge:
    snapshots: Path
    out: Path
    datasets: tuple[str, ...] = tuple(DATASETS)


@dataclass(frozen=True)
class Peer:
    snapshots: Path
    out: Path
    python: Path
    dataset: str = "hopper-full-replay-itrpo1"
    pool: str = "snapshots"


@dataclass(frozen=True)
class Table:
    out: Path


# --- policies ------------------------------------------------------------------------------------------------------


def pool_of(pool: str, environment: str, snapshots: Path) -> list[Known]:
    if pool == "ladder":
        rungs = ladder(ENVIRONMENTS[environment])
        return [Known(it.policy, load_acting_policy(policy_path(it.policy))) for it in rungs]
    paths = snapshots.glob(f"{environment}_*.npz")
    return [Known(it.stem, read_snapshot(it)) for it in sorted(paths, key=by_training)]


def by_training(path: Path) -> tuple[bool, str]:
    """Unrelated policies first, as if they were the youngest."""
    return "_ood" not in path.stem, path.stem


def read_snapshot(path: Path) -> ActingPolicy:
    with np.load(path) as file:
        given = {name: file[name] for name in file.files if name != "meta"}
    return ActingPolicy(
        ((given["W0"], given["b0"]), (given["W1"], given["b1"])),
        (given["W_mu"], given["b_mu"]),
        (given["W_logstd"], given["b_logstd"]),
    )


def heads(policy: ActingPolicy, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-deviation before tanh, [N, A]."""
    hidden = observation
    for weight, bias in policy.hidden:
        hidden = np.maximum(hidden @ weight + bias, 0)
    mean, log_std = (hidden @ weight + bias for weight, bias in (policy.mean, policy.log_std))
    return mean, np.clip(log_std, *LOG_STD_RANGE)


def log_density(policy: ActingPolicy, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[N], with actions clipped as the model of pi_beta clips them."""
    mean, log_std = (it.astype(np.float64) for it in heads(policy, observation))
    u = np.arctanh(np.clip(action.astype(np.float64), -1 + EDGE, 1 - EDGE))
    normal = -0.5 * ((u - mean) * np.exp(-log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return (normal - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)


def sampled(policy: ActingPolicy, observation: np.ndarray, seed: int) -> np.ndarray:
    """[N, SAMPLES, A]"""
    mean, log_std = heads(policy, observation)
    noise = np.random.default_rng(seed).standard_normal((len(mean), SAMPLES, mean.shape[1]), dtype=np.float32)
    return np.tanh(mean[:, None] + np.exp(log_std)[:, None] * noise)


# --- truth ---------------------------------------------------------------------------------------------------------


def returns(simulators: Simulators, policy: ActingPolicy, noisy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Undiscounted and discounted returns [B] of one episode in each environment, as benchmarks/ladder_returns.py."""
    count = len(simulators.envs)
    rng = np.random.default_rng(0)
    for slot in range(count):
        simulators.reset(slot, seed=1_000 + slot)
    totals, discounted, active = np.zeros(count), np.zeros(count), np.arange(count)
    for step in range(simulators.time_limit):
        noise = rng.standard_normal((count, simulators.envs[0].action_space.shape[0]), dtype=np.float32)[active]
        actions, _ = act(policy, simulators.observe(active), noise if noisy else 0 * noise)
        rewards, terminals = simulators.step(active, actions)
        totals[active] += rewards
        discounted[active] += GAMMA**step * rewards
        active = active[~terminals]
        if not len(active):
            break
    return totals, discounted


def measure_truth(environment: str, pool: str, policies: list[Known], path: Path) -> None:
    done, simulators = {it["policy"] for it in read_lines(path)}, None
    for it in policies:
        if it.name in done:
            continue
        simulators = simulators or Simulators(ENVIRONMENTS[environment], EPISODES)
        row: dict[str, Any] = {"environment": environment, "pool": pool, "policy": it.name}
        for kind in KINDS:
            total, discounted = returns(simulators, it.acting, kind == "sampled")
            row[kind] = {"return": total.round(2).tolist(), "discounted": discounted.round(3).tolist()}
        files.append(path, files.json_line(row))
        print(pool, it.name, *(f"{kind} {np.mean(row[kind]['return']):.0f}" for kind in KINDS), flush=True)


# --- judging -------------------------------------------------------------------------------------------------------


def episodes_of(dataset: Dataset, chosen: np.ndarray) -> Log:
    starts = np.asarray(dataset.starts)
    lengths = np.diff(starts, append=len(dataset))[chosen]
    rows = np.concatenate([np.arange(first, first + length) for first, length in zip(starts[chosen], lengths)])
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return make_log(Transition(*(np.asarray(it)[rows] for it in dataset.transitions)), begins)


def halves(name: str) -> tuple[Log, Log]:
    """Episodes to judge on, and as many others to fit pi_beta on, drawn from a fixed seed."""
    dataset, count = load_dataset(name), DATASETS[name]
    order = np.random.default_rng(0).permutation(len(np.asarray(dataset.starts)))
    return episodes_of(dataset, np.sort(order[:count])), episodes_of(dataset, np.sort(order[count : 2 * count]))


def candidate(place: int, it: Known, log: Log) -> Candidate:
    observation, end = log.rows.observation, log.rows.next_observation[log.ends]
    action, last = (np.tanh(heads(it.acting, rows)[0]) for rows in (observation, end))
    return Candidate(
        it.name,
        action,
        last,
        log_density(it.acting, observation, log.rows.action),
        sampled(it.acting, observation, place),
        sampled(it.acting, end, place + 1_000),
    )


def judge_pool(name: str, pool: str, policies: list[Known], log: Log, other: Log, path: Path) -> None:
    started = time.monotonic()
    behavior = fit_behavior(other.rows)
    candidates = [candidate(place, it, log) for place, it in enumerate(policies)]
    known = other.rows.observation, other.rows.action
    judged, reasons = judge_candidates(log, candidates, GAMMA, behavior, known, SETTINGS)
    noisy = fit_sampled(log, candidates)
    for it, value in zip(judged, [*noisy, None], strict=True):
        row: dict[str, Any] = {"dataset": name, "pool": pool, "policy": it.name}
        kept = {one.estimator: one.folds[: SETTINGS.folds] for one in it.estimates}
        row["estimates"] = {name: [round(fold, 3) for fold in folds] for name, folds in kept.items()}
        if value is not None:
            row["estimates"]["fqe_sampled"] = [round(float(value), 3)]
        row |= {"missing": it.missing, "sample_size": it.sample_size, "mean_weight": it.mean_weight}
        row |= {"reasons": [*it.reasons, *(it.estimates[0].reasons)], "of_all": list(reasons)}
        if it.support is not None:
            row["support"] = {"unlikely": it.support.unlikely, "far": it.support.far, "outside": it.support.outside}
        files.append(path, files.json_line(row))
    episodes, rows, seconds = len(log.starts), len(log.rows.reward), time.monotonic() - started
    undiscounted = float(np.add.reduceat(log.rows.reward, log.starts, dtype=np.float64).mean())
    about = {"dataset": name, "pool": pool, "policy": None, "episodes": episodes, "rows": rows, "seconds": seconds}
    files.append(path, files.json_line(about | {"log_return": undiscounted}))
    print(f"{name} {pool}: {len(policies)} policies, {rows:,} rows, {seconds:.0f} s", flush=True)


def fit_sampled(log: Log, candidates: list[Candidate]) -> np.ndarray:
    """[P]: fitted Q with sampled actions at s' and at the start."""
    after, first = [], []
    for it in candidates:
        assert it.samples is not None
        assert it.last_samples is not None
        rows = np.empty_like(it.samples)
        rows[:-1], rows[log.ends] = it.samples[1:], it.last_samples
        after.append(rows)
        first.append(it.samples[log.starts])
    weights = bootstrap.fold_weights(len(log.starts), 1)
    return fqe.fit(log, np.stack(after), np.stack(first), GAMMA, weights, SETTINGS.fqe).value[:, 0]


def judge(command: Judge) -> None:
    xla.prepare()
    truth, judged = command.out / "truth.jsonl", command.out / "judged.jsonl"
    for environment in ENVIRONMENTS:
        for pool in POOLS:
            measure_truth(environment, pool, pool_of(pool, environment, command.snapshots), truth)
    for name in command.datasets:
        halved = None
        for pool in POOLS:
            if any((it["dataset"], it["pool"], it["policy"]) == (name, pool, None) for it in read_lines(judged)):
                continue
            halved = halved or halves(name)
            judge_pool(name, pool, pool_of(pool, name.split("-")[0], command.snapshots), *halved, judged)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
